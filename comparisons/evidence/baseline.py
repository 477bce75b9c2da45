"""What a model is worth that ignores z: the best p(x) of independent columns. Below it, z is unused."""

import numpy as np

NARROWEST = 1e-3  # a column's standard deviation, where training shows one value alone
LOG_SHAPES = -10.0, 15.0  # between which that of a negative binomial is sought: at the end it is a Poisson


def baseline(train: np.ndarray, x: np.ndarray, columns: str) -> float:
    """Return the mean log p(x) [nats per datapoint] of a product of one distribution a column, fitted to `train`.

    `train` [N, d], `x` [n, d]. `columns` is a model's, or its support: a Bernoulli with the column's mean for "unit" or
    "binary" (grey values count as in the paper's likelihood), a Poisson with it for "count", "negative binomial", each
    level's share for "categorical", a normal with its mean and variance for "real", or with its mean alone for "unit
    normal". All are of maximum likelihood, in closed form but for a negative binomial's shape, so that no theta of such
    a decoder that ignores z exceeds them on `train`. A probability is kept 1 / 2N from 0 and 1, and a rate from 0, so
    that one value that training never showed costs log 2N.
    """
    from scipy import stats
    from scipy.special import gammaln

    train, x = train.astype(np.float64), x.astype(np.float64)
    mean, rare = train.mean(0), 0.5 / len(train)
    if columns in ("real", "unit normal"):
        sd = np.maximum(train.std(0), NARROWEST) if columns == "real" else np.ones_like(mean)
        scores = -0.5 * np.square((x - mean) / sd) - np.log(sd) - 0.5 * np.log(2 * np.pi)
    elif columns == "count":
        rate = np.maximum(mean, rare)
        scores = x * np.log(rate) - rate - gammaln(x + 1.0)
    elif columns == "negative binomial":
        rate = np.maximum(mean, rare)
        shape = np.array([_shape(column, m) for column, m in zip(train.T, rate, strict=True)])
        scores = stats.nbinom.logpmf(x, shape, shape / (shape + rate))
    elif columns == "categorical":
        shares = {level: np.maximum((train == level).mean(0), rare) for level in np.unique(x)}
        scores = sum(((x == level) * np.log(share) for level, share in shares.items()), np.zeros(x.shape))
    else:
        p = np.clip(mean, rare, 1 - rare)
        scores = x * np.log(p) + (1 - x) * np.log1p(-p)
    return float(scores.sum(1).mean())


def _shape(column: np.ndarray, mean: float) -> float:
    """Return the shape r of the negative binomial of most likelihood, given its mean."""
    from scipy import optimize, stats

    values, counts = np.unique(column, return_counts=True)

    def cost(log_r: float) -> float:
        r = np.exp(log_r)
        return -float(counts @ stats.nbinom.logpmf(values, r, r / (r + mean)))

    return float(np.exp(optimize.minimize_scalar(cost, bounds=LOG_SHAPES, method="bounded").x))
