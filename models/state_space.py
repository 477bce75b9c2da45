"""A time series for each datapoint: hidden autoregressions that are seen through noise."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from models.base import Array, Model, Params, Ppl, small_normal, zeros
from models.linear_gaussian import log_normal


@dataclass(frozen=True)
class StateSpace(Model):
    """A linear Gaussian state-space model (Durbin & Koopman 2012) of n_latent stationary autoregressions of order one.

    The columns of x are n_x times. For t = 1 ... n_x, with a_j = tanh(raw_j), independent over j and datapoints:

        h_jt = a_j h_j,t-1 + sqrt(1 - a_j^2) e_jt,  h_j1 ~ N(0, 1),  e_jt ~ N(0, 1)
        x_t ~ N(sum_j c_j h_jt + b, exp(log_scale)^2);  raw [n_latent], c [n_latent], b [], log_scale []

    The site h has all times at once, [n, n_latent, n_x], from a normal whose covariance is a_j^|t - s|: its factor has
    n_x^2 numbers for each j, so it is for some hundred times. x is normal too: `log_px` knows it in closed form.

    Recognition is linear, with a covariance over times for each j. With one autoregression the true posterior has that
    form: the best bound equals the maximum likelihood.
    """

    n_x: int
    n_latent: int

    @property
    def theta_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {"raw": (self.n_latent,), "c": (self.n_latent,), "b": (), "log_scale": ()}

    @property
    def n_coordinates(self) -> int:
        return self.n_latent * self.n_x

    def init(self, seed: int) -> tuple[Params, Params]:
        rng, k, t = np.random.default_rng(seed), self.n_latent, self.n_x
        # All alike, autoregressions would stay so.
        theta = {"raw": 1.0 + small_normal(rng, k), "c": 1.0 + small_normal(rng, k), "b": zeros(), "log_scale": zeros()}
        phi = {"w": small_normal(rng, t, k * t), "b": zeros(k, t), "factor": zeros(k, t, t), "log_scale": zeros(k, t)}
        return theta, phi

    def generative(self, ppl: Ppl, theta: Params, n: int) -> None:
        xp, dist = ppl.xp, ppl.dist
        a = xp.tanh(theta["raw"])[:, None, None]
        time = xp.arange(self.n_x)
        lag = time[:, None] - time
        # Column s of the factor is what e_s becomes; powers of a negative lag would be infinite, and their gradients.
        powers = xp.where(lag >= 0, a ** xp.where(lag >= 0, lag, 0), 0.0 * a)
        factor = powers * xp.where(time == 0, 1.0 + 0.0 * a, 1.0 / xp.cosh(theta["raw"])[:, None, None])
        with ppl.plate("data", n):
            h = ppl.sample("h", dist.MultivariateNormal(0.0 * factor[..., 0], scale_tril=factor).to_event(1))
            loc = (theta["c"][:, None] * h).sum(-2) + theta["b"]
            ppl.sample("x", dist.Normal(loc, xp.exp(theta["log_scale"])).to_event(1))

    def recognition(self, ppl: Ppl, phi: Params, x: Array) -> None:
        """Sample h_j ~ N((x w + b)_j, L_j L_j'), L_j = diag exp(log_scale_j) and what `factor` has below it."""
        xp, (k, t) = ppl.xp, (self.n_latent, self.n_x)
        loc = xp.matmul(x, phi["w"]).reshape(-1, k, t) + phi["b"]
        time = xp.arange(t)
        on = 1.0 * (time[:, None] == time)
        factor = 1.0 * (time[:, None] > time) * phi["factor"] + on * xp.exp(phi["log_scale"])[..., None]
        with ppl.plate("data", x.shape[0]):
            ppl.sample("h", ppl.dist.MultivariateNormal(loc, scale_tril=factor).to_event(1))

    def log_px(self, theta: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
        """Return log N(x; b, sum_j c_j^2 a_j^|t - s| + exp(log_scale)^2 I)."""
        raw, c, b, log_scale = (np.asarray(theta[name], np.float64) for name in self.theta_shapes)
        lag = np.abs(np.subtract.outer(np.arange(self.n_x), np.arange(self.n_x)))
        covariance = (np.square(c)[:, None, None] * np.tanh(raw)[:, None, None] ** lag).sum(0)
        return log_normal(np.asarray(x, np.float64) - b, covariance + np.exp(2 * log_scale) * np.eye(self.n_x))


def state_space(n_x: int, n_latent: int, n_hidden: int) -> StateSpace:
    """Build it for a comparison; it has no hidden units."""
    return StateSpace(n_x, n_latent)
