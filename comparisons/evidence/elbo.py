"""The evidence lower bound of a fitted model and its approximate posterior, by Monte Carlo."""

from functools import cache
from typing import Any

import numpy as np

from comparisons.evidence.base import Estimate
from inference.base import Engine, Key, Params, Posterior, Program
from models.base import Array, Model, Ppl

CHUNK = 8_000_000  # elements of the largest intermediate array, [draws, points, n_x]


def elbo(engine: Engine, model: Model, theta: Params, posterior: Posterior, x: Array, key: Key, draws: int) -> Estimate:
    """Estimate E_q[log p(x, z | theta) - log q(z | x)] for each row of x [n, n_x] (equation 2), from draws of z.

    Higher is better; never above log p(x) in expectation. Returns nats per datapoint, with the standard error of the
    draws.
    """
    evaluate = _evaluate(engine, model, posterior.program)
    each = max(1, min(draws, CHUNK // (x.shape[0] * x.shape[1])))
    parts = [
        engine.numpy(evaluate(engine.fold_in(key, part), theta, posterior.args, x, min(each, draws - start)))
        for part, start in enumerate(range(0, draws, each))
    ]
    values = np.concatenate(parts).astype(np.float64)
    return Estimate(values.mean(0), values.std(0, ddof=1) / np.sqrt(draws))


@cache
def _evaluate(engine: Engine, model: Model, program: Program) -> Any:
    """Return f(key, theta, args, x, draws) -> log weights [draws, n], compiled once for each number of draws."""

    @cache
    def compiled(draws: int) -> Any:
        def repeated(ppl: Ppl, *args: Any) -> None:
            with ppl.plate("draws", draws, dim=-2):
                program(ppl, *args)

        def weights(key: Key, theta: Params, args: tuple[Any, ...], x: Array) -> Array:
            z = engine.draw(key, repeated, *args)
            log_joint = engine.log_prob(model.generative, {"x": x, **z}, theta, x.shape[0])
            return log_joint - engine.log_prob(program, z, *args)

        return engine.compile(weights)

    return lambda key, theta, args, x, draws: compiled(draws)(key, theta, args, x)
