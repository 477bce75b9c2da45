"""Each method's step as one writes it in jax with care and without a PPL: a scan of steps, Adagrad inline.

The model, minibatches, weight decay and settings are those of ours. Each method has a state to start from and a step;
networks are lists of weights and biases. With peers.py the only file among the comparisons that names jax.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from comparisons.benchmarks.peers import STEP_SIZE, Shape, Steps, minibatches, weights_of
from comparisons.runner.training import CHUNK
from inference import BACKENDS, AllSettings

SCAN_OF = "scan by hand of "
USUAL = AllSettings()
LEAST_SQUARE = 1e-8  # what Adagrad and Adam add, the one within the root and the other without


Network = list[tuple[Any, Any]]  # weights and bias of each layer


class Minibatch(NamedTuple):
    """What a step is handed: rows x [m, d], their places in the data, and the fraction of it that they are."""

    x: Any
    rows: Any
    fraction: float


class ByHand(NamedTuple):
    """A method: `start(shape, encoder, decoder)` is its state, `step(key, state, minibatch)` the next and its bound.

    A state is what is learned (weights, with Adagrad's sums of squares) and what the method has of each datapoint.
    """

    start: Callable[[Shape, Network, Network], Any]
    step: Callable[[Any, Any, Minibatch], tuple[Any, Any]]


def scanned(by_hand: ByHand, shape: Shape, x: np.ndarray, device: str = "cpu") -> Steps:
    """Return what takes steps of a method on x [n_train, n_x], 100 to a scan; the rows are its input."""
    import jax

    place = jax.devices(device)[0]
    data, state = jax.device_put((x, by_hand.start(shape, *networks(shape))), place)

    def one(data: Any, state: Any, item: tuple[Any, Any]) -> tuple[Any, Any]:
        number, rows = item
        return by_hand.step(jax.random.fold_in(key, number), state, Minibatch(data[rows], rows, shape.fraction))

    key, batches, done = jax.device_put(jax.random.PRNGKey(1), place), minibatches(shape), 0
    # The data are an argument: as a constant they would be part of what is compiled.
    scan = jax.jit(lambda state, data, items: jax.lax.scan(partial(one, data), state, items), donate_argnums=0)

    def steps(number: int) -> None:
        nonlocal state, done
        with jax.default_matmul_precision("highest"):  # as ours: a card's own would be TF32
            for _ in range(math.ceil(number / CHUNK)):
                rows = np.stack([next(batches) for _ in range(CHUNK)]).astype(np.int32)
                state, _ = scan(state, data, (np.arange(done, done + CHUNK, dtype=np.int32), rows))
                done += CHUNK
        jax.block_until_ready(state)

    return steps


# What they share


def networks(shape: Shape) -> tuple[Network, Network]:
    """Return an encoder, to mean and log variance of z, and a decoder, to logits."""
    encoder, decoder = ([(w, np.zeros(w.shape[1], np.float32)) for w in layers] for layers in weights_of(shape))
    return encoder, decoder


def with_squares(weights: Any) -> tuple[Any, Any]:
    """Return weights with Adagrad's sums of squares."""
    import jax

    return weights, jax.tree.map(np.zeros_like, weights)


def adagrad(weights: Any, squares: Any, gradients: Any) -> tuple[Any, Any]:
    """Return weights and sums of squares after a step down the gradients."""
    import jax

    squares = jax.tree.map(lambda s, g: s + g * g, squares, gradients)
    moved = jax.tree.map(
        lambda w, g, s: w - STEP_SIZE * g * jax.lax.rsqrt(s + LEAST_SQUARE), weights, gradients, squares
    )
    return moved, squares


def through(network: Any, inputs: Any) -> Any:
    """Return the outputs of a network of one hidden layer."""
    from jax import numpy as jnp

    (w, b), (v, c) = network
    return jnp.tanh(inputs @ w + b) @ v + c


def minus_log_px(decoder: Any, z: Any, x: Any) -> Any:
    """Return -log p(x | z) [n], in nats."""
    import jax

    logits = through(decoder, z)
    return (jax.nn.softplus(logits) - x * logits).sum(-1)


def decayed(decoder: Any, z: Any, batch: Minibatch) -> Any:
    """Return minus sum_i log p(x_i | z_i) of a minibatch, and a fraction of the weight decay, in nats."""
    import jax

    decay = sum((each**2).sum() for each in jax.tree.leaves(decoder))
    return minus_log_px(decoder, z, batch.x).sum() + 0.5 * batch.fraction * decay


def divergence(mean: Any, log_variance: Any) -> Any:
    """Return KL(q || p) of normals [m, k] and N(0, I), summed over all, in nats (appendix B)."""
    from jax import numpy as jnp

    return 0.5 * (mean**2 + jnp.exp(log_variance) - 1.0 - log_variance).sum()


# The methods


def minus_bound(weights: Any, batch: Minibatch, noise: Any) -> Any:
    """Return minus the bound of a minibatch (equation 10, one draw) and a fraction of the weight decay, in nats."""
    from jax import numpy as jnp

    encoder, decoder = weights
    mean, log_variance = jnp.split(through(encoder, batch.x), 2, -1)
    z = mean + jnp.exp(0.5 * log_variance) * noise
    return decayed(decoder, z, batch) + divergence(mean, log_variance)


def _start_networks(shape: Shape, encoder: Network, decoder: Network) -> Any:
    return with_squares((encoder, decoder)), ()


def _aevb(valued: bool, key: Any, state: Any, batch: Minibatch) -> tuple[Any, Any]:
    import jax

    (weights, squares), _ = state
    noise = jax.random.normal(key, (len(batch.x), len(weights[1][0][0])))
    value, gradients = jax.value_and_grad(minus_bound)(weights, batch, noise)
    return (adagrad(weights, squares, gradients), ()), value if valued else None


def _wake_sleep(key: Any, state: Any, batch: Minibatch) -> tuple[Any, None]:
    """Wake: theta on z of q(z | x). Sleep: phi on z and x that the model dreams."""
    import jax
    from jax import numpy as jnp

    ((encoder, decoder), squares), _ = state
    keys, size = jax.random.split(key, 3), (len(batch.x), len(decoder[0][0]))
    mean, log_variance = jnp.split(through(encoder, batch.x), 2, -1)
    z = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(keys[0], size)
    dreamt = jax.random.normal(keys[1], size)
    seen = jax.random.bernoulli(keys[2], jax.nn.sigmoid(through(decoder, dreamt))).astype(jnp.float32)

    def minus_log_q(encoder: Any) -> Any:
        mean, log_variance = jnp.split(through(encoder, seen), 2, -1)
        return 0.5 * (log_variance + (dreamt - mean) ** 2 * jnp.exp(-log_variance)).sum()

    gradients = jax.grad(minus_log_q)(encoder), jax.grad(decayed)(decoder, z, batch)
    return (adagrad((encoder, decoder), squares, gradients), ()), None


def _start_normals(shape: Shape, encoder: Network, decoder: Network) -> Any:
    zeros = np.zeros((shape.n_train, shape.n_latent), np.float32)
    return with_squares(decoder), (zeros, zeros.copy())


def _mean_field(key: Any, state: Any, batch: Minibatch) -> tuple[Any, None]:
    """Adam on the minibatch's own normals, of a step size that falls to zero, then a step of theta."""
    import jax
    from jax import numpy as jnp

    (decoder, squares), normals = state
    rows = tuple(each[batch.rows] for each in normals)
    noise = jax.random.normal(key, (USUAL.local_steps + 1, *rows[0].shape))

    def minus_local_bound(q: Any, noise: Any) -> Any:
        mean, log_scale = q
        z = mean + jnp.exp(log_scale) * noise
        return minus_log_px(decoder, z, batch.x).sum() + divergence(mean, 2.0 * log_scale)

    def adam(carry: Any, item: Any) -> tuple[Any, None]:
        q, first, second = carry
        number, noise = item
        gradients = jax.grad(minus_local_bound)(q, noise)
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradients)
        second = jax.tree.map(lambda s, g: 0.999 * s + 0.001 * g * g, second, gradients)
        rate = USUAL.local_step_size * (1.0 - number / USUAL.local_steps) / (1.0 - 0.9 ** (number + 1.0))
        root = jax.tree.map(lambda s: jnp.sqrt(s / (1.0 - 0.999 ** (number + 1.0))) + LEAST_SQUARE, second)
        return (jax.tree.map(lambda v, m, r: v - rate * m / r, q, first, root), first, second), None

    still = jax.tree.map(jnp.zeros_like, rows)
    numbers = jnp.arange(USUAL.local_steps, dtype=jnp.float32)
    ((mean, log_scale), _, _), _ = jax.lax.scan(adam, (rows, still, still), (numbers, noise[:-1]))
    gradients = jax.grad(decayed)(decoder, mean + jnp.exp(log_scale) * noise[-1], batch)
    kept = tuple(all_.at[batch.rows].set(own) for all_, own in zip(normals, (mean, log_scale), strict=True))
    return (adagrad(decoder, squares, gradients), kept), None


def _start_chains(shape: Shape, encoder: Network, decoder: Network) -> Any:
    chains = np.random.default_rng(1).standard_normal((shape.n_train, shape.n_latent)).astype(np.float32)
    return with_squares(decoder), (chains, np.float32(np.log(0.1)))


def _monte_carlo_em(key: Any, state: Any, batch: Minibatch) -> tuple[Any, None]:
    """One HMC move of the minibatch's chains, then steps of theta on where they are."""
    import jax
    from jax import numpy as jnp

    (decoder, squares), (chains, log_step) = state
    start, step, keys = chains[batch.rows], jnp.exp(log_step), jax.random.split(key)

    def energies(z: Any) -> Any:
        return minus_log_px(decoder, z, batch.x) + 0.5 * (z**2).sum(-1)

    force = jax.grad(lambda z: -energies(z).sum())

    def leap(carry: Any, _: Any) -> tuple[Any, None]:
        z, momentum = carry
        z = z + step * momentum
        return (z, momentum + step * force(z)), None

    momentum = jax.random.normal(keys[0], start.shape)
    turned = start, momentum + 0.5 * step * force(start)
    (z, moved), _ = jax.lax.scan(leap, turned, length=USUAL.leapfrog_steps - 1)
    z = z + step * moved
    moved = moved + 0.5 * step * force(z)
    change = energies(z) - energies(start) + 0.5 * ((moved**2).sum(-1) - (momentum**2).sum(-1))
    accepted = jnp.exp(jnp.minimum(-change, 0.0))
    z = jnp.where((jax.random.uniform(keys[1], accepted.shape) < accepted)[:, None], z, start)
    for _ in range(USUAL.weight_updates):
        decoder, squares = adagrad(decoder, squares, jax.grad(decayed)(decoder, z, batch))
    log_step = log_step + 0.5 * (accepted.mean() - USUAL.target_acceptance)
    return ((decoder, squares), (chains.at[batch.rows].set(z), log_step)), None


WITH_ITS_BOUND = ByHand(_start_networks, partial(_aevb, True))
# By a method's title
SCANS = {
    "AEVB": ByHand(_start_networks, partial(_aevb, False)),
    "mean-field VI": ByHand(_start_normals, _mean_field),
    "Monte Carlo EM": ByHand(_start_chains, _monte_carlo_em),
    "wake-sleep": ByHand(_start_networks, _wake_sleep),
}


def scans(shape: Shape, x: np.ndarray, device: str = "cpu") -> Iterator[tuple[str, str, Callable[[], Steps]]]:
    """Yield the name of each scan, its library, and what builds its steps on x [n_train, n_x]."""
    for name, card in BACKENDS.items():
        if card.title in SCANS:
            yield f"{SCAN_OF}{name}", "jax", partial(scanned, SCANS[card.title], shape, x, device)
    yield "scan by hand, with its bound", "jax", partial(scanned, WITH_ITS_BOUND, shape, x, device)
