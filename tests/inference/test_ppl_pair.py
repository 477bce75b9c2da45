"""Pairs in a library's own words: against the suite's model of the same density, and the library's own ELBO."""

from collections.abc import Callable
from functools import partial
from typing import Any

import foreign_numpyro
import foreign_pyro
import jax
import jax.numpy as jnp
import numpy as np
import pyro
import pytest
import torch
from factories import hold_compiled_step
from foreign import Tied, filled, renamed
from foreign_pyro import Modelled, written
from numpyro.infer import Trace_ELBO as NumpyroElbo

import inference
from comparisons.checks.contract import breach
from comparisons.checks.model import check_model
from comparisons.evidence.base import Target
from comparisons.evidence.elbo import elbo
from inference import BACKENDS, AllSettings
from inference.base import Batch, Engine, Posterior, arrays, numpys, pick
from inference.engines.ppl_pair import ppl_pair
from models.base import Model
from models.pairs import Pair
from models.vae import VaeBernoulli

D, K, H, N = 6, 2, 5, 8
SUITE = VaeBernoulli(D, K, H)
SIZES: dict[str, Any] = {"n_x": D, "n_latent": K}


def x_of(n: int = N) -> np.ndarray:
    return np.random.default_rng(0).random((n, D), np.float32)


def moved() -> tuple[dict[str, Any], dict[str, Any]]:
    rng = np.random.default_rng(1)
    theta, phi = (
        {name: v + 0.5 * rng.standard_normal(v.shape, np.float32) for name, v in one.items()} for one in SUITE.init(0)
    )
    return theta, phi


def on_pyro() -> tuple[Pair, Callable[..., Any]]:
    """The suite's VAE as a Pyro pair, and what renames its parameters."""

    def suite(theta: Any, phi: Any) -> Any:
        return renamed(*({name.partition("$$$")[2]: v for name, v in one.items()} for one in (theta, phi)))

    return ppl_pair(*written(*filled(*moved())), **SIZES), suite


def on_numpyro() -> tuple[Pair, Callable[..., Any]]:
    def suite(theta: Any, phi: Any) -> Any:
        new = {"0.0": "0.weight", "0.1": "0.bias", "2.0": "2.weight", "2.1": "2.bias"}
        return renamed(*({new[name.partition("$params.")[2]]: v.T for name, v in one.items()} for one in (theta, phi)))

    return ppl_pair(foreign_numpyro.model, foreign_numpyro.guide, **SIZES), suite


BUILT = {"pyro": on_pyro, "numpyro": on_numpyro}


@pytest.fixture(params=BUILT)
def pair(request: pytest.FixtureRequest) -> tuple[Engine, Pair, Any]:
    """An engine, a pair of its library, and what gives its parameters the suite's names."""
    engine = inference.engine(request.param, "cpu", 1)
    return engine, *BUILT[request.param]()


# The same density


def test_its_own_names_become_the_suites(pair: tuple[Engine, Pair, Any]) -> None:
    engine, model, _ = pair
    assert model.names == {"obs": "x", "latent": "z"} and model.engines == (engine.name,) and model.support == "unit"
    assert breach(engine, model, x_of(2)) == ""
    theta, phi = (arrays(engine, one) for one in model.init(0))
    drawn = engine.draw(engine.key(0), model.generative, theta, N)
    assert {name: tuple(value.shape) for name, value in drawn.items()} == {"z": (N, K), "x": (N, D)}
    assert [*engine.draw(engine.key(0), model.recognition, phi, engine.array(x_of()))] == ["z"]


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_densities_and_bounds_are_those_of_the_suites_own_model(
    pair: tuple[Engine, Pair, Any], lead: tuple[int, ...]
) -> None:
    engine, model, suite = pair
    initial = model.init(0)
    x, z = engine.array(x_of()), engine.array(np.random.default_rng(2).standard_normal((*lead, N, K)))
    found = []
    each: tuple[tuple[Model, Any], ...] = ((model, initial), (SUITE, suite(*initial)))
    for one, weights in each:
        theta, phi = (arrays(engine, group) for group in weights)
        joint = engine.log_prob(one.generative, {"z": z, "x": x}, theta, N)
        log_q = engine.log_prob(one.recognition, {"z": z}, phi, x)
        bound = elbo(Target(engine, one, theta, x, Posterior(one.recognition, (phi, x))), engine.key(0), 5)
        found.append((engine.numpy(joint), engine.numpy(log_q), bound.value))
    for ours, suites in zip(*found, strict=True):
        np.testing.assert_allclose(ours, suites, rtol=5e-6, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_steps_are_those_of_the_suites_own_model(pair: tuple[Engine, Pair, Any], backend: str) -> None:
    engine, model, suite = pair
    x, rows, initial = engine.array(x_of()), engine.array(np.arange(N)), model.init(0)
    card, found = BACKENDS[backend], []
    told = AllSettings(warmup=0, local_steps=2, leapfrog_steps=2, weight_updates=1)
    settings = card.settings(**{name: getattr(told, name) for name in card.settings.__dataclass_fields__})
    each: tuple[tuple[Model, Any], ...] = ((model, initial), (SUITE, suite(*initial)))
    for one, weights in each:
        built = card.build(engine, one, settings)
        state = built.init(engine.key(0), *(arrays(engine, group) for group in weights), x, engine.array(0.05))
        for number in range(2):
            state, _ = engine.compile(built.step)(engine.key(number), state, Batch(x, rows, 1.0))
        found.append(numpys(engine, state["params"]))
    theta, phi = suite(pick(found[0], "theta"), pick(found[0], "phi") or initial[1])
    for name, value in theta.items():
        np.testing.assert_allclose(value, found[1][f"theta.{name}"], atol=1e-5)
        assert np.abs(value - each[1][1][0][name]).max() > 1e-3
    for name, value in pick(found[1], "phi").items():
        np.testing.assert_allclose(phi[name], value, atol=1e-5)


def test_every_check_holds(pair: tuple[Engine, Pair, Any]) -> None:
    engine, model, _ = pair

    def build(n_x: int, n_latent: int, n_hidden: int) -> Model:
        if (n_x, n_latent) != (D, K):
            raise ValueError("of one size")
        return model

    assert {one.name: one.text for one in check_model(build, engine, D, K) if one.status == "FAIL"} == {}


def test_a_compiled_step_is_the_same() -> None:
    hold_compiled_step(on_pyro()[0], x_of())


# Parameters


def test_a_pyro_module_and_constrained_parameters_are_held_unconstrained() -> None:
    """The bound is that of Pyro's own ELBO on the pair as it stands; the modules stay as they are."""
    engine = inference.engine("pyro", "cpu", 1)
    torch.manual_seed(0)
    module = Modelled()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    model = ppl_pair(module, foreign_pyro.guided, **SIZES)
    theta, phi = model.init(3)
    assert [*theta] == ["layer.weight", "layer.bias", "shift", "scale"] and [*phi] == ["weight", "spread"]
    np.testing.assert_allclose(theta["scale"], np.log(0.5), rtol=1e-6)
    assert not np.array_equal(model.init(4)[1]["weight"], phi["weight"])  # drawn, from the seed
    assert np.array_equal(model.init(3)[1]["weight"], phi["weight"]) and model.support == "real"
    x, draws = torch.tensor(x_of()), 20_000
    with pyro.get_param_store().scope():
        pyro.get_param_store().clear()
        pyro.param("weight", torch.tensor(phi["weight"]))
        torch.manual_seed(0)
        loss = pyro.infer.Trace_ELBO(num_particles=draws, vectorize_particles=True).loss(module, foreign_pyro.guided, x)
    at = arrays(engine, theta), arrays(engine, phi)
    found = elbo(Target(engine, model, at[0], x, Posterior(model.recognition, (at[1], x))), engine.key(0), draws)
    assert abs(found.value.sum() + loss) < 4 * np.sqrt(2 * np.square(found.stderr).sum())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_numpyros_constrained_parameters_are_held_unconstrained() -> None:
    engine = inference.engine("numpyro", "cpu", 1)
    given = {"scale": 0.25 * np.ones(D), "spread": 0.3 * np.ones(K)}
    model = ppl_pair(foreign_numpyro.positive, foreign_numpyro.guided, params=given, **SIZES)
    theta, phi = model.init(0)
    np.testing.assert_allclose(theta["scale"], np.log(0.25), rtol=1e-6)
    np.testing.assert_allclose(phi["spread"], np.log(0.3), rtol=1e-6)
    x, draws = jnp.asarray(x_of()), 20_000
    loss = NumpyroElbo(num_particles=draws).loss(
        jax.random.PRNGKey(0), given, foreign_numpyro.positive, foreign_numpyro.guided, x
    )
    at = arrays(engine, theta), arrays(engine, phi)
    found = elbo(Target(engine, model, at[0], x, Posterior(model.recognition, (at[1], x))), engine.key(0), draws)
    assert abs(found.value.sum() + float(loss)) < 4 * np.sqrt(2 * np.square(found.stderr).sum())


def test_what_pyro_has_trained_is_where_it_begins() -> None:
    with pyro.get_param_store().scope():
        pyro.param("spread", torch.full((K,), 0.9), constraint=torch.distributions.constraints.positive)
        params = dict(pyro.get_param_store().items())
    model = ppl_pair(Modelled(), foreign_pyro.guided, params=params, **SIZES)
    np.testing.assert_allclose(model.init(0)[1]["spread"], np.log(0.9), rtol=1e-6)


# What is refused


def pyro_pair(name: str, guide: str = "guided") -> Pair:
    return ppl_pair(getattr(foreign_pyro, name), getattr(foreign_pyro, guide), **SIZES)


def numpyro_pair(name: str, guide: str = "guided") -> Pair:
    return ppl_pair(getattr(foreign_numpyro, name), getattr(foreign_numpyro, guide), **SIZES)


def tied() -> Pair:
    layer = torch.nn.Linear(K, D)
    return ppl_pair(*written(layer, Tied(layer)), **SIZES)


COMMON = [
    ("of_both", "guided", "model and guide share the parameter '(weight|spread)'"),
    ("subsampled", "guided", "plate 'rows' takes 2 of 100; drop subsample_size"),
    ("unobserved", "guided", "observes nothing and draws z and x; it has to observe one site, by obs=x"),
    ("branching", "guided", "model decides by an? (tensor|array)'s value"),
    ("simple", "branching_guide", "guide decides by an? (tensor|array)'s value"),
    ("reading", "guided", "reads x elsewhere than in obs="),
    ("changing", "guided", "obs= of 'x' is not x as it was given"),
    ("simple", "each_its_own", "guide's parameter 'loc' depends on the number of rows; .* mean_field"),
]
CASES: list[tuple[Callable[[], Pair], str]] = [
    (partial(build, *names), words) for *names, words in COMMON for build in (pyro_pair, numpyro_pair)
]
CASES += [
    (partial(pyro_pair, "noisy"), "model draws noise that is of no site"),
    (tied, "share the parameter"),
    (partial(numpyro_pair, "stateful"), "'averages' is kept from one call to the next"),
    (
        partial(ppl_pair, foreign_pyro.simple, foreign_pyro.guided, n_x=D, n_latent=3),
        "'z' has 2 numbers .* n_latent be 2",
    ),
    (
        partial(ppl_pair, foreign_pyro.simple, foreign_pyro.guided, n_x=7, n_latent=K),
        "(cannot be run|'x' has 6 numbers)",
    ),
    (partial(ppl_pair, SUITE.prior, SUITE.prior, **SIZES), "imports none of pyro, numpyro"),
]


@pytest.mark.parametrize(("build", "words"), CASES)
def test_what_is_no_pair_is_refused_in_one_line(build: Callable[[], Pair], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_what_the_contract_sees_is_left_to_it() -> None:
    """A plate of the whole data set's size scales the score."""
    assert "scaled score" in breach(inference.engine("pyro", "cpu", 1), pyro_pair("scaled"), x_of(2))
