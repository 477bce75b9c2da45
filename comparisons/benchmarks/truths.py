"""Where log p(x) is known: in closed form, by quadrature, or between bounds."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from comparisons.benchmarks.scoring import estimated
from comparisons.evidence.base import Estimate, Target
from comparisons.evidence.importance import ImportanceSettings, sandwich
from inference.base import Array, Engine, Posterior
from models.linear_gaussian import LinearGaussian, log_px, posterior

TIGHT = ImportanceSettings(importance_samples=10_000)  # of the two bounds that hold a truth
SURE = 0.05  # nats: a truth with a larger error of its own is none


def linear_gaussian(engine: Engine, k: int, repeats: int, seed: int) -> tuple[Target, np.ndarray]:
    """Return 5 datapoints of a linear_gaussian with k latents, one set after another, and their log p(x).

    q is the best factorised normal.
    """
    n_x = 2 * k + 4
    rng = np.random.default_rng([seed, k])
    w, b = rng.standard_normal((k, n_x)) / np.sqrt(k), rng.standard_normal(n_x)
    theta = {"w": w, "b": b, "log_scale": np.log(0.5)}
    x = b + rng.standard_normal((5, k)) @ w + 0.5 * rng.standard_normal((5, n_x))
    x = np.tile(x, (repeats, 1))
    placed = {name: engine.array(value) for name, value in theta.items()}
    model = LinearGaussian(n_x, k)
    return Target(engine, model, placed, engine.array(x), best_factorised(engine, theta, x)), log_px(theta, x)


def best_factorised(engine: Engine, theta: dict[str, Any], x: np.ndarray) -> Posterior:
    """Return the recognition model with the highest bound: the exact mean, one over the precision's diagonal."""
    _, covariance = posterior(theta, x)
    slope = theta["w"].T @ covariance / np.exp(2 * theta["log_scale"])
    log_scale = -0.5 * np.log(np.diag(np.linalg.inv(covariance)))
    phi = {"w": slope, "b": -theta["b"] @ slope, "log_scale": log_scale}
    return Posterior(
        LinearGaussian(*theta["w"].shape[::-1]).recognition,
        ({name: engine.array(value) for name, value in phi.items()}, engine.array(x)),
    )


def best_known(target: Target, z: Array, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return log p(x) [n] of datapoints made from z, and its error: by quadrature up to three latents, else by bounds.

    NaN where that error exceeds `SURE`: what no truth is known of judges nobody.
    """
    if target.model.n_latent <= 3:
        return tightest([estimated(target, seed, "quadrature", tolerance=0.01)])
    return tightest([sandwich(target, z, TIGHT, seed + 1)])


def tightest(found: Sequence[Estimate]) -> tuple[np.ndarray, np.ndarray]:
    """Return for each datapoint the value of the smallest error, and that error, [n]; NaN where that is too large."""
    best = np.argmin(np.nan_to_num([each.stderr for each in found], nan=np.inf), 0)[None]
    value, error = (
        np.take_along_axis(np.stack(each), best, 0)[0]
        for each in ([each.value for each in found], [each.stderr for each in found])
    )
    return np.where(error <= SURE, value, np.nan), error
