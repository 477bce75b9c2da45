"""Runs of a second, whole or broken off at any of their pauses and gone on with."""

from pathlib import Path
from typing import Any

import numpy as np

from comparisons.data import Data
from comparisons.runner import checkpoint, run
from comparisons.runner.cell import on
from comparisons.runner.experiment import Experiment

SECONDS = ("seconds", "eval_seconds", "compile_seconds")  # all that may differ


def small() -> Data:
    rng = np.random.default_rng(0)
    train, test = rng.random((150, 6), np.float32), rng.random((50, 6), np.float32)
    return Data("digits", train, test, (1, 6), "unit", "", False)


def tiny(**changes: Any) -> Experiment:
    settings: dict[str, Any] = {
        "samples": 120, "minibatch": 10, "n_hidden": 4, "n_latent": 2, "warmup": 0, "eval_points": 10, "fit_steps": 5,
        "local_steps": 2, "elbo_draws": 3, "evidence": ("none",), **changes,
    }  # fmt: skip
    return Experiment(**settings)


class BrokenError(Exception):
    """The process is gone."""


def unbroken(experiment: Experiment) -> run.Result:
    return list(run.run("test", on(experiment, small()), small()))[-1]


def broken_at(experiment: Experiment, folder: Path, moments: list[int]) -> tuple[run.Result, int]:
    """Write a checkpoint at every pause; break the run off at these, and go on. Returns the result and all pauses."""
    path = folder / "checkpoint.safetensors"
    kept, pauses = None, 0
    moments = sorted(moments)

    def keep(arrays: dict[str, Any], facts: dict[str, Any]) -> None:
        nonlocal pauses
        path.write_bytes(checkpoint.pack(arrays, facts))
        pauses += 1
        if moments and pauses >= moments[0]:
            moments.pop(0)
            raise BrokenError

    while True:
        try:
            results = list(run.run("test", on(experiment, small()), small(), keep=keep, kept=kept, every=0.0))
            return results[-1], pauses
        except BrokenError:
            kept = checkpoint.read(path)


def timeless(rows: list[Any]) -> list[Any]:
    return [{name: value for name, value in row.items() if name not in SECONDS} for row in rows]


def same(one: run.Result, two: run.Result) -> None:
    np.testing.assert_equal(timeless(one.rows), timeless(two.rows))
    assert checkpoint.pack(one.state, {}) == checkpoint.pack(two.state, {}) and one.status == two.status
