"""What a q(z | x) uses: the KL term of its lower bound, and how many latent variables say something about x.

    E_q[log p(x, z) - log q(z | x)] = E_q[log p(x | z)] - KL(q(z | x) || p(z))

The bound's own program is left as it is, because to compile more into it would move its last bits.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from comparisons.evidence.base import Average, Estimate, Target
from comparisons.evidence.elbo import mean_of, parts
from comparisons.evidence.means import LOG_2PI
from inference.base import Engine, Key, Program, repeated
from inference.latents import latents
from models.base import Array, Model

THRESHOLD = 0.01  # Burda, Grosse & Salakhutdinov (2015), "Importance Weighted Autoencoders", section 5.2


class Use(NamedTuple):
    """What a q(z | x) uses: the KL term of each datapoint, and the number of active latent variables."""

    kl: Estimate
    active: Average


def use(target: Target, key: Key, draws: int) -> Use:
    """Estimate KL(q(z | x) || p(z)) in nats per datapoint, and count the latent variables that are `active`.

    These are the coordinates of the latent sites, of which each is about N(0, 1) under the prior.

    With the key and the number of draws of an `elbo`, at least two, they are of its draws, if it has taken them all at
    once. Raises ValueError for a target without q.
    """
    engine, q = target.engine, target.posterior
    sites = target.latents
    shape = len(target.x), sites.size
    costs, total, squares = [], np.zeros(shape), np.zeros(shape)
    for part_key, count in parts(engine, key, draws, total.size):
        if sites.plain:
            log_q, z = map(engine.numpy, _draw(engine, q.program, count)(part_key, q.args))
            z = z.astype(np.float64)
            costs.append(log_q + 0.5 * (np.square(z) + LOG_2PI).sum(-1))
        else:
            evaluate = _draw_sites(engine, target.model, q.program, count)
            cost, z = map(engine.numpy, evaluate(part_key, q.args, target.place, target.x))
            z = z.astype(np.float64)
            costs.append(cost)
        total, squares = total + z.sum(0), squares + np.square(z).sum(0)
    mean = total / draws
    return Use(mean_of(costs), active(mean, np.maximum(squares / draws - mean**2, 0.0) / (draws - 1)))


def active(mean: np.ndarray, noise: np.ndarray) -> Average:
    """Count the latent variables with A_u = Cov_x(E_q[z_u]) > 0.01, over n datapoints.

    `mean` [n, k] is over draws of z, `noise` [n, k] its squared standard error: it spreads the means over x even where
    q is the same for all, so that its average is taken off A_u. The count has the error sqrt(sum_u p_u (1 - p_u)),
    where p_u is the chance that A_u is above 0.01.
    """
    from scipy.special import ndtr

    n = len(mean)
    off = np.square(mean - mean.mean(0))
    above = off.mean(0) - noise.mean(0) * (n - 1) / n - THRESHOLD
    error = np.sqrt(np.maximum((noise * (4.0 * off - 2.0 * noise)).sum(0), 0.0)) / n
    chance = ndtr(above / np.maximum(error, np.finfo(float).tiny))
    return Average(float((above > 0).sum()), float(np.sqrt((chance * (1 - chance)).sum())), n)


@cache
def _draw(engine: Engine, program: Program, draws: int) -> Any:
    """Return f(key, args) -> log q(z | x) [draws, n] of fresh z ~ q, and z [draws, n, k], compiled."""

    def draw(key: Key, args: tuple[Any, ...]) -> tuple[Array, Array]:
        z = engine.sites(key, repeated(program, draws), {}, *args)["z"]  # a network is run once for draw and density
        return z.fn.log_prob(z.value), z.value

    return engine.compile(draw)


@cache
def _draw_sites(engine: Engine, model: Model, program: Program, draws: int) -> Any:
    """Return f(key, args, place, x) -> log q(z | x) - log p(z) [draws, n] of fresh z ~ q, and coordinates z."""
    sites = latents(engine, model)

    def draw(key: Key, args: tuple[Any, ...], place: Any, x: Array) -> tuple[Array, Array]:
        values = engine.draw(key, repeated(program, draws), *args)
        log_p = sites.score(place.theta, x, values, tuple(sites.own(values)))
        return engine.log_prob(program, values, *args) - log_p, sites.coordinates(place, values)

    return engine.compile(draw)
