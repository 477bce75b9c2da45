"""What a model is worth that ignores z: the best p(x) of independent columns, in closed form. Below it, z is unused."""

import numpy as np

NARROWEST = 1e-3  # a column's standard deviation, where training shows one value alone


def baseline(train: np.ndarray, x: np.ndarray, support: str) -> float:
    """Return the mean log p(x) [nats per datapoint] of a product of one distribution a column, fitted to `train`.

    A Bernoulli with the column's mean where `support` is "unit" or "binary" (grey values count as in the paper's
    likelihood), else a normal with its mean and variance: maximum likelihood, which no theta of a decoder that ignores
    z exceeds on `train`. `train` [N, d], `x` [n, d]. A probability is kept 1 / 2N from 0 and 1, so that one value that
    training never showed costs log 2N.
    """
    train, x = train.astype(np.float64), x.astype(np.float64)
    mean = train.mean(0)
    if support == "real":
        sd = np.maximum(train.std(0), NARROWEST)
        scores = -0.5 * np.square((x - mean) / sd) - np.log(sd) - 0.5 * np.log(2 * np.pi)
    else:
        rare = 0.5 / len(train)
        p = np.clip(mean, rare, 1 - rare)
        scores = x * np.log(p) + (1 - x) * np.log1p(-p)
    return float(scores.sum(1).mean())
