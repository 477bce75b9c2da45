"""Estimates of log p(x) at default settings, where they are hard: nothing is wrong by more than it says, unflagged."""

import misleading
import numpy as np
import pytest
from misleading import Hostile, Problem
from scipy import stats
from scipy.special import logsumexp

from comparisons.evidence.annealed import AnnealedSettings, annealed
from comparisons.evidence.base import Estimate, Target
from comparisons.evidence.importance import _judged as judged
from comparisons.evidence.judge import JudgeSettings, estimate
from comparisons.evidence.means import log_mean_exp, skewed_error
from comparisons.evidence.proposals import BROAD, CHAINS, Mixture
from comparisons.evidence.proposals import _components as components
from inference.base import Engine, Posterior
from models.base import Array, Ppl

MODELS = sorted({misleading.model(name) for name in misleading.TABLE}, key=str)


def dishonest(found: Estimate, truth: np.ndarray) -> np.ndarray:
    """Which datapoints are off by more than 0.1 nat and four stated errors, without a flag, [n]."""
    off = ~(np.abs(found.value - truth) <= 0.1 + 4.0 * found.stderr)
    return np.asarray(off & ~found.doubtful)


def on(engine: Engine, problem: Problem) -> Target:
    theta = {name: engine.array(value) for name, value in problem.theta.items()}
    return Target(engine, problem.model, theta, engine.array(problem.x))


def judge(name: str, engine: Engine, problem: Problem) -> Estimate:
    """Run an estimator at default settings."""
    return estimate(name, on(engine, problem), JudgeSettings(), 0)


# The hostile set


def test_the_set_is_large_and_its_truth_is_the_models(engine: Engine) -> None:
    """log p(x) from draws of z in the model's own words agrees with the sum of integrals, where draws can tell."""
    assert len(misleading.TABLE) >= 20 and {model.n_latent for model in MODELS} == {2, 3, 4}
    for name in ("modes of unequal mass", "a funnel", "a saturated step"):
        problem = misleading.problem(name)
        k = problem.model.n_latent
        z = np.broadcast_to(np.random.default_rng(0).standard_normal((20_000, 1, k)), (20_000, len(problem.x), k))
        log_joint = engine.numpy(on(engine, problem).log_joint(engine.array(z)))
        value, error = log_mean_exp(log_joint.astype(np.float64) - stats.norm.logpdf(z).sum(-1))
        seen = error < 0.1
        assert seen.sum() >= 6 and np.all(np.abs(value - problem.truth)[seen] < 4.0 * error[seen] + 1e-3)


# An estimator knows its engine by draws and by log p(x, z): one engine is asked all, the other some.
ALL, SOME = "numpyro", "pyro"
OF_A_FAMILY = {model.family: model for model in MODELS}.values()


@pytest.mark.parametrize(
    ("model", "by"), [*((each, ALL) for each in MODELS), *((each, SOME) for each in OF_A_FAMILY)], ids=str
)
def test_importance_is_honest(engines: dict[str, Engine], model: Hostile, by: str) -> None:
    """The default beyond three latent variables, and on two and three: on every kind of model that the set holds."""
    of_model = [name for name in misleading.TABLE if misleading.model(name) == model]
    problem = misleading.together([misleading.problem(name) for name in of_model])
    found = judge("importance", engines[by], problem)
    names = np.repeat(problem.name.split("; "), misleading.POINTS)
    assert not dishonest(found, problem.truth).any(), names[dishonest(found, problem.truth)]
    error = np.abs(found.value - problem.truth)
    trusted = ~found.doubtful
    assert found.flagged < 0.15 and np.mean(error[trusted] <= 1.96 * found.stderr[trusted]) >= 0.9
    assert np.median(error) < 0.05


SMALL = [name for name, (_, shapes, *_) in misleading.TABLE.items() if len(shapes) <= 3]


@pytest.mark.parametrize(("name", "by"), [*((each, ALL) for each in SMALL), *((each, SOME) for each in SMALL[::5])])
def test_quadrature_is_honest(engines: dict[str, Engine], name: str, by: str) -> None:
    """The default up to three latent variables."""
    problem = misleading.problem(name)
    found = judge("quadrature", engines[by], problem)
    assert not dishonest(found, problem.truth).any()


# Modes that are not met


def one_sided(ppl: Ppl, loc: Array) -> None:
    """Sample z around loc [n, k], with a standard deviation of 0.15."""
    with ppl.plate("data", loc.shape[0]):
        ppl.sample("z", ppl.dist.Normal(loc, 0.0 * loc + 0.15).to_event(1))


def test_annealing_from_a_q_that_leaves_out_a_mode_finds_it_or_says_so(engine: Engine) -> None:
    """Half of the chains start at the prior. From q alone log p(x) would be 0.7 nat low, and all weights alike."""
    problem = misleading.problem("mirrors")
    # The mode of one sign: x_1 is u_1 squared, and u_2 is free.
    loc = (
        np.stack([np.sqrt(np.maximum(problem.x[:, 0], 0.0)), np.zeros(len(problem.x))], 1) @ problem.theta["rotation"].T
    )
    q = Posterior(one_sided, (engine.array(loc),))
    found = annealed(on(engine, problem)._replace(q=q), AnnealedSettings(start="recognition", temperatures=50))
    assert not dishonest(found, problem.truth).any()
    two = np.abs(problem.x[:, 0]) > 0.5  # modes apart
    trusted = two & ~found.doubtful
    assert np.abs((found.value - problem.truth)[trusted]).max(initial=0.0) < 0.6


def gaussians(chains: list[int], apart: float, draws: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Draws [1, chains, draws, 2] of chains on islands in a row, so many each, with mean log p(x, z) [1, chains]."""
    rng = np.random.default_rng(0)
    centre = np.repeat(np.arange(len(chains)) * apart, chains)
    z = 0.1 * rng.standard_normal((1, len(centre), draws, 2))
    z[..., 0] += centre[None, :, None]
    return z, np.zeros((1, len(centre)))


def test_chains_that_lie_apart_are_islands() -> None:
    for apart, islands in ((0.0, 1), (0.2, 1), (2.0, 3)):
        share, loc, factor, chains = components(*gaussians([20, 8, 4], apart))
        assert np.isfinite(share[0, :-BROAD]).sum() == islands
        assert sorted(chains[0, :-BROAD][np.isfinite(share[0, :-BROAD])]) == ([4, 8, 20] if islands == 3 else [32])
        np.testing.assert_allclose(np.exp(share).sum(), 1.0)
        assert np.isfinite(loc).all() and np.isfinite(factor).all()


def test_chains_that_never_move_are_islands_each() -> None:
    z = np.repeat(np.random.default_rng(0).standard_normal((1, CHAINS, 1, 2)), 40, 2)
    share, _, factor, chains = components(z, np.zeros((1, CHAINS)))
    assert np.all(chains[0, :-BROAD] == 1) and np.isfinite(factor).all() and np.isfinite(share[0, :5]).all()


def mixture(chains: list[int], annealed_value: float = -100.0) -> Mixture:
    share, loc, factor, count = components(*gaussians(chains, 30.0))
    return Mixture(share, loc, factor, count, np.array([annealed_value]), np.array([0.1]))


def of_two_needles(fit: Mixture) -> tuple[np.ndarray, np.ndarray]:
    """log p(x, z) of two normals of equal mass, 30 apart and 0.1 wide, at draws from the fit, and its densities."""
    z = fit.draw(np.random.default_rng(1), 1000)
    needles = [stats.norm.logpdf(z, [at, 0.0], 0.1).sum(-1) - np.log(2) for at in (0.0, 30.0)]
    return logsumexp(needles, axis=0), fit.log_parts(z)


def test_a_mixture_is_scipys_and_integrates_the_target() -> None:
    fit = mixture([16, 16])
    z = fit.draw(np.random.default_rng(1), 1000)
    parts = [
        share + stats.multivariate_normal(loc, factor @ factor.T).logpdf(z[:, 0])
        for share, loc, factor in zip(fit.log_share[0], fit.loc[0], fit.scale_tril[0], strict=True)
    ]
    np.testing.assert_allclose(fit.log_parts(z)[:, :, 0], parts, rtol=1e-6, atol=1e-6)
    value, stderr, *_, unseen = judged(fit, *of_two_needles(fit))
    assert abs(value[0]) < 4 * stderr[0] and not unseen[0]


def test_what_chains_have_hardly_met_is_flagged() -> None:
    """One chain of 32 has found one of two needles; and where all have missed it, the annealed chains' value tells."""
    met = judged(mixture([31, 1]), *of_two_needles(mixture([31, 1])))
    assert met[4][0] > 0.4 and met[5][0]
    missed = mixture([32])
    log_joint, parts = of_two_needles(missed)
    assert abs(judged(missed, log_joint, parts)[0][0] + np.log(2)) < 0.1  # half the mass, and nothing to see
    assert judged(mixture([32], annealed_value=0.5), log_joint, parts)[5][0]


# Errors of skew weights


@pytest.mark.parametrize("spread", [0.1, 0.7, 1.0, 2.0])
@pytest.mark.parametrize("m", [8, 16])
def test_the_error_of_few_skew_weights_covers(m: int, spread: float) -> None:
    log_w = np.random.default_rng(0).normal(-0.5 * spread**2, spread, (m, 4000))
    assert 0.93 <= np.mean(np.abs(log_mean_exp(log_w)[0]) <= 1.96 * skewed_error(log_w)) <= 0.99
