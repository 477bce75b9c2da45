"""Chains that are kept along training: each datapoint's go on from where they stood when the fit was last looked at.

So the authors' public code has it (hmc_est.py, hmc.py): a datapoint's chain, and its own step size, are made once, at
the prior, and live as long as the training. While theta learns, the posterior moves little from one look to the next,
and a chain that was in it stays in it; a chain begun anew at the prior would have to find it, and often settles in
another mode. Training never sees the chains.
"""

import numpy as np

from comparisons.evidence.base import Target
from comparisons.evidence.blocks import by_blocks, pairs_within
from comparisons.evidence.draws import Chains, Draws, Moves, posterior_draws, sampler, starting_points
from inference.base import Key

BURN_IN = 5  # moves of a look, before any draw: the authors' number
RATE = 0.1  # by which a log step size follows the acceptance of a move


def begun(target: Target, key: Key, chains: int) -> Chains:
    """Return chains at the prior p(z), so many for each datapoint."""
    return Chains.at(target.engine.numpy(starting_points(target, None, key, chains)))


def moved(target: Target, key: Key, chains: Chains, leapfrog: int, max_memory: float = 1e9) -> Chains:
    """Return where the chains are after the burn-in moves of one look, which tune step sizes to 90 % acceptance."""
    engine = target.engine
    run = sampler(engine, target.model, leapfrog)
    items = engine.array(np.arange(BURN_IN)), engine.array(np.full(BURN_IN, RATE))

    def block(number: int, rows: np.ndarray, count: int) -> tuple[np.ndarray, ...]:
        carry, among = tuple(map(engine.array, chains.take(rows))), target.take(rows)
        (z, log_step), _ = run(engine.fold_in(key, number), among.theta, among.x, carry, *items)
        return engine.numpy(z)[:, :count], engine.numpy(log_step)[:count]

    parts = by_blocks(block, len(target.x), pairs_within(max_memory, target.model) // len(chains.z))
    z, log_step = zip(*parts, strict=True)
    return Chains(np.concatenate(z, 1), np.concatenate(log_step))


def continued(
    target: Target, key: Key, chains: Chains, draws: int, leapfrog: int, max_memory: float = 1e9
) -> tuple[Draws, Chains]:
    """Return draws from p(z | x, theta) for each datapoint, after the burn-in, and where the chains then are.

    Step sizes are frozen while draws are made: what is drawn comes from chains that leave the posterior as it is.
    """
    burn_key, draw_key = target.engine.split(key)
    chains = moved(target, burn_key, chains, leapfrog, max_memory)
    moves = Moves(warmup=0, draws=draws, leapfrog=leapfrog)
    drawn = posterior_draws(target, draw_key, chains, len(chains.z), moves, max_memory)
    return drawn, Chains(drawn.z[-1].astype(np.float32), chains.log_step)


def evaluations(points: int, chains: int, draws: int, leapfrog: int) -> int:
    """Return how often p(x | z) is evaluated or differentiated at a datapoint in a look with so many draws."""
    return points * chains * (BURN_IN + draws) * (leapfrog + 1)
