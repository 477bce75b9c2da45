"""Posterior draws of z by Hamiltonian Monte Carlo: several chains per datapoint, a step size for each datapoint."""

from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

from comparisons.evidence.base import Target, repeated
from comparisons.evidence.blocks import by_blocks, pairs_within
from comparisons.evidence.journal import pieces
from inference.base import Engine, Key, Params, Posterior, Program
from inference.hmc import hmc
from models.base import Array, Model

INITIAL_STEP_SIZE = 0.1
JITTER = 0.3  # of the step size
TARGET_ACCEPTANCE = 0.9  # the paper's, in appendix E


class Chains(NamedTuple):
    """Where chains stand, in NumPy: z [chains, n, k], and the log step size of each datapoint [n]."""

    z: np.ndarray
    log_step: np.ndarray

    @classmethod
    def at(cls, z: np.ndarray) -> "Chains":
        """Return chains at z [chains, n, k] that have not moved yet."""
        return cls(z, np.full(z.shape[1], np.log(INITIAL_STEP_SIZE), np.float32))

    def take(self, rows: np.ndarray) -> "Chains":
        """Return the chains of some of the datapoints."""
        return Chains(self.z[:, rows], self.log_step[rows])


class Moves(NamedTuple):
    """How chains are led: moves that tune the step size, then draws, one a move, and the leapfrog steps of a move."""

    warmup: int
    draws: int
    leapfrog: int


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
    target: Target, key: Key, start: Chains | Posterior | None, chains: int, moves: Moves, max_memory: float = 1e9
) -> Draws:
    """Draw z from p(z | x, theta) for each datapoint, by so many chains each.

    They start where chains stand, or at draws from a q(z | x), or from the prior. The step size is tuned to 90 %
    acceptance in the warm-up, one for each datapoint, and frozen: what is kept comes from a chain that leaves the
    posterior as it is.
    """
    engine = target.engine
    run = sampler(engine, target.model, moves.leapfrog)
    rates = engine.array(settling_rates(moves.warmup))
    still = engine.array(np.zeros(moves.draws))

    def block(number: int, rows: np.ndarray, count: int) -> tuple[np.ndarray, ...]:
        start_key, warm_key, draw_key = engine.split(engine.fold_in(key, number), 3)
        among = target.take(rows)
        if isinstance(start, Chains):
            carry: tuple[Array, ...] = tuple(map(engine.array, start.take(rows)))
        else:
            origin = start and start.take(engine.array(rows))
            z = starting_points(among, origin, start_key, chains)
            carry = (z, engine.array(np.full(len(rows), np.log(INITIAL_STEP_SIZE))))
        warm, draw = (partial(run, key, among.theta, among.x) for key in (warm_key, draw_key))
        carry, _ = pieces(engine, warm, carry, (engine.array(np.arange(moves.warmup)), rates), kept=False)
        _, kept = pieces(engine, draw, carry, (engine.array(np.arange(moves.draws)), still))
        z_kept, joint_kept, accepted = (a.astype(np.float64) for a in kept)
        steps = np.exp(engine.numpy(carry[1]).astype(np.float64))
        return z_kept[:, :, :count], joint_kept[:, :, :count], accepted.mean(0)[:count], steps[:count]

    parts = by_blocks(block, len(target.x), pairs_within(max_memory, target.model) // chains)
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


def starting_points(target: Target, origin: Posterior | None, key: Key, chains: int) -> Array:
    """Return z [chains, n, k], drawn from `origin`, or from the prior p(z) where there is none."""
    if origin:
        return _start(target.engine, origin.program, chains)(key, origin.args)
    return _start_at_prior(target.engine, target.model, chains)(key, target.theta, target.x)


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
