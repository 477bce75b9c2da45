"""Torch modules as models: against the suite's own model of the same weights, and against what is published of others.

The oracle of the published checkpoints is their modules run by hand, in torch alone.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from factories import hold_compiled_step
from foreign import FOLDER, Bdmc, BitsBackDecoder, BitsBackEncoder, Tied, filled, loaded, renamed, tanh_pair
from torch import Tensor, nn

import inference
from comparisons.checks.contract import breach
from comparisons.checks.model import check_model
from comparisons.data import load
from comparisons.errors import DataError
from comparisons.evidence.base import Target
from comparisons.evidence.elbo import elbo
from comparisons.evidence.importance import k_sample_bound
from comparisons.runner.training import training
from inference import BACKENDS, AllSettings
from inference.base import Engine, Posterior, arrays, numpys, pick
from inference.engines.torch_module import torch_model
from models.base import Model
from models.networks import Networks
from models.vae import VaeBernoulli

D, K, H, N = 6, 2, 5, 8
SUITE = VaeBernoulli(D, K, H)


@pytest.fixture(scope="module")
def pyro() -> Engine:
    return inference.engine("pyro", "cpu", 1)


def x_of(n: int = N) -> np.ndarray:
    return np.random.default_rng(0).random((n, D), np.float32)


def moved(seed: int = 1) -> tuple[dict[str, Any], dict[str, Any]]:
    """Weights of vae_bernoulli that are not small."""
    rng = np.random.default_rng(seed)
    theta, phi = SUITE.init(0)
    each = [
        {name: v + 0.5 * rng.standard_normal(v.shape, np.float32) for name, v in one.items()} for one in (theta, phi)
    ]
    return each[0], each[1]


def adapted(decoder: nn.Module, encoder: nn.Module, **how: Any) -> Networks:
    return torch_model(decoder, encoder, **{"n_x": D, "n_latent": K, "likelihood": "bernoulli", **how})


def twin() -> Networks:
    return adapted(*filled(*moved()))


# The same weights


def test_theta_and_phi_are_the_modules_own_by_their_names() -> None:
    decoder, encoder = tanh_pair(D, K, H)
    model = adapted(decoder, encoder)
    for seed in (0, 1):
        for found, module in zip(model.init(seed), (decoder, encoder), strict=True):
            assert list(found) == list(module.state_dict())
            assert all(np.array_equal(found[name], value.numpy()) for name, value in module.state_dict().items())
            assert {value.dtype for value in found.values()} == {np.dtype("float32")}
    assert hash(model) == hash(model) and model == model and model != adapted(decoder, encoder)
    assert (model.support, model.engines) == ("unit", ("pyro",))


def test_the_modules_stay_as_they_are_and_so_does_the_model() -> None:
    decoder, encoder = tanh_pair(D, K, H)
    model = adapted(decoder.double().train(), encoder)
    before = model.init(0)[0]["0.weight"].copy()
    with torch.no_grad():
        decoder[0].weight += 1.0
    assert decoder.training and decoder[0].weight.dtype == torch.float64
    assert np.array_equal(model.init(0)[0]["0.weight"], before)


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_densities_and_gradients_are_those_of_the_suites_own_model(pyro: Engine, lead: tuple[int, ...]) -> None:
    model, x = twin(), pyro.array(x_of())
    z = pyro.array(np.random.default_rng(2).standard_normal((*lead, N, K)))

    def scores(model: Model) -> tuple[Any, ...]:
        theta, phi = (arrays(pyro, one) for one in (moved() if model is SUITE else model.init(0)))

        def joint(theta: Any) -> Any:
            return pyro.log_prob(model.generative, {"z": z, "x": x}, theta, N)

        def log_q(phi: Any) -> Any:
            return pyro.log_prob(model.recognition, {"z": z}, phi, x)

        of_theta = pyro.value_and_grad(lambda theta: joint(theta).sum())(theta)[1]
        of_phi = pyro.value_and_grad(lambda phi: log_q(phi).sum())(phi)[1]
        return pyro.numpy(joint(theta)), pyro.numpy(log_q(phi)), numpys(pyro, of_theta), numpys(pyro, of_phi)

    ours, suites = scores(model), scores(SUITE)
    assert ours[0].shape == (*lead, N)
    np.testing.assert_allclose(ours[0], suites[0], rtol=2e-6)
    np.testing.assert_allclose(ours[1], suites[1], rtol=2e-6, atol=1e-5)
    for found, expected in zip(renamed(ours[2], ours[3]), suites[2:], strict=True):
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-4)


def steps(model: Model, backend: str, engine: Engine, weights: Any, count: int = 4) -> dict[str, np.ndarray]:
    """Return theta and phi after some steps, from the given weights, in fixed minibatches."""
    settings = AllSettings(warmup=0, minibatch=4, theta="map", local_steps=2, leapfrog_steps=2, weight_updates=1)
    kind = BACKENDS[backend].settings
    told = kind(**{name: getattr(settings, name) for name in kind.__dataclass_fields__})
    with engine.pinned():
        built, train = training(engine, model, backend, told, False)
        x, indices = engine.array(x_of()), engine.array(np.arange(count * 4).reshape(count, 4) % N)
        groups = [arrays(engine, one) for one in weights]
        state = built.init(engine.key(0), *groups, x, engine.array(0.05))
        state, info = train(state, x, engine.key(1), engine.array(np.arange(count)), indices, None)
        assert np.isfinite(engine.numpy(info.objective)).all()
        return numpys(engine, state["params"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_method_takes_the_steps_that_it_takes_on_the_suites_own_model(pyro: Engine, backend: str) -> None:
    """From the same weights and draws: AEVB's phi as well."""
    model = twin()
    ours, suites = steps(model, backend, pyro, model.init(0)), steps(SUITE, backend, pyro, moved())
    theta, phi = pick(ours, "theta"), pick(ours, "phi") or model.init(0)[1]
    found, found_phi = renamed(theta, phi)
    for name, value in found.items():
        np.testing.assert_allclose(value, suites[f"theta.{name}"], atol=1e-5)
        assert np.abs(value - moved()[0][name]).max() > 1e-3  # it has moved
    for name, value in pick(suites, "phi").items():
        np.testing.assert_allclose(found_phi[name], value, atol=1e-5)


def test_a_compiled_step_is_the_same() -> None:
    hold_compiled_step(twin(), x_of())


def test_every_check_holds(pyro: Engine) -> None:
    def build(n_x: int, n_latent: int, n_hidden: int) -> Model:
        torch.manual_seed(0)
        return torch_model(*tanh_pair(n_x, n_latent, n_hidden), n_x=n_x, n_latent=n_latent, likelihood="bernoulli")

    assert {one.name: one.text for one in check_model(build, pyro) if one.status == "FAIL"} == {}


# Likelihoods, scales, shapes


class Split(nn.Module):  # type: ignore[misc]
    """A linear layer of twice the width, whose halves come one by one, the second one through a function."""

    def __init__(self, n_in: int, n_out: int, second: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear, self.second = nn.Linear(n_in, 2 * n_out), second

    def forward(self, value: Tensor) -> tuple[Tensor, Tensor]:
        first, second = self.linear(value).chunk(2, -1)
        return first, self.second(second)


def linear(n_in: int, n_out: int) -> nn.Linear:
    torch.manual_seed(n_in)
    return nn.Linear(n_in, n_out)


@pytest.mark.parametrize(
    ("scale", "second"),
    [("log_variance", lambda s: s), ("log_std", lambda s: 0.5 * s), ("std", lambda s: torch.exp(0.5 * s))],
)
def test_a_scale_is_said_in_three_ways(pyro: Engine, scale: str, second: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(3)
    whole, split = nn.Linear(D, 2 * K), Split(D, K, second)
    split.linear.load_state_dict(whole.state_dict())
    one = adapted(linear(K, D), whole)
    other = adapted(linear(K, D), split, scale=scale)
    x, z = pyro.array(x_of()), pyro.array(np.ones((N, K)))
    found, expected = (
        pyro.numpy(pyro.log_prob(model.recognition, {"z": z}, arrays(pyro, model.init(0)[1]), x))
        for model in (one, other)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("likelihood", "width", "support", "by_hand"),
    [
        ("bernoulli", D, "unit", lambda o: torch.distributions.Bernoulli(logits=o, validate_args=False)),
        ("normal", 2 * D, "real", lambda o: torch.distributions.Normal(o[..., :D], torch.exp(0.5 * o[..., D:]))),
        ("poisson", D, "count", lambda o: torch.distributions.Poisson(torch.exp(o))),
        ("unit_normal", D, "real", lambda o: torch.distributions.Normal(o, 1.0)),
        (lambda ppl, o: ppl.dist.Laplace(o, 2.0), D, "real", lambda o: torch.distributions.Laplace(o, 2.0)),
        (lambda ppl, o: ppl.dist.Laplace(o, 2.0).to_event(1), D, "real", lambda o: torch.distributions.Laplace(o, 2.0)),
    ],
)
def test_a_likelihood_is_torchs_own(pyro: Engine, likelihood: Any, width: int, support: str, by_hand: Any) -> None:
    decoder = linear(K, width)
    model = adapted(decoder, linear(D, 2 * K), likelihood=likelihood)
    assert model.support == support
    x, z = np.round(3 * x_of()), np.random.default_rng(1).standard_normal((3, N, K)).astype(np.float32)
    values = {"z": pyro.array(z), "x": pyro.array(x)}
    found = pyro.numpy(pyro.log_prob(model.generative, values, arrays(pyro, model.init(0)[0]), N))
    with torch.no_grad():
        prior = torch.distributions.Normal(0.0, 1.0).log_prob(torch.tensor(z)).sum(-1)
        expected = by_hand(decoder(torch.tensor(z))).log_prob(torch.tensor(x)).sum(-1) + prior
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5)


class Convolutions(nn.Module):  # type: ignore[misc]
    """An encoder for images [n, 1, 4, 4], with batch normalisation and dropout; nothing else may come in."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Flatten(), nn.Linear(12, 4)
        )

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1:] == (1, 4, 4)
        return self.body(x)


class Upwards(nn.Module):  # type: ignore[misc]
    """A decoder to images [n, 1, 4, 4] that takes [n, k] alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(2, 12), nn.ConvTranspose2d(3, 1, 3)

    def forward(self, z: Tensor) -> Tensor:
        return self.last(self.first(z).reshape(z.shape[0], 3, 2, 2))


@pytest.mark.parametrize("compiled", [False, True])
def test_convolutions_keep_the_contract_in_evaluation_mode(compiled: bool) -> None:
    """Batch normalisation and dropout in training mode would break it: a score would be its neighbours' too."""
    torch.manual_seed(0)
    encoder = Convolutions()
    encoder(torch.rand(50, 1, 4, 4))  # some averages
    model = torch_model(Upwards(), encoder, n_x=16, n_latent=2, likelihood="bernoulli", shape=(1, 4, 4))
    assert not any("running" in name for name in model.init(0)[1]) and "body.1.weight" in model.init(0)[1]
    engine = inference.engine("pyro", "cpu", 1, compiled=compiled)
    assert breach(engine, model, np.random.default_rng(0).random((2, 16)).astype(np.float32)) == ""


class Noisy(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(K, D)

    def forward(self, z: Tensor) -> Tensor:
        return self.linear(z + torch.randn_like(z))


def test_a_module_with_noise_of_its_own_breaks_the_contract(pyro: Engine) -> None:
    assert "asked for again" in breach(pyro, adapted(Noisy(), linear(D, 2 * K)), x_of(2))


# What is refused


def tied() -> Networks:
    decoder = linear(K, D)
    return adapted(decoder, Tied(decoder))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: adapted(linear(K, D + 1), linear(D, 2 * K)), "decoder gives 7 numbers a row, not 6 for 'bernoulli'"),
        (lambda: adapted(linear(K, D), linear(D, 2 * K), likelihood="normal"), "decoder gives 6 .* not 2 x 6"),
        (
            lambda: adapted(linear(K, D), linear(D, K)),
            "encoder gives 2 .* not 2 x 2: the mean, and as many of log_variance",
        ),
        (
            lambda: adapted(linear(K, D), linear(D + 1, 2 * K)),
            "encoder cannot be run on rows of 6 numbers: mat1 and mat2",
        ),
        (
            lambda: adapted(linear(K, D), linear(D, 2 * K), likelihood="laplace"),
            "'laplace' is not one of bernoulli, normal",
        ),
        (lambda: adapted(linear(K, D), linear(D, 2 * K), scale="variance"), "'variance' is not one of log_variance"),
        (
            lambda: adapted(linear(K, D), linear(D, 2 * K), shape=(1, 7)),
            r"shape \(1, 7\) has 7 numbers, and a row of x 6",
        ),
        (tied, "share weight, and theta and phi cannot"),
    ],
)
def test_modules_that_do_not_fit_are_refused_in_one_line(build: Callable[[], Networks], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        build()
    assert "\n" not in str(caught.value)


# Networks that others trained

needs_files = pytest.mark.skipif(not FOLDER.is_dir(), reason="needs the foreign checkpoints")
# How they are built; k, scale; the bound of 10,000 images; K-sample bounds of 200 at K = 100 and 1000; by how many nats
# an image's bound varies, a standard deviation, from one draw of its pixels to the next: others were drawn there.
CASES: dict[str, Any] = {
    "bits_back_binary": (lambda: (BitsBackDecoder(), BitsBackEncoder()), 40, "std", -105.5, (-97.9, -97.1), 4.3),
    "bdmc": (lambda: (Bdmc(4, 50, 784), Bdmc(1, 784, 100)), 50, "log_variance", -95.8, (-86.6, -85.7), 6.2),
}


@needs_files
@pytest.mark.parametrize("name", CASES)
def test_a_foreign_network_has_the_bound_that_is_known_of_it(pyro: Engine, name: str) -> None:
    """And that of its modules by hand, an image at a time."""
    build, k, scale, known, of_k, pixels = CASES[name]
    decoder, encoder = (loaded(module, name) for module in build())
    model = torch_model(decoder, encoder, n_x=784, n_latent=k, likelihood="bernoulli", scale=scale)
    try:
        x = load("mnist_binary", None).test
    except DataError:
        pytest.skip("needs MNIST; set AEVB_DATA")
    theta, phi = (arrays(pyro, one) for one in model.init(0))
    array = pyro.array(x)
    target = Target(pyro, model, theta, array, Posterior(model.recognition, (phi, array)))
    assert abs(elbo(target, pyro.key(0), 4).mean()[0] - known) < 4 * pixels * np.sqrt(2 / len(x))
    some = target.take(np.arange(500))
    found, expected = elbo(some, pyro.key(0), 10), by_hand(decoder, encoder, scale, torch.tensor(x[:500]), 10)
    off = (found.value - expected.mean(0)) / np.hypot(found.stderr, expected.std(0, ddof=1) / np.sqrt(10))
    assert abs(off.mean()) * np.sqrt(500) < 4.0 and abs(off.std() - 1) < 0.25
    for count, log_px in zip((100, 1000), of_k, strict=True):
        one = k_sample_bound(target.take(np.arange(200)), pyro.key(1), count, repeats=2)
        assert abs(one.mean()[0] - log_px) < 4 * pixels * np.sqrt(2 / 200)


def by_hand(decoder: nn.Module, encoder: nn.Module, scale: str, x: Tensor, draws: int) -> np.ndarray:
    """Return log p(x, z) - log q(z | x) of fresh draws [draws, n], in float64 and torch alone."""
    decoder, encoder, x = decoder.double(), encoder.double(), x.double()
    torch.manual_seed(0)
    with torch.no_grad():
        output = encoder(x)
        loc, spread = output if isinstance(output, tuple) else output.chunk(2, -1)
        q = torch.distributions.Normal(loc, spread if scale == "std" else torch.exp(0.5 * spread))
        found = []
        for _ in range(draws):
            z = q.sample()
            fit = -nn.functional.binary_cross_entropy_with_logits(decoder(z), x, reduction="none").sum(-1)
            found.append(fit + (torch.distributions.Normal(0.0, 1.0).log_prob(z) - q.log_prob(z)).sum(-1))
    return torch.stack(found).numpy()
