"""Every two engines' estimates from the same theta and x, their difference in standard errors: the part engines."""

from collections.abc import Iterator
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

import inference
from comparisons.benchmarks.mnist_fits import fit_of, target_of
from comparisons.benchmarks.pieces import Piece, Plan, Row
from comparisons.benchmarks.scoring import Judged, measured, scored
from comparisons.benchmarks.variants import SWEEP, estimated, named
from comparisons.data import Data
from comparisons.errors import FlagError
from inference.base import Engine

VARIANTS: dict[str, dict[str, Any]] = {"quadrature": {}, **{name: levels[1] for name, levels in SWEEP.items()}}
POINTS = 100
ROUNDING = 1e-3  # nats: below stands float32's rounding of log p(x, z)


def engines(plan: Plan, engine: Engine, data: Data | None, out: Path) -> Iterator[Piece]:
    """Yield a piece for every two engines. Raises FlagError where there are no two."""
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
