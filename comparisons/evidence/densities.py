"""Densities that are fitted to posterior draws: a Gaussian kernel density, and one normal."""

from collections.abc import Callable

import numpy as np

MAX_HELD_OUT = 250  # draws of a half that score a bandwidth
MULTIPLES = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0)  # of Scott's bandwidth, among which it is chosen
MAX_PAIRS = 4_000_000  # of draws whose distances are held at once
LOG_2PI = float(np.log(2 * np.pi))
Density = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, float, bool]]


def normal(fit: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, float, bool]:
    """Score z [m, k] under a normal fitted to draws [.., chains, k]: log q [m], no bandwidth, whether singular."""
    centre, factor, singular = _whitening(fit.reshape(-1, fit.shape[-1]))
    white = np.linalg.solve(factor, (z - centre).T)
    return -0.5 * np.square(white).sum(0) - _log_volume(factor), np.nan, singular


def kde(fit: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, float, bool]:
    """Score z [m, k] under a Gaussian kernel density of draws [draws, chains, k], with their covariance as its shape.

    Of bandwidths around Scott's m^(-1 / (k + 4)), that one is taken under which the first and second half of the draws
    explain each other best: draws next to each other in a chain are alike, so that leaving out one alone would favour
    too small a bandwidth. Returns log q [m], the bandwidth, and whether the covariance is singular.
    """
    k, half = fit.shape[-1], len(fit) // 2
    flat = fit.reshape(-1, k)
    centre, factor, singular = _whitening(flat)

    def whiten(points: np.ndarray) -> np.ndarray:
        return np.asarray(np.linalg.solve(factor, (points.reshape(-1, k) - centre).T).T)

    # Some hundred draws of each half are enough to choose among six multiples of Scott's bandwidth for their number.
    step = max(1, half * fit.shape[1] // MAX_HELD_OUT)
    early, late = whiten(fit[:half][::step]), whiten(fit[half:][::step])
    between = _squared_distances(early, late)
    scott = [len(part) ** (-1.0 / (k + 4)) for part in (early, late)]
    scores = [_kernel(between.T, c * scott[0], k).sum() + _kernel(between, c * scott[1], k).sum() for c in MULTIPLES]
    best = MULTIPLES[int(np.argmax(scores))] * len(flat) ** (-1.0 / (k + 4))
    draws, z = whiten(flat), whiten(z)
    cuts = range(0, len(z), max(1, MAX_PAIRS // len(draws)))
    log_q = [_kernel(_squared_distances(z[cut : cut + cuts.step], draws), best, k) for cut in cuts]
    return np.concatenate(log_q) - _log_volume(factor) + 0.5 * k * LOG_2PI, best, singular


DENSITIES: dict[str, Density] = {"kde": kde, "normal": normal}


def _kernel(squared: np.ndarray, bandwidth: float, k: int) -> np.ndarray:
    """Return log of the mean over columns of N(0, bandwidth^2 I) at squared distances [m, f]."""
    log_kernel = -0.5 * squared / bandwidth**2
    top = log_kernel.max(1, keepdims=True)
    return np.asarray(top[:, 0] + np.log(np.exp(log_kernel - top).mean(1)) - k * (np.log(bandwidth) + 0.5 * LOG_2PI))


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.maximum(np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2.0 * a @ b.T, 0.0)


def _whitening(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return mean [k], Cholesky factor [k, k] of the covariance of points [m, k], and whether it had to be mended."""
    m, k = points.shape
    covariance = np.atleast_2d(np.cov(points.T))
    values = np.linalg.eigvalsh(covariance)
    singular = m <= k or not values[0] > 1e-10 * max(values[-1], 1e-300)
    if singular:
        covariance = covariance + (1e-6 * max(np.trace(covariance) / k, 1e-12)) * np.eye(k)
    return points.mean(0), np.linalg.cholesky(covariance), singular


def _log_volume(factor: np.ndarray) -> float:
    """Return the log of a normal's normalising constant, from its covariance's Cholesky factor."""
    return float(np.log(np.diag(factor)).sum() + 0.5 * len(factor) * LOG_2PI)
