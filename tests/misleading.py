"""Models made to mislead an estimator of log p(x), each with its true value: ridges, mirrors, waves, cliffs, outliers.

Each latent variable has columns of x of its own, so that p(z | x) is a product and log p(x) a sum of integrals over a
line, which a fine grid gives in float64. A rotation of z hides that: N(0, I) is the same in all directions, so log p(x)
stays what it was, and what was a product of a narrow and a flat density becomes a ridge that lies obliquely.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from scipy import stats
from scipy.special import expit, log_expit

from models.base import Array, Model, Params, Ppl, standard_normal_latents

WEIGHTS = (1.0, 0.7, -0.4)  # of the columns that a latent variable has
SHAPES = ("flat", "line", "square", "tilted", "waves", "step", "cubic", "kink")
LINE = np.arange(-45_000, 45_001) * 0.0002  # where a latent variable may lie: 9 prior standard deviations
POINTS = 12


@dataclass(frozen=True)
class Hostile(Model):
    """x_jc ~ family(w_c f_j(u_j), s_j exp(t_j u_j)) with u = z R, for each latent j and each of its columns c.

    The family is Student's t with theta's degrees of freedom, or Bernoulli with the quotient of the two as logit. theta
    may have a row for each datapoint, as a leading axis: many problems are then judged at once, and compiled once.
    """

    n_latent: int
    family: str

    @property
    def n_x(self) -> int:  # type: ignore[override]
        """Columns of x."""
        return len(WEIGHTS) * self.n_latent

    @property
    def theta_shapes(self) -> Mapping[str, tuple[int, ...]]:
        k = self.n_latent
        return {"rotation": (k, k), "shape": (k, len(SHAPES)), "scale": (k,), "spread": (k,), "df": (k,)}

    def init(self, seed: int) -> tuple[Params, Params]:
        return {name: np.ones(shape, np.float32) for name, shape in self.theta_shapes.items()}, {}

    def recognition(self, ppl: Ppl, phi: Params, x: Array) -> None:
        raise NotImplementedError

    def generative(self, ppl: Ppl, theta: Params, n: int) -> None:
        xp, dist = ppl.xp, ppl.dist
        with ppl.plate("data", n):
            z = standard_normal_latents(ppl, self.n_latent)
            u = (z[..., None] * theta["rotation"]).sum(-2)
            loc = (xp.stack(curves(xp, u), -1) * theta["shape"]).sum(-1)
            scale = theta["scale"] * xp.exp(theta["spread"] * u)
            # Columns of a latent variable stand next to each other.
            loc = xp.stack([w * loc for w in WEIGHTS], -1).reshape((*loc.shape[:-1], self.n_x))
            scale, df = (
                xp.stack([each + 0.0 * theta["scale"] for _ in WEIGHTS], -1).reshape((*each.shape[:-1], self.n_x))
                for each in (scale, theta["df"])
            )
            if self.family == "bernoulli":
                ppl.sample("x", dist.Bernoulli(logits=loc / scale, validate_args=False).to_event(1))
            else:
                ppl.sample("x", dist.StudentT(df, loc, scale).to_event(1))


def curves(xp: Any, u: Array) -> list[Array]:
    """Return f(u) for each of SHAPES, in their order, as any array library spells them."""
    return [0.0 * u, u, u**2, u**2 + 0.3 * u, xp.sin(5.0 * u), xp.tanh(20.0 * u), u**3, xp.abs(u)]


class Problem(NamedTuple):
    """What is judged: a model, theta (float32), x [n, n_x], and log p(x) [n] in float64."""

    name: str
    model: Hostile
    theta: dict[str, np.ndarray]
    x: np.ndarray
    truth: np.ndarray


# Family, shape of each latent variable, scale of the noise, and how the noise grows with z. NORMAL has light tails.
NORMAL, CAUCHY = 100.0, 1.5
TABLE: dict[str, tuple[str | float, tuple[str, ...], float, float]] = {
    "a narrow ridge": (NORMAL, ("line", "flat"), 0.03, 0.0),
    "a ridge as narrow as log variance -12": (NORMAL, ("line", "flat"), 0.0025, 0.0),
    "a narrow peak": (NORMAL, ("line", "line"), 0.01, 0.0),
    "mirrors": (NORMAL, ("square", "flat"), 0.1, 0.0),
    "four mirrors": (NORMAL, ("square", "square"), 0.1, 0.0),
    "modes of unequal mass": (NORMAL, ("tilted", "line"), 0.3, 0.0),
    "waves": (NORMAL, ("waves", "line"), 0.2, 0.0),
    "a cliff": (NORMAL, ("step", "line"), 0.1, 0.0),
    "a cubic": (NORMAL, ("cubic", "cubic"), 0.1, 0.0),
    "a funnel": (NORMAL, ("flat", "line"), 0.5, 1.5),
    "outliers": (CAUCHY, ("line", "line"), 0.05, 0.0),
    "outliers on mirrors": (CAUCHY, ("square", "line"), 0.1, 0.0),
    "a kink": (NORMAL, ("kink", "line"), 0.05, 0.0),
    "a saturated decoder": ("bernoulli", ("line", "line"), 0.05, 0.0),
    "a saturated step": ("bernoulli", ("step", "square"), 0.1, 0.0),
    "a saturated mirror": ("bernoulli", ("square", "line"), 0.02, 0.0),
    "a saturated wave": ("bernoulli", ("waves", "cubic"), 0.1, 0.0),
    "a narrow plane": (NORMAL, ("line", "flat", "flat"), 0.03, 0.0),
    "a line of modes": (NORMAL, ("square", "line", "flat"), 0.05, 0.0),
    "eight mirrors": (NORMAL, ("square", "square", "square"), 0.2, 0.0),
    "waves of a ridge": (NORMAL, ("waves", "line", "flat"), 0.3, 0.0),
    "two ridges": (NORMAL, ("line", "line", "flat", "flat"), 0.03, 0.0),
    "mirrors and a ridge": (NORMAL, ("square", "line", "flat", "flat"), 0.1, 0.0),
    "sixteen mirrors": (NORMAL, ("square", "square", "square", "square"), 0.2, 0.0),
    "unequal modes": (NORMAL, ("tilted", "tilted", "line", "line"), 0.3, 0.0),
    "waves and a cliff": (NORMAL, ("waves", "step", "line", "flat"), 0.2, 0.0),
    "a funnel of four": (NORMAL, ("flat", "line", "line", "line"), 0.5, 1.0),
    "outliers of four": (CAUCHY, ("line", "line", "line", "line"), 0.05, 0.0),
    "outliers, mirrored": (CAUCHY, ("square", "line", "line", "flat"), 0.1, 0.0),
}


def model(name: str) -> Hostile:
    """Return the model of one of TABLE."""
    family, shapes, *_ = TABLE[name]
    return Hostile(len(shapes), "bernoulli" if family == "bernoulli" else "student")


@cache
def problem(name: str) -> Problem:
    """Return one of TABLE, with datapoints drawn from it: the same every time."""
    family, shapes, scale, spread = TABLE[name]
    k = len(shapes)
    rng = np.random.default_rng([len(name), *map(ord, name)])
    theta = {"rotation": np.linalg.qr(rng.standard_normal((k, k)))[0]}
    theta |= {"shape": np.eye(len(SHAPES))[[SHAPES.index(shape) for shape in shapes]], "scale": np.full(k, scale)}
    theta |= {"spread": np.full(k, spread), "df": np.full(k, NORMAL if family == "bernoulli" else family)}
    theta = {key: value.astype(np.float32) for key, value in theta.items()}
    u = rng.standard_normal((POINTS, k))
    x, truth = np.empty((POINTS, k, len(WEIGHTS)), np.float32), np.zeros(POINTS)
    for j, shape in enumerate(shapes):
        given = (family, SHAPES.index(shape), float(theta["scale"][j]), spread)
        x[:, j] = _density(u[:, j], *given).rvs(random_state=rng)
        at = _log_likelihood(x[:, j].astype(np.float64), *given)
        truth += np.logaddexp.reduce(at + stats.norm.logpdf(LINE), 1) + np.log(LINE[1] - LINE[0])
    return Problem(name, model(name), theta, x.reshape(POINTS, -1), truth)


def together(problems: list[Problem]) -> Problem:
    """Return problems of one model as one: theta has a row for each datapoint."""
    theta = {
        name: np.concatenate([np.broadcast_to(each.theta[name], (POINTS, *value.shape)) for each in problems])
        for name, value in problems[0].theta.items()
    }
    x, truth = (np.concatenate([getattr(each, field) for each in problems]) for field in ("x", "truth"))
    return Problem("; ".join(each.name for each in problems), problems[0].model, theta, x, truth)


def _density(u: np.ndarray, family: str | float, shape: int, scale: float, spread: float) -> Any:
    """Return scipy's distribution of a latent variable's columns, for u [m]: a batch of [m, columns]."""
    loc = curves(np, u)[shape][:, None] * np.array(WEIGHTS)
    width = np.broadcast_to(scale * np.exp(spread * u)[:, None], loc.shape)
    return stats.bernoulli(expit(loc / width)) if isinstance(family, str) else stats.t(family, loc, width)


def _log_likelihood(x: np.ndarray, family: str | float, shape: int, scale: float, spread: float) -> np.ndarray:
    """Return log p(x | u) of one latent variable's columns x [n, columns], for all u on LINE: [n, nodes]."""
    if isinstance(family, str):
        logits = curves(np, LINE)[shape][:, None] * np.array(WEIGHTS) / scale
        return np.asarray(x @ log_expit(logits).T + (1 - x) @ log_expit(-logits).T)
    width = scale * np.exp(spread * LINE)
    constant = stats.t.logpdf(0.0, family)
    loc = curves(np, LINE)[shape]
    found = np.zeros((len(x), len(LINE)))
    for column, weight in zip(x.T, WEIGHTS, strict=True):
        away = (column[:, None] - weight * loc) / width
        found += constant - 0.5 * (family + 1.0) * np.log1p(np.square(away) / family) - np.log(width)
    return found
