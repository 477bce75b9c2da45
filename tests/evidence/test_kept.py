"""Chains that an estimator keeps along training: what they cost, what they find, and that training never sees them."""

from functools import cache
from typing import Any

import numpy as np
import pytest

import inference
from comparisons.evidence.appendix_d import AppendixDSettings, appendix_d, appendix_d_kept
from comparisons.evidence.base import Target
from comparisons.evidence.draws import BURN_IN, Chains, begun, continued, evaluations, moved
from comparisons.runner.judging import GROWTH, next_look
from inference import ENGINES
from inference.base import Engine
from models.linear_gaussian import LinearGaussian, log_px, posterior

N, D, K = 40, 8, 2
every_engine = pytest.mark.parametrize("name", list(ENGINES))


class Problem:
    """A linear-Gaussian model whose theta moves along a line, and its datapoints."""

    def __init__(self, name: str, noise: float = 0.5) -> None:
        rng = np.random.default_rng(0)
        self.engine: Engine = inference.engine(name, "cpu", 1)
        self.model = LinearGaussian(D, K)
        self.end = {"w": rng.standard_normal((K, D)) / 2, "b": rng.standard_normal(D), "log_scale": np.log(noise)}
        self.x = self.end["b"] + rng.standard_normal((N, K)) @ self.end["w"] + noise * rng.standard_normal((N, D))
        self.rows = self.engine.array(self.x)

    def theta(self, share: float = 1.0) -> dict[str, np.ndarray]:
        return {name: np.asarray(share * value) for name, value in self.end.items()}

    def target(self, share: float = 1.0) -> Target:
        theta = {name: self.engine.array(value) for name, value in self.theta(share).items()}
        return Target(self.engine, self.model, theta, self.rows)

    def begun(self, chains: int = 1) -> Chains:
        return begun(self.target(0.0), self.engine.key(1), chains)

    def moved(self, chains: Chains, number: int, share: float = 1.0, **changes: Any) -> Chains:
        key = self.engine.fold_in(self.engine.key(2), number)
        return moved(self.target(share), key, chains, 4, **changes)


@cache
def settled(name: str) -> tuple[Problem, Chains]:
    """The problem, and eight chains of each datapoint that have been looked at often enough to be in the posterior."""
    problem = Problem(name)
    chains = problem.begun(chains=8)
    for look in range(20):
        chains = problem.moved(chains, look)
    return problem, chains


@every_engine
def test_chains_begin_at_the_prior(name: str) -> None:
    z = Problem(name).begun(chains=200).z
    assert z.shape == (200, N, K)
    assert abs(z.mean()) < 5 / np.sqrt(z.size) and abs(z.var() - 1) < 5 * np.sqrt(2 / z.size)


@every_engine
def test_chains_follow_a_theta_that_learns(name: str) -> None:
    """After many looks along the way they are in the posterior of the last theta, with 90 % acceptance."""
    problem = Problem(name)
    chains = problem.begun(chains=50)
    for look in range(60):
        chains = problem.moved(chains, look, share=min(1.0, look / 30))
    key = problem.engine.key(3)
    drawn, after = continued(problem.target(), key, chains, 20, 4)
    mean, covariance = posterior(problem.theta(), problem.x)
    white = np.linalg.solve(np.linalg.cholesky(covariance), (drawn.z - mean).reshape(-1, K).T)
    independent = 50 * N  # one draw of a chain, to be safe
    assert np.abs(white.mean(1)).max() < 5 / np.sqrt(independent)
    np.testing.assert_allclose(white @ white.T / white.shape[1], np.eye(K), atol=5 * np.sqrt(2 / independent))
    assert 0.8 < drawn.acceptance.mean() < 0.97
    np.testing.assert_array_equal(after.z, drawn.z[-1].astype(np.float32))  # where the draws end, the next look begins
    burn_key, _ = problem.engine.split(key)
    burnt_in = moved(problem.target(), burn_key, chains, 4)
    np.testing.assert_array_equal(after.log_step, burnt_in.log_step)  # frozen while draws are made


@every_engine
def test_a_look_is_cut_to_fit_the_memory_and_costs_what_it_says(name: str) -> None:
    """Each datapoint's chain is its own: in blocks it has other noise, and moves all the same."""
    problem = Problem(name)
    chains = problem.begun()
    assert evaluations(N, 1, 50, 4) == N * 55 * 5 and BURN_IN == 5
    whole, cut = problem.moved(chains, 0), problem.moved(chains, 0, max_memory=4 * 10 * D * 15)
    assert whole.z.shape == cut.z.shape == (1, N, K) and np.isfinite(cut.z).all()
    assert not np.array_equal(whole.z, chains.z) and not np.array_equal(cut.z[:, -1], chains.z[:, -1])
    np.testing.assert_array_equal(problem.moved(chains, 0).z, whole.z)


@every_engine
def test_the_estimate_by_kept_chains_is_right(name: str) -> None:
    """Against the closed form, with chains enough for errors to be known: the mean within three standard errors."""
    problem, chains = settled(name)
    truth = log_px(problem.theta(), problem.x)
    for stop in range(3):
        key = problem.engine.fold_in(problem.engine.key(4), stop)
        found, chains = appendix_d_kept(problem.target(), AppendixDSettings(hmc_draws=200), key, chains)
        value, error = found.mean()
        assert abs(value - truth.mean()) < 3 * error + 0.02  # the density's own bias, in two dimensions
        assert found.diagnostics is not None and {"rhat", "ess", "flagged"} <= found.diagnostics.keys()


def test_both_engines_keep_alike() -> None:
    means, errors = [], []
    for name in ENGINES:
        problem, chains = settled(name)
        key, settings = problem.engine.key(5), AppendixDSettings(hmc_draws=200)
        value, error = appendix_d_kept(problem.target(), settings, key, chains)[0].mean()
        means.append(value)
        errors.append(error)
    assert abs(means[0] - means[1]) < 3 * np.hypot(errors[0], errors[1])


def test_kept_chains_stay_where_anew_ones_get_lost() -> None:
    """A posterior that grew narrow while theta learnt: kept chains are in it, and five moves from the prior are not."""
    problem = Problem("numpyro", noise=0.02)
    chains = problem.begun()
    for look in range(120):
        chains = problem.moved(chains, look, share=min(1.0, 0.02 + look / 100))
    truth = log_px(problem.theta(), problem.x)
    kept, _ = appendix_d_kept(problem.target(), AppendixDSettings(), problem.engine.key(6), chains)
    anew = appendix_d(problem.target(), AppendixDSettings(hmc_warmup=BURN_IN))
    assert np.abs(kept.value - truth).mean() < 1.0 < np.abs(anew.value - truth).mean()


def test_too_many_latent_variables_are_refused() -> None:
    engine = inference.engine("numpyro", "cpu", 1)
    target, chains = Target(engine, LinearGaussian(20, 11), {}, None), Chains(np.zeros((1, 1, 11)), np.zeros(1))
    with pytest.raises(ValueError, match=r"10 latent.*11.*force"):
        appendix_d_kept(target, AppendixDSettings(), engine.key(0), chains)


@pytest.mark.parametrize(("rows", "interval"), [(100, 100), (100, 2500), (1000, 100), (50_000, 100), (7, 100)])
def test_looks_are_often_at_first_and_then_every_tenth(rows: int, interval: int) -> None:
    """Each stop of 1, 2 or 5 x 10^k steps is a look, so that few chunks of other lengths have to be compiled."""
    steps = [next_look(0, interval // rows)]
    while steps[-1] < 100_000:
        steps.append(next_look(steps[-1], interval // rows))
    gaps = np.diff([0, *steps])
    assert gaps[0] <= max(1, interval // rows) and len(set(gaps)) < 20
    assert all(gap <= max(1, interval // rows, step // GROWTH) for gap, step in zip(gaps, steps, strict=True))
    assert {m * 10**k for m in (1, 2, 5) for k in (3, 4)} <= set(steps)
    assert len(steps) < 200
