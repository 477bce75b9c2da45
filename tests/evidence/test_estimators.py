"""The Monte-Carlo estimators of log p(x) against closed forms: unbiased, honest about their error, loud in failure."""

from functools import partial

import numpy as np
import oracles
import pytest
from arviz_stats.base import array_stats
from scipy import special, stats

import inference
from comparisons.benchmarks.scoring import Judged, measured, scored
from comparisons.benchmarks.truths import best_factorised
from comparisons.evidence import mixing
from comparisons.evidence.annealed import (
    AnnealedSettings,
    annealed,
    annealed_points,
    bidirectional,
    schedule,
    simulate,
)
from comparisons.evidence.appendix_d import AppendixDSettings, appendix_d, kde, normal
from comparisons.evidence.appendix_d import _averaged as averaged
from comparisons.evidence.base import Estimate, Target
from comparisons.evidence.blocks import blocks, pairs_within
from comparisons.evidence.draws import Draws, Moves, posterior_draws
from comparisons.evidence.elbo import elbo
from comparisons.evidence.exact import exact
from comparisons.evidence.importance import ImportanceSettings, bounds, importance, k_sample_bound, sandwich
from comparisons.evidence.judge import ESTIMATORS, JudgeSettings, estimate
from comparisons.evidence.means import log_mean_exp
from comparisons.evidence.proposals import fitted_mixture
from comparisons.evidence.quadrature import QuadratureSettings, quadrature
from inference import ENGINES
from inference.base import Engine, Posterior
from models.base import Params, Ppl
from models.linear_gaussian import LinearGaussian, log_px, posterior
from models.vae import VaeBernoulli

CHEAP = JudgeSettings(
    importance_samples=200, temperatures=50, annealed_chains=8, hmc_draws=200, hmc_chains=2, hmc_leapfrog=6
)


@pytest.fixture
def numpyro() -> Engine:
    return inference.engine("numpyro", "cpu", 1)


def full_normal(ppl: Ppl, fit: Params) -> None:
    """Sample z ~ N(loc [n, k], scale_tril scale_tril' [n, k, k])."""
    with ppl.plate("data", fit["loc"].shape[0]):
        ppl.sample("z", ppl.dist.MultivariateNormal(fit["loc"], scale_tril=fit["scale_tril"]))


class Problem:
    """A linear-Gaussian model with correlated latents, datapoints from it, and what is known of them."""

    def __init__(self, engine: Engine, k: int = 2, n: int = 60, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        n_x = 2 * k + 4
        w, b = rng.standard_normal((k, n_x)) / np.sqrt(k), rng.standard_normal(n_x)
        self.theta = {"w": w, "b": b, "log_scale": np.log(0.5)}
        self.x = b + rng.standard_normal((n, k)) @ w + 0.5 * rng.standard_normal((n, n_x))
        self.engine, self.model = engine, LinearGaussian(n_x, k)
        self.truth = log_px(self.theta, self.x)
        placed = {name: engine.array(value) for name, value in self.theta.items()}
        self.target = Target(engine, self.model, placed, engine.array(self.x))

    def at_q(self) -> Target:
        """The target with the factorised normal of the highest bound."""
        return self.target._replace(q=best_factorised(self.engine, self.theta, self.x))

    def at_posterior(self, widened: float = 1.0) -> Target:
        """The target with the exact posterior, or one of its shape."""
        mean, covariance = posterior(self.theta, self.x)
        scale_tril = np.broadcast_to(np.linalg.cholesky(covariance) * widened, (len(mean), *covariance.shape))
        fit = {"loc": self.engine.array(mean), "scale_tril": self.engine.array(scale_tril)}
        return self.target._replace(q=Posterior(full_normal, (fit,)))


def close(found: Estimate, truth: np.ndarray, errors: float = 4.0) -> None:
    """The mean error lies within so many standard errors of zero, and so does almost every datapoint's."""
    value, stderr = found.mean()
    assert abs(value - truth.mean()) < errors * max(stderr, 2e-4)
    assert np.mean(np.abs(found.value - truth) < 3.0 * np.maximum(found.stderr, 1e-3)) > 0.93


# Their error


def test_the_log_of_a_mean_is_taken_stably() -> None:
    log_w = np.random.default_rng(0).standard_normal((50, 4)) + np.array([-1e4, 0.0, 1e4, 3.0])
    value, stderr = log_mean_exp(log_w)
    np.testing.assert_allclose(value, special.logsumexp(log_w, axis=0) - np.log(50), rtol=1e-12)
    w = np.exp(log_w - value)
    np.testing.assert_allclose(stderr, stats.sem(w) * stats.t.ppf(0.975, 49) / 1.96, rtol=1e-6)


def test_the_error_of_a_log_mean_covers() -> None:
    """2000 experiments of 16 log-normal weights with a spread of half a nat."""
    log_w = np.random.default_rng(1).normal(-0.125, 0.5, (16, 2000))
    value, stderr = log_mean_exp(log_w)
    assert 0.90 < np.mean(np.abs(value) < 1.96 * stderr) < 0.99


@pytest.mark.parametrize(("n", "size"), [(1, 1), (7, 3), (6, 3), (5, 100), (3, 0)])
def test_blocks_take_every_datapoint_once_and_have_one_size(n: int, size: int) -> None:
    found = list(blocks(n, size))
    assert len({len(rows) for rows, _ in found}) == 1
    np.testing.assert_array_equal(np.concatenate([rows[:count] for rows, count in found]), np.arange(n))


@pytest.mark.parametrize("shape", [(1, 50), (2, 25), (4, 100), (4, 7), (3, 500)])
@pytest.mark.parametrize("correlation", [0.0, 0.9, -0.5])
def test_mixing_is_the_librarys(shape: tuple[int, int], correlation: float) -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((20, *shape))
    draws = np.empty_like(noise)
    draws[..., 0] = noise[..., 0]
    for t in range(1, shape[1]):
        draws[..., t] = correlation * draws[..., t - 1] + np.sqrt(1 - correlation**2) * noise[..., t]
    draws[:5, 0] += 2.0  # a chain that has gone elsewhere
    np.testing.assert_allclose(mixing.ess(draws), array_stats.ess(draws, method="mean"), rtol=1e-6)
    if shape[0] > 1:
        np.testing.assert_allclose(mixing.rhat(draws), array_stats.rhat(draws), rtol=1e-6)


def test_one_chain_is_compared_with_itself() -> None:
    drifting = np.linspace(0, 10, 100) + np.random.default_rng(0).standard_normal(100)
    assert mixing.rhat(drifting[None]) > 1.5
    assert mixing.rhat(np.random.default_rng(0).standard_normal((1, 1000))) < 1.01


# Draws


def test_draws_are_from_the_posterior(engine: Engine) -> None:
    problem = Problem(engine, n=20)
    drawn = posterior_draws(problem.target, engine.key(0), None, 4, Moves(100, 150, 6), max_memory=2e6)
    assert drawn.z.shape == (150, 4, 20, 2) and drawn.log_joint.shape == (150, 4, 20)
    mean, covariance = posterior(problem.theta, problem.x)
    effective = mixing.ess(drawn.z.transpose(2, 3, 1, 0))
    assert effective.min() > 50 and np.all((drawn.acceptance > 0.75) & (drawn.acceptance < 0.99))
    z = (drawn.z.mean((0, 1)) - mean) / np.sqrt(np.diag(covariance) / effective)
    assert np.abs(z).max() < 5 and 0.5 < z.std() < 1.5
    variance = drawn.z.reshape(600, 20, 2).var(0).mean(0)
    np.testing.assert_allclose(variance, np.diag(covariance), rtol=0.15)


def test_each_datapoint_has_a_step_size_of_its_own(numpyro: Engine) -> None:
    """Under a decoder that ignores half of the datapoints' z, their posterior is the prior, and wide."""
    problem = Problem(numpyro, n=40)
    target, moves = problem.target, Moves(warmup=150, draws=50, leapfrog=4)
    sharp = posterior_draws(target, numpyro.key(0), None, 2, moves)
    flat = target._replace(theta={**target.theta, "w": 0.0 * target.theta["w"]})
    wide = posterior_draws(flat, numpyro.key(0), None, 2, moves)
    assert np.median(wide.step_size) > 2 * np.median(sharp.step_size)
    assert len(np.unique(sharp.step_size)) == 40


# Importance sampling


def test_the_exact_posterior_proposes_without_variance(engine: Engine) -> None:
    problem = Problem(engine)
    found = importance(problem.at_posterior(), ImportanceSettings(proposal="q", importance_samples=50))
    np.testing.assert_allclose(found.value, problem.truth, atol=1e-3)
    assert found.stderr.max() < 1e-3


@pytest.mark.parametrize("proposal", ["q", "hmc"])
def test_importance_finds_the_truth(engine: Engine, proposal: str) -> None:
    problem = Problem(engine)
    found = importance(problem.at_q(), ImportanceSettings(proposal=proposal, importance_samples=1000), 1)
    close(found, problem.truth)
    assert found.flagged < 0.1 and found.diagnostics is not None
    assert np.all((found.diagnostics["ess"] > 100) & (found.diagnostics["ess"] <= 1000))


def test_auto_fits_a_proposal(numpyro: Engine) -> None:
    problem = Problem(numpyro)
    close(importance(problem.target, ImportanceSettings(), 2), problem.truth)
    with pytest.raises(ValueError, match="proposal hmc"):
        importance(problem.target, ImportanceSettings(proposal="q"), 2)


def test_a_proposal_that_is_too_narrow_is_flagged(numpyro: Engine) -> None:
    problem = Problem(numpyro, k=3)
    settings = ImportanceSettings(proposal="q", importance_samples=1000)
    narrow, good = (importance(problem.at_posterior(widened), settings, 3) for widened in (0.2, 1.2))
    assert narrow.flagged > 0.9 and good.flagged < 0.05


def test_khat_is_the_shape_of_the_weights_tail(numpyro: Engine) -> None:
    """Of a proposal s times as wide as a normal posterior, P(w > t) falls like t^(-1 / (1 - s^2)): khat is 1 - s^2."""
    problem = Problem(numpyro, k=1, n=100)
    for s in (0.5, 0.7):
        found = importance(problem.at_posterior(s), ImportanceSettings(proposal="q", importance_samples=20_000), 5)
        assert found.diagnostics is not None
        assert abs(np.mean(found.diagnostics["khat"]) - (1 - s**2)) < 0.15


def test_a_fitted_mixture_has_the_posteriors_moments(numpyro: Engine) -> None:
    """Of a posterior that is normal: one island, and all chains on it."""
    problem = Problem(numpyro)
    fit = fitted_mixture(problem.target, 0)
    mean, covariance = posterior(problem.theta, problem.x)
    assert np.mean(np.isfinite(fit.log_share[:, 0]) & (fit.chains[:, 0] == 32)) > 0.9
    overall = fit.scale_tril[:, -3] @ fit.scale_tril[:, -3].transpose(0, 2, 1)
    assert np.abs(fit.loc[:, -3] - mean).max() < 0.4 * np.sqrt(np.diag(covariance).min())
    np.testing.assert_allclose(overall.mean(0), 1.2 * covariance, rtol=0.1, atol=0.005)
    np.testing.assert_allclose(np.exp(fit.log_share).sum(1), 1.0)


def test_more_draws_tighten_the_bound(engine: Engine) -> None:
    """Burda et al. (2016), theorem 1: L_1 <= L_5 <= L_50 <= log p(x), and L_1 is the lower bound."""
    problem = Problem(engine, k=3)
    target = problem.at_posterior(0.6)
    bounds = [k_sample_bound(target, engine.key(k), k, repeats=100).mean() for k in (1, 5, 50)]
    one, stderr = elbo(target, engine.key(9), 100).mean()
    assert abs(bounds[0][0] - one) < 4 * np.hypot(stderr, bounds[0][1])
    values = [value for value, _ in bounds]
    assert values[0] < values[1] < values[2] < problem.truth.mean() + 3 * bounds[2][1]


def test_a_small_memory_cuts_the_work_and_keeps_the_numbers(numpyro: Engine) -> None:
    problem = Problem(numpyro)
    whole, cut = (
        importance(problem.at_q(), ImportanceSettings(proposal="q", importance_samples=300, max_memory=memory), 4)
        for memory in (1e9, 1e5)
    )
    error = np.hypot(whole.stderr, cut.stderr)
    assert len(cut.value) == 60 and np.mean(np.abs(whole.value - cut.value) < 3 * error) > 0.95


# Annealing


def test_the_schedule_is_dense_at_both_ends() -> None:
    b = schedule(100)
    assert b[0] == 0 and b[-1] == 1 and len(b) == 101 and np.all(np.diff(b) > 0)
    np.testing.assert_allclose(b, 1 - b[::-1], atol=1e-12)
    assert np.diff(b)[0] < 0.2 * np.diff(b)[50]


@pytest.mark.parametrize("start", ["prior", "recognition"])
def test_annealing_finds_the_truth(engine: Engine, start: str) -> None:
    """At the default 200 temperatures and 16 chains, for which its flag is made: it takes 8 chains for few indeed."""
    problem = Problem(engine)
    found = annealed(problem.at_q(), AnnealedSettings(start=start), 1)
    value, stderr = found.mean()
    # The log of a mean of 16 weights lies half their relative variance / 16 too low.
    assert found.diagnostics is not None
    low = 0.5 * np.mean(np.expm1(found.diagnostics["spread"] ** 2)) / 16
    assert -4 * stderr - 2 * low < value - problem.truth.mean() < 4 * stderr
    assert np.mean(np.abs(found.value - problem.truth) < 1.96 * found.stderr) > 0.85 and found.flagged < 0.2


def test_one_temperature_is_importance_sampling_from_the_start(numpyro: Engine) -> None:
    """From the exact posterior, its twin at the prior beside it: w = p(x) / (1/2 + p(z) / 2 p(z | x)) <= 2 p(x)."""
    problem = Problem(numpyro)
    settings = AnnealedSettings(start="recognition", temperatures=1, annealed_chains=200)
    found = annealed(problem.at_posterior(), settings, 1)
    close(found, problem.truth)
    assert np.all(found.value <= problem.truth + np.log(2) + 2e-3)


def test_too_few_temperatures_are_flagged(numpyro: Engine) -> None:
    problem = Problem(numpyro, k=10)
    found = annealed(problem.target, AnnealedSettings(temperatures=5), 1)
    error = np.abs(found.value - problem.truth)
    assert found.diagnostics is not None and error.mean() > 1
    assert found.diagnostics["flagged"][error > 0.5].mean() > 0.95


@pytest.mark.parametrize(("on", "scale"), [("pyro", 0.5), ("numpyro", 0.003)])
def test_a_sandwich_holds_the_closed_form(engines: dict[str, Engine], on: str, scale: float) -> None:
    """Also where posteriors are hundredths of the prior wide, which annealing does not reach."""
    engine = engines[on]
    target, settings = Problem(engine, k=10).target, ImportanceSettings(importance_samples=2000)
    target = target._replace(theta={**target.theta, "log_scale": engine.array(np.log(scale))})
    x, z = simulate(engine, target.model, target.theta, 60, engine.key(3))
    target = target._replace(x=x)
    truth = exact(target).value
    found = sandwich(target, z, settings)
    assert (np.abs(found.value - truth) < 0.01 + 4 * found.stderr).all() and (found.stderr < 0.05).all()
    diagnostics = found.diagnostics or {}
    assert np.abs(diagnostics["gap"]).max() < 0.05
    with pytest.raises(ValueError, match=r"sandwich needs the z .* \[60, "):
        sandwich(target, z[:5], settings)


def test_bounds_hold_the_truth_between_them() -> None:
    """Of q = N(0, 4) and p = c N(0, 1), many times over: below and above log c, whatever single weights say."""
    rng = np.random.default_rng(0)
    count, repeats, log_c = 5, 20_000, 1.7
    z, exact = 2.0 * rng.standard_normal((count, repeats)), rng.standard_normal(repeats)

    def log_w(z: np.ndarray) -> np.ndarray:
        return np.asarray(log_c - 0.5 * z**2 + 0.5 * (z / 2) ** 2 + np.log(2.0))

    lower, upper, _ = bounds(log_w(z), log_w(exact))
    error = (lower.std() + upper.std()) / np.sqrt(repeats)
    assert lower.mean() < log_c - 4 * error and upper.mean() > log_c + 4 * error
    # The density of one way of drawing against the other is R / c: its mean is one.
    assert np.exp(lower - log_c).mean() == pytest.approx(1.0, abs=5 * np.exp(lower - log_c).std() / np.sqrt(repeats))


def test_a_mode_that_no_draw_of_q_meets_opens_the_bounds() -> None:
    lower, upper, _ = bounds(np.zeros((100, 1)), np.array([20.0]))
    assert lower[0] == 0.0 and upper[0] == pytest.approx(20.0 - np.log(100), abs=1e-3)


def test_two_bounds_hold_the_truth_between_them(engine: Engine) -> None:
    problem = Problem(engine, k=10)
    x, z = simulate(engine, problem.model, problem.target.theta, 60, engine.key(5))
    target = problem.target._replace(x=x)
    truth = exact(target).value
    found = bidirectional(target, z, AnnealedSettings(temperatures=100, annealed_chains=32))
    assert found.diagnostics is not None
    lower, upper = found.diagnostics["lower"], found.diagnostics["upper"]
    noise = 4 * (truth - lower).std() / np.sqrt(len(truth))
    assert lower.mean() < truth.mean() + noise and truth.mean() < upper.mean() + noise
    assert 0 < found.diagnostics["gap"].mean() < 1.0
    assert abs((found.value - truth).mean()) < 0.5 * found.diagnostics["gap"].mean() + noise
    assert np.mean(np.abs(found.value - truth) < 1.96 * found.stderr) > 0.9


def test_simulated_data_have_the_models_moments(engine: Engine) -> None:
    problem = Problem(engine)
    x, z = (engine.numpy(a) for a in simulate(engine, problem.model, problem.target.theta, 20_000, engine.key(6)))
    covariance = problem.theta["w"].T @ problem.theta["w"] + 0.25 * np.eye(8)
    assert np.abs(z.mean(0)).max() < 0.04 and np.abs(np.cov(z.T) - np.eye(2)).max() < 0.05
    np.testing.assert_allclose(np.cov(x.T), covariance, atol=0.12)


@pytest.mark.parametrize("name", ["annealed", "appendix_d"])
def test_a_start_that_is_not_there_is_refused(numpyro: Engine, name: str) -> None:
    with pytest.raises(ValueError, match="start prior"):
        estimate(name, Problem(numpyro).target, JudgeSettings(start="recognition"), 0)


def two_modes(engine: Engine, likeness: float) -> tuple[Target, np.ndarray]:
    """A decoder that folds z_1, and so two modes far apart: the target, and how much of p(z | x) has z_1 > 0, [n].

    Both sides decode to the same at likeness 1.
    """
    sign = np.random.default_rng(3).choice([-1.0, 1.0], 40)
    theta = {"w1": np.array([[4.0, -4.0, 0.0], [0.0, 0.0, 1.5]]), "b1": np.array([-4.0, -4.0, 0.0])}
    theta |= {"w2": np.array([3.0, 3.0 * likeness, 1.0])[:, None] * sign, "b2": np.zeros(40)}
    z = np.stack([np.where(np.arange(40) % 2, 1.3, -1.2), np.linspace(-1, 1, 40)], 1)
    x, _ = oracles.mean_and_variance("vae_bernoulli", theta, z)
    line = np.linspace(-4.5, 4.5, 150)
    grid = np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 1, 2)
    joint = oracles.log_joint("vae_bernoulli", theta, grid, x)
    right = np.exp(special.logsumexp(joint[grid[:, 0, 0] > 0], axis=0) - special.logsumexp(joint, axis=0))
    placed = {name: engine.array(value) for name, value in theta.items()}
    return Target(engine, VaeBernoulli(40, 2, 3), placed, engine.array(x)), right


def test_annealed_chains_find_each_mode_by_its_mass(numpyro: Engine) -> None:
    target, right = two_modes(numpyro, 0.85)
    assert right.min() < 0.4 and right.max() > 0.6 and right.min() > 0.05 and right.max() < 0.95
    z = annealed_points(target, 0, 64)
    error = (z[..., 0] > 0).mean(0) - right
    assert abs(error.mean()) < 4 * error.std() / np.sqrt(len(error)) + 0.01 and error.std() < 0.12


def test_chains_stuck_in_a_mode_of_no_mass_are_told_from_annealed_ones(numpyro: Engine) -> None:
    """Half of the chains from the prior come to rest on the wrong side, where there is next to nothing."""
    target, right = two_modes(numpyro, 0.3)
    truth = quadrature(target, QuadratureSettings()).value
    one_sided = np.maximum(right, 1 - right) > 0.999
    assert one_sided.mean() >= 0.5

    def error(name: str, start: str) -> np.ndarray:
        settings = JudgeSettings(proposal="hmc", start=start, hmc_chains=8, hmc_draws=100, hmc_warmup=100)
        return (estimate(name, target, settings, 0).value - truth)[one_sided]

    assert error("appendix_d", "prior").mean() < -0.5
    for name in ("appendix_d", "importance"):
        found = error(name, "annealed")
        assert abs(found.mean()) < 0.05 and np.median(np.abs(found)) < 0.1


def test_a_chain_that_hardly_moved_does_not_make_the_estimate_soar() -> None:
    """Draws that lie still while the density is fitted and move on when it is weighed: at most 13.8 nats too much."""
    rng = np.random.default_rng(0)
    z = np.zeros((50, 1, 2, 3))
    z[25:] = rng.standard_normal((25, 1, 2, 3))
    z[:25, :, 1] = 1e-9 * rng.standard_normal((25, 1, 3))
    log_likelihood = -150.0 - rng.random((50, 1, 2))
    log_joint = log_likelihood - 0.5 * (np.square(z).sum(-1) + 3 * np.log(2 * np.pi))
    drawn = Draws(z, log_joint, np.ones(2), np.ones(2))
    value, *_, flagged = averaged(drawn, AppendixDSettings())
    assert np.all(value <= log_likelihood[25:].max((0, 1)) + 13.9) and np.all(flagged)


@pytest.mark.parametrize("max_memory", [2e8])
def test_an_estimators_peak_stays_within_its_bound(max_memory: float, numpyro: Engine) -> None:
    """With 50 latent variables the draws of 600 datapoints, and what is reckoned of them, would take 1.4 GB."""
    problem = Problem(numpyro, k=50, n=600)
    settings = AppendixDSettings(
        hmc_draws=100, hmc_chains=4, hmc_warmup=10, hmc_leapfrog=2, force=True, max_memory=max_memory
    )
    judged = measured(partial(appendix_d, problem.target, settings))
    if np.isnan(judged.memory):
        pytest.skip("this system does not tell a process's peak memory")
    # The compiler takes some 200 MB of its own.
    assert judged.memory < max_memory + 2.5e8


# The paper's appendix D


@pytest.mark.parametrize("density", ["kde", "normal"])
def test_appendix_d_finds_the_truth_with_fresh_draws(engine: Engine, density: str) -> None:
    problem = Problem(engine)
    settings = AppendixDSettings(density=density, hmc_draws=300, hmc_chains=2, hmc_warmup=100, hmc_leapfrog=6)
    found = appendix_d(problem.target, settings, 1)
    close(found, problem.truth)
    assert found.flagged < 0.1


def test_draws_used_twice_make_it_too_low(numpyro: Engine) -> None:
    problem = Problem(numpyro, k=3)
    fresh, reused = (appendix_d(problem.target, AppendixDSettings(reuse_draws=again), 1) for again in (False, True))
    assert (reused.value - problem.truth).mean() < -0.4 < (fresh.value - problem.truth).mean() < 0.4


def test_appendix_d_refuses_many_latent_variables_unless_forced(numpyro: Engine) -> None:
    problem = Problem(numpyro, k=30, n=20)
    with pytest.raises(ValueError, match=r"10 latent.*30.*force"):
        appendix_d(problem.target, AppendixDSettings())
    found = appendix_d(problem.target, AppendixDSettings(force=True))
    assert found.diagnostics is not None and found.flagged > 0.9 and np.isfinite(found.value).all()


def test_chains_that_never_move_are_flagged(numpyro: Engine) -> None:
    """An absurd noise scale leaves every proposal refused."""
    target = Problem(numpyro).target
    target = target._replace(theta={**target.theta, "log_scale": numpyro.array(-12.0)})
    found = appendix_d(target, AppendixDSettings(hmc_warmup=0))
    assert found.flagged == 1.0


def test_a_kernel_density_integrates_to_one_and_explains_its_draws() -> None:
    rng = np.random.default_rng(0)
    fit = rng.standard_normal((100, 2, 1)) * 0.3 + 5.0
    z = np.linspace(2, 8, 4001)[:, None]
    log_q, bandwidth, singular = kde(fit, z)
    assert np.exp(log_q).sum() * (z[1, 0] - z[0, 0]) == pytest.approx(1.0, abs=1e-6)
    assert 0.05 < bandwidth < 1.0 and not singular
    library = stats.gaussian_kde(fit.reshape(-1), bandwidth).logpdf(z[::400, 0])
    np.testing.assert_allclose(log_q[::400], library, rtol=1e-6, atol=1e-6)


def test_a_normal_density_is_scipys() -> None:
    rng = np.random.default_rng(0)
    fit = rng.standard_normal((50, 2, 3)) @ np.array([[1.0, 0.5, 0.0], [0.0, 0.3, 0.2], [0.0, 0.0, 2.0]])
    z = rng.standard_normal((10, 3))
    flat = fit.reshape(-1, 3)
    expected = stats.multivariate_normal(flat.mean(0), np.cov(flat.T)).logpdf(z)
    np.testing.assert_allclose(normal(fit, z)[0], expected, rtol=1e-9)
    assert normal(np.ones((20, 1, 3)), z)[2] and not normal(fit, z)[2]


# All of them


@pytest.mark.parametrize("name", ESTIMATORS)
def test_both_engines_judge_alike(name: str) -> None:
    """The same theta and x: within 3 standard errors, and 0.002 nat for what has no noise."""
    found = []
    for each in ENGINES:
        problem = Problem(inference.engine(each, "cpu", 1), k=3, n=40)
        found.append(estimate(name, problem.at_q(), CHEAP, 1))
    error = np.sqrt(np.sum(np.square(found[0].stderr) + np.square(found[1].stderr)))
    difference = found[0].value - found[1].value
    if found[0].systematic:
        assert np.abs(difference).max() < 2e-3
    else:
        assert abs(difference.sum()) < 3 * error


@pytest.mark.parametrize("k", [1, 2, 3])
def test_quadrature_is_exact_to_a_thousandth_of_a_nat(engine: Engine, k: int) -> None:
    problem = Problem(engine, k=k, n=200)
    found = quadrature(problem.target, QuadratureSettings(tolerance=0.01))
    assert np.abs(found.value - problem.truth).max() < 1e-3


@pytest.mark.parametrize("name", ["importance", "annealed", "appendix_d"])
def test_the_same_seed_gives_the_same_numbers(numpyro: Engine, name: str) -> None:
    problem = Problem(numpyro, k=3, n=40)  # as in the test before: compiled once
    one, again, other = (estimate(name, problem.at_q(), CHEAP, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.value, again.value)
    assert np.any(one.value != other.value)


@pytest.mark.parametrize("name", ["importance", "annealed", "appendix_d"])
def test_intervals_cover(numpyro: Engine, name: str) -> None:
    """200 repetitions of 5 datapoints: the 95 % intervals cover 90 to 99 %, and the bias is below 0.1 nat."""
    problem = Problem(numpyro, k=3, n=5)
    target = problem.target._replace(x=numpyro.array(np.tile(problem.x, (200, 1))))
    settings = JudgeSettings(
        proposal="hmc",
        importance_samples=1000,
        temperatures=200,
        hmc_draws=200,
        hmc_chains=4,
        hmc_warmup=200,
        hmc_leapfrog=10,
    )
    found = estimate(name, target, settings, 7)
    row = scored(Judged(found, 0.0, 0.0), np.tile(problem.truth, 200), 200)
    assert abs(row["bias"]) < 0.1 and 0.90 <= row["coverage"] <= 0.99 and row["flagged"] < 0.1


def test_scores_say_what_was_flagged() -> None:
    truth = np.zeros(4)
    flagged = np.array([False, True, False, True])
    found = Estimate(np.array([0.1, 2.0, -1.0, 0.0]), np.full(4, 0.1), diagnostics={"flagged": flagged})
    row = scored(Judged(found, 2.0, 5e6), truth)
    assert row["bias"] == pytest.approx(1.1 / 4) and row["bias_trusted"] == pytest.approx(-0.45)
    assert (row["bad"], row["bad_flagged"], row["flagged"], row["coverage"]) == (0.5, 0.5, 0.5, 0.5)
    assert (row["seconds_per_1000"], row["peak_megabytes"]) == (500.0, 5.0)


def test_a_truth_that_is_not_known_judges_nobody() -> None:
    """Points without one are left out, not counted as bad or as covered; a truth's own error counts for coverage."""
    found = Estimate(
        np.array([1.0, 2.0, 3.0, 9.0]), np.full(4, 0.1), diagnostics={"flagged": np.array([0, 0, 1, 1]) > 0}
    )
    row = scored(Judged(found, 4.0, 0.0), np.array([1.1, np.nan, 4.0, np.nan]))
    assert row["n_points"] == 2 and row["unknown"] == 0.5 and row["bad"] == 0.5 and row["bad_flagged"] == 1.0
    assert row["bias"] == pytest.approx(-0.55) and row["coverage"] == 0.5 and row["seconds_per_1000"] == 1000.0
    wider = scored(Judged(found, 4.0, 0.0), np.array([1.1, np.nan, 4.0, np.nan]), truth_error=np.full(4, 0.6))
    assert wider["coverage"] == 1.0
    nothing = scored(Judged(found, 4.0, 0.0), np.full(4, np.nan))
    assert np.isnan([nothing[name] for name in ("bias", "coverage", "bad")]).all() and nothing["unknown"] == 1.0
    assert nothing["estimate"] == 3.75


def test_what_is_measured_is_run_again_without_compilation() -> None:
    calls = []

    def run() -> Estimate:
        calls.append(1)
        return Estimate(np.zeros(2), np.zeros(2))

    judged = measured(run)
    assert len(calls) == 2 and judged.seconds < 1 and (np.isnan(judged.memory) or judged.memory >= 0)


def test_pairs_are_as_wide_as_the_widest_layer() -> None:
    assert pairs_within(4e6, VaeBernoulli(784, 2, 10)) * 784 * 4 <= 4e6 and pairs_within(1.0, LinearGaussian(9, 2)) == 1
    assert pairs_within(4e6, VaeBernoulli(8, 2, 500)) == pairs_within(4e6, VaeBernoulli(500, 2, 8))  # the widest layer
