"""Mean-field variational inference, what the paper argues against: q(z_i) = N(mu_i, diag sigma_i^2), one per datapoint.

Stochastic variational inference (Hoffman et al. 2013): a step first fits the minibatch's own q(z_i), theta fixed, from
where the last visit left them, then takes one step of theta with these q fixed. Both are the library's SVI on the same
bound as AEVB's; only the minibatch's rows are touched. A datapoint outside the training set gets a local fit of its
own, with theta, or q(theta), frozen.
"""

from inference import gradients
from inference.base import Array, Backend, Batch, Engine, Info, Key, Method, Params, Posterior, State, join
from inference.latents import latents
from inference.local import LocalSettings, decaying, improvement, local_fit, prior
from inference.theta import svi, theta, theta_posterior, with_scales
from models.base import Model


def mean_field(engine: Engine, model: Model, settings: LocalSettings) -> Backend:
    """Build the backend; its state holds params `theta.*`, and `local` with loc and log_scale [N, k]."""
    sites = latents(engine, model)

    theta_svi = svi(engine, model, settings, lambda params, x, local: Posterior(sites.normal, (local,)))
    improve, fit = improvement(engine, model, settings), local_fit(engine, model, settings)

    def init(key: Key, theta: Params, phi: Params, x: Array, step_size: Array) -> State:
        params = with_scales(engine, settings.theta, join(theta=theta))
        return {**theta_svi.init(params, step_size), "local": prior(engine, x, sites.size)}

    def step(key: Key, state: State, batch: Batch) -> tuple[State, Info]:
        local_key, theta_key = engine.split(key)
        rows = {name: values[batch.indices] for name, values in state["local"].items()}
        sizes = engine.array(decaying(settings.local_step_size, settings.local_steps))
        rows = improve(local_key, rows, state["params"], batch.x, sizes)
        local = {name: engine.put(values, batch.indices, rows[name]) for name, values in state["local"].items()}
        svi_state = {"params": state["params"], "optimizer": state["optimizer"]}
        svi_state, loss = theta_svi.update(theta_key, svi_state, batch.x, batch.fraction, rows)
        n = batch.x.shape[0]
        evals = n * gradients.evaluations(settings) * (settings.local_steps + 1)
        return {**svi_state, "local": local}, Info(-loss / n, evals, float("nan"))

    def posterior(key: Key, state: State, x: Array, indices: Array | None) -> Posterior:
        if indices is not None:
            return Posterior(sites.normal, ({name: values[indices] for name, values in state["local"].items()},))
        return fit(key, state["params"], x)

    return Backend(init, step, theta, posterior, theta_posterior(model, settings.theta))


MEAN_FIELD = Method(
    mean_field,
    title="mean-field VI",
    settings=LocalSettings,
    has_q=True,
    has_q_theta=True,
    refuses=gradients.refusal,
    evaluations=lambda settings: gradients.evaluations(settings) * (settings.local_steps + 1),
)
