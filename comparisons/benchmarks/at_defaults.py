"""What every estimator says of itself when it is told nothing, on decoders of digits: the part defaults."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from comparisons.benchmarks.pieces import Piece, Plan, Row
from comparisons.benchmarks.scoring import measured, scored
from comparisons.benchmarks.truths import best_known
from comparisons.benchmarks.variants import DEFAULTS, estimated, named
from comparisons.data import Data, load
from comparisons.evidence.annealed import simulate
from comparisons.evidence.base import Target
from comparisons.runner.experiment import Experiment
from comparisons.runner.fits import fitted
from inference.base import Engine, Params

LAST = ("w2", "b2")  # parameters of a decoder's last layer
SATURATED = (1.0, 5.0, 20.0)  # factors on the last layer of a trained Bernoulli decoder
NARROW = -12.0  # log variance of a Gaussian decoder whose posteriors are a thousandth of the prior wide


def defaults(plan: Plan, engine: Engine, data: Data | None, out: Path) -> Iterator[Piece]:
    """Yield a piece for each decoder: data are drawn from it, as it is and made harder."""
    for k in plan.decoders:
        for model in ("vae_bernoulli", "vae_gaussian"):
            reads = ("engine", "seed", "simulated", "temperatures", "samples")
            yield Piece("defaults", f"{model}-{k}", reads, partial(_defaults, plan, engine, out, k, model))


def _defaults(plan: Plan, engine: Engine, out: Path, k: int, model: str) -> Iterator[Row]:
    told = {"engine": plan.engine, "seed": plan.seed, "threads": plan.threads, "samples": min(plan.samples, 100_000)}
    settings: dict[str, Any] = {**told, "n_hidden": 20, "step_size": 0.02, "evidence": ("none",)}
    fit = fitted(Experiment(data="digits", model=model, n_latent=k, **settings), load("digits"), out)
    for kind, theta in harder(fit.theta).items():
        x, z = simulate(engine, fit.model, theta, plan.simulated, engine.key(plan.seed + k))
        target = Target(engine, fit.model, theta, x, fit.posterior(x))
        truth, error = best_known(target, z, plan.seed)
        for name, changes in DEFAULTS.items():
            judged = measured(partial(estimated, target, plan.seed, name, **changes))
            row = {"model": model, "decoder": kind, "n_latent": k, **named(name, changes)}
            yield {**row, **scored(judged, truth, truth_error=error)}


def harder(theta: Params) -> dict[str, Params]:
    """Return a decoder's parameters, as they are and made harder, by what was done to them."""
    if "w3" in theta:
        return {f"log variance {NARROW:g}": {**theta, "w3": 0.0 * theta["w3"], "b3": 0.0 * theta["b3"] + NARROW}}
    return {
        "trained" if factor == 1.0 else f"weights x {factor:g}": {**theta, **{n: factor * theta[n] for n in LAST}}
        for factor in SATURATED
    }
