"""The mean and the variance of an estimator's gradient, and how much of the variance is over draws of z."""

import time
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from inference.amortized import amortized
from inference.base import Array, Engine, Key, Params, arrays, numpys, pick
from inference.gradients import estimator
from models.base import Model

BATCHES = 10  # of repeats: how they differ is the error of what is told


class Moments(NamedTuple):
    """What repeats of a gradient say, by the parameter's name: each a float64 array [BATCHES, *shape]."""

    mean: Params
    variance: Params  # of one gradient, over minibatches and draws of z
    noise: Params  # the part of it that is over draws of z alone
    seconds: float  # of one gradient

    def total(self, kind: str, group: str) -> np.ndarray:
        """Return the variance or the noise [BATCHES], summed over a parameter, or over all of `theta` or `phi`."""
        each = _of(getattr(self, kind), group)
        return np.asarray(sum(value.reshape(BATCHES, -1).sum(1) for value in each.values()))

    def flat(self, group: str) -> np.ndarray:
        """Return the means as vectors [BATCHES, p]."""
        return np.concatenate([value.reshape(BATCHES, -1) for value in _of(self.mean, group).values()], 1)


def moments(
    engine: Engine,
    model: Model,
    name: str,
    draws: int,
    params: Params,
    x: np.ndarray,
    size: int,
    repeats: int,
    seed: int,
) -> Moments:
    """Measure the gradient of a minibatch's mean bound by params theta.* and phi.*, in nats per datapoint.

    A repeat is a pair of gradients on one minibatch of `size` rows of x [n, n_x], each with draws of its own; `size` n
    takes all rows in order. There are as many as asked for, or a few more.
    """
    each, n = -(-repeats // BATCHES), len(x)
    rng, key = np.random.default_rng([seed, size, draws]), engine.fold_in(engine.key(seed), draws)
    sums, at, rows = _sums(engine, model, name, draws), arrays(engine, params), engine.array(x)
    found, seconds = [], []
    for batch in range(BATCHES + 1):  # the first compiles, and does not count
        taken = [np.arange(n) if size == n else rng.choice(n, size, replace=False) for _ in range(each)]
        numbers = engine.array(np.arange(each) + batch * each)
        began = time.perf_counter()
        told = [numpys(engine, one) for one in sums(at, rows, key, numbers, engine.array(np.stack(taken)))]
        if batch:
            seconds.append((time.perf_counter() - began) / (2 * each))
            found.append([{name: value.astype(np.float64) for name, value in one.items()} for one in told])
    total, square, apart = (
        {name: np.stack([one[i][name] for one in found]) / (2 * each) for name in params} for i in range(3)
    )
    # A pair's mean has the variance over minibatches and half of that over draws, and (g - g')^2 / 2 has all of this.
    pairs = {name: (square[name] - apart[name] / 2 - total[name] ** 2) * each / (each - 1) for name in params}
    variance = {name: pairs[name] + apart[name] / 2 for name in params}
    return Moments(total, variance, apart, float(np.median(seconds)))


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Return the mean of numbers, one a batch of repeats, and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


@cache
def _sums(engine: Engine, model: Model, name: str, draws: int) -> Callable[..., tuple[Params, Params, Params]]:
    """Return f(params, x, key, numbers [r], rows [r, m]) -> sums of g + g', g^2 + g'^2 and (g - g')^2 of r pairs."""
    estimate = estimator(engine, model, name, draws)

    def surrogate(params: Params, key: Key, x: Array) -> Array:
        return estimate(key, pick(params, "theta"), x, amortized(model, params, x))[1].mean()

    differentiate = engine.value_and_grad(surrogate)

    def twice(params: Params, keys: Any, x: Array) -> tuple[Params, Params]:
        """Return two gradients, by a scan: the program then has it once, and compiles in half the time."""
        none = {name: 0.0 * value for name, value in params.items()}

        def step(pair: Any, item: Any) -> tuple[Any, None]:
            return (pair[1], differentiate(params, keys[item[0]], x)[1]), None

        both: tuple[Params, Params] = engine.scan(step, (none, none), (engine.array(np.arange(2)),))[0]
        return both

    def run(params: Params, x: Array, key: Key, numbers: Array, rows: Array) -> tuple[Params, Params, Params]:
        def pair(sums: Any, item: Any) -> tuple[Any, None]:
            number, taken = item
            keys = engine.split(engine.fold_in(key, number))
            one, other = twice(params, keys, x[taken])
            terms = (
                {name: one[name] + other[name] for name in params},
                {name: one[name] ** 2 + other[name] ** 2 for name in params},
                {name: (one[name] - other[name]) ** 2 for name in params},
            )
            added = (
                {name: so_far[name] + term[name] for name in params} for so_far, term in zip(sums, terms, strict=True)
            )
            return tuple(added), None

        zero = {name: 0.0 * value for name, value in params.items()}
        sums: tuple[Params, Params, Params] = engine.scan(pair, (zero, zero, zero), (numbers, rows))[0]
        return sums

    return engine.compile(run)


def _of(values: Params, group: str) -> Params:
    """Return what is of one parameter, or of a group of them."""
    return {name: value for name, value in values.items() if group in (name, name.partition(".")[0])}
