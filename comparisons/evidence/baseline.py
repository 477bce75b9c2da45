"""What a model is worth that ignores z: the best p(x) of independent columns, in closed form. Below it, z is unused."""

import numpy as np

NARROWEST = 1e-3  # a column's standard deviation, where training shows one value alone


def baseline(train: np.ndarray, x: np.ndarray, support: str) -> float:
    """Return the mean log p(x) [nats per datapoint] of a product of one distribution a column, fitted to `train`.

    A Bernoulli with the column's mean where `support` is "unit" or "binary" (grey values count as in the paper's
    likelihood), a Poisson with its mean where it is "count", else a normal with its mean and variance: maximum
    likelihood, which no theta of such a decoder that ignores z exceeds on `train`. `train` [N, d], `x` [n, d]. A
    probability is kept 1 / 2N from 0 and 1, and a rate from 0, so that one value that training never showed costs
    log 2N.
    """
    from scipy.special import gammaln

    train, x = train.astype(np.float64), x.astype(np.float64)
    mean, rare = train.mean(0), 0.5 / len(train)
    if support == "real":
        sd = np.maximum(train.std(0), NARROWEST)
        scores = -0.5 * np.square((x - mean) / sd) - np.log(sd) - 0.5 * np.log(2 * np.pi)
    elif support == "count":
        rate = np.maximum(mean, rare)
        scores = x * np.log(rate) - rate - gammaln(x + 1.0)
    else:
        p = np.clip(mean, rare, 1 - rare)
        scores = x * np.log(p) + (1 - x) * np.log1p(-p)
    return float(scores.sum(1).mean())
