"""The evidence lower bound of a fitted model and its approximate posterior, by Monte Carlo."""

import numpy as np

from comparisons.evidence.base import Estimate
from comparisons.evidence.weights import weigh
from inference.base import Engine, Key, Params, Posterior
from models.base import Array, Model

CHUNK = 8_000_000  # elements of the largest intermediate array, [draws, points, n_x]


def elbo(engine: Engine, model: Model, theta: Params, posterior: Posterior, x: Array, key: Key, draws: int) -> Estimate:
    """Estimate E_q[log p(x, z | theta) - log q(z | x)] for each row of x [n, n_x] (equation 2), from draws of z.

    Higher is better; never above log p(x) in expectation. Returns nats per datapoint, with the standard error of the
    draws.
    """
    each = max(1, min(draws, CHUNK // (x.shape[0] * x.shape[1])))
    parts = []
    for part, start in enumerate(range(0, draws, each)):
        evaluate = weigh(engine, model, posterior.program, min(each, draws - start))
        parts.append(engine.numpy(evaluate(engine.fold_in(key, part), theta, posterior.args, x)))
    values = np.concatenate(parts).astype(np.float64)
    return Estimate(values.mean(0), values.std(0, ddof=1) / np.sqrt(draws))
