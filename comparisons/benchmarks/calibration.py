"""The estimators of log p(x) against truths: what is run, in pieces, each kept in files of its own."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

import inference
from comparisons.benchmarks.pieces import Piece, Plan, Row, kept, run
from comparisons.benchmarks.scoring import DEFAULTS, SWEEP, Judged, estimated, measured, named, scored, sweep, tried
from comparisons.benchmarks.truths import TIGHT, best_known, linear_gaussian, tightest
from comparisons.data import Data, load, take
from comparisons.disk import reading, writing
from comparisons.errors import FlagError
from comparisons.evidence.annealed import AnnealedSettings, bidirectional, simulate
from comparisons.evidence.appendix_d import AppendixDSettings, appendix_d_kept
from comparisons.evidence.base import Estimate, Target
from comparisons.evidence.draws import Chains
from comparisons.evidence.elbo import elbo
from comparisons.evidence.importance import sandwich
from comparisons.reporting.folder import beside, where
from comparisons.runner.experiment import Experiment
from comparisons.runner.fits import Fit, earlier, fitted, followed
from inference.base import Engine, Params

WITHOUT_MNIST = {"linear", "defaults"}
SWEPT = ("engine", "seed", "levels")  # what every sweep over the estimators depends on
SIZES = (1000, 50_000)  # part paper: training points, of the paper's Figure 3
DRAWS = 20  # part paper: of z for each datapoint in a bound
KEPT = "appendix_d, chains kept"  # along training, as its authors ran it
# All of these begin their chains anew where training ended.
ANEW: dict[str, dict[str, Any]] = {
    "appendix_d": {},
    "appendix_d, draws reused": {"reuse_draws": True},
    "appendix_d, started at q": {"start": "recognition"},
    "appendix_d, annealed start": {"start": "annealed"},
}
# Part engines.
VARIANTS: dict[str, dict[str, Any]] = {"quadrature": {}, **{name: levels[1] for name, levels in SWEEP.items()}}
POINTS = 100
ROUNDING = 1e-3  # nats: below stands float32's rounding of log p(x, z)
# Part defaults.
LAST = ("w2", "b2")  # parameters of a decoder's last layer
SATURATED = (1.0, 5.0, 20.0)  # factors on the last layer of a trained Bernoulli decoder
NARROW = -12.0  # log variance of a Gaussian decoder whose posteriors are a thousandth of the prior wide


def calibrate(plan: Plan, out: Path, data_dir: Path | None) -> int:
    """Run what has not been run, write rows.csv, table.md and figure.svg; return 0. Raises UserError."""
    writing.prepare(out)
    data = load("mnist", data_dir) if set(plan.parts) - WITHOUT_MNIST else None
    engine = inference.engine(plan.engine, "cpu", plan.threads)
    for part in plan.parts:
        for piece in PIECES[part](plan, engine, data, out):
            run(piece, plan, out)
    print(report(out))
    print(where(out))
    return 0


def report(out: Path) -> str:
    """Gather the rows of all pieces in `out`, whenever they were run, and write its files; return the table."""
    import pandas as pd

    from comparisons.benchmarks import calibration_report
    from comparisons.reporting import markdown

    rows = pd.concat([reading.table(path) for path in kept(out)], ignore_index=True)
    writing.write_rows(out / "rows.csv", rows)
    return beside(
        out,
        {
            "table.md": lambda: markdown.printed(calibration_report.blocks(rows), calibration_report.TITLE),
            "figure.svg": lambda: calibration_report.error_against_cost(rows),
        },
    )


# The parts: each yields its pieces


def linear(plan: Plan, engine: Engine, data: Data | None, out: Path) -> Iterator[Piece]:
    """Against the closed form: 5 datapoints, each judged again and again with fresh noise."""
    for k in plan.latents:
        yield Piece("linear", str(k), (*SWEPT, "repeats"), partial(_linear, plan, engine, k))


def _linear(plan: Plan, engine: Engine, k: int) -> Iterator[Row]:
    target, truth = linear_gaussian(engine, k, plan.repeats, plan.seed)
    for row in sweep(target, plan, truth, repeats=plan.repeats):
        yield {"model": "linear_gaussian", "n_latent": k, **row}


def mnist(plan: Plan, engine: Engine, data: Data | None, out: Path) -> Iterator[Piece]:
    """Against quadrature, on the test points of trained decoders."""
    for k in (2, 3):
        yield Piece("mnist", str(k), (*SWEPT, "points", "samples"), partial(_mnist, plan, data, out, k))


def _mnist(plan: Plan, data: Data | None, out: Path, k: int) -> Iterator[Row]:
    common = {"model": "vae_bernoulli", "n_latent": k}
    target = target_of(fit_of(plan, data, out, k, 100), data, "test", plan.points)
    truth = estimated(target, plan.seed, "quadrature", tolerance=0.01).value
    for tolerance in (1.0, 0.1, 0.03):
        yield {**common, **tried(target, plan.seed, "quadrature", {"tolerance": tolerance}, truth)}
    for row in sweep(target, plan, truth):
        yield {**common, **row}


def simulated(plan: Plan, engine: Engine, data: Data | None, out: Path) -> Iterator[Piece]:
    """Between two bounds, on data drawn from decoders with many latent variables."""
    for k in (20, 50):
        reads = (*SWEPT, "simulated", "temperatures", "samples")
        yield Piece("simulated", str(k), reads, partial(_simulated, plan, engine, data, out, k))


def _simulated(plan: Plan, engine: Engine, data: Data | None, out: Path, k: int) -> Iterator[Row]:
    common = {"model": "vae_bernoulli", "n_latent": k}
    fit = fit_of(plan, data, out, k, 200)
    x, z = simulate(engine, fit.model, fit.theta, plan.simulated, engine.key(plan.seed + k))
    target = Target(engine, fit.model, fit.theta, x, fit.posterior(x))
    held = partial(sandwich, target, z, TIGHT, plan.seed + 1)
    bounds: list[tuple[str, dict[str, Any], Callable[[], Estimate]]] = [
        ("sandwich", {"importance_samples": TIGHT.importance_samples}, held)
    ]
    for start in ("prior", "recognition"):
        led: dict[str, Any] = {"start": start, "temperatures": plan.temperatures}
        bounds.append(("bidirectional", led, partial(bidirectional, target, z, AnnealedSettings(**led), plan.seed + 1)))
    found = []
    for name, settings, bound in bounds:
        judged = measured(bound)
        found.append(judged.estimate)
        gap = float((judged.estimate.diagnostics or {})["gap"].mean())
        yield {**common, **named(name, settings), "gap": gap, **scored(judged, np.full(len(x), np.nan))}
    for row in sweep(target, plan, *tightest(found)):
        yield {**common, **row}


def paper(plan: Plan, engine: Engine, data: Data | None, out: Path) -> Iterator[Piece]:
    """The paper's estimator at its own settings, beside the truth and the bound: a piece for each size and backend."""
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
    found[KEPT] = lambda: appendix_d_kept(target, AppendixDSettings(), key, chains)[0]
    if target.q is not None:
        found["lower bound"] = partial(elbo, target, key, DRAWS)
    return found


def engines(plan: Plan, engine: Engine, data: Data | None, out: Path) -> Iterator[Piece]:
    """Every two engines' estimates from the same theta and x. Raises FlagError where there are no two."""
    if len(inference.ENGINES) < 2:
        raise FlagError(f"part 'engines' compares two engines, and {' '.join(inference.ENGINES)} is alone")
    for pair in combinations(sorted(inference.ENGINES), 2):
        rows = partial(_engines, plan, data, out, pair)
        yield Piece("engines", "-".join((*pair, "3")), ("engine", "seed", "samples"), rows)


def _engines(plan: Plan, data: Data | None, out: Path, pair: tuple[str, str]) -> Iterator[Row]:
    fit = fit_of(plan, data, out, 3, 100)
    targets = [target_of(fit.on(inference.engine(name, "cpu", plan.threads)), data, "test", POINTS) for name in pair]
    common = {"model": "vae_bernoulli", "n_latent": 3, "engines": " minus ".join(pair)}
    for name, changes in VARIANTS.items():
        here, there = (measured(partial(estimated, target, plan.seed, name, **changes)) for target in targets)
        yield {**common, **named(name, changes), **apart(here, there)}


def apart(here: Judged, there: Judged) -> Row:
    """Score an estimate against another of the same points, and tell their difference in standard errors.

    Of the points that neither flags; NaN where there is none.
    """
    one, two = here.estimate, there.estimate
    difference = one.value - two.value
    error = np.maximum(np.hypot(one.stderr, two.stderr), ROUNDING)
    trusted = ~(one.doubtful | two.doubtful)
    return {
        **scored(here, two.value),
        "difference": float(difference.mean()),
        "mean_in_errors": float(difference[trusted].sum() / np.sqrt(np.square(error[trusted]).sum() or np.nan)),
        "worst_in_errors": float(np.abs(difference / error)[trusted].max()) if trusted.any() else np.nan,
    }


def defaults(plan: Plan, engine: Engine, data: Data | None, out: Path) -> Iterator[Piece]:
    """Every estimator that is told nothing, on data drawn from decoders of digits as they are and made harder."""
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
            row = tried(target, plan.seed, name, changes, truth, error)
            yield {"model": model, "decoder": kind, "n_latent": k, **row}


def harder(theta: Params) -> dict[str, Params]:
    """Return a decoder's parameters, as they are and made harder, by what was done to them."""
    if "w3" in theta:
        return {f"log variance {NARROW:g}": {**theta, "w3": 0.0 * theta["w3"], "b3": 0.0 * theta["b3"] + NARROW}}
    return {
        "trained" if factor == 1.0 else f"weights x {factor:g}": {**theta, **{n: factor * theta[n] for n in LAST}}
        for factor in SATURATED
    }


PIECES: dict[str, Callable[[Plan, Engine, Data | None, Path], Iterator[Piece]]] = {
    part.__name__: part for part in (linear, mnist, simulated, paper, engines, defaults)
}


# Decoders of MNIST


def experiment_of(plan: Plan, k: int, n_hidden: int, **settings: Any) -> Experiment:
    """Return the experiment of a fit with k latent variables, to 50,000 images where nothing else is said."""
    settings = {"n_train": 50_000, "engine": plan.engine, "seed": plan.seed, "threads": plan.threads, **settings}
    return Experiment(data="mnist", n_latent=k, n_hidden=n_hidden, samples=plan.samples, **settings)


def fit_of(plan: Plan, data: Data | None, out: Path, k: int, n_hidden: int) -> Fit:
    """Return a fit of the first backend: from this comparison's folder, or the main one's, else trained here."""
    assert data is not None
    experiment = experiment_of(plan, k, n_hidden)
    return fitted(experiment, take(data, experiment.n_train), out, earlier("marginal_likelihood"))


def target_of(fit: Fit, data: Data | None, split: str, count: int) -> Target:
    """Return the first datapoints of a split under a fit, with its q."""
    assert data is not None
    x, indices = fit.points(take(data, fit.experiment.n_train), split, count)
    return fit.target(x, indices)
