"""Hold an estimator, cheap or dear, against the truth: its error, its own word about that error, and what it cost."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from comparisons.benchmarks.pieces import Plan, Row
from comparisons.evidence.base import Estimate, Target
from comparisons.evidence.judge import JudgeSettings, estimate

BAD = 0.5  # nats from the truth: a datapoint that its estimator should have flagged
LONG = 60.0  # seconds: what takes as long is not repeated to leave compilation out of its time
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


def sweep(target: Target, plan: Plan, truth: np.ndarray, truth_error: Any = 0.0, repeats: int = 1) -> Iterator[Row]:
    """Hold every variant at every level of cost against the truth [n]; yield a row each."""
    for name, levels in SWEEP.items():
        for level in plan.levels:
            yield tried(target, plan.seed, name, levels[level], truth, truth_error, repeats, level=level)


def tried(
    target: Target,
    seed: int,
    name: str,
    changes: dict[str, Any],
    truth: np.ndarray,
    truth_error: Any = 0.0,
    repeats: int = 1,
    **columns: Any,
) -> Row:
    """Run a variant, and hold it against the truth [n]: its row, with more columns after its name."""
    judged = measured(partial(estimated, target, seed, name, **changes))
    return {**named(name, changes), **columns, **scored(judged, truth, repeats, truth_error)}


def estimated(target: Target, seed: int, name: str, **changes: Any) -> Estimate:
    """Run an estimator by its name, or by one of a variant's, whose first word it is."""
    return estimate(name.split(",")[0], target, replace(JudgeSettings(), **changes), seed)


def named(name: str, changes: dict[str, Any]) -> Row:
    """Return the columns that tell a variant."""
    settings = " ".join(f"{name}={value}" for name, value in changes.items() if name != "force")
    return {"estimator": name, "settings": settings}


class Judged(NamedTuple):
    """An estimate, its seconds (where they are few, without compilation), and the bytes it needed at its peak."""

    estimate: Estimate
    seconds: float
    memory: float


def measured(run: Callable[[], Estimate]) -> Judged:
    """Run against the clock, a second time where the first was short enough for compilation to matter."""
    for _ in range(2):
        before = _memory(reset=True)
        start = time.perf_counter()
        found = run()
        seconds = time.perf_counter() - start
        if seconds > LONG:
            break
    return Judged(found, seconds, _memory() - before)


def scored(judged: Judged, truth: np.ndarray, repeats: int = 1, truth_error: np.ndarray | float = 0.0) -> Row:
    """Hold an estimate against the truth [n], in nats; one set of points follows the other in it.

    A truth that is not known is NaN: such points are left out, and `unknown` is their share. Where no truth is known,
    what needs it is NaN.

    `bias` is the mean error, `sd` the standard deviation of a datapoint's estimates over repeats (of errors over
    datapoints, where there are none), `coverage` the share of points within 1.96 of their own standard error (and of
    the truth's, `truth_error`), `bad` the share further than 0.5 nat from the truth, and `bad_flagged` how many of
    those the estimator flagged itself.
    """
    found = judged.estimate
    known = ~np.isnan(truth) if not np.isnan(truth).all() else np.ones(len(truth), bool)
    error = (found.value - truth)[known]
    stderr = np.hypot(found.stderr, truth_error)[known]
    flagged = found.doubtful[known]
    bad = ~(np.abs(error) <= BAD) & ~np.isnan(error)
    missing = np.nan if np.isnan(error).any() else 1.0
    trusted = error[~flagged]
    spread = error.reshape(repeats, -1).std(0, ddof=1).mean() if repeats > 1 else error.std(ddof=1)
    return {
        "n_points": len(error),
        "unknown": float(np.isnan(truth).mean()),
        "repeats": repeats,
        "estimate": float(found.value[known].mean()),
        "bias": float(error.mean()),
        "bias_stderr": float(error.std(ddof=1) / np.sqrt(len(error))),
        "median": float(np.median(error)),
        "bias_trusted": float(trusted.mean()) if len(trusted) else np.nan,
        "sd": float(spread),
        "rmse": float(np.sqrt(np.square(error).mean())),
        "stderr": float(found.stderr[known].mean()),
        "coverage": missing * float((np.abs(error) <= 1.96 * stderr).mean()),
        "flagged": float(flagged.mean()),
        "bad": missing * float(bad.mean()),
        "bad_flagged": float(flagged[bad].mean()) if bad.any() else np.nan,
        "seconds_per_1000": judged.seconds / len(truth) * 1000,
        "peak_megabytes": judged.memory / 1e6,
    }


def _memory(reset: bool = False) -> float:
    """Return the peak of this process's resident memory since it was last reset, in bytes; NaN where unknown."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return 1024.0 * next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), float("nan"))
