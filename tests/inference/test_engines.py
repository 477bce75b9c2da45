"""What every engine promises, verb by verb; the libraries' own estimators and closed forms are the oracles."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import oracles
import pyro
import pytest
import torch
from scipy import stats

import inference
from comparisons.runner.training import training
from inference import BACKENDS, AllSettings
from inference.base import Array, Engine, Optimizer, Params, Program, arrays, join, numpys, pick
from inference.optim import adam
from models import MODELS
from models.base import Ppl
from models.linear_gaussian import LinearGaussian, log_px, maximum_likelihood

N, D, K = 6, 4, 2
MODEL = LinearGaussian(D, K)
KEYS = 300  # draws of each statistical test

Values = dict[str, np.ndarray]


def parameters(seed: int = 0) -> tuple[Values, Values, np.ndarray]:
    """Return theta, phi and x of a small linear_gaussian."""
    rng = np.random.default_rng(seed)
    theta, phi = (
        {name: np.asarray(0.5 * rng.standard_normal(value.shape)) for name, value in group.items()}
        for group in MODEL.init(0)
    )
    return theta, phi, rng.standard_normal((N, D))


def normals(ppl: Ppl, x: Array) -> None:
    """Sample two sites, the second of which depends on the first."""
    with ppl.plate("data", x.shape[0]):
        first = ppl.sample("first", ppl.dist.Normal(x, 1.0).to_event(1))
        ppl.sample("second", ppl.dist.Normal(first.sum(-1), 0.5))


# Keys and draws


def test_unknown_engine_is_refused() -> None:
    with pytest.raises(KeyError):
        inference.engine("stan")


def test_engine_is_built_once(engine: Engine) -> None:
    assert inference.engine(engine.name, "cpu", 1) is engine


def test_same_key_same_draw(engine: Engine) -> None:
    x = engine.array(np.zeros((N, D)))
    one, same, other = (numpys(engine, engine.draw(engine.key(seed), normals, x)) for seed in (0, 0, 1))
    np.testing.assert_equal(one, same)
    for name in one:
        assert not (one[name] == other[name]).any()
    assert {name: value.shape for name, value in one.items()} == {"first": (N, D), "second": (N,)}


def test_sites_of_one_draw_differ(engine: Engine) -> None:
    def twins(ppl: Ppl) -> None:
        ppl.sample("a", ppl.dist.Normal(0.0, 1.0))
        ppl.sample("b", ppl.dist.Normal(0.0, 1.0))

    drawn = numpys(engine, engine.draw(engine.key(0), twins))
    assert drawn["a"] != drawn["b"]


def test_draw_leaves_global_generators_alone(engine: Engine) -> None:
    """Even where the program fails half way."""

    def failing(ppl: Ppl, x: Array) -> None:
        normals(ppl, x)
        raise ArithmeticError

    torch.manual_seed(123)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
    x = engine.array(np.zeros((N, D)))
    engine.draw(engine.key(0), normals, x)
    with pytest.raises(ArithmeticError):
        engine.draw(engine.key(0), failing, x)
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # type: ignore[index]  # noqa: NPY002


def test_derived_keys_are_distinct(engine: Engine) -> None:
    """No two of 200 seeds, splits or folds meet, and each child's draw is its own."""
    seeds = [engine.key(seed) for seed in range(200)]
    splits = list(engine.split(engine.key(0), 200))
    folds = [engine.fold_in(engine.key(0), step) for step in range(200)]
    for keys in (seeds, splits, folds):
        assert len({np.asarray(key).tobytes() for key in keys}) == 200
    assert not {np.asarray(key).tobytes() for key in seeds} & {np.asarray(key).tobytes() for key in splits + folds}
    assert len(engine.split(engine.key(0))) == 2
    again = [np.asarray(key).tobytes() for key in engine.split(engine.key(0), 200)]
    assert again == [np.asarray(key).tobytes() for key in splits]


def test_draws_of_neighbouring_keys_are_independent(engine: Engine) -> None:
    """Statistical: fixed seed, 5 standard errors. Keys of successive steps give uncorrelated standard normals."""

    def one(ppl: Ppl) -> None:
        ppl.sample("z", ppl.dist.Normal(0.0, 1.0))

    draw = engine.compile(lambda key: engine.draw(key, one)["z"])
    z = np.array([engine.numpy(draw(engine.fold_in(engine.key(0), step))) for step in range(2000)])
    assert abs(z.mean()) < 5 / np.sqrt(len(z))
    assert abs(z.var() - 1) < 5 * np.sqrt(2 / len(z))
    assert abs((z[1:] * z[:-1]).mean()) < 5 / np.sqrt(len(z))


def test_draw_is_reparameterised(engine: Engine) -> None:
    """d z / d loc is 1, d z / d log_scale is z - loc."""
    _, phi, x = parameters()

    def total(phi: Params) -> Any:
        z = engine.draw(engine.key(0), MODEL.recognition, phi, engine.array(x))["z"]
        return z.sum(), z

    (_, z), gradient = engine.value_and_grad(total, has_aux=True)(arrays(engine, phi))
    np.testing.assert_allclose(engine.numpy(gradient["b"]), N, rtol=1e-5)
    residual = engine.numpy(z) - x @ phi["w"] - phi["b"]
    np.testing.assert_allclose(engine.numpy(gradient["log_scale"]), residual.sum(0), rtol=1e-4, atol=1e-5)


# Scores


@pytest.mark.parametrize("missing", ["z", "x"])
def test_log_prob_names_the_missing_site(missing: str, engine: Engine) -> None:
    theta, _, x = parameters()
    values = arrays(engine, {"z": np.zeros((N, K)), "x": x})
    del values[missing]
    with pytest.raises(ValueError, match=f"'{missing}'"):
        engine.log_prob(MODEL.generative, values, arrays(engine, theta), N)


def test_log_prob_ignores_values_of_other_sites(engine: Engine) -> None:
    _, phi, x = parameters()
    values = arrays(engine, {"z": np.zeros((N, K)), "elsewhere": x})
    score = engine.log_prob(MODEL.recognition, values, arrays(engine, phi), engine.array(x))
    np.testing.assert_allclose(
        engine.numpy(score), oracles.log_q("linear_gaussian", phi, x, np.zeros((N, K))), rtol=1e-5
    )


def test_log_prob_obeys_scale(engine: Engine) -> None:
    def scaled(ppl: Ppl, scale: Array) -> None:
        with ppl.scale(scale=scale):
            ppl.sample("z", ppl.dist.Normal(0.0, 1.0))

    score = engine.log_prob(scaled, {"z": engine.array(0.7)}, engine.array(0.25))
    np.testing.assert_allclose(engine.numpy(score), 0.25 * stats.norm.logpdf(0.7), rtol=1e-6)


def test_log_prob_draws_nothing(engine: Engine) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    theta, _, x = parameters()
    engine.log_prob(MODEL.generative, arrays(engine, {"z": np.zeros((N, K)), "x": x}), arrays(engine, theta), N)
    assert torch.equal(torch.get_rng_state(), before)


def test_conditional_is_the_librarys_distribution(engine: Engine) -> None:
    theta, _, x = parameters()
    z = np.random.default_rng(1).standard_normal((N, K))
    values = arrays(engine, {"z": z, "x": x})
    px = engine.conditional(MODEL.generative, "x", values, arrays(engine, theta), N)
    mean, variance = oracles.mean_and_variance("linear_gaussian", theta, z)
    np.testing.assert_allclose(engine.numpy(px.mean), mean, rtol=1e-5, atol=1e-6)
    expected = stats.norm.logpdf(x, mean, np.sqrt(variance)).sum(-1)
    np.testing.assert_allclose(engine.numpy(px.log_prob(values["x"])), expected, rtol=1e-5)


# Calculus, loops and arrays


def test_an_outline_is_what_the_sites_say(engine: Engine) -> None:
    """Also of a program that looks at its numbers, which are then worked out."""

    def looking(ppl: Ppl, x: Array) -> None:
        normals(ppl, x)
        if float(x[0, 0]) > 0:
            ppl.sample("third", ppl.dist.LogNormal(0.0, 1.0))

    def choosing(ppl: Ppl, x: Array) -> None:
        normals(ppl, x)
        ppl.sample("third", ppl.dist.Normal(x[x > 0], 1.0).to_event(1))

    x = engine.array(np.ones((N, D)))
    for program in (normals, looking, choosing):
        outline, sites = (
            verb(engine.key(0), program, *no, x) for verb, no in ((engine.outline, ()), (engine.sites, ({},)))
        )
        assert list(outline) == list(sites) and ("third" in sites) == (program is not normals)
        for name, site in outline.items():
            assert (site.kind, site.observed, site.plates) == (sites[name].kind, False, sites[name].plates)
            assert tuple(site.value.shape) == tuple(sites[name].value.shape)
            assert site.fn.support is sites[name].fn.support or str(site.fn.support) == str(sites[name].fn.support)


def test_at_once_is_step_by_step(engine: Engine) -> None:
    x = engine.array(np.linspace(-1.0, 1.0, N))
    found = engine.at_once(lambda x, y: engine.ppl.xp.exp(x) * y, x, x)
    np.testing.assert_allclose(engine.numpy(found), np.exp(engine.numpy(x)) * engine.numpy(x), rtol=1e-6)


def test_value_and_grad_of_an_array(engine: Engine) -> None:
    z = engine.array([1.0, 2.0, 3.0])
    value, gradient = engine.value_and_grad(lambda z, factor: (factor * z**2).sum())(z, 3.0)
    np.testing.assert_allclose(engine.numpy(value), 42)
    np.testing.assert_allclose(engine.numpy(gradient), [6, 12, 18])
    assert not getattr(z, "requires_grad", False)


def test_value_and_grad_of_a_dict_with_aux(engine: Engine) -> None:
    def function(params: Params) -> Any:
        product = params["a"] * params["b"]
        return product.sum(), product

    params = arrays(engine, {"a": [1.0, 2.0], "b": [3.0, 4.0]})
    (value, product), gradient = engine.value_and_grad(function, has_aux=True)(params)
    assert engine.numpy(value) == 11
    np.testing.assert_array_equal(engine.numpy(product), [3, 8])
    np.testing.assert_equal(
        numpys(engine, gradient), {"a": np.array([3, 4], np.float32), "b": np.array([1, 2], np.float32)}
    )
    assert not any(getattr(array, "requires_grad", False) for array in (value, product, *gradient.values()))


def test_a_parameter_without_influence_has_zero_gradient(engine: Engine) -> None:
    params = arrays(engine, {"a": [1.0, 2.0], "idle": [5.0]})
    _, gradient = engine.value_and_grad(lambda params: params["a"].sum())(params)
    np.testing.assert_equal(numpys(engine, gradient), {"a": np.ones(2, np.float32), "idle": np.zeros(1, np.float32)})


class Sums(NamedTuple):
    total: Any
    product: Any


def test_scan_is_a_loop(engine: Engine) -> None:
    def step(carry: Params, x: tuple[Array, Array]) -> tuple[Params, Sums]:
        carry = {"a": carry["a"] + x[0].sum(), "b": carry["b"] * 0.5 + x[1]}
        return carry, Sums(carry["a"], carry["b"] * 2.0)

    xs = np.arange(8.0).reshape(4, 2), np.arange(4.0)
    start = {"a": np.float32(1.0), "b": np.float32(2.0)}
    carry, ys = engine.scan(step, arrays(engine, start), tuple(engine.array(x) for x in xs))
    expected: Any = start
    stacked = []
    for x in zip(*xs, strict=True):
        expected, y = step(expected, x)
        stacked.append(y)
    np.testing.assert_equal(numpys(engine, carry), expected)
    assert isinstance(ys, Sums)
    np.testing.assert_array_equal(engine.numpy(ys.total), [y.total for y in stacked])
    np.testing.assert_array_equal(engine.numpy(ys.product), [y.product for y in stacked])


@pytest.mark.parametrize("name", ["numpyro", "pyro", "pyro, compiled"])
def test_a_scan_of_the_first_so_many_is_one_program(name: str) -> None:
    """Whatever the count: the carry as after that many turns, and what came of each, with zeros after it."""
    engine = inference.engine(name.partition(",")[0], "cpu", 1, "compiled" in name)
    xs = engine.array([1.0, 2.0, 4.0, 8.0]), engine.array([5, 6, 7, 8])
    told = []

    def run(start: Params, xs: Any, count: Array) -> Any:
        told.append(1)
        return engine.scan(lambda carry, x: ({"a": carry["a"] + x[0]}, Sums(carry["a"], x[1] * 2.0)), start, xs, count)

    compiled = engine.compile(run)
    for count in (1, 3, 4):
        carry, ys = compiled(arrays(engine, {"a": np.float32(1.0)}), xs, engine.array(count))
        assert engine.numpy(carry["a"]) == 2.0**count
        np.testing.assert_array_equal(engine.numpy(ys.total), [1.0, 2.0, 4.0, 8.0][:count] + [0.0] * (4 - count))
        np.testing.assert_array_equal(engine.numpy(ys.product), [10.0, 12.0, 14.0, 16.0][:count] + [0.0] * (4 - count))
    assert len(told) == (3 if name == "pyro" else 1)


def test_scan_without_outputs(engine: Engine) -> None:
    carry, ys = engine.scan(lambda carry, x: (carry + x[0], None), engine.array(0.0), (engine.array([1.0, 2.0]),))
    assert engine.numpy(carry) == 3
    assert ys is None


def test_compiled_is_eager(engine: Engine) -> None:
    theta, _, x = parameters()
    values = arrays(engine, {"z": np.ones((N, K)), "x": x})

    def function(theta: Params, values: Params) -> Array:
        return engine.log_prob(MODEL.generative, values, theta, N)

    eager = engine.numpy(function(arrays(engine, theta), values))
    np.testing.assert_allclose(engine.numpy(engine.compile(function)(arrays(engine, theta), values)), eager, rtol=1e-5)


def test_put_copies(engine: Engine) -> None:
    before = np.arange(12.0, dtype=np.float32).reshape(4, 3)
    array, rows = engine.array(before), engine.array(-np.ones((2, 3)))
    after = engine.numpy(engine.put(array, engine.array([3, 1]), rows))
    np.testing.assert_array_equal(engine.numpy(array), before)
    np.testing.assert_array_equal(after[[1, 3]], -1)
    np.testing.assert_array_equal(after[[0, 2]], before[[0, 2]])


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int64, np.int32, np.uint8, np.bool_])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 2)])
def test_arrays_round_trip(kind: Any, shape: tuple[int, ...], engine: Engine) -> None:
    source = np.ones(shape, kind)
    array = engine.array(source)
    back = engine.numpy(array)
    assert back.dtype.kind == ("i" if source.dtype.kind in "iu" else "f")
    assert back.shape == shape
    if back.dtype.kind == "f":
        assert back.dtype == np.float32
    np.testing.assert_array_equal(back, source)


def test_arrays_are_copies(engine: Engine) -> None:
    """What happens to one side, in place, is not seen on the other."""
    source = np.ones(3, np.float32)
    array = engine.array(source)
    source[:] = 2
    back = engine.numpy(array)
    np.testing.assert_array_equal(back, 1)
    back[:] = 3
    np.testing.assert_array_equal(engine.numpy(array), 1)


def test_indices_index(engine: Engine) -> None:
    x = engine.array(np.arange(6.0).reshape(3, 2))
    np.testing.assert_array_equal(engine.numpy(x[engine.array(np.array([2, 0]))]), [[4, 5], [0, 1]])


# Stochastic variational inference


def generative(ppl: Ppl, params: Params, x: Array) -> None:
    ppl.condition(MODEL.generative, {"x": x})(ppl, pick(params, "theta"), x.shape[0])


def recognition(ppl: Ppl, params: Params, x: Array) -> None:
    MODEL.recognition(ppl, pick(params, "phi"), x)


def revealing() -> Optimizer:
    """An optimiser whose update is the gradient itself."""
    return Optimizer(lambda xp, params, step_size: {}, lambda xp, grads, state: (grads, state))


def updates(
    engine: Engine, estimator: str, theta: Values, phi: Values, x: np.ndarray, keys: int = KEYS, particles: int = 1
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return losses [keys] and gradients [keys, ...] of first steps, each from a key of its own."""
    svi = engine.svi(generative, recognition, revealing(), estimator, particles)
    start = arrays(engine, join(theta=theta, phi=phi))
    update = engine.compile(lambda key, x: svi.update(key, svi.init(start, 0.1), x))
    before = numpys(engine, start)
    losses, gradients = [], []
    for i in range(keys):
        state, loss = update(engine.fold_in(engine.key(0), i), engine.array(x))
        losses.append(engine.numpy(loss))
        after = numpys(engine, state["params"])
        gradients.append({name: after[name] - value for name, value in before.items()})
    return np.array(losses, np.float64), {name: np.stack([g[name] for g in gradients]) for name in before}


def assert_same_mean(one: np.ndarray, other: np.ndarray) -> None:
    error = np.sqrt(one.var(ddof=1) / len(one) + other.var(ddof=1) / len(other))
    assert abs(one.mean() - other.mean()) < 5 * error + 1e-5 * abs(other.mean())


def pyro_losses(estimator: str, theta: Values, phi: Values, x: np.ndarray) -> np.ndarray:
    """Pyro alone: the same model and guide in its own words, scored by its own estimator."""
    t, p = ({name: torch.tensor(value) for name, value in group.items()} for group in (theta, phi))
    data = torch.tensor(x)

    def model() -> None:
        with pyro.plate("data", N):
            z = pyro.sample("z", pyro.distributions.Normal(torch.zeros(K), torch.ones(K)).to_event(1))
            px = pyro.distributions.Normal(z.double() @ t["w"] + t["b"], t["log_scale"].exp()).to_event(1)
            pyro.sample("x", px, obs=data)

    def guide() -> None:
        with pyro.plate("data", N):
            pyro.sample("z", pyro.distributions.Normal(data @ p["w"] + p["b"], p["log_scale"].exp()).to_event(1))

    loss = {"A": pyro.infer.Trace_ELBO(), "B": pyro.infer.TraceMeanField_ELBO()}[estimator]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        return np.array([loss.loss(model, guide) for _ in range(KEYS)])


def numpyro_losses(estimator: str, theta: Values, phi: Values, x: np.ndarray) -> np.ndarray:
    """NumPyro alone, likewise."""
    dist = numpyro.distributions
    t, p = ({name: jnp.asarray(value, jnp.float32) for name, value in group.items()} for group in (theta, phi))
    data = jnp.asarray(x, jnp.float32)

    def model() -> None:
        with numpyro.plate("data", N):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(K), jnp.ones(K)).to_event(1))
            numpyro.sample("x", dist.Normal(z @ t["w"] + t["b"], jnp.exp(t["log_scale"])).to_event(1), obs=data)

    def guide() -> None:
        with numpyro.plate("data", N):
            numpyro.sample("z", dist.Normal(data @ p["w"] + p["b"], jnp.exp(p["log_scale"])).to_event(1))

    loss = {"A": numpyro.infer.Trace_ELBO(), "B": numpyro.infer.TraceMeanField_ELBO()}[estimator]
    keys = jax.random.split(jax.random.PRNGKey(99), KEYS)
    return np.asarray(jax.jit(jax.vmap(lambda key: loss.loss(key, {}, model, guide)))(keys), np.float64)


LIBRARY: dict[str, Callable[..., np.ndarray]] = {"pyro": pyro_losses, "numpyro": numpyro_losses}


@pytest.mark.parametrize("estimator", ["A", "B"])
def test_svi_loss_and_gradient(estimator: str, engine: Engine) -> None:
    """Statistical: fixed seed, 5 standard errors. The loss has the library's and the closed form's mean, the gradient
    that of the closed form's finite differences."""
    theta, phi, x = parameters()
    losses, gradients = updates(engine, estimator, theta, phi, x)
    assert_same_mean(losses, LIBRARY[engine.name](estimator, theta, phi, x))
    exact = -oracles.linear_gaussian_elbo(theta, phi, x).sum()
    assert abs(losses.mean() - exact) < 5 * losses.std(ddof=1) / np.sqrt(len(losses))

    def negative_elbo(values: Values) -> float:
        return float(-oracles.linear_gaussian_elbo(pick(values, "theta"), pick(values, "phi"), x).sum())

    expected = oracles.finite_differences(negative_elbo, join(theta=theta, phi=phi))
    for name, draws in gradients.items():
        error = draws.std(0, ddof=1) / np.sqrt(len(draws))
        assert (np.abs(draws.mean(0) - expected[name]) < 5 * error + 1e-4).all(), name


def test_analytic_kl_is_exact(engine: Engine) -> None:
    """Where the decoder ignores z, estimator B has nothing left to sample: each loss is KL - log N(x; b, s^2 I)."""
    theta, phi, x = parameters()
    theta["w"] = np.zeros((K, D))
    losses, _ = updates(engine, "B", theta, phi, x, keys=5)
    kl = oracles.kl_to_standard_normal(*oracles.q_moments("linear_gaussian", phi, x)).sum()
    np.testing.assert_allclose(
        losses, kl - stats.norm.logpdf(x, theta["b"], np.exp(theta["log_scale"])).sum(), rtol=1e-5
    )


def test_sampled_elbo_is_exact_at_the_posterior(engine: Engine) -> None:
    """With the exact posterior as guide, each loss of estimator A is -log p(x)."""
    x = parameters()[2] @ np.diag([1.0, 2.0, 3.0, 4.0])
    theta = maximum_likelihood(x, K)
    losses, _ = updates(engine, "A", theta, oracles.exact_recognition(theta), x, keys=5)
    np.testing.assert_allclose(losses, -log_px(theta, x).sum(), rtol=1e-4)


def test_estimator_b_has_the_smaller_variance(engine: Engine) -> None:
    theta, phi, x = parameters()
    a, b = (updates(engine, estimator, theta, phi, x)[0] for estimator in "AB")
    assert b.var() < a.var()


@pytest.mark.parametrize("estimator", ["A", "B"])
def test_pyro_loss_is_the_librarys_draw_by_draw(estimator: str, engines: dict[str, Engine]) -> None:
    """Same key, same programs: the engine adds nothing to what `Trace_ELBO` and `TraceMeanField_ELBO` compute."""
    engine = engines["pyro"]
    theta, phi, x = parameters()
    params, data = arrays(engine, join(theta=theta, phi=phi)), engine.array(x)
    svi = engine.svi(generative, recognition, adam(), estimator, 3)
    _, actual = svi.update(engine.key(7), svi.init(params, 0.1), data)
    loss = {"A": pyro.infer.Trace_ELBO, "B": pyro.infer.TraceMeanField_ELBO}[estimator](num_particles=3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(engine.key(7))
        expected = loss.loss(
            lambda: generative(engine.ppl, params, data), lambda: recognition(engine.ppl, params, data)
        )
    assert float(actual) == pytest.approx(float(expected), rel=1e-6)


def test_svi_update_leaves_its_input_state_unchanged(engine: Engine) -> None:
    theta, phi, x = parameters()
    svi = engine.svi(generative, recognition, adam(), "B", 1)
    state = svi.init(arrays(engine, join(theta=theta, phi=phi)), 0.1)
    update = engine.compile(svi.update)
    state, _ = update(engine.key(0), state, engine.array(x))
    before = numpys(engine, {**state["params"], **{f"mean.{k}": v for k, v in state["optimizer"]["mean"].items()}})
    after_state, loss = update(engine.key(1), state, engine.array(x))
    after = numpys(engine, {**state["params"], **{f"mean.{k}": v for k, v in state["optimizer"]["mean"].items()}})
    np.testing.assert_equal(after, before)
    assert any((engine.numpy(after_state["params"][name]) != before[name]).any() for name in state["params"])
    _, again = update(engine.key(1), state, engine.array(x))
    assert engine.numpy(again) == engine.numpy(loss)
    for params in (state["params"], after_state["params"]):
        assert not any(getattr(value, "requires_grad", False) for value in params.values())


def test_one_array_may_start_two_parameters(engine: Engine) -> None:
    """Two names for one array are still two parameters, each with its own gradient."""
    theta, phi, x = parameters()
    phi["b"] = phi["log_scale"] = np.full(K, 0.3)
    params = arrays(engine, join(theta=theta, phi=phi))
    shared = {**params, "phi.log_scale": params["phi.b"]}
    svi = engine.svi(generative, recognition, revealing(), "B", 1)
    update = engine.compile(svi.update)
    one, other = (update(engine.key(0), svi.init(start, 0.1), engine.array(x))[0] for start in (params, shared))
    np.testing.assert_equal(numpys(engine, other["params"]), numpys(engine, one["params"]))


def test_svi_adds_nothing_to_arguments_that_are_another_svis_parameters(engine: Engine) -> None:
    """Theta is fitted, then handed to a local fit as plain data, then fitted again from the same state: same result."""
    theta, phi, x = parameters()
    data = engine.array(x)

    def model(ppl: Ppl, params: Params, fixed: Params, x: Array) -> None:
        generative(ppl, fixed, x)

    def guide(ppl: Ppl, params: Params, fixed: Params, x: Array) -> None:
        recognition(ppl, params, x)

    both, local = engine.svi(generative, recognition, revealing(), "B", 1), engine.svi(model, guide, adam(), "B", 1)
    start, fixed = arrays(engine, join(theta=theta, phi=phi)), arrays(engine, join(phi=phi))
    update = engine.compile(both.update)
    before, _ = update(engine.key(0), both.init(start, 0.1), data)
    local.update(engine.key(1), local.init(fixed, 0.1), start, data)
    after, _ = update(engine.key(0), both.init(start, 0.1), data)
    np.testing.assert_equal(numpys(engine, after["params"]), numpys(engine, before["params"]))


def test_pyros_param_store_is_left_alone(engines: dict[str, Engine]) -> None:
    """What a user keeps there, even under our names, stays; what we fit is not left there."""
    engine = engines["pyro"]
    theta, phi, x = parameters()
    store = pyro.get_param_store()
    with store.scope():
        pyro.param("phi.w", torch.full((1,), 7.0))
        svi = engine.svi(generative, recognition, adam(), "A", 2)
        state = svi.init(arrays(engine, join(theta=theta, phi=phi)), 0.1)
        state, _ = svi.update(engine.key(0), state, engine.array(x))
        assert list(store.keys()) == ["phi.w"]
        assert store["phi.w"].item() == 7.0
    assert state["params"]["phi.w"].shape == (D, K)


def test_two_svis_do_not_meet(engine: Engine) -> None:
    """Steps of one, between steps of another with the same parameter names, change nothing."""
    theta, phi, x = parameters()
    data, start = engine.array(x), arrays(engine, join(theta=theta, phi=phi))
    one, other = (engine.svi(generative, recognition, adam(), estimator, 1) for estimator in "AB")
    alone = one.init(start, 0.1)
    mixed, rival = one.init(start, 0.1), other.init(start, 0.3)
    one_update, other_update = engine.compile(one.update), engine.compile(other.update)
    for i in range(3):
        alone, _ = one_update(engine.key(i), alone, data)
    for i in range(3):
        mixed, _ = one_update(engine.key(i), mixed, data)
        rival, _ = other_update(engine.key(i), rival, data)
    np.testing.assert_equal(numpys(engine, mixed["params"]), numpys(engine, alone["params"]))


# The compiler. jax 0.10.2 returned wrong numbers from jit on CPU (jax-ml/jax#39103): no such version may come back.


def test_compiled_scores_of_a_factored_quadratic_are_the_eager_ones() -> None:
    rng = np.random.default_rng(0)
    x, location, precision = (jnp.asarray(rng.random(shape), jnp.float32) for shape in ((5000, 3), (40, 3), (40, 3)))

    def scores(x: Any, location: Any, precision: Any) -> Any:
        norm = 0.5 * (precision * location**2).sum(1)
        return x @ (location * precision).T - 0.5 * (x**2 @ precision.T) - norm

    eager, compiled = scores(x, location, precision), jax.jit(scores)(x, location, precision)
    np.testing.assert_allclose(np.asarray(compiled), np.asarray(eager), rtol=1e-4, atol=1e-5)


def test_compiled_batch_of_matrix_vector_products_is_the_eager_one() -> None:
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((32769, 3)), jnp.float32)
    matrix = jnp.asarray(rng.standard_normal((3, 3)), jnp.float32)

    def squares(x: Any) -> Any:
        return jax.vmap(lambda row: jnp.sum((matrix @ row) ** 2))(x)

    expected = np.square(np.asarray(x, np.float64) @ np.asarray(matrix, np.float64).T).sum(1)
    for actual in (squares(x), jax.jit(squares)(x)):
        np.testing.assert_allclose(np.asarray(actual), expected, rtol=1e-4, atol=1e-5)


def test_compiled_once(engines: dict[str, Engine]) -> None:
    """A Python side effect counts the traces: one for new shapes, none for new values."""
    engine, traces = engines["numpyro"], []

    def program(ppl: Ppl, x: Array) -> None:
        traces.append(x.shape)
        normals(ppl, x)

    draw: Program = engine.compile(lambda key, x: engine.draw(key, program, x))
    draw(engine.key(0), engine.array(np.zeros((N, D))))
    draw(engine.key(1), engine.array(np.ones((N, D))))
    assert len(traces) == 1
    draw(engine.key(1), engine.array(np.ones((N + 1, D))))
    assert len(traces) == 2


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_numpyro_trains_in_place_and_compiles_once(backend: str, silent: bool) -> None:
    """Chunks of up to so many steps share one program, in which nothing as large as the training set is copied."""
    n, m, d = 5001, 10, 6
    engine = inference.engine("numpyro", "cpu", 1)
    model = MODELS["vae_bernoulli"](d, 2, 4)
    built, loop = training(engine, model, backend, AllSettings(minibatch=m, local_steps=2, leapfrog_steps=2), False)
    train = loop.silent if silent else loop.valued
    x = engine.array(np.random.default_rng(0).random((n, d)))
    state = built.init(engine.key(0), *(arrays(engine, group) for group in model.init(0)), x, engine.array(0.01))
    state = arrays(engine, numpys(engine, state))
    for chunk in range(3):
        steps = np.arange(5 * chunk, 5 * chunk + 5)
        rows, count = np.arange(5 * m).reshape(5, m) + chunk, (5, 3, 1)[chunk]
        given = state, x, engine.key(1), engine.array(steps), engine.array(rows), engine.array(count)
        if chunk == 0:
            program = train.__wrapped__.lower(*given).compile().as_text()
        state, _ = train(*given)
    assert train.__wrapped__._cache_size() == 1
    assert not re.findall(rf"= f32\[{n},\d+\]\S* copy\(", program)
    assert all(value.is_deleted() for value in jax.tree.leaves(given[0])) and not x.is_deleted()
