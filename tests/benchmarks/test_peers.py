"""The peers: the same model, bound and data as ours, and roofs of as many products as they say."""

from typing import Any

import numpy as np
import oracles
import plain
import pytest
from numpy.testing import assert_allclose

from comparisons.benchmarks import peers, scans
from comparisons.benchmarks.peers import Shape
from comparisons.benchmarks.speed import images
from models.vae import VaeBernoulli

TINY = Shape(5, 2, n_train=150, minibatch=10, n_x=6)
PRODUCT = 10 * 5 * 6  # multiplications of one large product, whichever of the three it is


@pytest.mark.parametrize(
    ("roof", "products"),
    [(peers.step_products(TINY), 5), (peers.em_products(TINY, 10, 5), 37), (peers.em_products(TINY, 1, 2), 10)],
)
def test_a_roof_is_as_many_products_as_it_says(
    roof: peers.Steps, products: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    counted: list[int] = []
    product = torch.mm

    def mm(left: Any, right: Any, out: Any) -> None:
        (rows, inner), (again, columns) = left.shape, right.shape
        assert inner == again
        counted.append(rows * inner * columns)
        product(left, right, out=out)

    monkeypatch.setattr(torch, "mm", mm)
    roof(2)
    assert counted == 2 * products * [PRODUCT]


# The same parameters and data


Problem = tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def problem() -> Problem:
    """Theta, phi, a minibatch and noise, float32."""
    rng = np.random.default_rng(0)
    model = VaeBernoulli(TINY.n_x, TINY.n_latent, TINY.n_hidden)
    theta, phi = ({n: rng.normal(0, 0.5, v.shape).astype(np.float32) for n, v in g.items()} for g in model.init(0))
    noise = rng.standard_normal((TINY.minibatch, TINY.n_latent)).astype(np.float32)
    return theta, phi, images(TINY)[: TINY.minibatch], noise


def decay(theta: dict[str, np.ndarray]) -> float:
    """The part of the weight decay that a minibatch sees, in nats."""
    return 0.5 * TINY.fraction * sum(float(np.square(value).sum()) for value in theta.values())


def stacked(phi: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The weights of the peers' encoder, whose last layer holds both of our heads, and log sigma^2 for log sigma."""
    return [phi["w3"], phi["b3"], np.hstack([phi["w4"], phi["w5"]]), np.hstack([phi["b4"], phi["b5"]])]


def in_torch(problem: Problem) -> tuple[Any, Any]:
    """The peers' networks in torch with these parameters."""
    import torch

    theta, phi, _, _ = problem
    encoder, decoder = peers.torch_networks(TINY)
    with torch.no_grad():
        for network, values in ((encoder, stacked(phi)), (decoder, list(theta.values()))):
            for weight, value in zip(network.parameters(), values, strict=True):
                weight.copy_(torch.tensor(value.T))
    return encoder, decoder


def test_by_hand_has_our_bound_and_our_gradient(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    theta, phi, x, noise = problem
    monkeypatch.setattr(torch, "randn_like", lambda mean: torch.tensor(noise))
    encoder, decoder = in_torch(problem)
    loss = peers.torch_loss(encoder, decoder, torch.tensor(x), TINY.fraction)
    loss.backward()
    loc, scale = oracles.q_moments("vae_bernoulli", phi, x)
    likelihood = oracles.LOG_LIKELIHOOD["vae_bernoulli"](theta, loc + scale * noise, x)
    bound = (likelihood - oracles.kl_to_standard_normal(loc, scale)).sum()
    assert loss.item() == pytest.approx(decay(theta) - bound, rel=1e-5)
    of_theta, of_phi = plain.aevb_gradient(theta, phi, x, noise)
    expected = [TINY.fraction * theta[name] - of_theta[name] for name in theta]
    for weight, gradient in zip(decoder.parameters(), expected, strict=True):
        assert_allclose(weight.grad.numpy().T, gradient, rtol=1e-4, atol=1e-5)
    for weight, gradient in zip(encoder.parameters(), stacked(of_phi), strict=True):
        assert_allclose(weight.grad.numpy().T, -gradient, rtol=1e-4, atol=1e-5)


def layers(values: Any) -> list[tuple[Any, Any]]:
    """Weights and bias of each layer, of what lies side by side."""
    flat = [*values]
    return [(flat[i], flat[i + 1]) for i in range(0, len(flat), 2)]


def test_the_scan_by_hand_has_our_bound_and_our_gradient(problem: Problem) -> None:
    jax = pytest.importorskip("jax")
    theta, phi, x, noise = problem
    weights, batch = (layers(stacked(phi)), layers(theta.values())), scans.Minibatch(x, None, TINY.fraction)
    value, gradients = jax.value_and_grad(scans.minus_bound)(weights, batch, noise)
    loc, scale = oracles.q_moments("vae_bernoulli", phi, x)
    likelihood = oracles.LOG_LIKELIHOOD["vae_bernoulli"](theta, loc + scale * noise, x)
    bound = (likelihood - oracles.kl_to_standard_normal(loc, scale)).sum()
    assert float(value) == pytest.approx(decay(theta) - bound, rel=1e-5)
    of_theta, of_phi = plain.aevb_gradient(theta, phi, x, noise)
    expected = [-each for each in stacked(of_phi)] + [TINY.fraction * theta[n] - of_theta[n] for n in theta]
    for gradient, each in zip(jax.tree.leaves(gradients), expected, strict=True):
        assert_allclose(gradient, each, rtol=1e-4, atol=1e-5)


def test_pyros_programs_have_our_densities(problem: Problem) -> None:
    pyro, torch = pytest.importorskip("pyro"), pytest.importorskip("torch")
    x, z = (torch.tensor(each) for each in problem[2:])
    with pyro.get_param_store().scope():
        programs = peers.pyro_programs(TINY, "test", *in_torch(problem))
        traces = [pyro.poutine.trace(pyro.poutine.condition(program, {"z": z})) for program in programs]
        found = [trace.get_trace(x).log_prob_sum().item() for trace in traces]
    assert found == pytest.approx(densities(problem), rel=1e-5)


def test_numpyros_programs_have_our_densities(problem: Problem) -> None:
    pytest.importorskip("numpyro")
    from numpyro.infer.util import log_density

    theta, phi, x, z = problem
    names = ("{}.0", "{}.b0", "{}.1", "{}.b1")
    values = {
        name.format(network): value
        for network, group in (("encoder", stacked(phi)), ("decoder", list(theta.values())))
        for name, value in zip(names, group, strict=True)
    }
    programs = peers.numpyro_programs(TINY)
    found = [float(log_density(program, (x,), {}, {**values, "z": z})[0]) for program in programs]
    assert found == pytest.approx(densities(problem), rel=1e-5)


def densities(problem: Problem) -> list[float]:
    """log p(x, z) with the weight decay, and log q(z), of a minibatch at z = noise, in nats."""
    theta, phi, x, z = problem
    joint = oracles.log_joint("vae_bernoulli", theta, z, x).sum() - decay(theta)
    return [float(joint), float(oracles.log_q("vae_bernoulli", phi, x, z).sum())]


# Steps


@pytest.mark.parametrize("loss", ["Trace_ELBO", "JitTrace_ELBO"])
def test_stock_pyro_takes_steps(loss: str) -> None:
    pyro = pytest.importorskip("pyro")
    with pyro.get_param_store().scope():
        peers.pyro_svi(TINY, images(TINY), loss)(2)


def test_the_others_take_steps() -> None:
    peers.torch_by_hand(TINY, images(TINY))(2)
    peers.numpyro_svi(TINY, images(TINY))(2)


def test_minibatches_are_those_of_a_comparison() -> None:
    batches = peers.minibatches(TINY)
    first, second = next(batches), next(batches)
    assert len(set(first)) == TINY.minibatch and max(first) < TINY.n_train and (first != second).any()
