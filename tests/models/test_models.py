"""The models: one density on every engine and in NumPy, and the closed forms of `linear_gaussian`."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import oracles
import pytest
from scipy import special, stats

from inference.base import Engine, arrays, numpys
from inference.latents import latents
from inference.rows import generative, recognition, width
from models import MODELS
from models.base import Model
from models.linear_gaussian import LinearGaussian, log_px, maximum_likelihood, posterior
from models.vae_categorical import VaeCategorical
from models.vae_deep import VaeDeep

N, D, K, H = 4, 6, 2, 5

Values = dict[str, np.ndarray]
Case = tuple[Model, Values, Values, Values, np.ndarray]


def case(name: str, scale: float = 0.5, seed: int = 0) -> Case:
    """Return model, theta, phi, the latent sites and rows x [N, d], all float32.

    x holds 0, 1 and grey values, or counts. What stands beside it in a row are positive numbers.
    """
    rng = np.random.default_rng(seed)
    model = MODELS[name](D, K, H)
    theta, phi = ({key: _normal(rng, scale, value.shape) for key, value in group.items()} for group in model.init(0))
    x = rng.random((N, D)).astype(np.float32)
    x[0, :3] = 0.0, 1.0, 0.5
    if model.support == "count":
        x = np.minimum(np.floor(10.0 * x), 9.0)  # of as many levels as `vae_categorical` has
    sites = {site: _normal(rng, 1.0, (N, *event)) for site, event in SITES.get(name, {"z": (K,)}).items()}
    beside = rng.uniform(0.5, 5.0, (N, width(model) - D)).astype(np.float32)
    return model, theta, phi, sites, np.concatenate([x, beside], 1)


SITES: dict[str, dict[str, tuple[int, ...]]] = {
    "hierarchical_vae": {"z2": (K,), "z1": (K,)},
    "state_space": {"h": (K, D)},
}


def _normal(rng: np.random.Generator, scale: float, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(scale * rng.standard_normal(shape), np.float32)


def assert_gradients_close(actual: dict[str, Any], expected: Any, rtol: float = 1e-4) -> None:
    """Compare entry by entry, relative to the largest entry of all."""
    largest = max(np.abs(value).max() for value in expected.values())
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=0, atol=rtol * largest, err_msg=name)


def test_every_model_has_an_oracle() -> None:
    assert oracles.LOG_LIKELIHOOD.keys() == MODELS.keys()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0])
def test_log_joint_is_the_same_number_on_every_engine_and_in_numpy(
    name: str, scale: float, engines: dict[str, Engine]
) -> None:
    model, theta, _, values, x = case(name, scale)
    expected = oracles.log_joint(name, oracles.float64(theta), oracles.float64(values), x.astype(np.float64))
    for engine in engines.values():
        score = latents(engine, model).score
        actual = engine.numpy(score(arrays(engine, theta), engine.array(x), arrays(engine, values)))
        assert actual.shape == (N,)
        np.testing.assert_allclose(actual, expected, rtol=1e-5, err_msg=engine.name)


@pytest.mark.parametrize("name", MODELS)
def test_gradients_agree_across_engines_and_with_finite_differences(name: str, engines: dict[str, Engine]) -> None:
    model, theta, _, sites, x = case(name)
    at = {**theta, **sites}

    def total(values: dict[str, np.ndarray]) -> float:
        return float(oracles.log_joint(name, values, values, x.astype(np.float64)).sum())

    expected = oracles.finite_differences(total, at)
    found = []
    for engine in engines.values():

        def function(values: dict[str, Any], engine: Engine = engine) -> Any:
            given = {key: value for key, value in values.items() if key not in sites}
            return latents(engine, model).score(given, engine.array(x), {key: values[key] for key in sites}).sum()

        value, gradient = engine.value_and_grad(function)(arrays(engine, at))
        np.testing.assert_allclose(engine.numpy(value), total(oracles.float64(at)), rtol=1e-5)
        found.append(numpys(engine, gradient))
        assert_gradients_close(found[-1], expected)
    assert_gradients_close(found[0], found[1])


@pytest.mark.parametrize("name", MODELS)
def test_leading_sample_axes_stay(name: str, engine: Engine) -> None:
    model, theta, phi, sites, x = case(name)
    rng = np.random.default_rng(1)
    values = {key: _normal(rng, 1.0, (3, 2, *value.shape)) for key, value in sites.items()}
    on_engine, rows = arrays(engine, values), engine.array(x)
    joint = engine.numpy(latents(engine, model).score(arrays(engine, theta), rows, on_engine))
    q = engine.numpy(engine.log_prob(recognition(model), on_engine, arrays(engine, phi), rows))
    exact = oracles.float64(values)
    np.testing.assert_allclose(joint, oracles.log_joint(name, oracles.float64(theta), exact, x), rtol=1e-5)
    np.testing.assert_allclose(q, oracles.log_q(name, oracles.float64(phi), x, exact), rtol=1e-5)
    assert joint.shape == q.shape == (3, 2, N)


@pytest.mark.parametrize("name", MODELS)
def test_recognition_log_prob_against_scipy(name: str, engine: Engine) -> None:
    model, _, phi, values, x = case(name)
    actual = engine.log_prob(recognition(model), arrays(engine, values), arrays(engine, phi), engine.array(x))
    expected = oracles.log_q(name, oracles.float64(phi), x.astype(np.float64), oracles.float64(values))
    np.testing.assert_allclose(engine.numpy(actual), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["vae_bernoulli", "vae_gaussian", "vae_poisson"])
def test_a_factor_on_the_log_variance_weights_is_one_on_w5(name: str, engine: Engine) -> None:
    model, _, phi, values, x = case(name)
    z = values["z"]
    damped = replace(model, log_variance_factor=0.1)  # type: ignore[type-var]
    phi["b5"] = np.linspace(-1.0, 1.0, K, dtype=np.float32)
    args = (arrays(engine, {"z": z}), arrays(engine, phi), engine.array(x))
    expected = oracles.log_q(name, oracles.float64(phi | {"w5": 0.1 * phi["w5"]}), x.astype(np.float64), z)
    np.testing.assert_allclose(engine.numpy(engine.log_prob(damped.recognition, *args)), expected, rtol=1e-5)
    assert np.abs(engine.numpy(engine.log_prob(model.recognition, *args)) - expected).max() > 0.01


@pytest.mark.parametrize("name", MODELS)
def test_recognition_draws_have_its_moments(name: str, engine: Engine) -> None:
    """Statistical: fixed seed, 5 standard errors, over 2000 copies of each datapoint."""
    model, _, phi, _, x = case(name)
    copies = np.repeat(x, 2000, axis=0)
    drawn = engine.draw(engine.key(0), recognition(model), arrays(engine, phi), engine.array(copies))
    exact = oracles.float64(numpys(engine, drawn))
    u, _ = oracles.whitened_by_q(name, oracles.float64(phi), copies.astype(np.float64), exact)
    assert_standard_normal(u.reshape(N, 2000, -1).swapaxes(0, 1).reshape(2000, -1))


@pytest.mark.parametrize("name", MODELS)
def test_generative_draws_have_its_moments(name: str, engine: Engine) -> None:
    """Statistical: fixed seed, 5 standard errors. Given z, the residuals have mean 0 and variance 1 once scaled."""
    model, theta, _, sites, x = case(name)
    like = np.resize(x, (4000, x.shape[1]))
    draw = engine.compile(lambda key, theta, like: engine.draw(key, generative(model, like), theta))
    drawn = numpys(engine, draw(engine.key(3), arrays(engine, theta), engine.array(like)))
    assert drawn.keys() == {*sites, *model.observed, *model.summed}
    exact = {key: value if value.dtype.kind in "iu" else value.astype(np.float64) for key, value in drawn.items()}
    assert_standard_normal(oracles.whitened(name, oracles.float64(theta), exact)[0])
    decoded = exact[oracles.decoded_site(name)]
    mean, variance = oracles.mean_and_variance(name, oracles.float64(theta), decoded, like.astype(np.float64))
    residual = (np.concatenate([exact[key] for key in model.observed], 1) - mean) / np.sqrt(variance)
    for moment, expected in ((residual, 0.0), (residual**2, 1.0)):
        error = moment.std(0, ddof=1) / np.sqrt(len(moment))
        assert (np.abs(moment.mean(0) - expected) < 5 * error).all()


def assert_standard_normal(u: np.ndarray) -> None:
    """Hold mean and covariance of the rows u [n, k] to N(0, I), within 5 standard errors."""
    n, k = u.shape
    assert (np.abs(u.mean(0)) < 5 / np.sqrt(n)).all()
    covariance = u.T @ u / n - np.eye(k)
    assert (np.abs(covariance) < 5 * np.sqrt((1 + np.eye(k)) / n)).all()


@pytest.mark.parametrize("name", MODELS)
def test_prior_is_standard_normal_over_every_parameter(name: str, engine: Engine) -> None:
    """Statistical: fixed seed, 5 standard errors; the log density is exact."""
    model, theta, _, _, _ = case(name)
    actual = engine.numpy(engine.log_prob(model.prior, arrays(engine, theta)))
    assert actual.shape == ()
    np.testing.assert_allclose(actual, oracles.log_prior(oracles.float64(theta)), rtol=1e-5)

    draw = engine.compile(lambda key: engine.draw(key, MODELS[name](80, 30, 60).prior))
    drawn = numpys(engine, draw(engine.key(0)))
    assert {key: value.shape for key, value in drawn.items()} == dict(MODELS[name](80, 30, 60).theta_shapes)
    assert_standard_normal(np.concatenate([value.ravel() for value in drawn.values()])[:, None])


@pytest.mark.parametrize("name", MODELS)
def test_init_is_a_function_of_the_seed(name: str) -> None:
    model = MODELS[name](D, K, H)
    first, again, other = model.init(7), model.init(7), model.init(8)
    for group, repeated in zip(first, again, strict=True):
        assert group.keys() == repeated.keys()
        for key, value in group.items():
            assert value.dtype == np.float32
            assert value.tobytes() == repeated[key].tobytes()
    assert {key: value.shape for key, value in first[0].items()} == dict(model.theta_shapes)
    assert list(first[0]) == list(model.theta_shapes)
    assert any(not np.array_equal(first[0][key], other[0][key]) for key in first[0])
    assert any(not np.array_equal(first[1][key], other[1][key]) for key in first[1])


@pytest.mark.parametrize(
    ("name", "zero_theta", "zero_phi"),
    [
        ("vae_bernoulli", {"b2"}, {"b4", "w5", "b5"}),
        ("vae_gaussian", {"b2", "w3", "b3"}, {"b4", "w5", "b5"}),
        ("vae_gaussian_unit", {"b2"}, {"b4", "w5", "b5"}),
        ("vae_poisson", {"b2"}, {"b4", "w5", "b5"}),
        ("vae_negative_binomial", {"b2", "log_r"}, {"b4", "w5", "b5"}),
        ("vae_categorical", {"b2"}, {"b4", "w5", "b5"}),
        ("linear_gaussian", {"b", "log_scale"}, {"b", "log_scale"}),
    ],
)
def test_init_scales_are_the_papers(name: str, zero_theta: set[str], zero_phi: set[str]) -> None:
    """Statistical: N(0, 0.01^2) within 5 standard errors, and zeros where the docstrings say so."""
    for group, zero in zip(MODELS[name](200, 20, 100).init(0), (zero_theta, zero_phi), strict=True):
        assert {key for key, value in group.items() if not value.any()} == zero
        for key in group.keys() - zero:
            assert_standard_normal(group[key].reshape(-1, 1).astype(np.float64) / 0.01)


# vae_deep and vae_categorical: what is theirs alone.


ACTIVATED = [("tanh", ()), ("relu", (7,)), ("elu", (7, 4, 3)), ("gated", (7, 4))]


@pytest.mark.parametrize(("activation", "hidden"), ACTIVATED)
def test_any_number_of_layers_of_any_units_is_the_oracles(
    activation: str, hidden: tuple[int, ...], engine: Engine
) -> None:
    """The decoder's mean and q(z | x), with leading axes of z; the decoder has the encoder's layers in reverse."""
    model = VaeDeep(D, K, H, hidden=hidden, activation=activation)
    (theta, phi), widths = model.init(1), hidden or (H, H)
    assert [phi[f"w{i}"].shape for i in range(1, len(widths) + 1)] == [*pairwise((D, *widths))]
    assert [theta[f"w{i}"].shape for i in range(1, len(widths) + 1)] == [*pairwise((K, *widths[::-1]))]
    assert {name: value.shape for name, value in phi.items()} == dict(model.phi_shapes)
    x, z = case("vae_deep")[-1], _normal(np.random.default_rng(1), 3.0, (3, N, K))
    values, params = {"z": engine.array(z)}, arrays(engine, theta)
    found = engine.conditional(model.generative, "x", {**values, "x": engine.array(x)}, params, N).mean
    wide = oracles.deep(oracles.float64(theta), z.astype(np.float64), activation)
    np.testing.assert_allclose(engine.numpy(found), special.expit(wide @ theta["w_out"] + theta["b_out"]), rtol=2e-5)
    score = engine.log_prob(model.recognition, values, arrays(engine, phi), engine.array(x))
    hidden_of_x = oracles.deep(oracles.float64(phi), x.astype(np.float64), activation)
    scale = np.exp(0.5 * (hidden_of_x @ phi["w_var"] + phi["b_var"]))
    expected = stats.norm.logpdf(z, hidden_of_x @ phi["w_loc"] + phi["b_loc"], scale).sum(-1)
    np.testing.assert_allclose(engine.numpy(score), expected, rtol=1e-5)


def test_deep_layers_start_as_torchs_do() -> None:
    """Uniform within 1 / sqrt(inputs), weights and biases: its ends, mean and variance, within 5 standard errors."""
    torch = pytest.importorskip("torch")
    theta, phi = VaeDeep(300, 100, 1, hidden=(200,), activation="gated").init(0)
    for group, inputs in ((theta, {"1": 100, "out": 200}), (phi, {"1": 300, "loc": 200, "var": 200})):
        for name, value in group.items():
            bound = 1 / np.sqrt(inputs[name[1:].strip("_")])
            (scaled := value.astype(np.float64).ravel() / bound).sort()
            assert abs(scaled[0] + 1) < 10 / scaled.size and abs(scaled[-1] - 1) < 10 / scaled.size, name
            assert abs(scaled.mean()) < 5 / np.sqrt(3 * scaled.size)
            assert abs((scaled**2).mean() - 1 / 3) < 5 * np.sqrt(4 / 45 / scaled.size)
    layer = torch.nn.Linear(200, 300)
    for weights in (layer.weight, layer.bias):
        assert abs(float(weights.detach().abs().max()) - 1 / np.sqrt(200)) < 0.05 / np.sqrt(200)


@pytest.mark.parametrize(
    ("told", "words"), [({"activation": "swish"}, "'swish'.*tanh, relu, elu, gated"), ({"hidden": (3, 0)}, "3, 0")]
)
def test_a_deep_model_refuses_what_it_cannot_be(told: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        VaeDeep(D, K, H, **told)


def test_networks_that_others_trained_fit_in(engine: Engine) -> None:
    """torch's layers, elu, and one head of mean and log variance: the same logits and the same q."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    encoder = torch.nn.Sequential(
        *(torch.nn.Linear(D, 8), torch.nn.ELU(), torch.nn.Linear(8, 5), torch.nn.ELU(), torch.nn.Linear(5, 2 * K))
    )
    decoder = torch.nn.Sequential(
        *(torch.nn.Linear(K, 5), torch.nn.ELU(), torch.nn.Linear(5, 8), torch.nn.ELU(), torch.nn.Linear(8, D))
    )
    (w1, b1, w2, b2, w, b), (v1, c1, v2, c2, v, c) = (
        [weights.detach().numpy().T for weights in network.parameters()] for network in (encoder, decoder)
    )
    phi = {"w1": w1, "b1": b1, "w2": w2, "b2": b2, "w_loc": w[:, :K], "b_loc": b[:K], "w_var": w[:, K:], "b_var": b[K:]}
    theta = {"w1": v1, "b1": c1, "w2": v2, "b2": c2, "w_out": v, "b_out": c}
    model = VaeDeep(D, K, 1, hidden=(8, 5), activation="elu")
    x = case("vae_deep")[-1]
    q = engine.conditional(
        model.recognition, "z", {"z": engine.array(np.zeros((N, K)))}, arrays(engine, phi), engine.array(x)
    )
    with torch.no_grad():
        mean, log_variance = encoder(torch.from_numpy(x)).numpy().T.reshape(2, K, N).swapaxes(1, 2)
        logits = decoder(torch.from_numpy(mean.copy())).numpy()
    np.testing.assert_allclose(engine.numpy(q.mean), mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(engine.numpy(q.variance), np.exp(log_variance), rtol=1e-4)
    values = {"z": engine.array(mean), "x": engine.array(x)}
    found = engine.conditional(model.generative, "x", values, arrays(engine, theta), N).mean
    np.testing.assert_allclose(engine.numpy(found), special.expit(logits), rtol=1e-5)


@pytest.mark.parametrize("levels", [2, 3, 17])
def test_a_categorical_column_has_as_many_levels_as_told_and_no_others(levels: int, engine: Engine) -> None:
    model = VaeCategorical(D, K, H, levels=levels)
    theta, phi = model.init(0)
    assert theta["w2"].shape == (H, D * levels) and phi["w3"].shape == (D * levels, H)
    theta["b2"] = _normal(np.random.default_rng(0), 2.0, (D * levels,))
    z = np.zeros((levels + 1, K), np.float32)
    x = np.repeat(np.arange(levels + 1.0)[:, None], D, axis=1)
    given = {"z": engine.array(z), "x": engine.array(x)}
    site = engine.conditional(model.generative, "x", given, arrays(engine, theta), levels + 1)
    found = engine.numpy(site.base_dist.log_prob(engine.array(x)))  # a column at each of its levels, and at one more
    hidden = np.tanh(theta["b1"].astype(np.float64))
    logits = (hidden @ theta["w2"] + theta["b2"]).reshape(D, levels)
    np.testing.assert_allclose(found[:levels], special.log_softmax(logits, axis=-1).T, rtol=1e-5)
    assert (found[levels] == -np.inf).all()
    assert (
        engine.numpy(engine.log_prob(model.recognition, {"z": given["z"]}, arrays(engine, phi), given["x"])) < 0
    ).all()


def test_two_levels_are_a_bernoulli(engine: Engine) -> None:
    model, (theta, _) = VaeCategorical(D, K, H, levels=2), VaeCategorical(D, K, H, levels=2).init(3)
    z = _normal(np.random.default_rng(0), 3.0, (N, K))
    x = (np.random.default_rng(1).random((N, D)) < 0.5).astype(np.float32)
    values = {"z": engine.array(z), "x": engine.array(x)}
    found = engine.numpy(engine.log_prob(model.generative, values, arrays(engine, theta), N))
    halves = {name: theta[name][..., 1::2] - theta[name][..., ::2] for name in ("w2", "b2")}
    expected = oracles.log_joint("vae_bernoulli", oracles.float64({**theta, **halves}), z, x)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


# linear_gaussian: the ruler.


@pytest.fixture
def ruler() -> tuple[dict[str, np.ndarray], np.ndarray]:
    _, theta, _, _, _ = case("linear_gaussian")
    return oracles.float64(theta), np.random.default_rng(2).standard_normal((40, D))


def test_log_px_against_scipy(ruler: tuple[dict[str, np.ndarray], np.ndarray]) -> None:
    theta, x = ruler
    covariance = theta["w"].T @ theta["w"] + np.exp(2 * theta["log_scale"]) * np.eye(D)
    np.testing.assert_allclose(log_px(theta, x), stats.multivariate_normal(theta["b"], covariance).logpdf(x))


def test_posterior_obeys_bayes_rule(ruler: tuple[dict[str, np.ndarray], np.ndarray]) -> None:
    """log p(x, z) - log p(z | x) is log p(x) whatever z: so the exact posterior's bound is tight, draw by draw."""
    theta, x = ruler
    mean, covariance = posterior(theta, x)
    z = np.random.default_rng(3).standard_normal((len(x), K))
    log_posterior = stats.multivariate_normal(np.zeros(K), covariance).logpdf(z - mean)
    joint = oracles.log_joint("linear_gaussian", theta, z, x)
    np.testing.assert_allclose(joint - log_posterior, log_px(theta, x))


def test_maximum_likelihood_has_zero_gradient_and_orthogonal_rows() -> None:
    rng = np.random.default_rng(4)
    x = rng.standard_normal((300, K)) @ rng.standard_normal((K, D)) + 0.3 * rng.standard_normal((300, D))
    best = maximum_likelihood(x, K)
    assert {key: value.shape for key, value in best.items()} == dict(LinearGaussian(D, K).theta_shapes)
    gradient = oracles.finite_differences(lambda theta: float(log_px(theta, x).mean()), best)
    for name, value in gradient.items():
        np.testing.assert_allclose(value, 0, atol=1e-7, err_msg=name)
    products = best["w"] @ best["w"].T
    np.testing.assert_allclose(products - np.diag(np.diag(products)), 0, atol=1e-10)


def test_maximum_likelihood_beats_perturbations() -> None:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((300, K)) @ rng.standard_normal((K, D)) + 0.3 * rng.standard_normal((300, D))
    best = maximum_likelihood(x, K)
    top = log_px(best, x).mean()
    for size in (0.01, 0.1, 1.0):
        for _ in range(30):
            other = {name: value + size * rng.standard_normal(value.shape) for name, value in best.items()}
            assert log_px(other, x).mean() < top


@pytest.mark.parametrize("n_latent", [0, D, D + 1])
def test_maximum_likelihood_refuses_a_model_without_noise(n_latent: int) -> None:
    with pytest.raises(ValueError, match=f"n_latent is {n_latent}"):
        maximum_likelihood(np.random.default_rng(0).standard_normal((20, D)), n_latent)


def test_elbo_with_the_exact_posterior_is_log_px(engine: Engine) -> None:
    """At the maximum likelihood q can be exact: every draw's log weight is then log p(x), with no variance left."""
    rng = np.random.default_rng(6)
    x = (rng.standard_normal((50, K)) @ rng.standard_normal((K, D)) + rng.standard_normal((50, D))).astype(np.float32)
    theta = maximum_likelihood(x, K)
    phi, model = oracles.exact_recognition(theta), LinearGaussian(D, K)
    on_engine = arrays(engine, theta), arrays(engine, phi), engine.array(x)

    def log_weight(theta: Any, phi: Any, x: Any) -> Any:
        z = engine.draw(engine.key(0), model.recognition, phi, x)["z"]
        joint = engine.log_prob(model.generative, {"z": z, "x": x}, theta, x.shape[0])
        return joint - engine.log_prob(model.recognition, {"z": z}, phi, x)

    np.testing.assert_allclose(engine.numpy(engine.compile(log_weight)(*on_engine)), log_px(theta, x), rtol=1e-5)
    np.testing.assert_allclose(oracles.linear_gaussian_elbo(theta, phi, x), log_px(theta, x))
