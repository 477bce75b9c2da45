"""Whether chains have mixed, for thousands of datapoints at once: R-hat and effective sample size.

Vehtari, Gelman, Simpson, Carpenter & Buerkner (2021), "Rank-normalization, folding, and localization". arviz-stats
has the same, one datapoint after the other, which would take longer here than the draws; the tests hold this to it.
"""

import numpy as np


def rhat(draws: np.ndarray) -> np.ndarray:
    """Return the rank-normalised split R-hat of draws [..., chains, n], the larger of bulk and tail (folded): [...].

    1 where chains agree; a single chain is compared with itself by halves. NaN for draws that never move.
    """
    split = _split(draws)
    folded = np.abs(split - np.median(split, axis=(-2, -1), keepdims=True))
    return np.maximum(_rhat(_normal_scores(split)), _rhat(_normal_scores(folded)))


def ess(draws: np.ndarray) -> np.ndarray:
    """Return how many independent draws estimate the mean as well as draws [..., chains, n] do: [...].

    From the chains' autocorrelation, summed over Geyer's (1992) initial monotone sequence. NaN where nothing moves.
    """
    split = _split(draws)
    m, n = split.shape[-2:]
    centred = split - split.mean(-1, keepdims=True)
    transform = np.fft.rfft(centred, 2 * n, axis=-1)
    autocovariance = np.fft.irfft(np.abs(transform) ** 2, axis=-1)[..., :n].mean(-2) / n
    within = autocovariance[..., 0] * n / (n - 1)
    total = within * (n - 1) / n + split.mean(-1).var(-1, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        rho = 1.0 - (within[..., None] - autocovariance) / total[..., None]
    rho[..., 0] = 1.0
    pairs = rho[..., : n // 2 * 2].reshape(*rho.shape[:-1], -1, 2).sum(-1)
    # Pairs count while they are positive; of the first that does not, its even half still does, once (as in Stan).
    last = max(0, -(-(n - 2) // 2) - 1)
    kept = np.logical_and.accumulate(pairs > 0, axis=-1)
    kept[..., last:] = False
    end = kept.sum(-1, keepdims=True)
    after = np.take_along_axis(rho, 2 * end, -1)[..., 0]
    after = np.where(np.take_along_axis(pairs, end, -1)[..., 0] >= 0, after, np.maximum(after, 0.0))
    monotone = np.minimum.accumulate(pairs, axis=-1)
    time = -1.0 + 2.0 * np.where(kept, monotone, 0.0).sum(-1) + after
    return np.where(total > 0, m * n / np.maximum(time, 1.0 / np.log10(m * n)), np.nan)


def _split(draws: np.ndarray) -> np.ndarray:
    """Cut each chain into halves: [..., 2 chains, n // 2]."""
    half = draws.shape[-1] // 2
    return np.concatenate([draws[..., :half], draws[..., -half:]], -2)


def _normal_scores(draws: np.ndarray) -> np.ndarray:
    """Replace each value by the normal quantile of its rank among all chains' draws (Blom's formula)."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    flat = draws.reshape(*draws.shape[:-2], -1)
    ranks = rankdata(flat, axis=-1)
    return np.asarray(ndtri((ranks - 0.375) / (flat.shape[-1] + 0.25))).reshape(draws.shape)


def _rhat(draws: np.ndarray) -> np.ndarray:
    n = draws.shape[-1]
    within, between = draws.var(-1, ddof=1).mean(-1), draws.mean(-1).var(-1, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt((n - 1) / n + between / within)
