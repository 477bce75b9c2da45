"""Decoders of MNIST to calibrate on, and what an estimator is pointed at on them."""

from pathlib import Path
from typing import Any

from comparisons.benchmarks.pieces import Plan
from comparisons.data import Data, take
from comparisons.evidence.base import Target
from comparisons.runner.experiment import Experiment
from comparisons.runner.fits import Fit, fitted


def experiment_of(plan: Plan, k: int, n_hidden: int, **settings: Any) -> Experiment:
    """Return the experiment of a fit with k latent variables, to 50,000 images where nothing else is said."""
    settings = {"n_train": 50_000, "engine": plan.engine, "seed": plan.seed, "threads": plan.threads, **settings}
    return Experiment(data="mnist", n_latent=k, n_hidden=n_hidden, samples=plan.samples, **settings)


def fit_of(plan: Plan, data: Data | None, out: Path, k: int, n_hidden: int) -> Fit:
    """Return a fit of the first backend: from this comparison's folder, or the main one's, else trained here."""
    assert data is not None
    experiment = experiment_of(plan, k, n_hidden)
    return fitted(experiment, take(data, experiment.n_train), out, [Path("reports/marginal_likelihood")])


def target_of(fit: Fit, data: Data | None, split: str, count: int) -> Target:
    """Return the first datapoints of a split under a fit, with its q."""
    assert data is not None
    x, indices = fit.points(take(data, fit.experiment.n_train), split, count)
    return Target(fit.engine, fit.model, fit.theta, x, fit.posterior(x, indices))
