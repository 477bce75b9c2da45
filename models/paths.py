"""Paths from noise to z with gradients, where a library has none: each written once, over what both libraries have.

Each takes parameters [..., k], and returns a distribution of k variables, each by itself. Used by `models.families`.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from models.base import Array, Ppl

EDGE = 2.0**-24  # float32 has no number between 1 - EDGE and 1: noise stays off both ends
PARTS, ROUNDS = 32, 5  # 32^5 parts of a bracket some ten standard deviations wide: to the last bits of float32


class Density(NamedTuple):
    """What of a distribution is there without a sampler: `log_prob` of one variable, in nats."""

    log_prob: Callable[[Array], Array]
    support: Any
    batch_shape: Any
    event_shape: tuple[int, ...] = ()


# The libraries' own, by other parameters


def full_normal(ppl: Ppl, loc: Array, scale_tril: Array) -> Any:
    """Return N(loc, L L') of all k variables, for L lower triangular."""
    return ppl.dist.MultivariateNormal(loc, scale_tril=scale_tril)


def student_t(ppl: Ppl, loc: Array, scale: Array, df: Array) -> Any:
    """Return loc + scale t(df)."""
    return ppl.dist.StudentT(df, loc, scale)


def rayleigh(ppl: Ppl, scale: Array) -> Any:
    """Return the Weibull of shape 2 and scale sqrt(2) scale."""
    return ppl.dist.Weibull(math.sqrt(2.0) * scale, 2.0)


# Paths of our own


def inverse_cdf(ppl: Ppl, law: Any, path: Callable[[Array], Array]) -> Any:
    """Return a law that is drawn as path(eps), eps ~ U(0, 1)."""
    noise = ppl.dist.Uniform(EDGE, 1.0 - EDGE).expand(law.batch_shape)
    return ppl.reparameterised(law, noise, path)


def logistic(ppl: Ppl, loc: Array, scale: Array) -> Any:
    """Return the library's logistic, drawn as loc + scale log(eps / (1 - eps))."""
    xp = ppl.xp
    return inverse_cdf(ppl, ppl.dist.Logistic(loc, scale), lambda eps: loc + scale * (xp.log(eps) - xp.log1p(-eps)))


def uniform(ppl: Ppl, low: Array, width: Array) -> Any:
    """Return the uniform on low to low + width, its ends counted in as far as float32 tells them.

    Torch's own scores a draw that rounding has put on the upper end as impossible: with a narrow one far from 0 that
    is one of a hundred thousand.
    """
    xp = ppl.xp

    def log_prob(z: Array) -> Array:
        rounding = 2.0**-22 * (xp.abs(low) + width)
        inside = xp.abs(z - low - 0.5 * width) <= 0.5 * width + rounding
        return xp.where(inside, -xp.log(width), -math.inf)

    law = Density(log_prob, ppl.dist.constraints.interval(low, low + width), width.shape)
    return inverse_cdf(ppl, law, lambda eps: low + width * eps)


def triangular(ppl: Ppl, loc: Array, scale: Array) -> Any:
    """Return the symmetric triangular on loc +- scale: loc + scale t, where t has the density 1 - |t|."""
    xp = ppl.xp

    def log_prob(z: Array) -> Array:
        inside = 1.0 - xp.abs((z - loc) / scale)
        least = xp.zeros_like(inside) + 1e-30
        return xp.where(inside > 0, xp.log(xp.maximum(inside, least)), -math.inf) - xp.log(scale)

    def path(eps: Array) -> Array:
        t = xp.where(eps < 0.5, xp.sqrt(2.0 * eps) - 1.0, 1.0 - xp.sqrt(2.0 * (1.0 - eps)))
        return loc + scale * t

    law = Density(log_prob, ppl.dist.constraints.interval(loc - scale, loc + scale), scale.shape)
    return inverse_cdf(ppl, law, path)


def gompertz(ppl: Ppl, rate: Array, shape: Array) -> Any:
    """Return log f = log(b eta) + eta + b z - eta exp(b z), drawn as log(1 - log(1 - eps) / eta) / b."""
    xp = ppl.xp

    def log_prob(z: Array) -> Array:
        return xp.log(rate * shape) + rate * z - shape * xp.expm1(rate * z)

    law = Density(log_prob, ppl.dist.constraints.positive, rate.shape)
    return inverse_cdf(ppl, law, lambda eps: xp.log1p(-xp.log1p(-eps) / shape) / rate)


def reciprocal(ppl: Ppl, low: Array, ratio: Array) -> Any:
    """Return the density 1 / (z log ratio) between low and ratio low: exp of a uniform."""
    log = uniform(ppl, ppl.xp.log(low), ppl.xp.log(ratio))
    return ppl.dist.TransformedDistribution(log, [ppl.dist.transforms.ExpTransform()])


def erlang(ppl: Ppl, rate: Array, shape: int = 2) -> Any:
    """Return the gamma of a whole shape, drawn as the sum of so many exponentials, each by its inverse CDF."""
    law = ppl.dist.Gamma(ppl.xp.zeros_like(rate) + shape, rate)
    noise = ppl.dist.Uniform(EDGE, 1.0 - EDGE).expand((*law.batch_shape, shape))
    return ppl.reparameterised(law, noise, lambda eps: -ppl.xp.log(eps).sum(-1) / rate)


def fisher(ppl: Ppl, d1: Array, d2: Array) -> Any:
    """Return F = (g1 / d1) / (g2 / d2) of two chi-squared; its density is that of b = d1 z / (d1 z + d2) ~ Beta."""
    beta = ppl.dist.Beta(0.5 * d1, 0.5 * d2, validate_args=False)

    def log_prob(z: Array) -> Array:
        total = d1 * z + d2
        return beta.log_prob(d1 * z / total) + ppl.xp.log(d1) + ppl.xp.log(d2) - 2.0 * ppl.xp.log(total)

    halves = 0.5 * ppl.xp.stack((d1, d2), -1)

    def path(g: Array) -> Array:
        return g[..., 0] * d2 / (g[..., 1] * d1)

    law = Density(log_prob, ppl.dist.constraints.positive, d1.shape)
    return ppl.reparameterised(law, ppl.dist.Gamma(halves, ppl.xp.ones_like(halves)), path)


def normal_mixture(ppl: Ppl, loc: Array, other: Array, scale: Array, other_scale: Array, share: Array) -> Any:
    """Return share N(loc, scale^2) + (1 - share) N(other, other_scale^2), with the gradient of `solved`.

    Its variance grows as 1 / f between two modes that have drawn apart.
    """
    stack, parameters = ppl.xp.stack, (loc, other, scale, other_scale, share)
    fixed = tuple(ppl.stop(each) for each in parameters)

    def cdf(z: Array, loc: Array, other: Array, scale: Array, other_scale: Array, share: Array) -> Array:
        one, two = ppl.dist.Normal(loc, scale).cdf(z), ppl.dist.Normal(other, other_scale).cdf(z)
        return two + share * (one - two)

    def mixture(loc: Array, other: Array, scale: Array, other_scale: Array, share: Array) -> Any:
        weights = ppl.dist.Categorical(probs=stack((share, 1.0 - share), -1))
        parts = ppl.dist.Normal(stack((loc, other), -1), stack((scale, other_scale), -1))
        return ppl.dist.MixtureSameFamily(weights, parts)

    def path(eps: Array) -> Array:
        ends = [ppl.dist.Normal(*at).icdf(eps) for at in ((fixed[0], fixed[2]), (fixed[1], fixed[3]))]
        bracket = ppl.xp.minimum(*ends), ppl.xp.maximum(*ends)
        z = inverted(ppl, lambda z: cdf(z, *(each[..., None] for each in fixed)), eps, bracket)
        return implicit(ppl, z, cdf(z, *parameters), mixture(*fixed).log_prob(z))

    return inverse_cdf(ppl, mixture(*parameters), path)


def inverted(ppl: Ppl, cdf: Callable[[Array], Array], eps: Array, bracket: tuple[Array, Array]) -> Array:
    """Return the z in a bracket (low, high) for which F(z) = eps; F takes z [..., PARTS - 1].

    By bisection into many parts at once: a few large operations are faster than many small ones.
    """
    low, high = bracket
    marks = ppl.xp.arange(1, PARTS)
    for _ in range(ROUNDS):
        part = (high - low) / PARTS
        below = cdf(low[..., None] + part[..., None] * marks) < eps[..., None]
        low = low + part * below.sum(-1)
        high = low + part
    return 0.5 * (low + high)


def implicit(ppl: Ppl, z: Array, cdf: Array, log_density: Array) -> Array:
    """Return a constant z for which F(z; phi) = eps, with its gradient dz / dphi = -(dF / dphi) / f(z).

    It is that of a Newton step z - (F(z; phi) - eps) / f(z) (Figurnov, Mohamed & Mnih 2018). The step itself is not
    taken: where f is small, F's rounding over f is no small number.
    """
    steep = ppl.xp.exp(ppl.xp.clip(-log_density, None, 60.0))  # 1 / f, finite in float32
    return z - (cdf - ppl.stop(cdf)) * ppl.stop(steep)


def triangle(ppl: Ppl, raw: Array) -> Array:
    """Return L [..., k, k] from k (k + 1) / 2 raw numbers: lower triangular, exp(r / 2) on its diagonal."""
    m = raw.shape[-1]
    k = (math.isqrt(8 * m + 1) - 1) // 2
    # In this order, without any index, the lower half of the square has each number once.
    square = ppl.xp.concatenate((raw[..., k:], ppl.xp.flip(raw, (-1,))), -1).reshape((*raw.shape[:-1], k, k))
    eye = ppl.xp.eye(k)
    return ppl.xp.tril(square, -1) + eye * ppl.xp.exp(0.5 * eye * square)
