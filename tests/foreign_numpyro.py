"""NumPyro pairs as they are written in NumPyro's own examples, without a word of the suite."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.example_libraries import stax
from numpyro.distributions import constraints

D, K, H = 6, 2, 5
Pair = tuple[Callable[[Any], Any], Callable[[Any], Any]]


def network(width: int) -> Any:
    return stax.serial(stax.Dense(H), stax.Tanh, stax.Dense(width))


def model(x: Any) -> Any:
    """With numpyro.module, an observed site "obs" and a latent one "latent", in a plate of another name."""
    decode = numpyro.module("decoder", network(D), (x.shape[0], K))
    with numpyro.plate("images", x.shape[0]):
        z = numpyro.sample("latent", dist.Normal(0, 1).expand([K]).to_event(1))
        logits = numpyro.deterministic("logits", decode(z))
        return numpyro.sample("obs", dist.Bernoulli(logits=logits).to_event(1), obs=x)


def guide(x: Any) -> None:
    encode = numpyro.module("encoder", network(2 * K), (x.shape[0], D))
    loc, log_variance = jnp.split(encode(x), 2, -1)
    with numpyro.plate("images", x.shape[0]):
        numpyro.sample("latent", dist.Normal(loc, jnp.exp(0.5 * log_variance)).to_event(1))


def positive(x: Any) -> None:
    """x ~ N(z W, scale), with a positive scale."""
    weight = numpyro.param("weight", lambda key: 0.1 * jnp.ones((K, D)))
    scale = numpyro.param("scale", 0.5 * jnp.ones(D), constraint=constraints.positive)
    with numpyro.plate("rows", x.shape[0]):
        z = numpyro.sample("z", dist.Normal(0, 1).expand([K]).to_event(1))
        numpyro.sample("x", dist.Normal(z @ weight, scale).to_event(1), obs=x)


def guided(x: Any) -> None:
    scale = numpyro.param("spread", 0.7 * jnp.ones(K), constraint=constraints.positive)
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("z", dist.Normal(x[:, :K], scale).to_event(1))


# Each breaks one thing


def of_both(x: Any) -> None:
    numpyro.param("spread", jnp.ones(D))
    simple(x)


def simple(x: Any) -> None:
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("z", dist.Normal(0, 1).expand([K]).to_event(1))
        numpyro.sample("x", dist.Normal(0, 1).expand([D]).to_event(1), obs=x)


def subsampled(x: Any) -> None:
    with numpyro.plate("rows", 100, subsample_size=2) as rows:
        numpyro.sample("z", dist.Normal(0, 1).expand([K]).to_event(1))
        numpyro.sample("x", dist.Normal(0, 1).expand([D]).to_event(1), obs=x[rows % 2])


def unobserved(x: Any) -> None:
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("z", dist.Normal(0, 1).expand([K]).to_event(1))
        numpyro.sample("x", dist.Normal(0, 1).expand([D]).to_event(1))


def branching(x: Any) -> None:
    loc = 1.0 if x.sum() > 3 else 0.0
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("z", dist.Normal(0, 1).expand([K]).to_event(1))
        numpyro.sample("x", dist.Normal(loc, 1).expand([D]).to_event(1), obs=x)


def reading(x: Any) -> None:
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("z", dist.Normal(0, 1).expand([K]).to_event(1))
        numpyro.sample("x", dist.Normal(x.mean(-1, keepdims=True), 1).expand([x.shape[0], D]).to_event(1), obs=x)


def changing(x: Any) -> None:
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("z", dist.Normal(0, 1).expand([K]).to_event(1))
        numpyro.sample("x", dist.Normal(0, 1).expand([D]).to_event(1), obs=x / 255)


def stateful(x: Any) -> None:
    numpyro.primitives.mutable("averages", {"mean": jnp.zeros(D)})
    simple(x)


def each_its_own(x: Any) -> None:
    loc = numpyro.param("loc", jnp.zeros((x.shape[0], K)))
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("z", dist.Normal(loc, 1).to_event(1))


def branching_guide(x: Any) -> None:
    loc = jnp.zeros((x.shape[0], K)) + (1.0 if x.sum() > 3 else 0.0)
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("z", dist.Normal(loc, 1).to_event(1))
