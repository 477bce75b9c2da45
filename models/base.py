"""What a model is: programs over a vocabulary that Pyro and NumPyro spell alike, and initial values in NumPy."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

Array = Any  # a NumPy, torch or jax array: models never ask which
Params = dict[str, Array]


class Nn(Protocol):
    """The functions of networks that both libraries have and `xp` does not spell alike; x [..., d].

    Each keeps its value and a finite gradient wherever x is finite.
    """

    def relu(self, x: Array) -> Array:
        """Return max(x, 0), whose gradient at 0 is 0."""

    def elu(self, x: Array) -> Array:
        """Return x where x > 0, else exp(x) - 1."""

    def softplus(self, x: Array) -> Array:
        """Return log(1 + exp(x))."""

    def sigmoid(self, x: Array) -> Array:
        """Return 1 / (1 + exp(-x))."""

    def softmax(self, x: Array) -> Array:
        """Return exp(x) / sum exp(x) over the last axis, [..., d]."""

    def logsumexp(self, x: Array) -> Array:
        """Return log sum exp(x) over the last axis, [...]."""

    def linear(self, x: Array, w: Array, b: Array) -> Array:
        """Return x w + b [..., h] for w [d, h] and b [h]."""


class Ppl(Protocol):
    """The words a program may use; an engine hands them in.

    `dist` is the library's module of distributions, `xp` its array namespace (torch or jax.numpy; a program keeps to
    the names that both have, such as `matmul`, `tanh` and `exp`), `nn` the functions of networks. `sample`, `plate`,
    `condition`, `factor`, `biject_to` and `scale` mean what they mean in Pyro and NumPyro.
    """

    dist: Any
    xp: Any
    nn: Nn

    def sample(self, name: str, fn: Any) -> Array: ...

    def plate(self, name: str, size: int, dim: int | None = None) -> Any: ...

    def condition(self, program: Callable[..., Any], data: Params) -> Callable[..., Any]: ...

    def factor(self, name: str, log_factor: Array) -> Any: ...

    def biject_to(self, support: Any) -> Any: ...

    def scale(self, *, scale: Any) -> Any: ...

    def kl_divergence(self, q: Any, p: Any) -> Array:
        """Return KL(q || p) in nats, in closed form. Raises NotImplementedError where the library has none."""

    def stop(self, x: Array) -> Array:
        """Return x, as a constant to whoever differentiates."""

    def reparameterised(self, law: Any, noise: Any, path: Callable[[Array], Array]) -> Any:
        """Return a distribution that is drawn as path(noise), along which gradients go, and scored as `law`.

        `noise` is a distribution that is drawn with gradients. Of `law` the log_prob, support, batch_shape and
        event_shape are asked, and no draw.
        """


class Conjugate(NamedTuple):
    """The updates of a model that has them in closed form, over `xp`: written once for NumPy, torch and jax.

    q is a flat dict of what an M-step reads of q(z | x), for rows x [n, n_x]; bounds [n] are nats per datapoint.

    `e_step(xp, theta, x) -> (q, log p(x))`: q is the exact p(z | x, theta).
    `m_step(xp, theta, x, q, weight) -> theta`: argmax E_q[log p(x, z | theta)] + weight log p(theta). With a weight
    that is not 0, of a model that takes the `prior`, it may maximise one parameter after the other (ECM).
    `posterior(q) -> args` and `program(ppl, *args)` sample the latent sites from the exact q; the last of args has a
    row for each datapoint.
    `sweep(xp, theta, x, loc) -> (q, bound)`: coordinate ascent, once over the coordinates of q = N(loc, diag variance),
    from loc [n, k]; None where that is not in closed form. This q has `loc` [n, k] and `variance` [k] besides.
    """

    e_step: Callable[..., tuple[Params, Array]]
    m_step: Callable[..., Params]
    posterior: Callable[..., tuple[Any, ...]]
    program: Callable[..., None]
    sweep: Callable[..., tuple[Params, Array]] | None = None
    prior: bool = False


class Model(ABC):
    """A latent-variable model p(theta) p(z | theta) p(x | z, theta), with a recognition model q(z | x, phi).

    Sites: `x` [n, n_x], any number of latent ones [n, ...], all independent over n inside the plate `data`, and one
    site for each parameter in `prior`. A latent site is whatever `generative` samples and the model does not observe:
    of any continuous support, depending on others or not. It may carry leading sample axes: [..., n, ...].
    `recognition` samples each of them, on the same support.

    `observed` names the sites that data give a value; `given` what the programs are handed besides, as keywords:
    generative(ppl, theta, n, c=...), recognition(ppl, phi, x, y, c=...), arrays [n, n_c]. Each has its number of
    columns as a field n_<name>, which the data fill in; their parameters have the default None, as a subclass asks.
    With `missing` a NaN among what is observed is a gap, which is masked out of the likelihood; `recognition` sees it.
    `summed` names discrete latent sites [n] of finitely many values, which are summed out exactly: recognition does
    not sample them, and nobody ever draws one but the model.

    A class of the suite that is `standard` has the one latent site z ~ N(0, I), and no run spends seconds on finding
    that out. It counts for the class that says it alone; of a user's it is looked at all the same.

    Without `covers`, q(z | x) is 0 at some z that the prior allows: its bound is a bound all the same, and
    weights p / q tell nothing of the rest (`models.families`).

    `support` is what it can score x in: "unit", numbers in [0, 1]; "count", whole numbers from 0 on; or "real".
    `columns` is what a column of x is given z, where that is none of the usual Bernoulli, Poisson and normal with a
    variance of its own: "negative binomial", "categorical", or "unit normal". `engines` are those that it runs on: none
    named, all.

    A model that knows its evidence in closed form has a method `log_px(theta, x)`: log p(x | theta) in nats and float64
    [n], for NumPy's theta and x [n, n_x]. Of others it is None. One whose updates are in closed form has `conjugate`,
    which counts for the class that says it alone: a subclass may sample otherwise.
    """

    n_x: int
    n_latent: int
    support: str = "real"
    columns: str = ""
    engines: tuple[str, ...] = ()
    observed: tuple[str, ...] = ("x",)
    given: tuple[str, ...] = ()
    missing: bool = False
    summed: tuple[str, ...] = ()
    standard: bool = False
    covers: bool = True
    log_px: Callable[..., np.ndarray] | None = None
    conjugate: Conjugate | None = None

    @property
    @abstractmethod
    def theta_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The name and shape of each generative parameter."""

    @abstractmethod
    def init(self, seed: int) -> tuple[Params, Params]:
        """Return initial (theta, phi): dicts of float32 NumPy arrays, the same bits for every engine."""

    @abstractmethod
    def generative(self, ppl: Ppl, theta: Params, n: int) -> None:
        """Sample z ~ p(z | theta) and x ~ p(x | z, theta) for n datapoints."""

    @abstractmethod
    def recognition(self, ppl: Ppl, phi: Params, x: Array) -> None:
        """Sample z ~ q(z | x, phi), the amortized guide, for x [n, n_x]."""

    @property
    def n_coordinates(self) -> int:
        """How many real numbers a datapoint's latent sites are, by which an estimator is chosen before any run.

        Where it is not said that is n_latent; what a run finds is what counts.
        """
        return self.n_latent

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
