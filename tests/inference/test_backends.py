"""What every backend promises on every engine, and the oracle: all reach `linear_gaussian`'s maximum likelihood."""

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import oracles
import pytest
from safetensors.numpy import load_file, save_file

import inference
from comparisons.data import load
from comparisons.evidence.base import Target
from comparisons.evidence.elbo import elbo
from inference import BACKENDS, ENGINES
from inference.base import (
    Backend,
    Batch,
    Engine,
    Info,
    Key,
    Params,
    Posterior,
    Settings,
    State,
    arrays,
    join,
    numpys,
    pick,
)
from inference.monte_carlo_em import monte_carlo_em
from models import MODELS
from models.base import Model
from models.linear_gaussian import LinearGaussian, log_px, maximum_likelihood

N, D, K, H, M = 20, 12, 2, 5, 5  # datapoints, pixels, latents, hidden units, minibatch
SETTINGS: dict[str, Any] = {"optimizer": "adam", "warmup": 0, "minibatch": M, "fit_steps": 50, "local_steps": 3}
STEP_SIZE = 0.02

cells = pytest.mark.parametrize(("backend", "engine"), [(b, e) for b in BACKENDS for e in ENGINES])
every_engine = pytest.mark.parametrize("engine", list(ENGINES))

Values = dict[str, np.ndarray]


class Cell(NamedTuple):
    """A backend on an engine, its step compiled, and how often that was traced."""

    engine: Engine
    model: Model
    backend: Backend
    compiled: Any
    traces: list[int]

    def init(self, theta: Values | None = None, phi: Values | None = None, step_size: float = STEP_SIZE) -> State:
        """Return the state at seed 0, from random theta and phi unless given."""
        random_theta, random_phi = random_parameters(self.model)
        theta, phi = theta or random_theta, phi or random_phi
        on_engine = arrays(self.engine, theta), arrays(self.engine, phi), self.engine.array(images())
        return self.backend.init(self.engine.key(0), *on_engine, self.engine.array(step_size))

    def step(self, key: int, state: State, rows: np.ndarray, x: np.ndarray | None = None) -> tuple[State, Info]:
        x = images() if x is None else x
        fraction = len(rows) / len(x)
        return self.compiled(
            self.engine.fold_in(self.engine.key(1), key),
            state,
            self.engine.array(x[rows]),
            self.engine.array(rows),
            self.engine.array(fraction),
        )

    def numpy(self, state: State) -> Values:
        return {name: self.engine.numpy(value) for name, value in flat(state).items()}


@cache
def cell(backend: str, engine: str, model: Model | None = None, **settings: Any) -> Cell:
    built_engine = inference.engine(engine, "cpu", 1)
    model = model or MODELS["vae_bernoulli"](D, K, H)
    built = BACKENDS[backend](built_engine, model, Settings(**{**SETTINGS, **settings}))
    traces: list[int] = []

    def step(key: Key, state: State, x: Any, rows: Any, fraction: Any) -> tuple[State, Info]:
        traces.append(1)
        return built.step(key, state, Batch(x, rows, fraction))

    return Cell(built_engine, model, built, built_engine.compile(step), traces)


@cache
def images() -> np.ndarray:
    """Grey images around three prototypes, exact 0 and 1 among the pixels [N, D]."""
    rng = np.random.default_rng(0)
    prototypes = rng.random((3, D)) < 0.5
    noise = rng.normal(0, 0.15, (N, D))
    return np.clip(prototypes[rng.integers(0, 3, N)] + noise, 0, 1).astype(np.float32)


def random_parameters(model: Model, seed: int = 0) -> tuple[Values, Values]:
    rng = np.random.default_rng(seed)
    theta, phi = (
        {name: np.asarray(0.3 * rng.standard_normal(value.shape), np.float32) for name, value in group.items()}
        for group in model.init(0)
    )
    return theta, phi


def rows_of(step: int, n: int = N, m: int = M) -> np.ndarray:
    return np.random.default_rng([5, step]).choice(n, m, replace=False)


def flat(state: State, prefix: str = "") -> dict[str, Any]:
    """Flatten nested dicts to names with "/": what a checkpoint holds."""
    result: dict[str, Any] = {}
    for name, value in state.items():
        result.update(flat(value, f"{prefix}{name}/") if isinstance(value, dict) else {prefix + name: value})
    return result


def nested(values: dict[str, Any]) -> State:
    state: State = {}
    for name, value in values.items():
        *folders, leaf = name.split("/")
        folder = state
        for part in folders:
            folder = folder.setdefault(part, {})
        folder[leaf] = value
    return state


def gradients(found: Cell, state: State) -> Values:
    """Return the gradient that Adam saw in its one step so far: a tenth of it is its first mean."""
    assert found.engine.numpy(state["optimizer"]["count"]) == 1
    return {name: value / 0.1 for name, value in numpys(found.engine, state["optimizer"]["mean"]).items()}


# Every backend


@cells
def test_init_and_step(backend: str, engine: str) -> None:
    found = cell(backend, engine)
    theta, _ = random_parameters(found.model)
    state = found.init()
    np.testing.assert_equal(numpys(found.engine, found.backend.theta(state)), theta)
    state, info = found.step(0, state, rows_of(0))
    fitted = numpys(found.engine, found.backend.theta(state))
    assert {name: value.shape for name, value in fitted.items()} == dict(found.model.theta_shapes)
    assert all(np.isfinite(value).all() for value in found.numpy(state).values())
    assert any((fitted[name] != theta[name]).any() for name in theta)
    info = Info(*(found.engine.numpy(value) for value in info))
    assert all(np.shape(value) == () for value in info)
    assert np.isfinite(info.objective)
    assert info.decoder_evals > 0
    assert np.isnan(info.acceptance) == (backend != "monte_carlo_em")


@cells
def test_step_is_pure(backend: str, engine: str) -> None:
    """Same state, key and batch: the same bits. The input stays, and another key gives another result."""
    found = cell(backend, engine)
    state, _ = found.step(0, found.init(), rows_of(0))
    before = found.numpy(state)
    first, first_info = found.step(1, state, rows_of(1))
    second, second_info = found.step(1, state, rows_of(1))
    np.testing.assert_equal(found.numpy(state), before)
    np.testing.assert_equal(found.numpy(first), found.numpy(second))
    assert found.engine.numpy(first_info.objective) == found.engine.numpy(second_info.objective)
    _, other_info = found.step(2, state, rows_of(1))
    assert found.engine.numpy(other_info.objective) != found.engine.numpy(first_info.objective)


@cells
def test_state_survives_a_checkpoint_bit_for_bit(backend: str, engine: str, tmp_path: Path) -> None:
    """Nested dicts of arrays go through safetensors, and the next step is the same as without."""
    found = cell(backend, engine)
    state, _ = found.step(0, found.init(), rows_of(0))
    saved = found.numpy(state)
    save_file(saved, tmp_path / "state.safetensors")
    loaded = load_file(tmp_path / "state.safetensors")
    assert {k: (v.dtype, v.shape, v.tobytes()) for k, v in loaded.items()} == {
        k: (v.dtype, v.shape, v.tobytes()) for k, v in saved.items()
    }
    restored = nested({name: found.engine.array(value) for name, value in loaded.items()})
    resumed, _ = found.step(1, restored, rows_of(1))
    expected, _ = found.step(1, state, rows_of(1))
    np.testing.assert_equal(found.numpy(resumed), found.numpy(expected))


@cells
def test_state_keeps_its_names_shapes_and_types(backend: str, engine: str) -> None:
    """What a scan over steps needs, and what keeps a compiled step from being compiled again."""
    found = cell(backend, engine)
    start = found.init()
    state, _ = found.step(0, start, rows_of(0))
    traced = len(found.traces)
    again, _ = found.step(1, state, rows_of(1))
    assert engine == "pyro" or len(found.traces) == traced
    for other in (state, again):
        assert {k: (v.shape, v.dtype) for k, v in flat(other).items()} == {
            k: (v.shape, v.dtype) for k, v in flat(start).items()
        }
    assert not any(getattr(value, "requires_grad", False) for value in flat(again).values())


@cells
def test_learning_raises_the_objective(backend: str, engine: str) -> None:
    """From the paper's initial values; the mean objective of the last 20 of 100 steps against the first 20."""
    found = cell(backend, engine)
    theta, phi = found.model.init(0)
    state, objective = found.init(theta, phi), []
    for step in range(100):
        state, info = found.step(step, state, rows_of(step))
        objective.append(float(found.engine.numpy(info.objective)))
    assert np.mean(objective[-20:]) > np.mean(objective[:20]) + 0.5


def quiet(model: Model) -> tuple[Values, Values]:
    """Return parameters whose decoder ignores z: most of a step is then known without noise."""
    theta, phi = random_parameters(model)
    return {**theta, "w1": np.zeros_like(theta["w1"])}, phi


@cells
def test_map_and_ml_differ_by_the_prior(backend: str, engine: str) -> None:
    """The gradient differs by (M / N) theta, the objective by (M / N) log p(theta) / M, phi's gradient not at all."""
    results = {}
    for kind in ("map", "ml"):
        found = cell(backend, engine, theta=kind, weight_updates=1)
        theta, phi = quiet(found.model)
        state, info = found.step(0, found.init(theta, phi), rows_of(0))
        results[kind] = gradients(found, state), float(found.engine.numpy(info.objective))
    for name, value in results["map"][0].items():
        group, _, bare = name.partition(".")
        prior = M / N * theta[bare] if group == "theta" else 0.0
        if bare != "w1":  # its gradient holds the draws of z, and those may differ
            np.testing.assert_allclose(value - results["ml"][0][name], prior, rtol=1e-4, atol=1e-5, err_msg=name)
    expected = 0.0 if backend == "wake_sleep" else M / N * oracles.log_prior(theta) / M  # wake-sleep reports its ELBO
    assert results["map"][1] - results["ml"][1] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("backend", "engine"), [(b, e) for b in ("aevb", "mean_field") for e in ENGINES])
def test_vb_with_no_width_is_map(backend: str, engine: str) -> None:
    """Scales at exp(-12): the gradient of the mean is MAP's, that of a log scale M / N (sigma^2 - 1), its KL's alone.

    The objectives differ by what does not depend on the mean: M / N of the entropy of q.
    """
    width, results = -12.0, {}
    for kind in ("map", "vb"):
        found = cell(backend, engine, theta=kind)
        theta, phi = quiet(found.model)
        state = found.init(theta, phi)
        scales = {name: found.engine.array(np.full(value.shape, width)) for name, value in theta.items()}
        state = {**state, "params": {**state["params"], **(join(theta_log_scale=scales) if kind == "vb" else {})}}
        state, info = found.step(0, state, rows_of(0))
        results[kind] = gradients(found, state), float(found.engine.numpy(info.objective))
    for name, value in results["map"][0].items():
        if not name.endswith("w1"):  # its gradient holds the draws of z, and those differ
            np.testing.assert_allclose(results["vb"][0][name], value, rtol=1e-3, atol=1e-3, err_msg=name)
    for name, value in pick(results["vb"][0], "theta_log_scale").items():
        np.testing.assert_allclose(value, -M / N, atol=1e-2, err_msg=name)
    size = sum(value.size for value in random_parameters(found.model)[0].values())
    entropy = size * (0.5 * np.log(2 * np.pi * np.e) + width)
    assert results["vb"][1] - results["map"][1] == pytest.approx(entropy / N, abs=5e-3)  # local fits end a little apart


@cells
def test_posterior_leaves_the_state_untouched(backend: str, engine: str) -> None:
    """q for training rows and for new ones; a program that the judge can draw from, without a change to the state."""
    found = cell(backend, engine)
    if found.backend.posterior is None:
        assert backend == "monte_carlo_em"
        return
    state, _ = found.step(0, found.init(), rows_of(0))
    before = found.numpy(state)
    x, indices = found.engine.array(images()[:7]), found.engine.array(np.arange(7))
    for where in (indices, None):
        q = found.backend.posterior(found.engine.key(0), state, x, where)
        z = found.engine.draw(found.engine.key(1), q.program, *q.args)
        assert z.keys() == {"z"}
        assert z["z"].shape == (7, K)
        fitted = backend == "mean_field" and where is None
        assert q.fit_steps == (SETTINGS["fit_steps"] if fitted else 0)
    np.testing.assert_equal(found.numpy(state), before)


# One by one


@every_engine
def test_aevb_objective_in_closed_form(engine: str) -> None:
    """With a decoder that ignores z, equation 7 is exact: -KL - cross-entropy + log p(theta) / N."""
    found = cell("aevb", engine)
    theta, phi = quiet(found.model)
    _, info = found.step(0, found.init(theta, phi), rows_of(0))
    x = images()[rows_of(0)].astype(np.float64)
    exact_theta, exact_phi = oracles.float64(theta), oracles.float64(phi)
    kl = oracles.kl_to_standard_normal(*oracles.q_moments("vae_bernoulli", exact_phi, x))
    score = oracles.LOG_LIKELIHOOD["vae_bernoulli"](exact_theta, np.zeros((M, K)), x)
    expected = (score - kl).mean() + oracles.log_prior(exact_theta) / N
    np.testing.assert_allclose(found.engine.numpy(info.objective), expected, rtol=1e-5)
    assert info.decoder_evals == M


@every_engine
def test_aevb_particles_reduce_the_variance(engine: str) -> None:
    """Statistical: fixed seed. Ten draws leave a tenth of the variance, within 5 standard errors of its logarithm."""
    variance, n = [], 100
    for particles in (1, 10):
        found = cell("aevb", engine, particles=particles)
        state = found.init()
        results = [found.step(key, state, rows_of(0))[1] for key in range(n)]
        assert results[0].decoder_evals == M * particles
        variance.append(np.var([found.engine.numpy(info.objective) for info in results], ddof=1))
    assert abs(np.log(variance[0] / variance[1]) - np.log(10)) < 5 * np.sqrt(2 * 2 / n)


@every_engine
def test_mean_field_touches_the_minibatch_alone(engine: str) -> None:
    found = cell("mean_field", engine)
    state, _ = found.step(0, found.init(), rows_of(0))
    rows = rows_of(1)
    after, info = found.step(1, state, rows)
    others = np.setdiff1d(np.arange(N), rows)
    for name, value in numpys(found.engine, after["local"]).items():
        before = found.engine.numpy(state["local"][name])
        assert value.shape == (N, K)
        np.testing.assert_array_equal(value[others], before[others])
        assert (value[rows] != before[rows]).all()
    assert info.decoder_evals == M * (SETTINGS["local_steps"] + 1)


@every_engine
def test_mean_field_posterior_of_training_rows_is_theirs(engine: str) -> None:
    found = cell("mean_field", engine)
    state, _ = found.step(0, found.init(), rows_of(0))
    indices = np.array([3, 0, 11])
    assert found.backend.posterior
    on_engine = found.engine.array(images()[indices]), found.engine.array(indices)
    (local,) = found.backend.posterior(found.engine.key(0), state, *on_engine).args
    for name, value in numpys(found.engine, local).items():
        np.testing.assert_array_equal(value, found.engine.numpy(state["local"][name])[indices])


@every_engine
def test_mean_field_fit_reaches_the_best_diagonal_normal(engine: str) -> None:
    """On `linear_gaussian` that is known: the posterior's mean, and the inverse of its precision's diagonal."""
    model = LinearGaussian(D, K)
    found = cell("mean_field", engine, model, fit_steps=300)
    theta, phi = oracles.float64(random_parameters(model)[0]), random_parameters(model)[1]
    state, x = found.init(theta, phi), images().astype(np.float64)
    assert found.backend.posterior
    q = found.backend.posterior(found.engine.key(0), state, found.engine.array(x), None)
    (local,) = (numpys(found.engine, group) for group in q.args)
    precision = np.eye(K) + theta["w"] @ theta["w"].T / np.exp(2 * theta["log_scale"])
    mean = (x - theta["b"]) @ theta["w"].T / np.exp(2 * theta["log_scale"]) @ np.linalg.inv(precision)

    def divergence(loc: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
        """Return KL(q || p(z | x)) in nats [n], less a constant."""
        away = loc - mean
        spread = np.exp(2 * log_scale) @ np.diag(precision) - 2 * log_scale.sum(-1)
        return 0.5 * (spread + np.einsum("nk,kl,nl->n", away, precision, away))

    best = divergence(mean, np.broadcast_to(-0.5 * np.log(np.diag(precision)), mean.shape))
    lost = divergence(*(local[name].astype(np.float64) for name in ("loc", "log_scale"))) - best
    assert lost.min() > -1e-6
    assert lost.mean() < 0.02


@every_engine
def test_mean_field_fit_moves_location_and_scale_from_its_first_step(engine: str) -> None:
    """Adam's first step is as large as the step size, in every entry with a gradient."""
    found = cell("mean_field", engine, fit_steps=1)
    assert found.backend.posterior
    q = found.backend.posterior(found.engine.key(0), found.init(), found.engine.array(images()), None)
    for name, value in numpys(found.engine, q.args[0]).items():
        np.testing.assert_allclose(np.abs(value), 0.1, rtol=1e-3, err_msg=name)


@every_engine
def test_monte_carlo_em_moves_the_minibatchs_chains_alone(engine: str) -> None:
    found = cell("monte_carlo_em", engine)
    state, _ = found.step(0, found.init(), rows_of(0))
    rows = rows_of(1)
    after, info = found.step(1, state, rows)
    before, z = found.engine.numpy(state["z"]), found.engine.numpy(after["z"])
    others = np.setdiff1d(np.arange(N), rows)
    np.testing.assert_array_equal(z[others], before[others])
    assert (z[rows] != before[rows]).any()
    assert info.decoder_evals == M * (10 + 1) + M * 5


@every_engine
def test_monte_carlo_em_full_e_step_takes_all_rows(engine: str) -> None:
    """All N chains move, and the five weight updates see slices of M rows."""
    found = cell("monte_carlo_em", engine, e_step="full")
    state = found.init()
    order = np.random.default_rng(0).permutation(N)
    after, info = found.step(0, state, order)
    moved = (found.engine.numpy(after["z"]) != found.engine.numpy(state["z"])).any(-1)
    assert moved.mean() > 0.5
    assert info.decoder_evals == N * (10 + 1) + M * 5
    assert found.engine.numpy(after["optimizer"]["count"]) == 5


@every_engine
@pytest.mark.parametrize("e_step", ["minibatch", "full"])
def test_monte_carlo_em_gradient_is_that_of_the_joint_at_the_draws(engine: str, e_step: str) -> None:
    """Against finite differences of NumPy's log joint, at the chains that the step leaves; the prior counts M / N."""
    found = cell("monte_carlo_em", engine, e_step=e_step, weight_updates=1)
    state = found.init()
    order = np.random.default_rng(0).permutation(N) if e_step == "full" else rows_of(0)
    after, info = found.step(0, state, order)
    first = order[:M]
    z, x = found.engine.numpy(after["z"])[first].astype(np.float64), images()[first].astype(np.float64)

    def loss(theta: Values) -> float:
        prior = M / N * oracles.log_prior(theta)
        return float(-oracles.log_joint("vae_bernoulli", theta, z, x).sum() - prior)

    theta = random_parameters(found.model)[0]
    expected = oracles.finite_differences(loss, theta)
    actual = pick(gradients(found, after), "theta")
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=1e-3, atol=1e-3, err_msg=name)
    np.testing.assert_allclose(found.engine.numpy(info.objective), -loss(oracles.float64(theta)) / M, rtol=1e-4)


@every_engine
def test_monte_carlo_em_tunes_to_ninety_percent(engine: str) -> None:
    """Statistical: fixed seed, 0.9 +- 0.05 over the last 100 of 150 steps."""
    found = cell("monte_carlo_em", engine)
    state, acceptance = found.init(), []
    for step in range(150):
        state, info = found.step(step, state, rows_of(step))
        acceptance.append(found.engine.numpy(info.acceptance))
    assert abs(np.mean(acceptance[-100:]) - 0.9) < 0.05


@every_engine
def test_wake_sleep_gradients_are_those_of_the_two_phases(engine: str) -> None:
    """Theta's is the wake phase's alone, at draws of q; phi's the sleep phase's alone, at dreams of the model.

    The draws are repeated from the step's own key, which it splits into one for each phase.
    """
    found = cell("wake_sleep", engine)
    state = found.init()
    rows = rows_of(0)
    after, info = found.step(0, state, rows)
    actual = gradients(found, after)

    theta, phi = random_parameters(found.model)
    x = images()[rows].astype(np.float64)
    on_engine: tuple[Params, Params] = arrays(found.engine, theta), arrays(found.engine, phi)
    wake_key, sleep_key = found.engine.split(found.engine.fold_in(found.engine.key(1), 0))
    draw = found.engine.draw
    wake = numpys(found.engine, draw(wake_key, found.model.recognition, on_engine[1], found.engine.array(x)))
    dream = numpys(found.engine, draw(sleep_key, found.model.generative, on_engine[0], M))
    wake_z, dream = wake["z"].astype(np.float64), oracles.float64(dream)

    def wake_loss(theta: Values) -> float:
        joint = oracles.log_joint("vae_bernoulli", theta, wake_z, x).sum()
        return float(-joint - M / N * oracles.log_prior(theta))

    def sleep_loss(phi: Values) -> float:
        return float(-oracles.log_q("vae_bernoulli", phi, dream["x"], dream["z"]).sum())

    for group, loss, at in (("theta", wake_loss, theta), ("phi", sleep_loss, phi)):
        for name, value in oracles.finite_differences(loss, at).items():
            np.testing.assert_allclose(actual[f"{group}.{name}"], value, rtol=1e-3, atol=1e-3, err_msg=name)
    joint = oracles.log_joint("vae_bernoulli", oracles.float64(theta), wake_z, x)
    bound = (joint - oracles.log_q("vae_bernoulli", oracles.float64(phi), x, wake_z)).mean()
    np.testing.assert_allclose(found.engine.numpy(info.objective), bound, rtol=1e-4)
    assert info.decoder_evals == 2 * M


# The oracle


ROWS, LATENT = 500, 2
# steps, step size, settings: enough for each backend to arrive, and few enough to be quick
SCHEDULE: dict[str, tuple[int, float, dict[str, Any]]] = {
    "aevb": (500, 0.03, {"minibatch": ROWS}),
    # One draw leaves a floor of 0.2 to 1 nat: Adam restarts at each visit, and its steps do not shrink with the noise.
    "mean_field": (150, 0.1, {"minibatch": ROWS, "local_steps": 4, "local_step_size": 0.02, "particles": 4}),
    "monte_carlo_em": (120, 0.03, {"minibatch": ROWS, "leapfrog_steps": 5}),
    "wake_sleep": (900, 0.03, {"minibatch": ROWS}),
}


@cells
def test_maximum_likelihood_is_reached(backend: str, engine: str) -> None:
    """Oracle: the exact log p(x) of the fitted theta, on the training rows, within 0.1 nat of the best there is.

    A diagonal q is the posterior only where the rows of w are orthogonal. Fits may stay long just short of that,
    at rows still to be rotated (0.09 with three latents): hence two.
    """
    x = load("synthetic").train[:ROWS]
    steps, step_size, settings = SCHEDULE[backend]
    found = cell(backend, engine, LinearGaussian(x.shape[1], LATENT), theta="ml", **settings)
    theta, phi = found.model.init(0)
    on_engine = arrays(found.engine, theta), arrays(found.engine, phi), found.engine.array(x)
    state = found.backend.init(found.engine.key(0), *on_engine, found.engine.array(step_size))
    rows = np.arange(ROWS)
    for step in range(steps):
        state, _ = found.step(step, state, rows, x)
    best = log_px(maximum_likelihood(x, LATENT), x).mean()
    reached = log_px(numpys(found.engine, found.backend.theta(state)), x).mean()
    assert best - 0.1 < reached < best + 1e-4, f"{best - reached:.3f} nats below the maximum"


@every_engine
@pytest.mark.parametrize("spread", [0.0, 0.05, 0.5])
def test_elbo_is_log_px_less_the_divergence(engine: str, spread: float) -> None:
    """Statistical: fixed seed, 5 standard errors per datapoint. Never above log p(x), and below it by KL(q || p(z|x)).

    `spread` is the distance of theta and phi from the maximum likelihood and its exact posterior.
    """
    found, x = inference.engine(engine, "cpu", 1), load("synthetic").train[:100].astype(np.float64)
    model, rng = LinearGaussian(x.shape[1], LATENT), np.random.default_rng(0)
    best = maximum_likelihood(x, LATENT)
    theta, phi = (
        {name: value + spread * rng.standard_normal(np.shape(value)) for name, value in group.items()}
        for group in (best, oracles.exact_recognition(best))
    )
    q = Posterior(model.recognition, (arrays(found, phi), found.array(x)))
    estimate = elbo(Target(found, model, arrays(found, theta), found.array(x), q), found.key(0), 1000)
    rounding = 1e-5 * np.abs(estimate.value) + 1e-4
    assert (estimate.value < log_px(theta, x) + 5 * estimate.stderr + rounding).all()
    exact = oracles.linear_gaussian_elbo(theta, phi, x)
    assert (np.abs(estimate.value - exact) < 5 * estimate.stderr + rounding).all()


def test_settings_name_what_monte_carlo_em_costs() -> None:
    """The decoder evaluations asserted above are those of the defaults."""
    defaults = Settings()
    assert (defaults.leapfrog_steps, defaults.weight_updates, defaults.target_acceptance) == (10, 5, 0.9)
    assert BACKENDS["monte_carlo_em"] is monte_carlo_em
