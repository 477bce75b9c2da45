"""The estimators by name, and how one is called with the flags that concern it."""

from collections.abc import Callable
from dataclasses import fields
from inspect import signature
from typing import Any

from comparisons.evidence.annealed import annealed
from comparisons.evidence.appendix_d import appendix_d
from comparisons.evidence.base import Estimate
from comparisons.evidence.exact import exact
from comparisons.evidence.importance import importance
from comparisons.evidence.quadrature import quadrature
from comparisons.evidence.settings import JudgeSettings
from inference.base import Engine, Params, Posterior
from models.base import Array, Model

ESTIMATORS: dict[str, Callable[..., Estimate]] = {
    "quadrature": quadrature,
    "importance": importance,
    "annealed": annealed,
    "appendix_d": appendix_d,
    "exact": exact,
}


def estimate(
    name: str,
    engine: Engine,
    model: Model,
    theta: Params,
    x: Array,
    seed: int,
    q: Posterior | None,
    settings: JudgeSettings,
) -> Estimate:
    """Run one estimator of log p(x), in nats, with those of the settings that it takes, and q where it takes that."""
    takes = signature(ESTIMATORS[name]).parameters
    told: dict[str, Any] = {f.name: getattr(settings, f.name) for f in fields(JudgeSettings) if f.name in takes}
    if "q" in takes:
        told["q"] = q
    with engine.pinned():
        return ESTIMATORS[name](engine, model, theta, x, seed, **told)
