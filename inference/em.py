"""Expectation maximisation (Dempster, Laird & Rubin 1977), where a model has both of its steps in closed form.

    E   q(z_i) = p(z_i | x_i, theta)
    M   theta <- argmax sum_i E_q[log p(x_i, z_i | theta)] + log p(theta)

Each step raises log p(X | theta) + log p(theta): what Monte Carlo EM, whose E-step draws from this q, comes to. With a
prior on theta the M-step maximises one parameter after the other (ECM; Meng & Rubin 1993), and still raises it.
"""

from typing import Any

from inference.base import Array, Backend, Batch, Engine, Info, Key, Method, Params, Posterior, Settings, State, join
from inference.conjugate import held, refusal
from inference.theta import theta
from models.base import Model


def em(engine: Engine, model: Model, settings: Settings) -> Backend:
    """Build the backend; its state holds params `theta.*` alone. q(z | x) is exact, and the bound is log p(x).

    Raises ValueError for a model without the two steps.
    """
    updates, xp = held(model, settings, INSTEAD), engine.ppl.xp

    def init(key: Key, theta: Params, phi: Params, x: Array, step_size: Array) -> State:
        return {"params": join(theta=theta)}

    def step(key: Key, state: State, batch: Batch) -> tuple[State, Info]:
        q, log_px = updates.e_step(xp, theta(state), batch.x)
        weight = batch.fraction if settings.theta == "map" else 0.0
        found = updates.m_step(xp, theta(state), batch.x, q, weight)
        return {"params": join(theta=found)}, Info(log_px.mean(), batch.x.shape[0], float("nan"))

    def exact(at: Params, x: Array) -> Any:
        return updates.posterior(updates.e_step(xp, at, x)[0])

    def posterior(key: Key, state: State, x: Array, indices: Array | None) -> Posterior:
        with engine.pinned():
            return Posterior(updates.program, engine.at_once(exact, theta(state), x))

    return Backend(init, step, theta, posterior)


INSTEAD = "monte_carlo_em"  # does the same by draws, for any model
EM = Method(
    em,
    title="EM",
    has_q=True,
    has_q_theta=False,
    full_batch=lambda settings: True,
    evaluations=lambda settings: 1.0,
    updates=lambda settings: 0,
    refuses=lambda model, settings: refusal(model, settings, INSTEAD),
)
