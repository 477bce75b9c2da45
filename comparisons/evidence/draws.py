"""Posterior draws of z by Hamiltonian Monte Carlo: several chains per datapoint, a step size for each datapoint."""

from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

from comparisons.evidence.base import blocks, pairs_within, repeated
from comparisons.evidence.journal import once, pieces
from inference.base import Engine, Key, Params, Posterior, Program
from inference.hmc import hmc
from models.base import Array, Model

INITIAL_STEP_SIZE = 0.1
JITTER = 0.3  # of the step size
TARGET_ACCEPTANCE = 0.9  # the paper's, in appendix E


class Draws(NamedTuple):
    """z [draws, chains, n, k], its log p(x, z) [draws, chains, n]; mean acceptance and step size per datapoint [n]."""

    z: np.ndarray
    log_joint: np.ndarray
    acceptance: np.ndarray
    step_size: np.ndarray


class _Visit(NamedTuple):
    z: Array
    log_joint: Array
    acceptance: Array


def posterior_draws(
    engine: Engine,
    model: Model,
    theta: Params,
    x: Array,
    key: Key,
    *,
    draws: int,
    chains: int,
    warmup: int,
    leapfrog_steps: int,
    start: Posterior | np.ndarray | None = None,
    log_step: np.ndarray | None = None,
    max_memory: float = 1e9,
) -> Draws:
    """Draw z from p(z | x, theta) for each row of x [n, n_x].

    Chains start from the prior, or from `start`: draws from it, or the points [chains, n, k] that it holds. Their step
    sizes start at exp(log_step [n]), or at 0.1.
    The step size is tuned to 90 % acceptance in the warm-up, one for each datapoint, and frozen: what is kept comes
    from a chain that leaves the posterior as it is.
    """
    run = sampler(engine, model, leapfrog_steps)
    rates = engine.array(settling_rates(warmup))
    still = engine.array(np.zeros(draws))

    def block(number: int, rows: np.ndarray, count: int) -> tuple[np.ndarray, ...]:
        start_key, warm_key, draw_key = engine.split(engine.fold_in(key, number), 3)
        among = x[engine.array(rows)]
        if isinstance(start, np.ndarray):
            z = engine.array(start[:, rows])
        else:
            origin = start and start.take(engine.array(rows))
            z = starting_points(engine, model, theta, origin, among, start_key, chains)
        first = np.full(len(rows), np.log(INITIAL_STEP_SIZE)) if log_step is None else log_step[rows]
        carry: tuple[Array, ...] = (z, engine.array(first))
        warm, draw = (partial(run, key, theta, among) for key in (warm_key, draw_key))
        moves = engine.array(np.arange(warmup))
        carry, _ = pieces(engine, warm, carry, (moves, rates), kept=False)
        _, kept = pieces(engine, draw, carry, (engine.array(np.arange(draws)), still))
        z_kept, joint_kept, accepted = (a.astype(np.float64) for a in kept)
        steps = np.exp(engine.numpy(carry[1]).astype(np.float64))
        return z_kept[:, :, :count], joint_kept[:, :, :count], accepted.mean(0)[:count], steps[:count]

    cut = blocks(len(x), pairs_within(max_memory, model) // chains)
    parts = [once(partial(block, number, *each)) for number, each in enumerate(cut)]
    z, log_joint, acceptance, step_size = zip(*parts, strict=True)
    return Draws(
        np.concatenate(z, 2), np.concatenate(log_joint, 2), np.concatenate(acceptance), np.concatenate(step_size)
    )


def followed(engine: Engine, log_step: Array, acceptance: Array, rate: Array) -> Array:
    """Move log step sizes up by `rate` at full acceptance, and down by as much where it is as far below the target.

    In proportion to acceptance minus target, a step size that shrank far from the posterior would take nine times as
    long to grow again, and a short warm-up would end with chains that hardly move. The target is then met by the
    median of the acceptance rather than by its mean, which is a little lower.
    """
    distance = (acceptance - TARGET_ACCEPTANCE) / (1.0 - TARGET_ACCEPTANCE)
    return log_step + rate * engine.ppl.xp.clip(distance, min=-1.0, max=1.0)


def settling_rates(count: int) -> np.ndarray:
    """Return how fast a step size follows the acceptance in each of `count` warm-up moves: fast at first."""
    return np.maximum(0.05, 1.0 / (1.0 + np.arange(count) / 5.0))


def starting_points(
    engine: Engine, model: Model, theta: Params, start: Posterior | None, x: Array, key: Key, chains: int
) -> Array:
    """Return z [chains, n, k], drawn from `start`, or from the prior p(z) where there is none."""
    if start:
        return _start(engine, start.program, chains)(key, start.args)
    return _start_at_prior(engine, model, chains)(key, theta, x)


@cache
def _start(engine: Engine, program: Program, chains: int) -> Any:
    return engine.compile(lambda key, args: engine.draw(key, repeated(program, chains), *args)["z"])


@cache
def _start_at_prior(engine: Engine, model: Model, chains: int) -> Any:
    program = repeated(model.generative, chains)
    return engine.compile(lambda key, theta, x: engine.draw(key, program, theta, x.shape[0])["z"])


@cache
def sampler(engine: Engine, model: Model, leapfrog_steps: int) -> Any:
    """Return f(key, theta, x, (z, log_step [n]), numbers, rates) -> ((z, log_step), visits), compiled."""
    xp = engine.ppl.xp

    def run(
        key: Key, theta: Params, x: Array, carry: tuple[Array, Array], numbers: Array, rates: Array
    ) -> tuple[tuple[Array, Array], _Visit]:
        def log_density(z: Array) -> Array:
            return engine.log_prob(model.generative, {"z": z, "x": x}, theta, x.shape[0])

        move = hmc(engine, log_density, leapfrog_steps, JITTER)

        def one(carry: tuple[Array, Array], item: tuple[Array, Array]) -> tuple[tuple[Array, Array], _Visit]:
            z, log_step = carry
            number, rate = item
            z, info = move(engine.fold_in(key, number), z, xp.exp(log_step)[:, None])
            acceptance = info.acceptance.mean(0)
            log_step = followed(engine, log_step, acceptance, rate)
            return (z, log_step), _Visit(z, info.log_density, acceptance)

        return engine.scan(one, carry, (numbers, rates))

    return engine.compile(run)
