"""The paper's models: MLPs with one hidden layer of tanh units, and a Bernoulli or a Gaussian decoder (appendix C)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from models.base import Array, Params, Ppl, small_normal, standard_normal_latents, zeros
from models.families import FAMILIES, PRIORS, refusal
from models.guides import LogVarianceWeights


@dataclass(frozen=True)
class OneHiddenLayer(LogVarianceWeights):
    """What these decoders share: the encoder, and a hidden layer tanh(z w1 + b1) [..., n, n_hidden].

    Weights and hidden biases start at N(0, 0.01^2), output biases and log-variance weights at zero (authors' code).

    `guide_family` is the family of q(z | x), `prior_family` that of p(z), its standard member (`models.families`).
    Raises ValueError for another name.
    """

    n_x: int
    n_latent: int
    n_hidden: int
    guide_family: str = field(default="normal", kw_only=True)
    prior_family: str = field(default="normal", kw_only=True)

    def __post_init__(self) -> None:
        for name, known in (("guide_family", FAMILIES), ("prior_family", PRIORS)):
            if getattr(self, name) not in known:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}; choose from {', '.join(known)}")
        if self.prior_family != "normal":  # nor need anybody score the z of another's draws
            object.__setattr__(self, "standard", False)
        object.__setattr__(self, "covers", FAMILIES[self.guide_family].covers)

    @property
    def n_coordinates(self) -> int:
        return self.n_latent - (self.prior_family == "dirichlet")

    def refusal(self) -> str:
        """A guide lives where its prior does, and has the moments that the bound takes."""
        if self.prior_family != "normal" and not type(self).standard:
            return f"its prior is its own, and not {self.prior_family!r}; drop --prior-family"
        return refusal(self.guide_family, self.prior_family, self.n_latent)

    @property
    def theta_shapes(self) -> Mapping[str, tuple[int, ...]]:
        k, h, d = self.n_latent, self.n_hidden, self.n_x
        return {"w1": (k, h), "b1": (h,), "w2": (h, d), "b2": (d,)}

    def init(self, seed: int) -> tuple[Params, Params]:
        rng = np.random.default_rng(seed)
        k, h, d = self.n_latent, self.n_hidden, self.n_x
        phi = self.initial_encoder(rng, d)
        theta = {"w1": small_normal(rng, k, h), "b1": small_normal(rng, h), "w2": small_normal(rng, h, d)}
        return {name: theta.get(name, zeros(*shape)) for name, shape in self.theta_shapes.items()}, phi

    def initial_encoder(self, rng: np.random.Generator, n_seen: int) -> Params:
        """Draw phi of `encoded`, for an encoder that sees n_seen columns."""
        k, h = self.n_latent, self.n_hidden
        hidden = {"w3": small_normal(rng, n_seen, h), "b3": small_normal(rng, h)}
        rest = FAMILIES[self.guide_family].rest(k)
        second = {"w5": zeros(h, rest), "b5": zeros(rest)} if rest else {}
        return {**hidden, "w4": small_normal(rng, h, k), "b4": zeros(k), **second}

    def latents(self, ppl: Ppl) -> Array:
        """Sample the site z ~ p(z) [n, n_latent], inside the plate over datapoints."""
        if self.prior_family == "normal":
            return standard_normal_latents(ppl, self.n_latent)
        return ppl.sample("z", FAMILIES[self.prior_family].standard(ppl, self.n_latent))

    def decoded(self, ppl: Ppl, theta: Params) -> tuple[Array, Array]:
        """Sample z ~ p(z), and return the hidden layer h = tanh(z w1 + b1) and h w2 + b2 [..., n, n_x]."""
        z = self.latents(ppl)
        hidden = ppl.xp.tanh(ppl.xp.matmul(z, theta["w1"]) + theta["b1"])
        return hidden, ppl.xp.matmul(hidden, theta["w2"]) + theta["b2"]

    def encoded(self, ppl: Ppl, phi: Params, x: Array) -> Any:
        """Return N(mu, diag sigma^2) with h = tanh(x w3 + b3), mu = h w4 + b4, log sigma^2 = f h w5 + b5.

        Of another family those are the raw numbers of its first parameter and of its others.
        """
        hidden = ppl.xp.tanh(ppl.xp.matmul(x, phi["w3"]) + phi["b3"])
        loc = ppl.xp.matmul(hidden, phi["w4"]) + phi["b4"]
        log_variance = self.weighted(ppl.xp.matmul(hidden, phi["w5"])) + phi["b5"] if "w5" in phi else None
        return FAMILIES[self.guide_family].distribution(ppl, loc, log_variance)

    def recognition(self, ppl: Ppl, phi: Params, x: Array) -> None:
        """Sample z from what x is `encoded` as."""
        q = self.encoded(ppl, phi, x)
        with ppl.plate("data", x.shape[0]):
            ppl.sample("z", q)


@dataclass(frozen=True)
class VaeBernoulli(OneHiddenLayer):
    """Bernoulli decoder (appendix C.1): x ~ Bernoulli(sigmoid(tanh(z w1 + b1) w2 + b2)).

    Grey values in [0, 1] are accepted, as in the paper: the site's score is then minus a cross-entropy, not a
    normalised log density.
    """

    support = "unit"
    standard = True

    def generative(self, ppl: Ppl, theta: Params, n: int) -> None:
        with ppl.plate("data", n):
            _, logits = self.decoded(ppl, theta)
            # A grey value is outside the support {0, 1}: the libraries' validation would refuse it.
            ppl.sample("x", ppl.dist.Bernoulli(logits=logits, validate_args=False).to_event(1))


@dataclass(frozen=True)
class VaeGaussian(OneHiddenLayer):
    """Gaussian decoder (appendix C.2): x ~ N(sigmoid(h w2 + b2), diag exp(h w3 + b3)) with h = tanh(z w1 + b1).

    The mean passes through a sigmoid because Frey Face pixels lie in [0, 1] (the paper's section 5).
    """

    standard = True

    @property
    def theta_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {**super().theta_shapes, "w3": (self.n_hidden, self.n_x), "b3": (self.n_x,)}

    def generative(self, ppl: Ppl, theta: Params, n: int) -> None:
        with ppl.plate("data", n):
            hidden, activation = self.decoded(ppl, theta)
            loc = 0.5 * (ppl.xp.tanh(0.5 * activation) + 1.0)  # the sigmoid, in words both libraries have
            scale = ppl.xp.exp(0.5 * (ppl.xp.matmul(hidden, theta["w3"]) + theta["b3"]))
            ppl.sample("x", ppl.dist.Normal(loc, scale).to_event(1))


@dataclass(frozen=True)
class VaeGaussianUnit(OneHiddenLayer):
    """Gaussian decoder of unit variance, as many tutorials have it: x ~ N(tanh(z w1 + b1) w2 + b2, I), for any real x.

    Its mean is not bounded, and its variance not learned: scale the columns so that a unit is what you call noise.
    """

    columns = "unit normal"
    standard = True

    def generative(self, ppl: Ppl, theta: Params, n: int) -> None:
        with ppl.plate("data", n):
            _, loc = self.decoded(ppl, theta)
            ppl.sample("x", ppl.dist.Normal(loc, 1.0).to_event(1))
