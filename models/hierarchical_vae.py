"""A hierarchy of two stochastic layers: the paper's future work, section 7 (i), with its MLPs."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from models.base import Array, Params, Ppl, small_normal, zeros
from models.vae import OneHiddenLayer


@dataclass(frozen=True)
class HierarchicalVae(OneHiddenLayer):
    """A deep latent Gaussian model of two layers (Rezende, Mohamed & Wierstra 2014) of n_latent variables each:

    z2 ~ N(0, I),  z1 | z2 ~ N(g v2 + c2, diag exp(g v3 + c3)) with g = tanh(z2 v1 + c1),
    x | z1 ~ Bernoulli(sigmoid(tanh(z1 w1 + b1) w2 + b2)), for grey values in [0, 1] too, as `vae_bernoulli`.

    Recognition goes top-down, in generative's order, as a ladder network does (Sonderby et al. 2016): z2 | x, and then
    z1 | x, z2, by MLPs of a hidden layer each. The KL term is then closed within each layer, z2's drawn:

        KL(q(z2 | x) || p(z2)) + E_q(z2 | x)[KL(q(z1 | x, z2) || p(z1 | z2))]
    """

    support = "unit"

    @property
    def theta_shapes(self) -> Mapping[str, tuple[int, ...]]:
        k, h = self.n_latent, self.n_hidden
        top = {"v1": (k, h), "c1": (h,), "v2": (h, k), "c2": (k,), "v3": (h, k), "c3": (k,)}
        return {**top, **super().theta_shapes}

    @property
    def n_coordinates(self) -> int:
        return 2 * self.n_latent

    def init(self, seed: int) -> tuple[Params, Params]:
        theta, phi = super().init(seed)
        rng, k, h = np.random.default_rng([seed, 1]), self.n_latent, self.n_hidden
        top = {"v1": small_normal(rng, k, h), "c1": small_normal(rng, h), "v2": small_normal(rng, h, k)}
        below = self.initial_encoder(rng, self.n_x + k)
        theta = {name: {**theta, **top}.get(name, zeros(*shape)) for name, shape in self.theta_shapes.items()}
        return theta, {**phi, **{f"below_{name}": value for name, value in below.items()}}

    def generative(self, ppl: Ppl, theta: Params, n: int) -> None:
        xp, dist = ppl.xp, ppl.dist
        with ppl.plate("data", n):
            z2 = ppl.sample("z2", dist.Normal(0.0, 1.0).expand([self.n_latent]).to_event(1))
            hidden = xp.tanh(xp.matmul(z2, theta["v1"]) + theta["c1"])
            scale = xp.exp(0.5 * (xp.matmul(hidden, theta["v3"]) + theta["c3"]))
            z1 = ppl.sample("z1", dist.Normal(xp.matmul(hidden, theta["v2"]) + theta["c2"], scale).to_event(1))
            hidden = xp.tanh(xp.matmul(z1, theta["w1"]) + theta["b1"])
            logits = xp.matmul(hidden, theta["w2"]) + theta["b2"]
            # A grey value is outside the support {0, 1}: the libraries' validation would refuse it.
            ppl.sample("x", dist.Bernoulli(logits=logits, validate_args=False).to_event(1))

    def recognition(self, ppl: Ppl, phi: Params, x: Array) -> None:
        """Sample z2 | x, then z1 | x, z2, each from what x, or x beside z2, is `encoded` as."""
        below = {name.removeprefix("below_"): value for name, value in phi.items() if name.startswith("below_")}
        with ppl.plate("data", x.shape[0]):
            z2 = ppl.sample("z2", self.encoded(ppl, phi, x))
            rows = x + 0.0 * z2[..., :1]  # as many as z2 has draws
            ppl.sample("z1", self.encoded(ppl, below, ppl.xp.concatenate([rows, z2], -1)))
