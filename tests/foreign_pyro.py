"""Pyro pairs as they are written in Pyro's own examples, without a word of the suite; `pair(name)` builds one."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn
from torch.distributions import constraints

D, K, H = 6, 2, 5
Pair = tuple[Callable[[Tensor], Any], Callable[[Tensor], Any]]


def written(decoder: nn.Module, encoder: nn.Module) -> Pair:
    """With pyro.module, an observed site "obs" and a latent one "latent", in a plate of another name."""

    def model(x: Tensor) -> Tensor:
        pyro.module("decoder", decoder)
        with pyro.plate("images", x.shape[0]):
            z = pyro.sample("latent", dist.Normal(x.new_zeros(x.shape[0], K), 1.0).to_event(1))
            logits = pyro.deterministic("logits", decoder(z), event_dim=1)
            return pyro.sample("obs", dist.Bernoulli(logits=logits, validate_args=False).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pyro.module("encoder", encoder)
        loc, log_variance = encoder(x).chunk(2, -1)
        with pyro.plate("images", x.shape[0]):
            pyro.sample("latent", dist.Normal(loc, torch.exp(0.5 * log_variance)).to_event(1))

    return model, guide


class Modelled(PyroModule):  # type: ignore[misc]
    """A PyroModule with parameters of three kinds: a layer's, its own, and a constrained one. x ~ N(m, scale)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = PyroModule[nn.Linear](K, D)
        self.shift = nn.Parameter(torch.full((D,), 0.25))
        self.scale = PyroParam(torch.full((D,), 0.5), constraint=constraints.positive)

    def forward(self, x: Tensor) -> None:
        with pyro.plate("rows", x.shape[0]):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([K]).to_event(1))
            pyro.sample("x", dist.Normal(self.layer(z) + self.shift, self.scale).to_event(1), obs=x)


def guided(x: Tensor) -> None:
    """By pyro.param alone: a matrix drawn at the start, and a positive scale."""
    weight = pyro.param("weight", lambda: 0.1 * torch.randn(D, K))
    scale = pyro.param("spread", 0.7 * torch.ones(K), constraint=constraints.positive)
    with pyro.plate("rows", x.shape[0]):
        pyro.sample("z", dist.Normal(x @ weight, scale).to_event(1))


# Each breaks one thing


def of_both(x: Tensor) -> None:
    pyro.param("weight", torch.ones(D, K))
    with pyro.plate("rows", x.shape[0]):
        pyro.sample("z", dist.Normal(0.0, 1.0).expand([K]).to_event(1))
        pyro.sample("x", dist.Normal(0.0, 1.0).expand([D]).to_event(1), obs=x)


def simple(x: Tensor, latent: int = K, **how: Any) -> None:
    with pyro.plate("rows", x.shape[0], **how):
        pyro.sample("z", dist.Normal(0.0, 1.0).expand([latent]).to_event(1))
        pyro.sample("x", dist.Normal(0.0, 1.0).expand([D]).to_event(1), obs=x)


def subsampled(x: Tensor) -> None:
    with pyro.plate("rows", 100, subsample_size=2) as rows:
        pyro.sample("z", dist.Normal(0.0, 1.0).expand([K]).to_event(1))
        pyro.sample("x", dist.Normal(0.0, 1.0).expand([D]).to_event(1), obs=x[rows % 2])


def scaled(x: Tensor) -> None:
    with pyro.plate("rows", 100, subsample=torch.arange(x.shape[0])):
        pyro.sample("z", dist.Normal(0.0, 1.0).expand([K]).to_event(1))
        pyro.sample("x", dist.Normal(0.0, 1.0).expand([D]).to_event(1), obs=x)


def unobserved(x: Tensor) -> None:
    with pyro.plate("rows", x.shape[0]):
        pyro.sample("z", dist.Normal(0.0, 1.0).expand([K]).to_event(1))
        pyro.sample("x", dist.Normal(0.0, 1.0).expand([D]).to_event(1))


def branching(x: Tensor) -> None:
    with pyro.plate("rows", x.shape[0]):
        z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([K]).to_event(1))
        loc = z.sum(-1, keepdim=True) if z.sum() > 0 else 0.0
        pyro.sample("x", dist.Normal(loc, 1.0).expand([x.shape[0], D]).to_event(1), obs=x)


def reading(x: Tensor) -> None:
    with pyro.plate("rows", x.shape[0]):
        pyro.sample("z", dist.Normal(0.0, 1.0).expand([K]).to_event(1))
        pyro.sample("x", dist.Normal(x.mean(-1, keepdim=True), 1.0).expand([x.shape[0], D]).to_event(1), obs=x)


def changing(x: Tensor) -> None:
    with pyro.plate("rows", x.shape[0]):
        pyro.sample("z", dist.Normal(0.0, 1.0).expand([K]).to_event(1))
        pyro.sample("x", dist.Normal(0.0, 1.0).expand([D]).to_event(1), obs=x / 255)


def noisy(x: Tensor) -> None:
    with pyro.plate("rows", x.shape[0]):
        z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([K]).to_event(1))
        loc = nn.functional.dropout(z, 0.5, True).sum(-1, keepdim=True)
        pyro.sample("x", dist.Normal(loc, 1.0).expand([x.shape[0], D]).to_event(1), obs=x)


def each_its_own(x: Tensor) -> None:
    loc = pyro.param("loc", torch.zeros(x.shape[0], K))
    with pyro.plate("rows", x.shape[0]):
        pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))


def branching_guide(x: Tensor) -> None:
    loc = torch.zeros(x.shape[0], K) + (1.0 if x.sum() > 3 else 0.0)
    with pyro.plate("rows", x.shape[0]):
        pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))
