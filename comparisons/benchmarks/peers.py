"""What a step costs elsewhere: its matrix products alone, by hand in torch, and on the libraries' own SVI.

All but the products climb AEVB's bound with the weight decay and Adagrad of ours, on the same minibatches: the model as
a user of each library would write it. With scans.py the only file among the comparisons that names torch and jax.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, pairwise
from typing import Any, NamedTuple

import numpy as np

Steps = Callable[[int], None]  # takes so many steps, and returns when they are done
Program = Callable[[Any], None]  # of a minibatch
STEP_SIZE = 0.01
LOSSES = ("Trace_ELBO", "JitTrace_ELBO", "CompiledELBO")  # Pyro's, and ours in its place


class Shape(NamedTuple):
    """What the cost of a step depends on."""

    n_hidden: int
    n_latent: int
    n_train: int = 50_000
    minibatch: int = 100
    n_x: int = 784

    @property
    def fraction(self) -> float:
        """The share of the training set that a minibatch is."""
        return self.minibatch / self.n_train


def minibatches(shape: Shape) -> Iterator[np.ndarray]:
    """Yield the rows of one step after another, as a comparison draws them."""
    for step in count():
        yield np.random.default_rng([0, step]).choice(shape.n_train, shape.minibatch, replace=False, shuffle=False)


def weights_of(shape: Shape) -> list[list[np.ndarray]]:
    """Return initial weights N(0, 0.01^2) of the two layers of an encoder, and of the two of a decoder."""
    rng = np.random.default_rng(0)
    networks = (shape.n_x, shape.n_hidden, 2 * shape.n_latent), (shape.n_latent, shape.n_hidden, shape.n_x)
    return [[0.01 * rng.standard_normal(s).astype(np.float32) for s in pairwise(sizes)] for sizes in networks]


# The roof: nothing but large matrix products, on arrays that are there already


def step_products(shape: Shape, device: str = "cpu") -> Steps:
    """Return the five large products of an AEVB step: x's layer and the logits', with the gradients that it needs.

    They are each layer's weights' gradient, and that of the logits' layer for its inputs; nobody asks for that of x.
    """
    return _products(_layer(shape) + _layer(shape)[:2], device)


def em_products(shape: Shape, leapfrog_steps: int, weight_updates: int, device: str = "cpu") -> Steps:
    """Return the large products of a Monte Carlo EM step: 2 for each of L + 1 gradients by z, 3 for each update."""
    forward, weights, inputs = _layer(shape)
    return _products((leapfrog_steps + 1) * [forward, inputs] + weight_updates * [forward, weights, inputs], device)


def _layer(shape: Shape) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return the shapes of a layer's product, of its weights' gradient and of its inputs' gradient."""
    m, h, d = shape.minibatch, shape.n_hidden, shape.n_x
    return [((m, h), (h, d)), ((h, m), (m, d)), ((m, d), (d, h))]


def _products(pairs: list[tuple[tuple[int, int], tuple[int, int]]], device: str) -> Steps:
    import torch

    made = {}
    for left, right in pairs:
        inputs = torch.randn(left, device=device), torch.randn(right, device=device)
        made[left, right] = (*inputs, torch.empty(left[0], right[1], device=device))

    def step() -> None:
        for pair in pairs:
            left, right, out = made[pair]
            torch.mm(left, right, out=out)

    return _in_torch(step, device)


def _in_torch(step: Callable[[], None], device: str) -> Steps:
    """Return what takes a step so often, and waits until torch has done it: on a card it is asked ahead."""
    import torch

    def steps(number: int) -> None:
        for _ in range(number):
            step()
        if device != "cpu":
            torch.cuda.synchronize()

    return steps


# By hand


def torch_by_hand(shape: Shape, x: np.ndarray, device: str = "cpu") -> Steps:
    """Return AEVB in torch as one writes it without a PPL, with torch's own Adagrad, fused where it can be."""
    import torch

    data, encoder, decoder = torch.tensor(x, device=device), *torch_networks(shape, device)
    weights = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adagrad(weights, lr=STEP_SIZE, eps=1e-8, fused=device == "cpu")
    batches = minibatches(shape)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch_loss(encoder, decoder, data[torch.from_numpy(next(batches))], shape.fraction).backward()
        optimizer.step()

    return _in_torch(step, device)


def torch_networks(shape: Shape, device: str = "cpu") -> tuple[Any, Any]:
    """Return an encoder, to mean and log variance of z, and a decoder, to logits."""
    from torch.nn import Linear, Sequential, Tanh

    encoder = Sequential(Linear(shape.n_x, shape.n_hidden), Tanh(), Linear(shape.n_hidden, 2 * shape.n_latent))
    decoder = Sequential(Linear(shape.n_latent, shape.n_hidden), Tanh(), Linear(shape.n_hidden, shape.n_x))
    return encoder.to(device), decoder.to(device)


def torch_loss(encoder: Any, decoder: Any, batch: Any, fraction: float) -> Any:
    """Return minus the bound of a minibatch (equation 10, one draw) and a fraction of the weight decay, in nats."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    mean, log_variance = encoder(batch).chunk(2, -1)
    logits = decoder(mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean))
    reconstruction = binary_cross_entropy_with_logits(logits, batch, reduction="sum")
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum()
    decay = 0.5 * fraction * sum(weight.square().sum() for weight in decoder.parameters())
    return reconstruction + divergence + decay


def torch_example(x: np.ndarray, seed: int) -> tuple[Callable[[], None], Callable[[np.ndarray], float]]:
    """Return what trains an epoch of PyTorch's own example on x [n, d], and what returns its loss a row of other rows.

    It is d-400-20-400-d with relu and torch's initial values; Adam at 1e-3 on minibatches of 128, the last of what is
    left, in a new order each epoch. Its loss is minus the bound by one draw, in nats. Source:
    github.com/pytorch/examples, vae/main.py.
    """
    import torch
    from torch.nn import Linear, functional

    torch.manual_seed(seed)
    sizes = (x.shape[1], 400), (400, 20), (400, 20), (20, 400), (400, x.shape[1])
    fc1, fc21, fc22, fc3, fc4 = layers = [Linear(*size) for size in sizes]
    data = torch.from_numpy(x)
    optimizer = torch.optim.Adam([weight for layer in layers for weight in layer.parameters()], lr=1e-3)

    def loss(batch: Any) -> Any:
        hidden = functional.relu(fc1(batch))
        mean, log_variance = fc21(hidden), fc22(hidden)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
        image = torch.sigmoid(fc4(functional.relu(fc3(z))))
        divergence = -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())
        return functional.binary_cross_entropy(image, batch, reduction="sum") + divergence

    def epoch() -> None:
        for rows in torch.randperm(len(data)).split(128):
            optimizer.zero_grad()
            loss(data[rows]).backward()
            optimizer.step()

    def tested(rows: np.ndarray) -> float:
        with torch.no_grad():
            return sum(loss(batch).item() for batch in torch.from_numpy(rows).split(128)) / len(rows)

    return epoch, tested


# The libraries' own


def pyro_svi(shape: Shape, x: np.ndarray, loss: str, device: str = "cpu") -> Steps:
    """Return `pyro.infer.SVI.step` with an ELBO of Pyro's, by name, or with our `CompiledELBO` around Trace_ELBO."""
    import warnings

    import pyro
    import torch
    from pyro import infer

    from inference.engines.compiled_elbo import CompiledELBO

    data, batches = torch.tensor(x, device=device), minibatches(shape)
    model, guide = pyro_programs(shape, f"{loss} {shape}", *torch_networks(shape, device))
    elbo = CompiledELBO(infer.Trace_ELBO()) if loss == "CompiledELBO" else getattr(infer, loss)()
    svi = infer.SVI(model, guide, pyro.optim.Adagrad({"lr": STEP_SIZE, "eps": 1e-8}), loss=elbo)

    steps = _in_torch(lambda: svi.step(data[torch.from_numpy(next(batches))]), device)

    def quiet(number: int) -> None:
        with warnings.catch_warnings(category=torch.jit.TracerWarning, action="ignore"):  # of Pyro's own code
            steps(number)

    return quiet


def pyro_programs(shape: Shape, name: str, encoder: Any, decoder: Any) -> tuple[Program, Program]:
    """Return the model and the guide of a minibatch, under a name of their own: Pyro's store is one for all."""
    import pyro
    import torch
    from pyro import distributions as dist

    def model(batch: Any) -> None:
        pyro.module(f"decoder {name}", decoder)
        pyro.factor("decay", -0.5 * shape.fraction * sum(weight.square().sum() for weight in decoder.parameters()))
        with pyro.plate("data", shape.minibatch):
            zeros = torch.zeros(shape.minibatch, shape.n_latent, device=batch.device)
            z = pyro.sample("z", dist.Normal(zeros, 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=decoder(z), validate_args=False).to_event(1), obs=batch)

    def guide(batch: Any) -> None:
        pyro.module(f"encoder {name}", encoder)
        with pyro.plate("data", shape.minibatch):
            mean, log_variance = encoder(batch).chunk(2, -1)
            pyro.sample("z", dist.Normal(mean, torch.exp(0.5 * log_variance)).to_event(1))

    return model, guide


def numpyro_svi(shape: Shape, x: np.ndarray, device: str = "cpu") -> Steps:
    """Return `numpyro.infer.SVI.update`, jitted, in a Python loop."""
    import jax
    import optax
    from numpyro.infer import SVI, Trace_ELBO

    data, batches = jax.device_put(x, jax.devices(device)[0]), minibatches(shape)
    svi = SVI(*numpyro_programs(shape), optax.adagrad(STEP_SIZE), Trace_ELBO())
    update = jax.jit(lambda state, rows: svi.update(state, data[rows]))
    state = svi.init(jax.random.PRNGKey(0), data[: shape.minibatch])

    def steps(number: int) -> None:
        nonlocal state
        for _ in range(number):
            state, _ = update(state, next(batches))
        jax.block_until_ready(state)

    return steps


def numpyro_programs(shape: Shape) -> tuple[Program, Program]:
    """Return the model and the guide of a minibatch, with params `encoder.0`, `encoder.b0` and so on."""
    import numpyro
    from jax import numpy as jnp
    from numpyro import distributions as dist

    start = dict(zip(("encoder", "decoder"), weights_of(shape), strict=True))

    def network(name: str, inputs: Any) -> tuple[Any, Any]:
        weights = [numpyro.param(f"{name}.{i}", weight) for i, weight in enumerate(start[name])]
        biases = [numpyro.param(f"{name}.b{i}", jnp.zeros(weight.shape[1])) for i, weight in enumerate(start[name])]
        decay = sum((each**2).sum() for each in (*weights, *biases))
        return jnp.tanh(inputs @ weights[0] + biases[0]) @ weights[1] + biases[1], decay

    def model(batch: Any) -> None:
        with numpyro.plate("data", len(batch)):
            z = numpyro.sample("z", dist.Normal(jnp.zeros((len(batch), shape.n_latent)), 1.0).to_event(1))
            logits, decay = network("decoder", z)
            numpyro.sample("x", dist.Bernoulli(logits=logits, validate_args=False).to_event(1), obs=batch)
        numpyro.factor("decay", -0.5 * shape.fraction * decay)

    def guide(batch: Any) -> None:
        with numpyro.plate("data", len(batch)):
            mean, log_variance = jnp.split(network("encoder", batch)[0], 2, -1)
            numpyro.sample("z", dist.Normal(mean, jnp.exp(0.5 * log_variance)).to_event(1))

    return model, guide


def peers(shape: Shape, x: np.ndarray, device: str = "cpu") -> Iterator[tuple[str, str, Callable[[], Steps]]]:
    """Yield the name of each peer, its library, and what builds its steps on x [n_train, n_x]."""
    yield "by hand", "torch", partial(torch_by_hand, shape, x, device)
    for loss in LOSSES if device == "cpu" else LOSSES[:1]:
        yield f"SVI, {loss}", "pyro", partial(pyro_svi, shape, x, loss, device)
    yield "SVI, Python loop", "numpyro", partial(numpyro_svi, shape, x, device)
