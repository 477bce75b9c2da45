"""The evidence lower bound of a fitted model and its q(z | x), by Monte Carlo, and the weights that it is a mean of."""

from functools import cache
from typing import Any

import numpy as np

from comparisons.evidence.base import Estimate, Target, repeated
from inference.base import Engine, Key, Params, Program
from models.base import Array, Model

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


@cache
def weigh(engine: Engine, model: Model, program: Program, draws: int) -> Any:
    """Return f(key, theta, args, x) -> log p(x, z | theta) - log q(z) [draws, n] of fresh z ~ q, compiled.

    q is program(ppl, *args). Importance sampling is the mean of the same weights.
    """

    def weights(key: Key, theta: Params, args: tuple[Any, ...], x: Array) -> Array:
        z = engine.draw(key, repeated(program, draws), *args)
        log_joint = engine.log_prob(model.generative, {"x": x, **z}, theta, x.shape[0])
        return log_joint - engine.log_prob(program, z, *args)

    return engine.compile(weights)
