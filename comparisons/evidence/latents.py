"""What a q(z | x) uses: the KL term of its lower bound, and how many latent variables say something about x.

Both are of the draws that the bound is a mean of: E_q[log p(x, z) - log q(z | x)] = E_q[log p(x | z)] - KL term. The
bound's own program is left as it is, because to compile more into it would move its last bits.
"""

import copy
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from comparisons.evidence.base import Average, Estimate, Target, repeated
from comparisons.evidence.elbo import mean_of, parts
from inference.base import Engine, Key, Params, Program
from models.base import Array, Model, Ppl

ACTIVE = 0.01  # the threshold of Burda, Grosse & Salakhutdinov (2015), section 5.2


class Use(NamedTuple):
    """What a q(z | x) uses: the KL term of each datapoint, and the number of active latent variables."""

    kl: Estimate
    active: Average


def use(target: Target, key: Key, draws: int) -> Use:
    """Estimate E_q[log q(z | x) - log p(z)] in nats per datapoint, and count the latent variables that are `active`.

    With the key and the number of draws of an `elbo` they are of its draws, at least two. p(z) is what the model's
    program says of its site z. Raises ValueError for a target without q.
    """
    engine, q = target.engine, target.posterior
    found, total, squares = [], 0.0, 0.0
    for part_key, count in parts(target, key, draws):
        evaluate = _costs(engine, target.model, q.program, count)
        costs, z = map(engine.numpy, evaluate(part_key, target.theta, q.args, target.x))
        found.append(costs)
        z = z.astype(np.float64)
        total, squares = total + z.sum(0), squares + np.square(z).sum(0)
    mean = total / draws
    return Use(mean_of(found), active(mean, np.maximum(squares / draws - mean**2, 0.0) / (draws - 1)))


def active(mean: np.ndarray, noise: np.ndarray) -> Average:
    """Count the latent variables with A_u = Cov_x(E_q[z_u]) > 0.01, over n datapoints.

    `mean` [n, k] is over draws of z, `noise` [n, k] its squared standard error. It spreads the means over x even where
    q is the same for all: A_u would be too large by its average, which is subtracted, and so is without bias. The count
    has the error sqrt(sum_u p_u (1 - p_u)), where p_u is the chance that A_u is above 0.01.
    """
    from scipy.special import ndtr

    n = len(mean)
    off = np.square(mean - mean.mean(0))
    above = off.mean(0) - noise.mean(0) * (n - 1) / n - ACTIVE
    error = 2.0 * np.sqrt((off * noise).sum(0)) / n
    chance = ndtr(above / np.maximum(error, np.finfo(float).tiny))
    return Average(float((above > 0).sum()), float(np.sqrt((chance * (1 - chance)).sum())), n)


@cache
def _costs(engine: Engine, model: Model, program: Program, draws: int) -> Any:
    """Return f(key, theta, args, x) -> log q(z | x) - log p(z) [draws, n] of fresh z ~ q, and z [draws, n, k]."""
    prior = _up_to(model.generative, "z")

    def costs(key: Key, theta: Params, args: tuple[Any, ...], x: Array) -> tuple[Array, Array]:
        q = engine.sites(key, repeated(program, draws), {}, *args)["z"]  # a network is run once for draw and density
        return q.fn.log_prob(q.value) - engine.log_prob(prior, {"z": q.value}, theta, x.shape[0]), q.value

    return engine.compile(costs)


class _ReachedError(Exception):
    """A program has said what it was run for."""


def _up_to(program: Program, site: str) -> Program:
    """Return the program up to a site: what comes after it, such as a decoder, is not run."""

    def run(ppl: Ppl, *args: Any) -> None:
        def sample(name: str, *said: Any, **more: Any) -> Array:
            value = ppl.sample(name, *said, **more)
            if name == site:
                raise _ReachedError
            return value

        cut = copy.copy(ppl)
        cut.sample = sample  # type: ignore[method-assign]
        with suppress(_ReachedError):
            program(cut, *args)

    return run
