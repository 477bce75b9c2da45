"""Three gradients of E_N(mu, sigma)[f(x)] in one dimension, their means and variances by numerical integration.

    score function   f(x) d log N(x) / d parameter
    pathwise         f'(x) dx / d parameter, with x = mu + sigma eps
    measure-valued   (E_p+[f] - E_p-[f]) c: for mu c = 1 / (sigma sqrt(2 pi)) and p+-: x = mu +- sigma W, W of a Weibull
                     with shape 2 and scale sqrt 2; for sigma c = 1 / sigma, p+: x = mu + sigma M, M of a double-sided
                     Maxwell law, and p- the normal itself

A measure-valued gradient takes two draws: independent ones, or coupled, of one W, or of one M and U M with U uniform on
[0, 1], which is normal. Source: Mohamed, Rosca, Figurnov & Mnih (2020), "Monte Carlo Gradient Estimation in Machine
Learning", JMLR 21, sections 3 to 6.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

ROUTES = ("score function", "pathwise", "measure-valued", "measure-valued, coupled")
PARAMETERS = ("mu", "sigma")
KS = tuple(float(k) for k in np.round(np.geomspace(0.1, 10.0, 25), 3))
DIMENSIONS = (1, 3, 10, 30, 100, 300, 1000)
CONSTANT = 100.0
REACH, NODES, SHARES = 12.0, 2401, 64  # standard deviations, and nodes of the trapezoidal rule along eps and u

Function = Callable[[np.ndarray], np.ndarray]
Row = dict[str, Any]


class Cost(NamedTuple):
    """f(x; k), its derivative, and the gradient of E_N(mu, sigma)[f] in closed form, all of (.., k)."""

    f: Callable[[np.ndarray, float], np.ndarray]
    slope: Callable[[np.ndarray, float], np.ndarray]
    gradient: Callable[[float, float, float], tuple[float, float]]


def _of_bump(mu: float, sigma: float, k: float) -> tuple[float, float]:
    wide = 1.0 + 2.0 * k * sigma**2
    mean = float(np.exp(-k * mu**2 / wide) / np.sqrt(wide))
    return -2.0 * k * mu / wide * mean, 2.0 * k * sigma / wide * (2.0 * k * mu**2 / wide - 1.0) * mean


def _of_wave(mu: float, sigma: float, k: float) -> tuple[float, float]:
    damped = float(np.exp(-0.5 * (k * sigma) ** 2))
    return -k * float(np.sin(k * mu)) * damped, -(k**2) * sigma * float(np.cos(k * mu)) * damped


COSTS = {
    "(x - k)^2": Cost(
        lambda x, k: (x - k) ** 2, lambda x, k: 2.0 * (x - k), lambda mu, sigma, k: (2.0 * (mu - k), 2.0 * sigma)
    ),
    "exp(-k x^2)": Cost(lambda x, k: np.exp(-k * x**2), lambda x, k: -2.0 * k * x * np.exp(-k * x**2), _of_bump),
    "cos(k x)": Cost(lambda x, k: np.cos(k * x), lambda x, k: -k * np.sin(k * x), _of_wave),
}


def rows() -> Iterator[Row]:
    """Yield a row for each cost, k, parameter and route, at mu = sigma = 1: mean and variance of one draw."""
    for cost, each in COSTS.items():
        for k in KS:
            for parameter, exact in zip(PARAMETERS, each.gradient(1.0, 1.0, k), strict=True):
                for route in ROUTES:
                    mean, variance = moments(each, k, parameter, route, 1.0, 1.0)
                    told = {"cost": cost, "k": k, "parameter": parameter, "estimator": route}
                    yield {**told, "mean": mean, "exact": exact, "variance": variance}
    for dimension in DIMENSIONS:
        for cost, variance in score_variance(dimension, 0.5, 1.0).items():
            yield {"cost": cost, "dimension": dimension, "estimator": ROUTES[0], "variance": variance}


def moments(cost: Cost, k: float, parameter: str, route: str, mu: float, sigma: float) -> tuple[float, float]:
    """Return mean and variance of an estimator from one draw (measure-valued: from two)."""
    eps, step = np.linspace(-REACH, REACH, NODES, retstep=True)
    normal = np.exp(-0.5 * eps**2) / np.sqrt(2.0 * np.pi) * step
    f, slope = cost.f(mu + sigma * eps, k), cost.slope(mu + sigma * eps, k)
    of_mu = parameter == "mu"
    if route == "score function":
        return _moments(f * (eps if of_mu else eps**2 - 1.0) / sigma, normal)
    if route == "pathwise":
        return _moments(slope * (1.0 if of_mu else eps), normal)
    if of_mu:
        half = eps[eps >= 0]
        weibull = half * np.exp(-0.5 * half**2) * step
        above, below = cost.f(mu + sigma * half, k), cost.f(mu - sigma * half, k)
        each, factor = ((above, weibull), (below, weibull)), 1.0 / (sigma * np.sqrt(2.0 * np.pi))
        coupled = _moments(above - below, weibull)
    else:
        maxwell = eps**2 * normal
        each, factor = ((f, maxwell), (f, normal)), 1.0 / sigma
        u, weight = np.polynomial.legendre.leggauss(SHARES)
        shared = cost.f(mu + sigma * np.outer(eps, 0.5 * (u + 1.0)), k)
        difference = f[:, None] - shared
        coupled = _moments(difference.ravel(), np.outer(maxwell, 0.5 * weight).ravel())
    if route == "measure-valued, coupled":
        return factor * coupled[0], factor**2 * coupled[1]
    (mean, variance), (other, too) = (_moments(*one) for one in each)
    return factor * (mean - other), factor**2 * (variance + too)


def score_variance(dimension: int, mu: float, sigma: float) -> dict[str, float]:
    """Return the variance of the score function's gradient by one mean, under N(mu, sigma^2 I) in D dimensions.

    For f = 100 that is 100^2 / sigma^2 whatever D is; for f = sum_d x_d, D^2 mu^2 / sigma^2 + D + 1.
    """
    linear = (dimension * mu / sigma) ** 2 + dimension + 1.0
    return {f"constant {CONSTANT:.0f}": CONSTANT**2 / sigma**2, "sum of x": linear}


def _moments(values: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    mean = float((weights * values).sum())
    return mean, float((weights * (values - mean) ** 2).sum())
