"""Chains that are kept along training: each datapoint's go on from where they stood when the fit was last looked at.

So the authors' public code has it (hmc_est.py, hmc.py): a datapoint's chain, and its own step size, are made once, at
the prior, and live as long as the training. While theta learns, the posterior moves little from one look to the next,
and a chain that was in it stays in it; a chain begun anew at the prior would have to find it, and often settles in
another mode. Training never sees the chains.
"""

from functools import partial
from typing import NamedTuple

import numpy as np

from comparisons.evidence.base import blocks, pairs_within
from comparisons.evidence.draws import INITIAL_STEP_SIZE, Draws, posterior_draws, sampler, starting_points
from comparisons.evidence.journal import once
from inference.base import Engine, Key, Params
from models.base import Array, Model

BURN_IN = 5  # moves of a look, before any draw: the authors' number
RATE = 0.1  # by which a log step size follows the acceptance of a move


class Chains(NamedTuple):
    """Where chains stand, in NumPy: z [chains, n, k], and the log step size of each datapoint [n]."""

    z: np.ndarray
    log_step: np.ndarray


def begun(engine: Engine, model: Model, theta: Params, x: Array, key: Key, chains: int) -> Chains:
    """Return chains at the prior p(z), for each row of x [n, n_x]."""
    z = engine.numpy(starting_points(engine, model, theta, None, x, key, chains))
    return Chains(z, np.full(x.shape[0], np.log(INITIAL_STEP_SIZE), np.float32))


def moved(
    engine: Engine, model: Model, theta: Params, x: Array, key: Key, chains: Chains, leapfrog_steps: int,
    max_memory: float = 1e9,
) -> Chains:  # fmt: skip
    """Return where the chains are after the burn-in moves of one look, which tune step sizes to 90 % acceptance."""
    run = sampler(engine, model, leapfrog_steps)
    items = engine.array(np.arange(BURN_IN)), engine.array(np.full(BURN_IN, RATE))

    def block(number: int, rows: np.ndarray, count: int) -> tuple[np.ndarray, ...]:
        carry = engine.array(chains.z[:, rows]), engine.array(chains.log_step[rows])
        (z, log_step), _ = run(engine.fold_in(key, number), theta, x[engine.array(rows)], carry, *items)
        return engine.numpy(z)[:, :count], engine.numpy(log_step)[:count]

    cut = blocks(len(x), pairs_within(max_memory, model) // len(chains.z))
    z, log_step = zip(*(once(partial(block, number, *each)) for number, each in enumerate(cut)), strict=True)
    return Chains(np.concatenate(z, 1), np.concatenate(log_step))


def continued(
    engine: Engine, model: Model, theta: Params, x: Array, key: Key, chains: Chains, draws: int, leapfrog_steps: int,
    max_memory: float = 1e9,
) -> tuple[Draws, Chains]:  # fmt: skip
    """Return draws from p(z | x, theta) for each row of x [n, n_x], after the burn-in, and where the chains then are.

    Step sizes are frozen while draws are made: what is drawn comes from chains that leave the posterior as it is.
    """
    burn_key, draw_key = engine.split(key)
    chains = moved(engine, model, theta, x, burn_key, chains, leapfrog_steps, max_memory)
    drawn = posterior_draws(
        engine, model, theta, x, draw_key, draws=draws, chains=len(chains.z), warmup=0, leapfrog_steps=leapfrog_steps,
        start=chains.z, log_step=chains.log_step, max_memory=max_memory,
    )  # fmt: skip
    return drawn, Chains(drawn.z[-1].astype(np.float32), chains.log_step)


def evaluations(points: int, chains: int, draws: int, leapfrog_steps: int) -> int:
    """Return how often p(x | z) is evaluated or differentiated at a datapoint in a look with so many draws."""
    return points * chains * (BURN_IN + draws) * (leapfrog_steps + 1)
