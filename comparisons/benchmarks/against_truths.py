"""Every estimator at every level of cost where log p(x) is known: the parts linear, mnist and simulated."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from comparisons.benchmarks.mnist_fits import fit_of, target_of
from comparisons.benchmarks.pieces import Piece, Plan, Row
from comparisons.benchmarks.scoring import measured, scored
from comparisons.benchmarks.truths import TIGHT, linear_gaussian, tightest
from comparisons.benchmarks.variants import estimated, named, sweep
from comparisons.data import Data
from comparisons.evidence.annealed import AnnealedSettings, bidirectional, simulate
from comparisons.evidence.base import Estimate, Target
from comparisons.evidence.importance import sandwich
from inference.base import Engine

SWEPT = ("engine", "seed", "levels")  # what every sweep over the estimators depends on


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
        judged = measured(partial(estimated, target, plan.seed, "quadrature", tolerance=tolerance))
        yield {**common, **named("quadrature", {"tolerance": tolerance}), **scored(judged, truth)}
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
