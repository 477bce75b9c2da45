"""Gradients on data, along AEVB's own training: how much of their variance is over draws of z, and what it costs."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import inference
from comparisons.benchmarks.gradient_moments import Moments, mean_and_error, moments
from comparisons.benchmarks.gradients_closed import against
from comparisons.data import Data
from comparisons.runner.cell import points
from comparisons.runner.experiment import Experiment, built
from comparisons.runner.fits import fitted
from inference.base import Params, join, numpys
from inference.gradients import ESTIMATORS

OF_THE_BOUND = tuple(name for name, card in ESTIMATORS.items() if not card.multi_sample)
REFERENCE = "B"  # whose mean gradient, from a run of its own, the others' are held against
REFERENCES = 5  # times as many repeats of it
POINTS = 1000  # first training points that minibatches are drawn from

Row = dict[str, Any]


def rows(
    experiment: Experiment,
    data: Data,
    out: Path,
    stages: Sequence[int],
    draws: Sequence[int],
    sizes: Sequence[int],
    repeats: int,
) -> Iterator[Row]:
    """Yield for each stage of training, estimator, L, M and block of parameters the variance of the gradient.

    A block is a parameter, or all of theta or phi. `noise_share` is what of the variance is over draws of z, `t` how
    far the mean lies from that of the reference, in standard errors.
    """
    engine = inference.engine(experiment.engine, "cpu", experiment.threads)
    x, _ = points(data, "train", POINTS)
    model, seed = built(experiment, x.shape[1]), experiment.seed
    for stage in stages:
        params = (
            _params(replace(experiment, samples=stage), data, out)
            if stage
            else join(**dict(zip(("theta", "phi"), model.init(seed), strict=True)))
        )
        blocks = ["theta", "phi", *params]
        for size in sizes:
            truth = moments(engine, model, REFERENCE, max(draws), params, x, size, REFERENCES * repeats, seed + 1)
            for name in OF_THE_BOUND:
                for count in (count for count in draws if count >= ESTIMATORS[name].least):
                    one = moments(engine, model, name, count, params, x, size, repeats, seed + 2)
                    told = {"n_seen": stage, "estimator": name, "draws": count, "minibatch": size}
                    for block in blocks:
                        yield {**told, "block": block, **_row(one, truth, block)}


def _params(experiment: Experiment, data: Data, out: Path) -> Params:
    """Return theta.* and phi.* of AEVB after so many training points."""
    fit = fitted(experiment, data, out)
    params: Params = numpys(fit.engine, fit.state["params"])
    return params


def _row(one: Moments, truth: Moments, block: str) -> Row:
    total, noise = one.total("variance", block), one.total("noise", block)
    variance, error = mean_and_error(total)
    share = float(noise.mean() / total.mean()) if total.mean() > 0 else float("nan")
    spread = (noise - share * total) / total.mean()
    told = {"variance": variance, "variance_stderr": error, "noise": float(noise.mean()), "noise_share": share}
    told["noise_share_stderr"] = mean_and_error(spread)[1]
    apart = against(one, truth, block) if variance > 0 else {}
    return {**told, **apart, "seconds": one.seconds}
