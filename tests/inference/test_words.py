"""The functions of networks in `ppl.nn`: SciPy's values and finite gradients on both engines, however far out x is."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import special

from inference.base import Array, Engine
from models.base import Nn

FAR = np.array([-1e4, -200.0, -88.0, -20.0, -1.0, -1e-6, 0.0, 1e-6, 0.5, 19.9, 20.1, 89.0, 1e4], np.float32)
OVER = np.stack([FAR, FAR[::-1], np.full_like(FAR, -1e4), np.full_like(FAR, 1e4)])  # for what takes the last axis

WORDS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], np.ndarray]] = {
    "relu": (lambda x: np.maximum(x, 0.0), FAR),
    "elu": (lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0.0))), FAR),
    "softplus": (lambda x: np.logaddexp(x, 0.0), FAR),
    "sigmoid": (special.expit, FAR),
    "softmax": (lambda x: special.softmax(x, axis=-1), OVER),
    "logsumexp": (lambda x: special.logsumexp(x, axis=-1), OVER),
}


def test_there_is_an_oracle_for_every_word_and_no_engine_lacks_one(engine: Engine) -> None:
    declared = {name for name in vars(Nn) if not name.startswith("_")}
    assert declared == {*WORDS, "linear"} == {*vars(engine.ppl.nn)}


@pytest.mark.parametrize("name", WORDS)
def test_a_word_is_scipys_and_takes_leading_axes(name: str, engine: Engine) -> None:
    oracle, x = WORDS[name]
    word = getattr(engine.ppl.nn, name)
    for given in (x, np.broadcast_to(x, (3, 2, *x.shape))):
        found = engine.numpy(engine.compile(word)(engine.array(given)))
        expected = oracle(given.astype(np.float64))
        assert found.shape == expected.shape and found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-30)  # below, float32 has few bits or none


@pytest.mark.parametrize("name", WORDS)
def test_its_gradient_is_that_of_finite_differences(name: str, engine: Engine) -> None:
    oracle, x = WORDS[name]
    weights = np.random.default_rng(0).standard_normal(oracle(x).shape)

    def total(value: Array) -> Array:
        return (getattr(engine.ppl.nn, name)(value) * engine.array(weights)).sum()

    _, gradient = engine.value_and_grad(total)(engine.array(x))
    found, expected = engine.numpy(gradient), np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        moved = np.zeros(x.shape)
        moved[index] = 1e-4 if x[index] >= 1e-3 or x[index] <= -1e-3 else 1e-8
        above, below = (oracle(x.astype(np.float64) + sign * moved) for sign in (1, -1))
        expected[index] = ((above - below) * weights).sum() / (2 * moved[index])
    assert np.isfinite(found).all()
    at_corner = (x == 0.0) & (name == "relu")  # where it is 0, by both libraries
    expected = np.where(at_corner, 0.0, expected)
    # torch's gradient of logsumexp is exp(x - logsumexp(x)), and so has the rounding of x.
    assert (np.abs(found - expected) <= 1e-5 + np.abs(expected) * (1e-4 + 2.0**-23 * np.abs(x))).all()


def test_linear_is_a_product_and_a_sum_whatever_stands_before(engine: Engine) -> None:
    rng = np.random.default_rng(0)
    w, b = rng.standard_normal((4, 3)), rng.standard_normal(3)
    for shape in ((4,), (5, 4), (2, 1, 5, 4)):
        x = rng.standard_normal(shape)
        found = engine.numpy(engine.ppl.nn.linear(*map(engine.array, (x, w, b))))
        np.testing.assert_allclose(found, x @ w + b, rtol=1e-5, atol=1e-5)


def test_a_stopped_array_is_itself_and_a_constant_to_whoever_differentiates(engine: Engine) -> None:
    stop = engine.ppl.stop
    x = engine.array([0.5, -2.0])
    value, gradient = engine.value_and_grad(lambda x: (x * stop(x * x)).sum())(x)
    assert engine.numpy(value) == 0.125 - 8.0
    np.testing.assert_array_equal(engine.numpy(gradient), [0.25, 4.0])


def test_the_divergence_of_two_normals_is_the_closed_form_and_of_a_pair_without_one_refused(engine: Engine) -> None:
    dist, divergence = engine.ppl.dist, engine.ppl.kl_divergence
    loc, scale = np.array([[0.3, -1.0], [2.0, 0.0]]), np.array([[0.5, 2.0], [1.0, 0.1]])
    q = dist.Normal(engine.array(loc), engine.array(scale)).to_event(1)
    p = dist.Normal(0.0, 1.0).expand([2]).to_event(1)
    expected = 0.5 * (loc**2 + scale**2 - 1.0 - 2.0 * np.log(scale)).sum(-1)
    np.testing.assert_allclose(engine.numpy(divergence(q, p)), expected, rtol=1e-6)
    with pytest.raises(NotImplementedError):
        divergence(dist.StudentT(engine.array(3.0)), dist.Normal(engine.array(0.0), engine.array(1.0)))
