"""Supervised learning with latent noise: the paper's future work, section 7, "complicated noise distributions"."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from models.base import Array, Params, Ppl, small_normal, zeros
from models.vae import OneHiddenLayer


@dataclass(frozen=True)
class Supervised(OneHiddenLayer):
    """A regression of y [n, n_y] on covariates x [n, n_x], whose network is handed noise (Depeweg et al. 2018):

    z ~ N(0, I),  y | x, z ~ N(tanh(x v1 + z w1 + b1) w2 + b2, diag exp(log_scale)^2)

    so that p(y | x) may be skew, have several modes, and spread where x says so. It is a conditional VAE (Sohn, Lee &
    Yan 2015) whose prior does not look at x. q(z | x, y) is `encoded` from x beside y.
    """

    n_y: int = field(default=1, kw_only=True)
    observed = ("y",)
    given = ("x",)
    standard = True

    @property
    def theta_shapes(self) -> Mapping[str, tuple[int, ...]]:
        k, h, d, m = self.n_latent, self.n_hidden, self.n_x, self.n_y
        return {"v1": (d, h), "w1": (k, h), "b1": (h,), "w2": (h, m), "b2": (m,), "log_scale": (m,)}

    def init(self, seed: int) -> tuple[Params, Params]:
        rng = np.random.default_rng(seed)
        phi = self.initial_encoder(rng, self.n_x + self.n_y)
        small = {name: small_normal(rng, *self.theta_shapes[name]) for name in ("v1", "w1", "b1", "w2")}
        return {name: small.get(name, zeros(*shape)) for name, shape in self.theta_shapes.items()}, phi

    def generative(self, ppl: Ppl, theta: Params, n: int, x: Array = None) -> None:
        xp = ppl.xp
        with ppl.plate("data", n):
            z = self.latents(ppl)
            hidden = xp.tanh(xp.matmul(x, theta["v1"]) + xp.matmul(z, theta["w1"]) + theta["b1"])
            loc = xp.matmul(hidden, theta["w2"]) + theta["b2"]
            ppl.sample("y", ppl.dist.Normal(loc, xp.exp(theta["log_scale"])).to_event(1))

    def recognition(self, ppl: Ppl, phi: Params, y: Array, x: Array = None) -> None:  # type: ignore[override]
        super().recognition(ppl, phi, ppl.xp.concatenate([x, y], -1))
