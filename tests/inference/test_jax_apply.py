"""Apply functions of jax as models: against torch modules of the same weights, and the suite's own model."""

from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from foreign import filled, renamed

import inference
from comparisons.checks.model import check_model
from inference import BACKENDS, AllSettings
from inference.base import Batch, Engine, arrays, numpys, pick
from inference.engines.jax_apply import flattened, jax_model
from inference.engines.torch_module import torch_model
from models.base import Model
from models.networks import Networks
from models.vae import VaeBernoulli

D, K, H, N = 6, 2, 5, 8
SUITE = VaeBernoulli(D, K, H)


def mlp(params: Any, value: Any) -> Any:
    """Two layers, as flax and haiku keep them: nested dicts of kernel and bias."""
    hidden = jnp.tanh(value @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"])
    return hidden @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"]


def layers(rng: np.random.Generator, *widths: int) -> dict[str, Any]:
    return {
        f"Dense_{i}": {
            "kernel": 0.5 * rng.standard_normal((a, b), np.float32),
            "bias": rng.standard_normal(b, np.float32),
        }
        for i, (a, b) in enumerate(pairwise(widths))
    }


def sized(n_x: int, n_latent: int, n_hidden: int, **how: Any) -> Networks:
    rng = np.random.default_rng(0)
    theta, phi = layers(rng, n_latent, n_hidden, n_x), layers(rng, n_x, n_hidden, 2 * n_latent)
    return jax_model(mlp, mlp, theta, phi, **{"n_x": n_x, "n_latent": n_latent, "likelihood": "bernoulli", **how})


@pytest.fixture(scope="module")
def numpyro() -> Engine:
    return inference.engine("numpyro", "cpu", 1)


def by_suite(theta: Any, phi: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return its parameters by the names of vae_bernoulli."""
    torchlike = [
        {
            f"{at}.{new}": one[f"Dense_{i}.{name}"].T
            for i, at in enumerate((0, 2))
            for name, new in (("kernel", "weight"), ("bias", "bias"))
        }
        for one in (theta, phi)
    ]
    return renamed(*torchlike)


def test_names_are_those_on_the_way_and_the_rest_is_constant() -> None:
    class Pair(NamedTuple):
        left: Any
        right: Any

    tree = {"a/b": [np.ones(2), {"c": np.zeros((), np.float64)}], "n": Pair(np.arange(3), None), "s": "text"}
    params, grown = flattened({key: value for key, value in tree.items() if key != "s"}, "net")
    assert {name: value.dtype for name, value in params.items()} == {"net.a.b.0": np.float32, "net.a.b.1.c": np.float32}
    again = grown({name: value + 1 for name, value in params.items()})
    assert again["a/b"][1]["c"] == 1 and isinstance(again["n"], Pair) and (again["n"].left == np.arange(3)).all()
    with pytest.raises(ValueError, match="one name"):
        flattened({"a.b": np.ones(1), "a": {"b": np.ones(1)}})


def test_densities_are_those_of_torch_on_the_same_weights(numpyro: Engine) -> None:
    ours = sized(D, K, H)
    theirs = torch_model(*filled(*by_suite(*ours.init(0))), n_x=D, n_latent=K, likelihood="bernoulli")
    rng = np.random.default_rng(1)
    z, x = rng.standard_normal((3, N, K), np.float32), rng.random((N, D), np.float32)
    scores = []
    for engine, model in ((numpyro, ours), (inference.engine("pyro", "cpu", 1), theirs)):
        theta, phi = (arrays(engine, one) for one in model.init(0))
        values = {"z": engine.array(z), "x": engine.array(x)}
        joint = engine.log_prob(model.generative, values, theta, N)
        log_q = engine.log_prob(model.recognition, {"z": values["z"]}, phi, values["x"])
        scores.append((engine.numpy(joint), engine.numpy(log_q)))
    for found, expected in zip(*scores, strict=True):
        assert found.shape == (3, N)
        np.testing.assert_allclose(found, expected, rtol=5e-6, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_is_that_of_the_suites_own_model(numpyro: Engine, backend: str) -> None:
    ours, found = sized(D, K, H), []
    weights = by_suite(*ours.init(0))
    x, rows = numpyro.array(np.random.default_rng(2).random((N, D))), numpyro.array(np.arange(N))
    models: tuple[tuple[Model, Any], ...] = ((ours, ours.init(0)), (SUITE, weights))
    for model, start in models:
        card = BACKENDS[backend]
        told = AllSettings(warmup=0, local_steps=2, leapfrog_steps=2, weight_updates=1)
        settings = card.settings(**{name: getattr(told, name) for name in card.settings.__dataclass_fields__})
        built = card.build(numpyro, model, settings)
        state = built.init(numpyro.key(0), *(arrays(numpyro, one) for one in start), x, numpyro.array(0.05))
        for number in range(2):
            state, _ = numpyro.compile(built.step)(numpyro.key(number), state, Batch(x, rows, 1.0))
        found.append(numpys(numpyro, state["params"]))
    theta, phi = by_suite(pick(found[0], "theta"), pick(found[0], "phi") or ours.init(0)[1])
    for name, value in theta.items():
        np.testing.assert_allclose(value, found[1][f"theta.{name}"], atol=1e-5)
        assert np.abs(value - weights[0][name]).max() > 1e-3
    for name, value in pick(found[1], "phi").items():
        np.testing.assert_allclose(phi[name], value, atol=1e-5)


def test_every_check_holds(numpyro: Engine) -> None:
    assert {one.name: one.text for one in check_model(sized, numpyro) if one.status == "FAIL"} == {}


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"likelihood": "normal"}, "decoder gives 6 numbers a row, not 2 x 6"),
        ({"n_x": 7}, "encoder cannot be run on rows of 7 numbers"),
        ({"n_latent": 3}, "decoder cannot be run on rows of 3 numbers"),
    ],
)
def test_functions_that_do_not_fit_are_refused_in_one_line(how: dict[str, Any], words: str) -> None:
    rng = np.random.default_rng(0)
    theta, phi = layers(rng, K, H, D), layers(rng, D, H, 2 * K)
    with pytest.raises(ValueError, match=words) as caught:
        jax_model(mlp, mlp, theta, phi, **{"n_x": D, "n_latent": K, "likelihood": "bernoulli", **how})
    assert "\n" not in str(caught.value)


def test_images_come_in_their_shape(numpyro: Engine) -> None:
    def encoder(phi: Any, x: Any) -> Any:
        assert x.shape[1:] == (1, 2, 3)
        return mlp(phi, x.reshape(len(x), -1))

    rng = np.random.default_rng(0)
    theta, phi = layers(rng, K, H, D), layers(rng, D, H, 2 * K)
    model = jax_model(mlp, encoder, theta, phi, n_x=D, n_latent=K, likelihood="poisson", shape=(1, 2, 3))
    drawn = numpyro.draw(numpyro.key(0), model.recognition, arrays(numpyro, model.init(0)[1]), jnp.ones((N, D)))
    assert drawn["z"].shape == (N, K) and model.support == "count" and isinstance(drawn["z"], jax.Array)
