"""Monte Carlo EM (the paper's appendix E): HMC draws z from the exact posterior, then theta climbs log p(x, z | theta).

No encoder. One persistent chain per training datapoint, addressed by its index. A step moves chains by one HMC
transition of `leapfrog_steps`, with an accept decision per datapoint, then takes `weight_updates` steps of theta on
the draws. The step size is ONE number for all chains, tuned after every step to 90 % mean acceptance: with N = 50000
a chain is visited too rarely to tune one of its own.

`e_step="minibatch"` moves the minibatch's chains, and all weight updates see that minibatch. `"full"` moves all N, and
the weight updates walk through them in blocks of M, on from where those of the last E-step ended, as in the authors'
public code: after N updates theta has seen each row M times.
"""

from dataclasses import dataclass
from typing import Any

from inference.base import Array, Backend, Batch, Engine, Info, Key, Method, Params, Settings, State, join, setting
from inference.gradients import unread
from inference.hmc import hmc, tuned
from inference.latents import latents
from inference.optim import OPTIMIZERS, apply
from inference.theta import log_joint, theta
from models.base import Model

INITIAL_STEP_SIZE = 0.1


@dataclass(frozen=True, kw_only=True)
class MonteCarloEMSettings(Settings):
    """What Monte Carlo EM may be told besides."""

    leapfrog_steps: int = setting(10, "monte_carlo_em: leapfrog steps of one HMC move [steps]", low=1, high=10_000)
    target_acceptance: float = setting(
        0.9, "monte_carlo_em: acceptance probability that HMC's step size is tuned to", above=0.0, high=0.999
    )
    weight_updates: int = setting(5, "monte_carlo_em: steps of theta after each HMC move [steps]", low=1, high=10_000)
    e_step: str = setting(
        "minibatch",
        "monte_carlo_em: move the chains of the minibatch, or of the full training set (authors' code)",
        choices=("minibatch", "full"),
    )


def monte_carlo_em(engine: Engine, model: Model, settings: MonteCarloEMSettings) -> Backend:
    """Build the backend; its state holds params `theta.*`, chains z [N, k] and the log step size [].

    With a full E-step also `next_row` [], the place in the batch at which the next block of M rows begins.
    """
    full = settings.e_step == "full"
    optimizer = OPTIMIZERS[settings.optimizer](settings.warmup)
    xp = engine.ppl.xp
    joint = log_joint(engine, model, settings.theta)
    differentiate = engine.value_and_grad(lambda params, *args: -joint(params, *args))
    sites = latents(engine, model)

    def init(key: Key, theta: Params, phi: Params, x: Array, step_size: Array) -> State:
        params, z = join(theta=theta), sites.drawn(key, sites.at(theta), x)
        state = {
            "params": params,
            "optimizer": optimizer.init(xp, params, step_size),
            "z": z,
            "log_step_size": xp.log(0.0 * z[0, 0] + INITIAL_STEP_SIZE),
        }
        return {**state, "next_row": engine.array(0)} if full else state

    def step(key: Key, state: State, batch: Batch) -> tuple[State, Info]:
        n = batch.x.shape[0]
        params, accumulators = state["params"], state["optimizer"]

        def log_density(z: Array) -> Array:
            return sites.log_joint(sites.at(theta(state)), batch.x, z)

        move = hmc(engine, log_density, settings.leapfrog_steps, ends=True)
        z, moved = move(key, state["z"][batch.indices], xp.exp(state["log_step_size"]))

        size = min(n, settings.minibatch) if full else n
        blocks: Any = [slice(None)] * settings.weight_updates
        if full:  # the rows of each weight update [updates, size]: on from the last ones, round and round
            ahead = engine.array(range(settings.weight_updates * size)).reshape(settings.weight_updates, size)
            blocks = (state["next_row"] + ahead) % n
        for rows in blocks:
            values = sites.values(sites.at(theta(state)), z[rows])
            loss, grads = differentiate(params, batch.x[rows], values, batch.fraction * (size / n))
            updates, accumulators = optimizer.update(xp, grads, accumulators)
            params = apply(params, updates)

        acceptance = moved.acceptance.mean()
        state = {
            "params": params,
            "optimizer": accumulators,
            "z": engine.put(state["z"], batch.indices, z),
            "log_step_size": tuned(state["log_step_size"], acceptance, settings.target_acceptance),
        }
        if full:
            state["next_row"] = (blocks[-1, -1] + 1) % n
        evals = n * (settings.leapfrog_steps + 1) + size * settings.weight_updates
        return state, Info(-loss / size, evals, acceptance)

    return Backend(init, step, theta, None)


MONTE_CARLO_EM = Method(
    monte_carlo_em,
    title="Monte Carlo EM",
    settings=MonteCarloEMSettings,
    has_q=False,
    has_q_theta=False,
    refuses=unread,
    full_batch=lambda settings: settings.e_step == "full",
    evaluations=lambda settings: settings.leapfrog_steps + 1 + settings.weight_updates,
    updates=lambda settings: settings.weight_updates,
    # Until 3, theta saw the first 500 rows of a full E-step and no others.
    version=lambda settings: 3 if settings.e_step == "full" else 0,
)
