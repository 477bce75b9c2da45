"""The evidence lower bound of a fitted model and its approximate posterior, by Monte Carlo."""

import numpy as np

from comparisons.evidence.base import Estimate, Target
from comparisons.evidence.weights import weigh
from inference.base import Key

CHUNK = 8_000_000  # elements of the largest intermediate array, [draws, points, n_x]


def elbo(target: Target, key: Key, draws: int) -> Estimate:
    """Estimate E_q[log p(x, z | theta) - log q(z | x)] for each datapoint (equation 2), from draws of z.

    Higher is better; never above log p(x) in expectation. Returns nats per datapoint, with the standard error of the
    draws. Raises ValueError for a target without q.
    """
    engine, x, q = target.engine, target.x, target.posterior
    each = max(1, min(draws, CHUNK // (x.shape[0] * x.shape[1])))
    parts = []
    for part, start in enumerate(range(0, draws, each)):
        evaluate = weigh(engine, target.model, q.program, min(each, draws - start))
        parts.append(engine.numpy(evaluate(engine.fold_in(key, part), target.theta, q.args, x)))
    values = np.concatenate(parts).astype(np.float64)
    return Estimate(values.mean(0), values.std(0, ddof=1) / np.sqrt(draws))
