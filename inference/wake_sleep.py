"""Wake-sleep (Hinton, Dayan, Frey & Neal 1995) for a latent per datapoint, with AEVB's recognition network.

    wake   theta climbs log p(x, z | theta)   with x from the data, z ~ q(z | x, phi)
    sleep  phi climbs   log q(z | x, phi)     with (z, x) dreamt from p(z) p(x | z, theta)

The two phases do not climb one bound: the sleep phase fits q where the model dreams, not where the data are.
"""

from inference import rows
from inference.amortized import amortized_posterior
from inference.base import Array, Backend, Batch, Engine, Info, Key, Method, Params, Settings, State, join, pick
from inference.gradients import unread
from inference.latents import latents
from inference.optim import OPTIMIZERS, apply
from inference.theta import log_joint, theta
from models.base import Model


def wake_sleep(engine: Engine, model: Model, settings: Settings) -> Backend:
    """Build the backend; its state holds params `theta.*` and `phi.*` and the optimiser's accumulators.

    Raises ValueError for a q(z | x) that is 0 at some z of the prior.
    """
    if not model.covers:
        raise ValueError("its q(z | x) is 0 at some z that the model dreams; choose another guide_family, or aevb")
    optimizer = OPTIMIZERS[settings.optimizer](settings.warmup)
    xp = engine.ppl.xp
    joint = log_joint(engine, model, settings.theta)
    q, sites = rows.recognition(model), latents(engine, model)

    def negative_objectives(params: Params, wake: Params, sleep: Params, fraction: Array) -> Array:
        # One differentiation serves both phases: each term holds one of the two parameter groups only.
        dream = engine.log_prob(q, sleep["z"], pick(params, "phi"), sleep["x"])
        return -joint(params, wake["x"], wake["z"], fraction) - dream.sum()

    differentiate = engine.value_and_grad(negative_objectives)

    def init(key: Key, theta: Params, phi: Params, x: Array, step_size: Array) -> State:
        params = join(theta=theta, phi=phi)
        return {"params": params, "optimizer": optimizer.init(xp, params, step_size)}

    def step(key: Key, state: State, batch: Batch) -> tuple[State, Info]:
        n = batch.x.shape[0]
        wake_key, sleep_key = engine.split(key)
        params = state["params"]
        theta, phi = pick(params, "theta"), pick(params, "phi")
        wake = {"x": batch.x, "z": engine.draw(wake_key, q, phi, batch.x)}
        dreamt = engine.draw(sleep_key, rows.generative(model, batch.x), theta)
        sleep = {"x": rows.packed(engine.ppl, model, dreamt, batch.x), "z": sites.own(dreamt)}
        _, grads = differentiate(params, wake, sleep, batch.fraction)
        updates, accumulators = optimizer.update(xp, grads, state["optimizer"])
        elbo = sites.score(theta, batch.x, wake["z"]) - engine.log_prob(q, wake["z"], phi, batch.x)
        state = {"params": apply(params, updates), "optimizer": accumulators}
        return state, Info(elbo.mean(), 2 * n, float("nan"))

    return Backend(init, step, theta, amortized_posterior(model))


WAKE_SLEEP = Method(wake_sleep, title="wake-sleep", has_q=True, has_q_theta=False, refuses=unread)
