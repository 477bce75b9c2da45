"""Hamiltonian Monte Carlo, batched over datapoints: each has its own trajectory, energy and accept decision.

Neal (2011), "MCMC using Hamiltonian dynamics". The libraries' HMC accepts or rejects a batch as one state.
"""

from collections.abc import Callable
from typing import NamedTuple

from inference.base import Array, Engine, Key
from models.base import Ppl


class HmcInfo(NamedTuple):
    """Per chain, [..., n]: min(1, exp(-energy change)), the energy change in nats, and log p at the returned z."""

    acceptance: Array
    energy_error: Array
    log_density: Array


def leapfrog(
    engine: Engine, log_density: Callable[[Array], Array], n_steps: int, ends: bool = False
) -> Callable[[Array, Array, Array], tuple[Array, Array, Array, Array]]:
    """Return f(z, momentum, step_size) -> (z, momentum, log p at the start, log p at the end); unit mass.

    `log_density` maps z [..., n, k] to [..., n]. L steps cost L + 1 gradients: consecutive half steps share one. With
    `ends` log p is not worked out between the ends: faster, and another program, whose last bits may differ.
    """

    def total(z: Array) -> tuple[Array, Array]:
        each = log_density(z)
        return each.sum(), each

    gradient = engine.value_and_grad(total, has_aux=True)

    def turn(z: Array, momentum: Array, force: Array, step_size: Array) -> tuple[Array, Array, Array, Array]:
        momentum = momentum + 0.5 * step_size * force
        z = z + step_size * momentum
        (_, log_p), force = gradient(z)
        return z, momentum + 0.5 * step_size * force, force, log_p

    def integrate(z: Array, momentum: Array, step_size: Array) -> tuple[Array, Array, Array, Array]:
        def one(carry: tuple[Array, ...], _: object) -> tuple[tuple[Array, ...], None]:
            z, momentum, force = carry[:3]
            return turn(z, momentum, force, step_size)[: len(carry)], None

        (_, start), force = gradient(z)
        if not ends:
            counter = (engine.array([0] * n_steps),)
            (z, momentum, _, end), _ = engine.scan(one, (z, momentum, force, start), counter)
            return z, momentum, start, end
        carry = z, momentum, force
        if n_steps > 1:
            carry, _ = engine.scan(one, carry, (engine.array([0] * (n_steps - 1)),))
        z, momentum, _, end = turn(*carry, step_size)
        return z, momentum, start, end

    return integrate


def hmc(
    engine: Engine, log_density: Callable[[Array], Array], n_steps: int, jitter: float = 0.0, ends: bool = False
) -> Callable[[Key, Array, Array], tuple[Array, HmcInfo]]:
    """Return move(key, z [..., n, k], step_size) -> (z, info): one HMC transition of every chain of each datapoint.

    `step_size` is a scalar, or [n, 1] for one per datapoint; each chain's own is spread by +- `jitter` of it in every
    move. Without, a trajectory as long as the posterior's own period ends where it began, move after move (Neal 2011,
    section 3.2). A proposal with a non-finite energy is rejected. `ends` is that of `leapfrog`.
    """
    xp = engine.ppl.xp
    integrate = leapfrog(engine, log_density, n_steps, ends)

    def noise(ppl: Ppl, z: Array) -> None:
        ppl.sample("momentum", ppl.dist.Normal(xp.zeros_like(z), xp.ones_like(z)))
        if jitter:
            spread = xp.ones_like(z[..., :1])
            ppl.sample("jitter", ppl.dist.Uniform((1.0 - jitter) * spread, (1.0 + jitter) * spread))
        ppl.sample("uniform", ppl.dist.Uniform(xp.zeros_like(z[..., 0]), xp.ones_like(z[..., 0])))

    def move(key: Key, z: Array, step_size: Array) -> tuple[Array, HmcInfo]:
        draws = engine.draw(key, noise, z)
        momentum = draws["momentum"]
        if jitter:
            step_size = step_size * draws["jitter"]
        proposal, momentum_end, start, end = integrate(z, momentum, step_size)
        energy_error = start - end + 0.5 * ((momentum_end**2).sum(-1) - (momentum**2).sum(-1))
        # A trajectory that overflowed is a certain rejection, not a NaN that spreads.
        finite = xp.isfinite(energy_error)
        acceptance = xp.where(finite, xp.exp(xp.clip(-energy_error, max=0.0)), xp.zeros_like(energy_error))
        accepted = draws["uniform"] < acceptance
        z = xp.where(accepted[..., None], proposal, z)
        return z, HmcInfo(acceptance, energy_error, xp.where(accepted, end, start))

    return move


def tuned(log_step_size: Array, acceptance: Array, target: float, rate: float = 0.5) -> Array:
    """Move a log step size up where acceptance exceeds the target and down below it (stochastic approximation)."""
    return log_step_size + rate * (acceptance - target)
