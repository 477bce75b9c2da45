"""Hold an estimator against the truth: its error, its own word about that error, and what it cost."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from comparisons.evidence.base import Estimate

BAD = 0.5  # nats from the truth: a datapoint that its estimator should have flagged
LONG = 60.0  # seconds: what takes as long is not repeated to leave compilation out of its time


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


def scored(
    judged: Judged, truth: np.ndarray, repeats: int = 1, truth_error: np.ndarray | float = 0.0
) -> dict[str, Any]:
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
