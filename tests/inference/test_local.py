"""The local fits: they reach the optimum where it is known, and step sizes end at zero."""

import numpy as np
import pytest

from comparisons.benchmarks.truths import linear_gaussian
from inference.base import Engine, join
from inference.latents import latents
from inference.local import LocalSettings, decaying, local_fit, prior
from models.linear_gaussian import LinearGaussian, posterior

STEPS = 300


def test_step_sizes_fall_to_zero_in_equal_parts() -> None:
    assert decaying(0.1, 4) == pytest.approx([0.1, 0.075, 0.05, 0.025])


def test_a_fit_starts_at_the_prior(engine: Engine) -> None:
    start = prior(engine, engine.array(np.ones((5, 3))), 2)
    normal = latents(engine, LinearGaussian(3, 2)).normal
    z = engine.numpy(engine.draw(engine.key(0), normal, {name: start[name] for name in start})["z"])
    assert z.shape == (5, 2)
    assert all((engine.numpy(value) == np.zeros((5, 2))).all() for value in start.values())


def test_local_fits_reach_the_best_factorised_normal(engine: Engine) -> None:
    """They lose next to nothing of the bound against the exact mean and one over the precision's diagonal.

    For N(mean + d, diag s^2) and precision P that is (d' P d + sum P_ii s_i^2 - 1 - log(P_ii s_i^2)) / 2.
    """
    target, _ = linear_gaussian(engine, 3, repeats=1, seed=0)
    theta = {name: engine.numpy(value).astype(np.float64) for name, value in target.theta.items()}
    mean, covariance = posterior(theta, engine.numpy(target.x))
    precision = np.linalg.inv(covariance)
    fit = local_fit(engine, target.model, LocalSettings(fit_steps=STEPS, particles=10))
    q = fit(engine.key(0), join(theta=target.theta), target.x)
    local = {name: engine.numpy(value).astype(np.float64) for name, value in q.args[0].items()}

    def lost(loc: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
        away = loc - mean
        ratio = np.diag(precision) * np.exp(2 * log_scale)
        return 0.5 * (np.einsum("nk,kl,nl->n", away, precision, away) + (ratio - 1 - np.log(ratio)).sum(1))

    assert lost(np.zeros_like(mean), np.zeros_like(mean)).min() > 1  # what the prior loses, where each began
    assert lost(local["loc"], local["log_scale"]).max() < 0.05
    assert q.fit_steps == STEPS and q.program == latents(engine, target.model).normal
