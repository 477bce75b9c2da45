"""What a model is: programs over a vocabulary that Pyro and NumPyro spell alike, and initial values in NumPy."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

Array = Any  # a NumPy, torch or jax array: models never ask which
Params = dict[str, Array]


class Ppl(Protocol):
    """The words a program may use; an engine hands them in.

    `dist` is the library's module of distributions, `xp` its array namespace (torch or jax.numpy; a program keeps to
    the names that both have, such as `matmul`, `tanh` and `exp`). `sample`, `plate`, `condition` and `scale` mean
    what they mean in Pyro and NumPyro.
    """

    dist: Any
    xp: Any

    def sample(self, name: str, fn: Any) -> Array: ...

    def plate(self, name: str, size: int, dim: int | None = None) -> Any: ...

    def condition(self, program: Callable[..., Any], data: Params) -> Callable[..., Any]: ...

    def scale(self, *, scale: Any) -> Any: ...


class Model(ABC):
    """A latent-variable model p(theta) p(z) p(x | z, theta), with a recognition model q(z | x, phi).

    Sites: `z` [n, n_latent] and `x` [n, n_x], independent over n inside the plate `data`, and one site for each
    parameter in `prior`. p(z) is N(0, I), on which quadrature and Monte Carlo EM count. z may carry leading
    sample axes: [..., n, n_latent].

    `support` is what it can score x in: "unit", numbers in [0, 1]; "count", whole numbers from 0 on; or "real".
    `columns` is what a column of x is given z, where that is none of the usual Bernoulli, Poisson and normal with a
    variance of its own: "negative binomial", or "unit normal". `engines` are those that it runs on: none named, all.

    A model that knows its evidence in closed form has a method `log_px(theta, x)`: log p(x | theta) in nats and float64
    [n], for NumPy's theta and x [n, n_x]. Of others it is None.
    """

    n_x: int
    n_latent: int
    support: str = "real"
    columns: str = ""
    engines: tuple[str, ...] = ()
    log_px: Callable[..., np.ndarray] | None = None

    @property
    @abstractmethod
    def theta_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The name and shape of each generative parameter."""

    @abstractmethod
    def init(self, seed: int) -> tuple[Params, Params]:
        """Return initial (theta, phi): dicts of float32 NumPy arrays, the same bits for every engine."""

    @abstractmethod
    def generative(self, ppl: Ppl, theta: Params, n: int) -> None:
        """Sample z ~ p(z) and x ~ p(x | z, theta) for n datapoints."""

    @abstractmethod
    def recognition(self, ppl: Ppl, phi: Params, x: Array) -> None:
        """Sample z ~ q(z | x, phi), the amortized guide, for x [n, n_x]."""

    def refusal(self) -> str:
        """Say why it cannot be fitted at these sizes, though its density is there; nothing where it can."""
        return ""

    def misplaced(self, engine: str) -> str:
        """Say that it does not run on an engine, and which to choose; nothing where it does."""
        able = " and ".join(self.engines) or engine
        return (
            "" if engine in able.split() else f"runs on {able} alone, not on {engine}; add --engine {self.engines[0]}"
        )

    def prior(self, ppl: Ppl) -> Params:
        """Sample theta ~ N(0, I), the paper's prior over the generative parameters (its weight decay)."""
        return {
            name: ppl.sample(name, ppl.dist.Normal(0.0, 1.0).expand(shape).to_event(len(shape)))
            for name, shape in self.theta_shapes.items()
        }


def standard_normal_latents(ppl: Ppl, n_latent: int) -> Array:
    """Sample the site z ~ N(0, I) [n, n_latent], to be called inside the plate over datapoints."""
    return ppl.sample("z", ppl.dist.Normal(0.0, 1.0).expand([n_latent]).to_event(1))


def small_normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Draw initial weights from N(0, 0.01^2), the paper's section 5 as its authors' code reads it."""
    return (0.01 * rng.standard_normal(shape)).astype(np.float32)


def zeros(*shape: int) -> np.ndarray:
    """Return float32 zeros."""
    return np.zeros(shape, np.float32)
