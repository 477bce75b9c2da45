"""Effects of groups that are drawn from one population, whose mean and spread are learnt with them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from models.base import Array, Model, Params, Ppl, small_normal, zeros
from models.linear_gaussian import log_normal


@dataclass(frozen=True)
class GroupEffects(Model):
    """A random-effects model, as of the eight schools (Rubin 1981; Gelman et al., Bayesian Data Analysis, section 5.5).

    A datapoint is a group, such as a school, a column a measurement of one of its n_latent effects: column j is of
    effect j mod n_latent.

        z_k ~ N(mu_k, exp(log_tau_k)^2),  x_j ~ N(z_[j mod n_latent], exp(log_sigma_j)^2)

    mu and log_tau [n_latent] are the population's, log_sigma [n_x] says how well each column measures. The prior of z
    is learnt, and under --theta vb has a posterior. The posterior of z is normal and linear in x, as recognition is.
    """

    n_x: int
    n_latent: int

    @property
    def theta_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {"mu": (self.n_latent,), "log_tau": (self.n_latent,), "log_sigma": (self.n_x,)}

    @property
    def effects(self) -> np.ndarray:
        """Which effect each column measures [n_x]."""
        return np.arange(self.n_x) % self.n_latent

    def init(self, seed: int) -> tuple[Params, Params]:
        rng, d, k = np.random.default_rng(seed), self.n_x, self.n_latent
        theta = {"mu": small_normal(rng, k), "log_tau": zeros(k), "log_sigma": zeros(d)}
        return theta, {"w": small_normal(rng, d, k), "b": zeros(k), "log_scale": zeros(k)}

    def generative(self, ppl: Ppl, theta: Params, n: int) -> None:
        dist, xp = ppl.dist, ppl.xp
        with ppl.plate("data", n):
            z = ppl.sample("z", dist.Normal(theta["mu"], xp.exp(theta["log_tau"])).to_event(1))
            loc = z[..., xp.arange(self.n_x) % self.n_latent]
            ppl.sample("x", dist.Normal(loc, xp.exp(theta["log_sigma"])).to_event(1))

    def recognition(self, ppl: Ppl, phi: Params, x: Array) -> None:
        """Sample z ~ N(x w + b, diag exp(log_scale)^2)."""
        loc = ppl.xp.matmul(x, phi["w"]) + phi["b"]
        with ppl.plate("data", x.shape[0]):
            ppl.sample("z", ppl.dist.Normal(loc, ppl.xp.exp(phi["log_scale"])).to_event(1))

    def log_px(self, theta: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
        """Return log N(x; mu, .), where two columns of one effect have the covariance exp(log_tau)^2."""
        mu, log_tau, log_sigma = (np.asarray(theta[name], np.float64) for name in self.theta_shapes)
        effects = self.effects
        shared = np.equal.outer(effects, effects) * np.exp(2 * log_tau[effects])
        return log_normal(np.asarray(x, np.float64) - mu[effects], shared + np.diag(np.exp(2 * log_sigma)))


def group_effects(n_x: int, n_latent: int, n_hidden: int) -> GroupEffects:
    """Build it for a comparison; it has no hidden units."""
    return GroupEffects(n_x, n_latent)
