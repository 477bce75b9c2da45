"""The evidence lower bound of a fitted model and its q(z | x), by Monte Carlo, and the weights that it is a mean of."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

from comparisons.evidence.base import Estimate, Target
from inference.base import Engine, Key, Params, Program, repeated
from inference.latents import latents
from models.base import Array, Model

CHUNK = 8_000_000  # elements of the largest intermediate array, [draws, points, n_x]


def elbo(target: Target, key: Key, draws: int) -> Estimate:
    """Estimate E_q[log p(x, z | theta) - log q(z | x)] for each datapoint (equation 2), from draws of z.

    Higher is better; never above log p(x) in expectation. Returns nats per datapoint, with the standard error of the
    draws. Raises ValueError for a target without q.
    """
    engine, x, q = target.engine, target.x, target.posterior
    found = []
    for part_key, count in parts(engine, key, draws, x.shape[0] * x.shape[1]):
        evaluate = weigh(engine, target.model, q.program, count)
        found.append(engine.numpy(evaluate(part_key, target.theta, q.args, x)))
    return mean_of(found)


def parts(engine: Engine, key: Key, draws: int, size: int) -> Iterator[tuple[Key, int]]:
    """Cut draws of so many elements each into parts that fit the memory: yield the key of each, and its draws."""
    each = max(1, min(draws, CHUNK // size))
    for part, start in enumerate(range(0, draws, each)):
        yield engine.fold_in(key, part), min(each, draws - start)


def mean_of(found: list[np.ndarray]) -> Estimate:
    """Return the mean over the draws of all parts [draws, n] for each datapoint, with its standard error."""
    values = np.concatenate(found).astype(np.float64)
    return Estimate(values.mean(0), values.std(0, ddof=1) / np.sqrt(len(values)))


@cache
def weigh(engine: Engine, model: Model, program: Program, draws: int) -> Any:
    """Return f(key, theta, args, x) -> log p(x, z | theta) - log q(z) [draws, n] of fresh z ~ q, compiled.

    q is program(ppl, *args). Importance sampling is the mean of the same weights.
    """
    sites = latents(engine, model)

    def weights(key: Key, theta: Params, args: tuple[Any, ...], x: Array) -> Array:
        values = engine.draw(key, repeated(program, draws), *args)
        return sites.score(theta, x, values) - engine.log_prob(program, values, *args)

    return engine.compile(weights)
