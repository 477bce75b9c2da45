"""What a q(z | x) uses, against closed forms: the KL term of the bound, and the number of active latent variables."""

import numpy as np
import oracles
import pytest

from comparisons.evidence import elbo as elbo_module
from comparisons.evidence.base import Target
from comparisons.evidence.elbo import elbo
from comparisons.evidence.latents import active, use
from inference.base import Engine, Posterior, repeated
from models.base import Array, Ppl
from models.linear_gaussian import LinearGaussian

N, D = 300, 8


def normals(ppl: Ppl, loc: Array, scale: Array) -> None:
    with ppl.plate("data", loc.shape[0]):
        ppl.sample("z", ppl.dist.Normal(loc, scale).to_event(1))


def spread(*variances: float, n: int = N, seed: int = 0) -> np.ndarray:
    """Means of q [n, k] with exactly these variances over x."""
    loc = np.random.default_rng(seed).standard_normal((n, len(variances)))
    return (loc - loc.mean(0)) / loc.std(0) * np.sqrt(variances)


def problem(engine: Engine, loc: np.ndarray, scale: float) -> tuple[Target, dict[str, np.ndarray], np.ndarray]:
    """linear_gaussian under q = N(loc, scale^2), with its theta and x in float64."""
    rng = np.random.default_rng(1)
    k = loc.shape[1]
    theta = {"w": rng.standard_normal((k, D)), "b": rng.standard_normal(D), "log_scale": np.array(-0.5)}
    theta = {name: value.astype(np.float32) for name, value in theta.items()}
    x = rng.standard_normal((len(loc), D)).astype(np.float32)
    q = Posterior(normals, (engine.array(loc), engine.array(np.full(loc.shape, scale))))
    held = {name: engine.array(value) for name, value in theta.items()}
    return Target(engine, LinearGaussian(D, k), held, engine.array(x), q), oracles.float64(theta), x.astype(float)


@pytest.mark.parametrize("scale", [0.3, 1.0, 1.7])
def test_the_kl_term_is_its_closed_form_within_its_error(engine: Engine, scale: float) -> None:
    loc = spread(1.0, 0.5, 4.0)
    target, *_ = problem(engine, loc, scale)
    found, truth = use(target, engine.key(0), 400).kl, oracles.kl_to_standard_normal(loc, np.full(loc.shape, scale))
    z = (found.value - truth) / found.stderr
    assert np.abs(z).max() < 5 and 0.8 < z.std() < 1.2
    mean, stderr = found.mean()
    assert abs(mean - truth.mean()) < 4 * stderr and stderr < 0.02 and found.points == N


def test_the_bound_and_its_kl_term_are_of_one_set_of_draws(engine: Engine) -> None:
    """Their sum is the mean of log p(x | z) over the same draws, to rounding."""
    target, theta, x = problem(engine, spread(1.0, 0.5), 0.4)
    key, draws = engine.key(3), 50
    z = engine.draw(engine.fold_in(key, 0), repeated(normals, draws), *target.posterior.args)["z"]
    scores = oracles.LOG_LIKELIHOOD["linear_gaussian"](theta, engine.numpy(z).astype(float), x)
    total = elbo(target, key, draws).value + use(target, key, draws).kl.value
    np.testing.assert_allclose(total, scores.mean(0), rtol=1e-5, atol=1e-3)


def test_draws_in_parts_give_the_same_within_their_error(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    target, *_ = problem(engine, spread(1.0, 0.003), 0.4)
    whole = use(target, engine.key(4), 820)
    monkeypatch.setattr(elbo_module, "CHUNK", 800 * N * 2)  # parts of 800 and 20 draws
    cut = use(target, engine.key(4), 820)
    z = (cut.kl.value - whole.kl.value) / np.hypot(cut.kl.stderr, whole.kl.stderr)
    assert np.abs(z).max() < 5 and np.any(z != 0) and cut.active.value == whole.active.value == 1


@pytest.mark.parametrize("draws", [20, 200])
def test_latents_are_active_whose_mean_moves_with_x(engine: Engine, draws: int) -> None:
    """On either side of Burda's 0.01, with draws whose scatter alone, 1 / draws, is above it or below."""
    loc = spread(1.0, 0.03, 0.003, 0.0, 0.0, n=5000)
    loc[:, 4] += 3.0  # far from the prior, and the same for every x
    target, *_ = problem(engine, loc, 1.0)
    found = use(target, engine.key(1), draws)
    assert found.active.mean() == pytest.approx((2.0, 0.0), abs=0.05) and found.active.points == 5000
    assert found.kl.mean()[0] > 4.5  # of the fourth latent alone


def test_a_q_that_is_the_prior_uses_nothing(engine: Engine) -> None:
    target, *_ = problem(engine, np.zeros((1000, 3)), 1.0)
    kl, count = use(target, engine.key(2), 20)
    np.testing.assert_allclose(kl.value, 0.0, atol=1e-5)
    assert count.value == 0 and count.stderr < 0.05


def test_a_count_has_an_error_where_a_latent_is_near_the_threshold() -> None:
    """400 repeats of 20 draws: A_u is without bias, and a latent on the threshold is counted in half of them."""
    loc, rng, draws = spread(0.01, 1.0, 0.0, n=2000), np.random.default_rng(0), 20
    found = []
    for _ in range(400):
        z = loc + rng.standard_normal((draws, *loc.shape)).astype(np.float32)
        found.append(active(z.mean(0), z.var(0, ddof=1) / draws))
    counts, errors = np.array([one.mean() for one in found]).T
    assert set(counts) == {1.0, 2.0} and abs(counts.mean() - 1.5) < 0.1
    assert 0.35 < np.sqrt(np.square(errors).mean()) <= 0.5  # the counts' own scatter is 0.5
    assert active(loc[:, 1:], np.full((2000, 2), 1e-4)).stderr < 1e-6


def test_what_has_no_q_uses_nothing_that_can_be_said(engine: Engine) -> None:
    with pytest.raises(ValueError, match="no q"):
        use(problem(engine, spread(1.0), 1.0)[0]._replace(q=None), engine.key(0), 20)
