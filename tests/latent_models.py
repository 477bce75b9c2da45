"""Models whose latent sites are other than one z ~ N(0, I), each with log p(x) by other means than the suite's."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from models.base import Array, Model, Params, Ppl, small_normal, zeros

MEANS, SCALES, PULL = (1.0, -2.0), (2.0, 0.3, 0.7), 0.5


class Linear(Model):
    """x ~ N(z w + b, exp(log_scale)^2 I) of some z [..., n, k]."""

    n_x: int
    n_latent: int
    n_hidden: int

    @property
    def theta_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"w": (self.n_latent, self.n_x), "b": (self.n_x,), "log_scale": ()}

    def init(self, seed: int) -> tuple[Params, Params]:
        rng, d, k = np.random.default_rng(seed), self.n_x, self.n_latent
        theta = {"w": small_normal(rng, k, d), "b": zeros(d), "log_scale": zeros()}
        phi = {"v": small_normal(rng, d, k), "c": zeros(k), "s": zeros(k), "r": zeros(1)}
        return theta, phi

    def observe(self, ppl: Ppl, theta: Params, z: Array) -> None:
        loc = ppl.xp.matmul(z, theta["w"]) + theta["b"]
        ppl.sample("x", ppl.dist.Normal(loc, ppl.xp.exp(theta["log_scale"])).to_event(1))


@dataclass(frozen=True)
class ThreeSites(Linear):
    """A normal prior as three sites, of which one depends on another: top, low, and middle given top."""

    n_x: int = 5
    n_latent: int = 3
    n_hidden: int = 1

    def generative(self, ppl: Ppl, theta: Params, n: int) -> None:
        dist = ppl.dist
        with ppl.plate("data", n):
            top = ppl.sample("top", dist.Normal(MEANS[0], SCALES[0]))
            low = ppl.sample("low", dist.Normal(MEANS[1], SCALES[1]).expand([1]).to_event(1))
            middle = ppl.sample("middle", dist.Normal(PULL * top, SCALES[2]))
            self.observe(ppl, theta, ppl.xp.stack([top, low[..., 0], middle], -1))

    def recognition(self, ppl: Ppl, phi: Params, x: Array) -> None:
        loc, scale = ppl.xp.matmul(x, phi["v"]) + phi["c"], ppl.xp.exp(phi["s"])
        with ppl.plate("data", x.shape[0]):
            top = ppl.sample("top", ppl.dist.Normal(loc[..., 0], scale[0]))
            ppl.sample("low", ppl.dist.Normal(loc[..., 1:2], scale[1:2]).to_event(1))
            ppl.sample("middle", ppl.dist.Normal(loc[..., 2] + phi["r"] * top, scale[2]))


@dataclass(frozen=True)
class OfAnotherName(Linear):
    """One normal site, whose mean is a covariate where it is `given` one, behind y, which alone is observed."""

    n_x: int = 0
    n_latent: int = 2
    n_hidden: int = 1
    n_y: int = 3
    observed = ("y",)

    @property
    def theta_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"w": (self.n_latent, self.n_y), "b": (self.n_y,), "log_scale": ()}

    def init(self, seed: int) -> tuple[Params, Params]:
        theta, _ = ThreeSites(self.n_y, self.n_latent).init(seed)
        return theta, {"v": zeros(self.n_y, self.n_latent)}

    def generative(self, ppl: Ppl, theta: Params, n: int, u: Array = None) -> None:
        centre = 0.0 if u is None else 10.0 * u
        with ppl.plate("data", n):
            z = ppl.sample("z", ppl.dist.Normal(centre + 0.0 * theta["w"][:, 0], 2.0).to_event(1))
            loc = ppl.xp.matmul(z, theta["w"]) + theta["b"]
            ppl.sample("y", ppl.dist.Normal(loc, ppl.xp.exp(theta["log_scale"])).to_event(1))

    def recognition(self, ppl: Ppl, phi: Params, y: Array, u: Array = None) -> None:
        with ppl.plate("data", y.shape[0]):
            ppl.sample("z", ppl.dist.Normal(ppl.xp.matmul(y, phi["v"]), 1.0).to_event(1))


class OfCovariates(OfAnotherName):
    """The same, given u."""

    n_u = 1
    given = ("u",)


def three_sites_log_px(theta: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Return log p(x): z = (top, low, middle) is normal, and x a linear map of it with noise."""
    w, b, noise = (np.asarray(theta[name], np.float64) for name in ("w", "b", "log_scale"))
    (top, low), (s_top, s_low, s_middle) = MEANS, SCALES
    mean = np.array([top, low, PULL * top])
    covariance = np.diag([s_top**2, s_low**2, (PULL * s_top) ** 2 + s_middle**2])
    covariance[0, 2] = covariance[2, 0] = PULL * s_top**2
    total = w.T @ covariance @ w + np.exp(2 * noise) * np.eye(len(b))
    return np.asarray(stats.multivariate_normal(mean @ w + b, total).logpdf(x))


CONCENTRATION, SIZE = (2.0, 1.0, 1.5), (0.3, 0.5)


@dataclass(frozen=True)
class SizeAndShares(Linear):
    """A log-normal size times shares from a simplex: x ~ N(size shares w + b, .)."""

    n_x: int = 4
    n_latent: int = 3
    n_hidden: int = 16

    def init(self, seed: int) -> tuple[Params, Params]:
        """Return theta, and phi of a guide whose scales depend on x: of one scale for all x, half a nat is lost."""
        theta, _ = super().init(seed)
        rng, d, k, h = np.random.default_rng(seed), self.n_x, self.n_latent, self.n_hidden
        phi = {"v": small_normal(rng, d, h), "c": zeros(h), "m": small_normal(rng, h, k), "mc": zeros(k)}
        return theta, {**phi, "s": small_normal(rng, h, k), "sc": zeros(k)}

    def generative(self, ppl: Ppl, theta: Params, n: int) -> None:
        concentration = 0.0 * theta["w"][:, 0] + ppl.xp.exp(0.0 * theta["log_scale"])
        concentration = ppl.xp.stack([value * concentration[i] for i, value in enumerate(CONCENTRATION)], -1)
        with ppl.plate("data", n):
            size = ppl.sample("size", ppl.dist.LogNormal(*SIZE))
            shares = ppl.sample("shares", ppl.dist.Dirichlet(concentration))
            self.observe(ppl, theta, size[..., None] * shares)

    def recognition(self, ppl: Ppl, phi: Params, x: Array) -> None:
        hidden = ppl.xp.tanh(ppl.xp.matmul(x, phi["v"]) + phi["c"])
        loc = ppl.xp.matmul(hidden, phi["m"]) + phi["mc"]
        scale = ppl.xp.exp(ppl.xp.matmul(hidden, phi["s"]) + phi["sc"])
        with ppl.plate("data", x.shape[0]):
            ppl.sample("size", ppl.dist.LogNormal(loc[..., 0], scale[..., 0]))
            normal = ppl.dist.Normal(loc[..., 1:], scale[..., 1:]).to_event(1)
            simplex = ppl.biject_to(ppl.dist.constraints.simplex)
            ppl.sample("shares", ppl.dist.TransformedDistribution(normal, [simplex]))


def size_and_shares(theta: dict[str, np.ndarray], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return log p(x) [n] and E[size shares | x] [n, 3], by Gauss-Legendre over the square that the simplex is.

    To 0.0002 nat: that far it is from three times as many nodes on each axis.
    """
    w, b, noise = (np.asarray(theta[name], np.float64) for name in ("w", "b", "log_scale"))
    node, weight = np.polynomial.legendre.leggauss(24)
    node, weight = (node + 1) / 2, weight / 2
    u = np.linspace(-6, 6, 61)
    size, at_size = np.exp(SIZE[0] + SIZE[1] * u), stats.norm.pdf(u) * (u[1] - u[0])
    first, rest = np.meshgrid(node, node, indexing="ij")
    shares = np.stack([first, (1 - first) * rest, (1 - first) * (1 - rest)], -1).reshape(-1, 3)
    density = stats.dirichlet(CONCENTRATION).pdf(shares.T / shares.sum(1)) * (1 - first).ravel()
    prior = np.log(at_size[:, None] * (density * np.outer(weight, weight).ravel()))
    z = (size[:, None, None] * shares).reshape(-1, 3)
    value, mean = [], []
    for row in x:
        score = stats.norm.logpdf(row, z @ w + b, np.exp(noise)).sum(1) + prior.ravel()
        top = score.max()
        mass = np.exp(score - top)
        value.append(top + np.log(mass.sum()))
        mean.append(mass @ z / mass.sum())
    return np.array(value), np.array(mean)


def parameters(model: Any, seed: int, noise: float = -0.7) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return theta and phi some way from their initial values."""
    rng = np.random.default_rng(seed)
    theta, phi = (
        {name: np.asarray(0.7 * rng.standard_normal(np.shape(v)), np.float32) for name, v in group.items()}
        for group in model.init(0)
    )
    return {**theta, "log_scale": np.asarray(noise, np.float32)}, {name: 0.3 * value for name, value in phi.items()}
