"""log p(x) by the paper's own estimator (appendix D): a density is fitted to posterior draws, new draws are weighed.

    1 / p(x) = E_{p(z | x)}[ q(z) / p(x, z | theta) ]

for any normalised density q: draw z from the posterior by HMC, fit q to these draws, draw AGAIN, average q / p over the
new draws, invert. With exact posterior draws the average has mean 1 / p(x), so by Jensen the estimate lies above
log p(x) on average; chains that have not found the posterior pull it either way. Averaging over the draws that q was
fitted to is wrong: q is high where they happen to lie (`reuse_draws` shows how wrong).
"""

from typing import Any

import numpy as np

from comparisons.evidence.base import Estimate, log_mean_exp
from comparisons.evidence.draws import posterior_draws
from comparisons.evidence.mixing import ess, rhat
from inference.base import Engine, Params, Posterior
from models.base import Array, Model

MAX_LATENT = 10  # beyond, a density fitted to few draws is hopeless
MAX_RHAT = 1.1
MIN_ESS = 10.0
MAX_HELD_OUT = 250  # draws that score a bandwidth
LOG_2PI = float(np.log(2 * np.pi))


def appendix_d(
    engine: Engine,
    model: Model,
    theta: Params,
    x: Array,
    seed: int = 0,
    *,
    q: Posterior | None = None,
    start: str = "prior",
    hmc_draws: int = 50,
    hmc_chains: int = 1,
    hmc_warmup: int = 50,
    hmc_leapfrog: int = 4,
    hmc_thin: int = 1,
    density: str = "kde",
    reuse_draws: bool = False,
    force: bool = False,
    max_memory: float = 1e9,
) -> Estimate:
    """Return the paper's estimate of log p(x) for each row of x [n, n_x], in nats.

    Each of `hmc_chains` chains makes `hmc_draws` draws after a warm-up that tunes its step size: the first half serves
    to fit the density, the second is weighed. `density` is a Gaussian `kde` whose bandwidth is chosen by held-out
    score, or one `normal` with full covariance. The defaults are the paper's: 50 draws, 4 leapfrog steps, chains that
    start at the prior. `stderr` reckons with the draws' autocorrelation.

    Diagnostics per datapoint: `rhat` (rank-normalised, of split chains), `ess` and `acceptance` of the draws,
    `bandwidth`, and `flagged`: rhat > 1.1, ess < 10, a stuck chain, a singular covariance, or draws of which one makes
    up half the average. Raises ValueError for n_latent > 10 unless forced, and for a start that is not there.
    """
    if model.n_latent > MAX_LATENT and not force:
        raise ValueError(
            f"appendix_d cannot be trusted above {MAX_LATENT} latent variables, and n_latent is {model.n_latent}; "
            "choose annealed or importance, or force it"
        )
    if start == "recognition" and q is None:
        raise ValueError("this method has no q(z | x) to start from; choose start prior")
    drawn = posterior_draws(
        engine, model, theta, x, engine.key(seed),
        draws=hmc_draws, chains=hmc_chains, warmup=hmc_warmup, leapfrog_steps=hmc_leapfrog,
        start=q if start == "recognition" else None, thin=hmc_thin, max_memory=max_memory,
    )  # fmt: skip
    half = hmc_draws // 2
    first, second = (slice(0, hmc_draws),) * 2 if reuse_draws else (slice(0, half), slice(half, None))
    n = drawn.z.shape[2]
    value, stderr, bandwidth, share, singular = (np.empty(n) for _ in range(5))
    # R-hat and ESS of every coordinate and of log p(x, z): the worst of them counts.
    each = np.concatenate([drawn.z, drawn.log_joint[..., None]], -1).transpose(2, 3, 1, 0)  # [n, k + 1, chains, draws]
    worst_rhat, each_ess = rhat(each).max(1), ess(each)
    for i in range(n):
        fit, weighed = drawn.z[first, :, i], drawn.z[second, :, i].reshape(-1, model.n_latent)
        log_q, bandwidth[i], singular[i] = DENSITIES[density](fit, weighed)
        log_r = (log_q - drawn.log_joint[second, :, i].reshape(-1))[:, None]
        effective = each_ess[i, -1] * len(log_r) / (hmc_draws * hmc_chains)
        inverse, error = log_mean_exp(log_r, effective)
        value[i], stderr[i] = -inverse[0], error[0]
        share[i] = np.exp(log_r.max() - inverse[0]) / len(log_r)
    least_ess = each_ess.min(1)
    stuck = (np.ptp(drawn.z, axis=0) == 0).any((0, 2))
    flagged = (
        ~(worst_rhat <= MAX_RHAT)
        | ~(least_ess >= MIN_ESS)
        | stuck
        | (singular > 0)
        | (share > 0.5)
        | ~np.isfinite(value)
    )
    diagnostics: dict[str, Any] = {"rhat": worst_rhat, "ess": least_ess, "acceptance": drawn.acceptance}
    return Estimate(value, stderr, diagnostics={**diagnostics, "bandwidth": bandwidth, "flagged": flagged})


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
    half = len(fit) // 2
    k = fit.shape[-1]
    flat = fit.reshape(-1, k)
    centre, factor, singular = _whitening(flat)

    def whiten(points: np.ndarray) -> np.ndarray:
        return np.asarray(np.linalg.solve(factor, (points.reshape(-1, k) - centre).T).T)

    early, late, all_, z = whiten(fit[:half]), whiten(fit[half:]), whiten(flat), whiten(z)
    early, late = (part[:: -(-len(part) // MAX_HELD_OUT)] for part in (early, late))  # enough to choose among six
    candidates = len(flat) ** (-1.0 / (k + 4)) * np.array([0.35, 0.5, 0.7, 1.0, 1.4, 2.0])
    between = _squared_distances(early, late)
    scores = [_kernel(between, h, k).sum() + _kernel(between.T, h, k).sum() for h in candidates]
    best = float(candidates[int(np.argmax(scores))])
    return _kernel(_squared_distances(z, all_), best, k) - _log_volume(factor) + 0.5 * k * LOG_2PI, best, singular


DENSITIES = {"kde": kde, "normal": normal}


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
