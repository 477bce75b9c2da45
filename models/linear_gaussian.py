"""Probabilistic principal components: every quantity the suite estimates is known here in closed form.

The suite's ruler. Source: Tipping & Bishop (1999), "Probabilistic Principal Component Analysis", JRSS B 61(3).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from models.base import Array, Model, Params, Ppl, small_normal, standard_normal_latents, zeros
from models.linear_updates import FACTORS

LOG_2PI = float(np.log(2 * np.pi))


@dataclass(frozen=True)
class LinearGaussian(Model):
    """z ~ N(0, I), x ~ N(z w + b, s^2 I) with s = exp(log_scale); w [n_latent, n_x], b [n_x], log_scale [].

    Recognition is linear with one variance for each latent. Where the rows of w are orthogonal the true posterior has
    that form, and a maximum-likelihood w can always be rotated so: the best bound equals the maximum likelihood.
    """

    n_x: int
    n_latent: int
    standard = True
    conjugate = FACTORS

    @property
    def theta_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {"w": (self.n_latent, self.n_x), "b": (self.n_x,), "log_scale": ()}

    def init(self, seed: int) -> tuple[Params, Params]:
        rng = np.random.default_rng(seed)
        k, d = self.n_latent, self.n_x
        theta = {"w": small_normal(rng, k, d), "b": zeros(d), "log_scale": zeros()}
        phi = {"w": small_normal(rng, d, k), "b": zeros(k), "log_scale": zeros(k)}
        return theta, phi

    def generative(self, ppl: Ppl, theta: Params, n: int) -> None:
        with ppl.plate("data", n):
            z = standard_normal_latents(ppl, self.n_latent)
            loc = ppl.xp.matmul(z, theta["w"]) + theta["b"]
            ppl.sample("x", ppl.dist.Normal(loc, ppl.xp.exp(theta["log_scale"])).to_event(1))

    def recognition(self, ppl: Ppl, phi: Params, x: Array) -> None:
        loc = ppl.xp.matmul(x, phi["w"]) + phi["b"]
        with ppl.plate("data", x.shape[0]):
            ppl.sample("z", ppl.dist.Normal(loc, ppl.xp.exp(phi["log_scale"])).to_event(1))

    def refusal(self) -> str:
        """Noise is left to estimate where n_latent < n_x alone (see `maximum_likelihood`)."""
        too_many = self.n_latent >= self.n_x
        return f"n_latent {self.n_latent} must be below the {self.n_x} columns of the data" if too_many else ""

    def log_px(self, theta: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
        return log_px(theta, x)


def linear_gaussian(n_x: int, n_latent: int, n_hidden: int) -> LinearGaussian:
    """Build it for a comparison; it has no hidden units."""
    return LinearGaussian(n_x, n_latent)


def log_px(theta: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Exact log N(x; b, w'w + s^2 I) for each row of x [n, d], in float64. Returns [n], in nats."""
    w, b, variance = _float64(theta)
    covariance = w.T @ w + variance * np.eye(w.shape[1])
    return log_normal(np.asarray(x, np.float64) - b, covariance)


def log_normal(centred: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Return log N(y; 0, covariance [d, d]) in nats [n], for each row y of `centred` [n, d], in float64."""
    whitened = np.linalg.solve(np.linalg.cholesky(covariance), centred.T)
    log_det = np.linalg.slogdet(covariance)[1]
    return np.asarray(-0.5 * (np.square(whitened).sum(0) + log_det + len(covariance) * LOG_2PI))


def posterior(theta: Mapping[str, np.ndarray], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exact p(z | x) = N(mean, covariance): mean [n, k], covariance [k, k] (the same for all x), in float64."""
    w, b, variance = _float64(theta)
    covariance = np.linalg.inv(np.eye(w.shape[0]) + w @ w.T / variance)
    return (np.asarray(x, np.float64) - b) @ w.T @ covariance / variance, covariance


def maximum_likelihood(x: np.ndarray, n_latent: int) -> dict[str, np.ndarray]:
    """The theta that maximises log p(x) (Tipping & Bishop, equations 7 and 8), with orthogonal rows of w.

    Raises ValueError unless 1 <= n_latent < d, for then no noise is left to estimate.
    """
    x = np.asarray(x, np.float64)
    if not 1 <= n_latent < x.shape[1]:
        raise ValueError(
            f"n_latent is {n_latent}; maximum likelihood needs 1 to {x.shape[1] - 1}, one below the data's columns"
        )
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    values, vectors = values[::-1], vectors[:, ::-1]
    variance = values[n_latent:].mean()
    w = np.sqrt(values[:n_latent] - variance)[:, None] * vectors[:, :n_latent].T
    return {"w": w, "b": x.mean(0), "log_scale": np.array(0.5 * np.log(variance))}


def _float64(theta: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, float]:
    w, b = (np.asarray(theta[name], np.float64) for name in ("w", "b"))
    return w, b, float(np.exp(2 * np.float64(theta["log_scale"])))
