"""The estimators as they are calibrated: each by a name of its own, at several levels of cost."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from comparisons.benchmarks.pieces import Plan, Row
from comparisons.benchmarks.scoring import measured, scored
from comparisons.evidence.base import Estimate, Target
from comparisons.evidence.judge import JudgeSettings, estimate

# From cheap to dear: a line in the figure each. `q` is the backend's own approximate posterior.
WELL_RUN: dict[str, Any] = {"hmc_chains": 8, "hmc_warmup": 100, "hmc_leapfrog": 10, "force": True}
SWEEP: dict[str, list[dict[str, Any]]] = {
    "importance, q": [{"proposal": "q", "importance_samples": k} for k in (100, 1000, 10_000)],
    "importance, HMC mixture": [{"proposal": "hmc", "importance_samples": k} for k in (100, 1000, 10_000)],
    "annealed, prior": [{"temperatures": t} for t in (50, 200, 800)],
    "annealed, q": [{"start": "recognition", "temperatures": t} for t in (50, 200, 800)],
    "appendix_d, paper": [{"force": True, "hmc_draws": d} for d in (50, 200, 800)],
    "appendix_d, draws reused": [{"force": True, "hmc_draws": d, "reuse_draws": True} for d in (50, 200, 800)],
    "appendix_d, 8 chains": [{**WELL_RUN, "hmc_draws": d} for d in (50, 200, 500)],
    "appendix_d, 8 annealed chains": [{**WELL_RUN, "start": "annealed", "hmc_draws": d} for d in (50, 200, 500)],
    "appendix_d, 8 annealed chains, normal": [
        {**WELL_RUN, "start": "annealed", "hmc_draws": d, "density": "normal"} for d in (50, 200, 500)
    ],
}
# As nobody told them anything.
DEFAULTS: dict[str, dict[str, Any]] = {
    "importance, HMC mixture": {},
    "importance, q": {"proposal": "q"},
    "annealed, prior": {},
    "annealed, q": {"start": "recognition"},
    "appendix_d, paper": {"force": True},
}


def estimated(target: Target, seed: int, name: str, **changes: Any) -> Estimate:
    """Run an estimator by its name, or by one of a variant's, whose first word it is."""
    return estimate(name.split(",")[0], target, replace(JudgeSettings(), **changes), seed)


def named(name: str, changes: dict[str, Any]) -> Row:
    """Return the columns that tell a variant."""
    settings = " ".join(f"{name}={value}" for name, value in changes.items() if name != "force")
    return {"estimator": name, "settings": settings}


def sweep(target: Target, plan: Plan, truth: np.ndarray, truth_error: Any = 0.0, repeats: int = 1) -> Iterator[Row]:
    """Hold every variant at every level of cost against the truth [n]; yield a row each."""
    for name, levels in SWEEP.items():
        for level in plan.levels:
            judged = measured(partial(estimated, target, plan.seed, name, **levels[level]))
            yield {**named(name, levels[level]), "level": level, **scored(judged, truth, repeats, truth_error)}
