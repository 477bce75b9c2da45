"""The plain methods against finite differences, against the backends at the same draws, and after short runs."""

import numpy as np
import oracles
import plain
import pytest
from scipy import special

from comparisons.data import load
from comparisons.runner.training import training
from inference import AllSettings
from inference.base import Batch, Engine, arrays, join, numpys, pick
from models.vae import OneHiddenLayer, VaeBernoulli, VaeGaussian

MODELS = {"vae_bernoulli": VaeBernoulli(6, 2, 4), "vae_gaussian": VaeGaussian(6, 2, 4)}
N = 5


def drawn(model: OneHiddenLayer) -> tuple[plain.Gradients, plain.Gradients, np.ndarray, np.ndarray]:
    """Return theta, phi, x [N, 6] and noise [N, 2] away from the flat start, in float64."""
    rng = np.random.default_rng(0)
    theta, phi = ({n: rng.normal(0, 0.5, v.shape) for n, v in group.items()} for group in model.init(0))
    return theta, phi, rng.random((N, 6)), rng.standard_normal((N, 2))


def same(found: plain.Values, expected: plain.Values, tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("name", MODELS)
def test_the_density_is_the_papers(name: str) -> None:
    theta, _, x, z = drawn(MODELS[name])
    np.testing.assert_allclose(plain.log_joint(theta, z, x), oracles.log_joint(name, theta, z, x), rtol=1e-10)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("factor", [1.0, 0.1])
def test_gradients_by_hand_are_finite_differences(name: str, factor: float) -> None:
    theta, phi, x, noise = drawn(MODELS[name])

    def bound(theta: plain.Values, phi: plain.Values) -> float:
        _, loc, log_variance = plain.encode(phi, x, factor)
        scale = np.exp(0.5 * log_variance)
        likelihood = oracles.LOG_LIKELIHOOD[name](theta, loc + scale * noise, x)
        return float((likelihood - oracles.kl_to_standard_normal(loc, scale)).sum())

    of_theta, of_phi = plain.aevb_gradient(theta, phi, x, noise, factor)
    same(of_theta, oracles.finite_differences(lambda at: bound(at, phi), theta), 1e-6)
    same(of_phi, oracles.finite_differences(lambda at: bound(theta, at), phi), 1e-6)

    def asleep(phi: plain.Values) -> float:
        _, loc, log_variance = plain.encode(phi, x, factor)
        return float((-0.5 * (log_variance + (noise - loc) ** 2 * np.exp(-log_variance))).sum())

    same(plain.sleep_gradient(phi, noise, x, factor), oracles.finite_differences(asleep, phi), 1e-6)
    of_z = oracles.finite_differences(
        lambda at: float(oracles.LOG_LIKELIHOOD[name](theta, at["z"], x).sum()), {"z": noise}
    )
    np.testing.assert_allclose(plain.decoder_gradient(theta, noise, x)[1], of_z["z"], rtol=1e-6, atol=1e-6)


def test_the_gradient_of_full_vb_is_a_finite_difference() -> None:
    model = MODELS["vae_bernoulli"]
    loc, phi, x, z_noise = drawn(model)
    rng = np.random.default_rng(1)
    scale = {name: rng.normal(-1, 0.3, value.shape) for name, value in loc.items()}
    noises = [z_noise, rng.standard_normal((N, 4)), rng.standard_normal((N, 6))]

    def bound(loc: plain.Values, scale: plain.Values, phi: plain.Values) -> float:
        mean, deviation = oracles.q_moments("vae_bernoulli", phi, x)
        z = mean + deviation * noises[0]
        variance = {name: np.exp(2 * value) for name, value in scale.items()}
        units = np.tanh(z @ loc["w1"] + loc["b1"] + np.sqrt(z**2 @ variance["w1"] + variance["b1"]) * noises[1])
        logits = units @ loc["w2"] + loc["b2"] + np.sqrt(units**2 @ variance["w2"] + variance["b2"]) * noises[2]
        likelihood = (x * special.log_expit(logits) + (1 - x) * special.log_expit(-logits)).sum()
        of_weights = sum(0.5 * (loc[n] ** 2 + variance[n] - 1 - 2 * scale[n]).sum() for n in loc)
        return float(likelihood - oracles.kl_to_standard_normal(mean, deviation).sum() - 0.3 * of_weights)

    of_loc, of_scale, of_phi = plain.full_vb_gradient(loc, scale, phi, x, noises, 0.3)
    same(of_loc, oracles.finite_differences(lambda at: bound(at, scale, phi), loc), 1e-6)
    same(of_scale, oracles.finite_differences(lambda at: bound(loc, at, phi), scale), 1e-6)
    same(of_phi, oracles.finite_differences(lambda at: bound(loc, scale, at), phi), 1e-6)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("factor", [1.0, 0.1])
def test_the_engines_have_the_same_gradients(engine: Engine, name: str, factor: float) -> None:
    """At the same theta, phi, z and noise, on both engines, by their own differentiation of the models' programs."""
    small = MODELS[name]
    model = type(small)(small.n_x, small.n_latent, small.n_hidden, log_variance_factor=factor)
    theta, phi, x, noise = drawn(model)
    xp, x_there, z_there = engine.ppl.xp, engine.array(x), engine.array(noise)

    def bound(params: dict[str, object]) -> object:
        conditional = engine.conditional(model.recognition, "z", {"z": z_there}, pick(params, "phi"), x_there)
        normal = conditional.base_dist
        z = normal.loc + normal.scale * z_there
        likelihood = engine.conditional(model.generative, "x", {"z": z, "x": x_there}, pick(params, "theta"), N)
        kl = 0.5 * (normal.loc**2 + normal.scale**2 - 1 - 2 * xp.log(normal.scale))
        return likelihood.log_prob(x_there).sum() - kl.sum()

    params = arrays(engine, join(theta=theta, phi=phi))
    of_theta, of_phi = plain.aevb_gradient(theta, phi, x, noise, factor)
    found = numpys(engine, engine.value_and_grad(bound)(params)[1])
    same(found, join(theta=of_theta, phi=of_phi), 2e-5)

    def phases(params: dict[str, object]) -> object:
        awake = engine.log_prob(model.generative, {"z": z_there, "x": x_there}, pick(params, "theta"), N)
        asleep = engine.log_prob(model.recognition, {"z": z_there}, pick(params, "phi"), x_there)
        return awake.sum() + asleep.sum()

    found = numpys(engine, engine.value_and_grad(phases)(params)[1])
    of_theta = plain.decoder_gradient(theta, noise, x)[0]
    same(found, join(theta=of_theta, phi=plain.sleep_gradient(phi, noise, x, factor)), 2e-5)


def test_log_px_is_that_of_a_grid() -> None:
    """Two latent variables, a decoder with narrow and separate modes: brute force on a grid of spacing 0.02."""
    rng = np.random.default_rng(3)
    spreads = {"w1": (2.0, (2, 20)), "b1": (1.0, (20,)), "w2": (1.5, (20, 60)), "b2": (1.0, (60,))}
    theta = {name: rng.normal(0, spread, shape) for name, (spread, shape) in spreads.items()}
    x = plain.dream(theta, rng.standard_normal((10, 2)), rng)
    axis = np.arange(-5.5, 5.5, 0.02)
    z = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    logits = plain.decode(theta, z).logits
    scores = x @ logits.T - np.logaddexp(0, logits).sum(1) - 0.5 * (z**2).sum(1) - np.log(2 * np.pi)
    truth = special.logsumexp(scores, axis=1) + 2 * np.log(0.02)
    found = plain.log_px(theta, x, rng, draws=2000, seeds=5000)
    assert np.abs(found.value - truth).max() < 0.1
    assert (np.abs(found.value - truth) < 4 * found.stderr + 0.005).mean() >= 0.9
    assert (found.effective > 100).all()


def test_hmc_by_hand_samples_the_posterior() -> None:
    """Moments of 4000 chains after 60 moves against a grid: within 5 standard errors."""
    rng = np.random.default_rng(0)
    theta = {
        "w1": np.array([[1.0, -0.5]]),
        "b1": np.array([0.2, 0.0]),
        "w2": rng.normal(0, 1, (2, 5)),
        "b2": np.zeros(5),
    }
    x = np.tile(rng.random(5), (4000, 1))
    z = rng.standard_normal((4000, 1))
    for _ in range(60):
        z, acceptance = plain.hmc_move(theta, z, x, 0.25, 5, rng)
    grid = np.linspace(-8, 8, 4001)[:, None]
    weight = special.softmax(plain.log_joint(theta, grid, x[:1]))
    mean = (weight * grid[:, 0]).sum()
    variance = (weight * (grid[:, 0] - mean) ** 2).sum()
    assert abs(z.mean() - mean) < 5 * np.sqrt(variance / 4000)
    assert abs(z.var() - variance) < 5 * variance * np.sqrt(2 / 4000)
    assert acceptance > 0.9


SEEDS, M = 4, 50
STEPS = {"aevb": 600, "wake_sleep": 1500, "monte_carlo_em": 300}
DIGITS = VaeBernoulli(64, 2, 20)


@pytest.mark.parametrize("method", ["aevb", "wake_sleep", "monte_carlo_em"])
def test_short_runs_end_where_the_backends_end(engines: dict[str, Engine], method: str) -> None:
    """log p(x) of 60 digits after a short run, means over four seeds: within 4 standard errors of their difference.

    Both start at the same weights, ten times the usual, which shortens the plateau; rows and noise are their own.
    """
    images = load("digits")
    ours = [ended_at(engines["numpyro"], method, images.train, images.test[:60], seed) for seed in range(SEEDS)]
    mine = [ended_at(None, method, images.train, images.test[:60], seed) for seed in range(SEEDS)]
    error = np.sqrt((np.var(ours, ddof=1) + np.var(mine, ddof=1)) / SEEDS)
    assert error < 1.0
    assert abs(np.mean(ours) - np.mean(mine)) < 4 * error
    assert np.mean(mine) > -26.9  # a decoder that z says nothing to is at -27.01 there


def ended_at(engine: Engine | None, method: str, train: np.ndarray, test: np.ndarray, seed: int) -> float:
    """Return the mean of log p(x) over `test` after STEPS steps of a backend on an engine, or, for None, of ours."""
    settings = AllSettings(warmup=0, minibatch=M)
    initial = [{name: 10 * value for name, value in group.items()} for group in DIGITS.init(seed)]
    rng = np.random.default_rng([seed, engine is None])
    rows = np.stack([rng.choice(len(train), M, replace=False) for _ in range(STEPS[method])])
    if engine is None:
        backend = getattr(plain, method)(InNumpy(), DIGITS, settings)
        state = backend.init(seed, *initial, train, np.float32(0.05))
        for step, mine in enumerate(rows):
            state, _ = backend.step(1000 * seed + step, state, Batch(train[mine], mine, M / len(train)))
        theta = backend.theta(state)
    else:
        backend, run = training(engine, DIGITS, method, settings, fresh=False)
        there, key = engine.array(train), engine.key(seed)
        state = backend.init(key, *(arrays(engine, group) for group in initial), there, engine.array(0.05))
        state, _ = run(state, there, key, engine.array(np.arange(STEPS[method])), engine.array(rows))
        theta = numpys(engine, backend.theta(state))
    return float(plain.log_px(theta, test, np.random.default_rng(0), draws=100, seeds=2000).value.mean())


class InNumpy:
    """As much of an engine as the plain methods ask for."""

    @staticmethod
    def array(value: np.ndarray) -> np.ndarray:
        return np.asarray(value, np.float32)
