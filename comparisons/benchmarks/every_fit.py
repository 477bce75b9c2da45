"""The paper's estimator at its own settings, beside the truth and the bound, on every backend's fit: the part paper."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import inference
from comparisons.benchmarks.mnist_fits import experiment_of, target_of
from comparisons.benchmarks.pieces import Piece, Plan, Row
from comparisons.benchmarks.scoring import measured, scored
from comparisons.benchmarks.variants import estimated, named
from comparisons.data import Data, take
from comparisons.evidence.appendix_d import AppendixDSettings, appendix_d_kept
from comparisons.evidence.base import Estimate, Target
from comparisons.evidence.draws import Chains
from comparisons.evidence.elbo import elbo
from comparisons.runner.fits import followed
from inference.base import Engine, Key

# All of these begin their chains anew where training ended.
ANEW: dict[str, dict[str, Any]] = {
    "appendix_d": {},
    "appendix_d, draws reused": {"reuse_draws": True},
    "appendix_d, started at q": {"start": "recognition"},
    "appendix_d, annealed start": {"start": "annealed"},
}
KEPT = "appendix_d, chains kept"  # along training, as its authors ran it
SIZES = (1000, 50_000)  # of the paper's Figure 3
DRAWS = 20  # of z for each datapoint in a bound


def paper(plan: Plan, engine: Engine, data: Data | None, out: Path) -> Iterator[Piece]:
    """Yield a piece for each training set and backend."""
    for n_train in SIZES:
        for backend in inference.BACKENDS:
            rows = partial(_paper, plan, data, out, n_train, backend)
            yield Piece("paper", f"{backend}-{n_train}", ("engine", "seed", "points", "samples"), rows)


def _paper(plan: Plan, data: Data | None, out: Path, n_train: int, backend: str) -> Iterator[Row]:
    assert data is not None
    experiment = experiment_of(plan, 3, 100, n_train=n_train, backend=backend, eval_points=plan.points)
    fit, chains = followed(experiment, "appendix_d", take(data, n_train), out)
    for split in ("train", "test"):
        target = target_of(fit, data, split, plan.points)
        truth = estimated(target, plan.seed, "quadrature", tolerance=0.03).value
        common = {"model": "vae_bernoulli", "n_latent": 3, "n_train": n_train, "backend": backend, "split": split}
        for name, estimate in _estimates(target, plan.seed, chains[split]).items():
            row = {**common, **named(name, {}), "truth": float(truth.mean())}
            yield {**row, **scored(measured(estimate), truth)}


def _estimates(target: Target, seed: int, chains: Chains) -> dict[str, Callable[[], Estimate]]:
    """Return what is held against the truth, by its name; what needs a q only where there is one."""
    key = target.engine.key(seed)
    found: dict[str, Callable[[], Estimate]] = {
        name: partial(estimated, target, seed, name, **changes)
        for name, changes in ANEW.items()
        if target.q is not None or changes.get("start") != "recognition"
    }
    found[KEPT] = partial(_kept, target, key, chains)
    if target.q is not None:
        found["lower bound"] = partial(elbo, target, key, DRAWS)
    return found


def _kept(target: Target, key: Key, chains: Chains) -> Estimate:
    return appendix_d_kept(target, AppendixDSettings(), key, chains)[0]
