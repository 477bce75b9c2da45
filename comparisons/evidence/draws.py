"""Posterior draws of z by Hamiltonian Monte Carlo: several chains per datapoint, a step size for each datapoint.

Chains are begun anew, or kept along training, as the authors' public code has it (hmc_est.py, hmc.py): a datapoint's
chain, and its own step size, are made once, at the prior, and go on from where they stood when the fit was last looked
at. While theta learns, the posterior moves little from one look to the next, and a chain that was in it stays in it;
one begun anew at the prior would have to find it, and often settles in another mode. Training never sees the chains.
"""

from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

from comparisons.evidence.base import Target
from comparisons.evidence.blocks import by_blocks, pairs_within
from comparisons.evidence.journal import Columns, pieces
from inference.base import Engine, Key, Posterior, Program, repeated
from inference.hmc import hmc
from inference.latents import latents
from models.base import Array, Model

INITIAL_STEP_SIZE = 0.1
JITTER = 0.3  # of the step size
TARGET_ACCEPTANCE = 0.9  # the paper's, in appendix E
BURN_IN = 5  # moves of a look at chains that are kept, before any draw: the authors' number
RATE = 0.1  # by which a log step size follows the acceptance of such a move


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

    def block(number: int, rows: np.ndarray, count: int) -> Columns:
        start_key, warm_key, draw_key = engine.split(engine.fold_in(key, number), 3)
        among = target.take(rows)
        if isinstance(start, Chains):
            carry: tuple[Array, ...] = tuple(map(engine.array, start.take(rows)))
        else:
            origin = start and start.take(engine.array(rows))
            z = starting_points(among, origin, start_key, chains)
            carry = (z, engine.array(np.full(len(rows), np.log(INITIAL_STEP_SIZE))))
        warm, draw = (partial(run, key, among.place, among.x) for key in (warm_key, draw_key))
        carry, _ = pieces(engine, warm, carry, (engine.array(np.arange(moves.warmup)), rates), kept=False)
        _, kept = pieces(engine, draw, carry, (engine.array(np.arange(moves.draws)), still))
        z_kept, joint_kept, accepted = (a.astype(np.float64) for a in kept)
        steps = np.exp(engine.numpy(carry[1]).astype(np.float64))
        return z_kept, joint_kept, accepted.mean(0), steps

    return Draws(*by_blocks(block, len(target.x), pairs_within(max_memory, target.model) // chains, (2, 2, 0, 0)))


def begun(target: Target, key: Key, chains: int) -> Chains:
    """Return chains at the prior p(z), so many for each datapoint."""
    return Chains.at(target.engine.numpy(starting_points(target, None, key, chains)))


def moved(target: Target, key: Key, chains: Chains, leapfrog: int, max_memory: float = 1e9) -> Chains:
    """Return where the chains are after the burn-in moves of one look, which tune step sizes to 90 % acceptance."""
    engine = target.engine
    run = sampler(engine, target.model, leapfrog)
    items = engine.array(np.arange(BURN_IN)), engine.array(np.full(BURN_IN, RATE))

    def block(number: int, rows: np.ndarray, count: int) -> Columns:
        carry, among = tuple(map(engine.array, chains.take(rows))), target.take(rows)
        run_here = partial(run, engine.fold_in(key, number), among.place, among.x)
        (z, log_step), _ = pieces(engine, run_here, carry, items, kept=False)
        return engine.numpy(z), engine.numpy(log_step)

    return Chains(*by_blocks(block, len(target.x), pairs_within(max_memory, target.model) // len(chains.z), (1, 0)))


def continued(
    target: Target, key: Key, chains: Chains, draws: int, leapfrog: int, max_memory: float = 1e9
) -> tuple[Draws, Chains]:
    """Return draws from p(z | x, theta) for each datapoint, after the burn-in, and where the chains then are."""
    burn_key, draw_key = target.engine.split(key)
    chains = moved(target, burn_key, chains, leapfrog, max_memory)
    moves = Moves(warmup=0, draws=draws, leapfrog=leapfrog)
    drawn = posterior_draws(target, draw_key, chains, len(chains.z), moves, max_memory)
    return drawn, Chains(drawn.z[-1].astype(np.float32), chains.log_step)


def evaluations(points: int, chains: int, draws: int, leapfrog: int) -> int:
    """Return how often p(x | z) is evaluated or differentiated at a datapoint in a look with so many draws."""
    return points * chains * (BURN_IN + draws) * (leapfrog + 1)


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
    start = _start(target.engine, target.model, origin.program if origin else None, chains)
    return start(key, target.place, target.x, *(origin.args if origin else ()))


@cache
def _start(engine: Engine, model: Model, program: Program | None, chains: int) -> Any:
    sites = latents(engine, model)
    if program is None:
        return engine.compile(lambda key, place, x: sites.drawn(key, place, x, chains))
    many = repeated(program, chains)
    return engine.compile(lambda key, place, x, *args: sites.coordinates(place, engine.draw(key, many, *args)))


@cache
def sampler(engine: Engine, model: Model, leapfrog_steps: int) -> Any:
    """Return f(key, place, x, count, (z, log_step [n]), numbers, rates) -> ((z, log_step), visits), compiled."""
    xp, sites = engine.ppl.xp, latents(engine, model)

    def run(
        key: Key, place: Any, x: Array, count: Array, carry: tuple[Array, Array], numbers: Array, rates: Array
    ) -> tuple[tuple[Array, Array], _Visit]:
        def log_density(z: Array) -> Array:
            return sites.log_joint(place, x, z)

        move = hmc(engine, log_density, leapfrog_steps, JITTER)

        def one(carry: tuple[Array, Array], item: tuple[Array, Array]) -> tuple[tuple[Array, Array], _Visit]:
            z, log_step = carry
            number, rate = item
            z, info = move(engine.fold_in(key, number), z, xp.exp(log_step)[:, None])
            acceptance = info.acceptance.mean(0)
            log_step = followed(engine, log_step, acceptance, rate)
            return (z, log_step), _Visit(z, info.log_density, acceptance)

        return engine.scan(one, carry, (numbers, rates), count)

    return engine.compile(run)
