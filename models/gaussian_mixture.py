"""A mixture of factor analysers with common loadings: a discrete site that is summed out, and its exact EM."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from models.base import Params, Ppl, small_normal, zeros
from models.linear_gaussian import log_normal
from models.linear_updates import MIXTURE
from models.vae import OneHiddenLayer


@dataclass(frozen=True)
class GaussianMixture(OneHiddenLayer):
    """A mixture of C = `components` normals in a space of n_latent dimensions, seen through noise.

    c ~ Categorical(softmax(logits)),  z | c ~ N(mu_c, diag exp(2 s_c)),  x | z ~ N(z w + b, exp(log_scale)^2 I)

    with logits [C], mu and s [C, n_latent], w [n_latent, n_x], b [n_x] and log_scale []. c is summed out. x is a
    mixture of C normals in closed form, and `em` climbs its likelihood. q(z | x) is one normal, `encoded` from x.

    Source: Baek, McLachlan & Flack (2010), "Mixtures of Factor Analyzers with Common Factor Loadings". There the noise
    differs from column to column, and z | c may be correlated.
    """

    components: int = field(default=3, kw_only=True)
    summed = ("c",)
    conjugate = MIXTURE

    @property
    def theta_shapes(self) -> Mapping[str, tuple[int, ...]]:
        k, d, c = self.n_latent, self.n_x, self.components
        return {"logits": (c,), "mu": (c, k), "s": (c, k), "w": (k, d), "b": (d,), "log_scale": ()}

    def init(self, seed: int) -> tuple[Params, Params]:
        rng = np.random.default_rng(seed)
        phi = self.initial_encoder(rng, self.n_x)
        # Components that begin alike would stay so.
        mu = rng.standard_normal(self.theta_shapes["mu"]).astype(np.float32)
        theta = {"mu": mu, "w": small_normal(rng, self.n_latent, self.n_x)}
        return {name: theta.get(name, zeros(*shape)) for name, shape in self.theta_shapes.items()}, phi

    def generative(self, ppl: Ppl, theta: Params, n: int) -> None:
        dist, xp = ppl.dist, ppl.xp
        with ppl.plate("data", n):
            c = ppl.sample("c", dist.Categorical(logits=theta["logits"]))
            z = ppl.sample("z", dist.Normal(theta["mu"][c], xp.exp(theta["s"][c])).to_event(1))
            loc = xp.matmul(z, theta["w"]) + theta["b"]
            ppl.sample("x", dist.Normal(loc, xp.exp(theta["log_scale"])).to_event(1))

    def log_px(self, theta: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
        """Return log sum_c pi_c N(x; mu_c w + b, w' diag exp(2 s_c) w + exp(log_scale)^2 I)."""
        return np.asarray(np.logaddexp.reduce(_log_joint(_float64(theta), np.asarray(x, np.float64)), axis=0))


def em(theta: Mapping[str, np.ndarray], x: np.ndarray, steps: int) -> dict[str, np.ndarray]:
    """Return theta after so many steps of EM on rows x [n, d], in float64: each raises the mean of log p(x).

    E: r_nc = p(c | x_n), and z | x_n, c ~ N(m_nc, V_c) with V_c = (diag exp(-2 s_c) + w w' / variance)^-1.
    M: pi_c = mean r_nc; mu_c and exp(2 s_c) are mean and variance of z under r; w and b regress x on z.
    """
    at, x = _float64(theta), np.asarray(x, np.float64)
    for _ in range(steps):
        at = MIXTURE.m_step(np, at, x, MIXTURE.e_step(np, at, x)[0])
    return at


def _log_joint(at: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Return log p(x, c) [C, n]."""
    w, noise = at["w"], np.exp(2 * at["log_scale"]) * np.eye(x.shape[1])
    log_pi = at["logits"] - np.logaddexp.reduce(at["logits"])
    each = zip(log_pi, at["mu"], np.exp(2 * at["s"]), strict=True)
    return np.stack([p + log_normal(x - mu @ w - at["b"], (w.T * v) @ w + noise) for p, mu, v in each])


def _float64(theta: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.asarray(value, np.float64) for name, value in theta.items()}
