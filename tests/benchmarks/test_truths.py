"""Where log p(x) is known, and what is held against it."""

import numpy as np
import oracles
import pytest
from scipy import stats

from comparisons.benchmarks import truths
from comparisons.benchmarks.truths import best_factorised, best_known, linear_gaussian, tightest
from comparisons.evidence.base import Estimate
from inference import engine as built
from inference.base import Engine


@pytest.fixture(scope="module")
def engine() -> Engine:
    return built("numpyro", "cpu", 1)


def test_the_truth_is_the_surest_that_there_is() -> None:
    """For each datapoint; one whose error is not a number is none, and none is taken where all are unsure."""
    one = Estimate(np.array([1.0, 2.0, 3.0]), np.array([0.01, np.nan, 0.2]))
    two = Estimate(np.array([1.5, 2.5, 3.5]), np.array([0.04, 0.03, 0.1]))
    value, error = tightest([one, two])
    np.testing.assert_array_equal(value, [1.0, 2.5, np.nan])
    np.testing.assert_array_equal(error, [0.01, 0.03, 0.1])


def test_the_linear_truth_is_the_density_of_x(engine: Engine) -> None:
    target, truth = linear_gaussian(engine, 3, repeats=2, seed=1)
    x = engine.numpy(target.x).astype(np.float64)
    theta = {name: engine.numpy(value).astype(np.float64) for name, value in target.theta.items()}
    covariance = theta["w"].T @ theta["w"] + np.exp(2 * theta["log_scale"]) * np.eye(10)
    np.testing.assert_allclose(truth, stats.multivariate_normal.logpdf(x, theta["b"], covariance), rtol=1e-5)
    np.testing.assert_array_equal(x[:5], x[5:])  # one set of points after the other
    assert len(np.unique(truth[:5])) == 5


def test_no_factorised_normal_has_a_higher_bound(engine: Engine) -> None:
    """Any change of the best q's parameters lowers the bound of every point."""
    target, _ = linear_gaussian(engine, 2, repeats=1, seed=0)
    x = engine.numpy(target.x).astype(np.float64)
    theta = {name: engine.numpy(value).astype(np.float64) for name, value in target.theta.items()}
    q = best_factorised(engine, theta, x)
    best = {name: engine.numpy(value).astype(np.float64) for name, value in q.args[0].items()}
    highest = oracles.linear_gaussian_elbo(theta, best, x)
    rng = np.random.default_rng(0)
    for name, value in best.items():
        for _ in range(5):
            changed = {**best, name: value + 0.05 * rng.standard_normal(value.shape)}
            assert (oracles.linear_gaussian_elbo(theta, changed, x) < highest).all(), name


def test_up_to_three_latents_the_truth_is_quadratures_and_above_it_lies_between_bounds(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The points that it does not know to 0.05 nat are not known."""
    monkeypatch.setattr(truths, "estimated", lambda *_, **__: Estimate(np.zeros(2), np.array([0.01, 0.06])))
    monkeypatch.setattr(truths, "sandwich", lambda *_, **__: Estimate(np.ones(2), np.array([0.06, 0.01])))
    for k, expected in ((3, [0.0, np.nan]), (4, [np.nan, 1.0])):
        target, _ = linear_gaussian(engine, k, repeats=1, seed=0)
        value, _ = best_known(target, engine.array(np.zeros((5, k))), seed=0)
        np.testing.assert_array_equal(value, expected)
