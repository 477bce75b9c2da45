"""What a fit says of datapoints, against the formulas of the paper's appendix C written out in NumPy."""

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from comparisons import compare
from comparisons.errors import DataError, FlagError, UnfitError
from comparisons.library.compare import Comparison
from inference import ENGINES
from inference.base import Posterior

RNG = np.random.default_rng(1)
X = RNG.random((80, 2, 3))
HOW: dict[str, Any] = {"samples": 3000, "minibatch": 10, "n_hidden": 7, "n_latent": 2, "eval_points": 5}
HOW |= {"optimizer": "adam", "step_size": 0.05, "fit_steps": 300, "warmup": 0, "quiet": True}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    methods = ["aevb", "mean_field", "monte_carlo_em"]
    return compare(X, backends=methods, out=tmp_path_factory.mktemp("fits"), evidence="none", **HOW)


def decoder(theta: dict[str, np.ndarray], z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-(np.tanh(z @ theta["w1"] + theta["b1"]) @ theta["w2"] + theta["b2"])))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_network_s_embedding_and_reconstruction(found: Comparison, engine: str) -> None:
    fit, x = found.fit("aevb", engine=engine), X.reshape(80, 6)
    phi = fit.phi
    assert phi is not None
    z = np.tanh(x @ phi["w3"] + phi["b3"]) @ phi["w4"] + phi["b4"]
    assert z.std() > 0.01
    np.testing.assert_allclose(fit.embed(X), z, atol=1e-5)
    np.testing.assert_allclose(fit.embed(x[:1]), z[:1], atol=1e-5)
    np.testing.assert_allclose(fit.reconstruct(X), decoder(fit.theta, z), atol=1e-5)
    np.testing.assert_allclose(fit.decode([[0.5, -1.0]]), decoder(fit.theta, np.array([[0.5, -1.0]])), atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("backend", ["aevb", "mean_field", "monte_carlo_em"])
def test_samples_are_of_the_decoder_s_distribution(found: Comparison, backend: str, engine: str) -> None:
    fit, n = found.fit(backend, engine=engine), 4000
    x, mean = fit.sample(n, seed=5), fit.sample(n, seed=5, mean=True)
    assert x.shape == mean.shape == (n, 6) and set(np.unique(x)) == {0.0, 1.0}
    np.testing.assert_array_equal(x, fit.sample(n, seed=5))
    assert (x != fit.sample(n, seed=6)).any()
    z = np.random.default_rng(0).standard_normal((100_000, 2))
    expected = decoder(fit.theta, z).mean(0)
    assert (abs(x.mean(0) - expected) < 5 * 0.5 / np.sqrt(n)).all()
    assert (abs((x - mean).mean(0)) < 5 * 0.5 / np.sqrt(n)).all()  # of the same z
    with pytest.raises(FlagError, match="n 0 is out of range"):
        fit.sample(0)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_q_for_each_datapoint_is_fitted_to_new_rows(found: Comparison, engine: str) -> None:
    """Its mean is the posterior's, by a sum over a grid of z, as far as a normal can have it."""
    fit = found.fit("mean_field", engine=engine)
    assert fit.phi is None
    x = X.reshape(80, 6)[:8]
    line = np.linspace(-5, 5, 101)
    z = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    p = decoder(fit.theta, z)
    log_weight = x @ np.log(p).T + (1 - x) @ np.log1p(-p).T - 0.5 * np.square(z).sum(1)
    weight = np.exp(log_weight - log_weight.max(1, keepdims=True))
    exact = weight @ z / weight.sum(1, keepdims=True)
    np.testing.assert_allclose(fit.embed(x), exact, atol=0.25)
    np.testing.assert_array_equal(fit.embed(x), fit.embed(x))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_method_without_q_does_not_embed(found: Comparison, engine: str) -> None:
    fit = found.fit("monte_carlo_em", engine=engine)
    assert fit.phi is None and fit.theta["w1"].shape == (2, 7)
    for verb in (fit.embed, fit.reconstruct):
        with pytest.raises(UnfitError, match=r"^monte_carlo_em has no q\(z \| x\) to embed by; choose the fit .*$"):
            verb(X)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_q_without_a_mean_is_drawn_from_and_that_is_said(found: Comparison, engine: str) -> None:
    """Here z is of a mixture over a variable that is drawn first: no site's mean is E_q[z | x]."""
    fit = found.fit("aevb", engine=engine)

    def program(ppl: Any, x: Any) -> None:
        with ppl.plate("data", x.shape[0]):
            side = ppl.sample("side", ppl.dist.Normal(ppl.xp.zeros_like(x[..., 0]), 1.0))
            ppl.sample("z", ppl.dist.Normal(x[..., :2] + side[..., None], 0.1).to_event(1))

    def posterior(key: Any, state: Any, x: Any, indices: Any) -> Posterior:
        return Posterior(program, (x,))

    other = replace(fit, fit=fit.fit._replace(backend=fit.fit.backend._replace(posterior=posterior)))
    with pytest.warns(UserWarning, match=r"q\(z \| x\) of aevb has no mean: it is that of 100 draws"):
        z = other.embed(X)
    assert (abs(z - X.reshape(80, 6)[:, :2]) < 5 * np.sqrt(1.01 / 100)).all() and z.std() > 0.1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit.embed(X)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (X[:, :1], r"x has the shape \(80, 1, 3\); a row is a datapoint: \[n, 6\]"),
        (X[0, 0], r"x is float64 \[3\]; give numbers"),
        (X + 1.0, "x: row 0, column 0 is .* not a number in"),
        (X * np.nan, "x: row 0, column 0 is nan"),
        ([["a"] * 6], "x is <U1"),
        ([[1.0], [1.0, 2.0]], "x is no array"),
        (None, "x is object"),
    ],
)
def test_rows_that_the_model_cannot_score(found: Comparison, x: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        found.fit("aevb", engine="pyro").embed(x)
