"""Mean-field variational inference, what the paper argues against: q(z_i) = N(mu_i, diag sigma_i^2), one per datapoint.

Stochastic variational inference (Hoffman et al. 2013): a step first fits the minibatch's own q(z_i), theta fixed, from
where the last visit left them, then takes one step of theta with these q fixed. Both are the library's SVI on the same
bound as AEVB's; only the minibatch's rows are touched. A datapoint outside the training set gets a local fit of its
own, with theta, or q(theta), frozen.
"""

from dataclasses import dataclass

from inference.base import (
    Array,
    Backend,
    Batch,
    Engine,
    Info,
    Key,
    Method,
    Params,
    Posterior,
    Settings,
    State,
    join,
    setting,
)
from inference.optim import adam
from inference.theta import sampled, svi, theta, theta_guide, theta_posterior, with_scales
from models.base import Model, Ppl


@dataclass(frozen=True, kw_only=True)
class MeanFieldSettings(Settings):
    """What mean-field VI may be told besides."""

    local_steps: int = setting(
        10, "mean_field: Adam steps on a minibatch's own q(z_i) before each step of theta [steps]", low=1, high=100_000
    )
    local_step_size: float = setting(0.1, "mean_field: step size of those", above=0.0, high=10.0)
    fit_steps: int = setting(
        500, "mean_field: steps of the local fit of points outside the training set, theta frozen [steps]", low=1
    )


def mean_field(engine: Engine, model: Model, settings: MeanFieldSettings) -> Backend:
    """Build the backend; its state holds params `theta.*`, and `local` with loc and log_scale [N, n_latent]."""

    def local_model(ppl: Ppl, local: Params, theta: Params, x: Array) -> None:
        ppl.condition(model.generative, {"x": x})(ppl, theta, x.shape[0])

    def local_guide(ppl: Ppl, local: Params, theta: Params, x: Array) -> None:
        normal(ppl, local)

    def guide(ppl: Ppl, params: Params, x: Array, fraction: Array, local: Params) -> None:
        theta_guide(ppl, model, settings.theta, params, fraction)
        normal(ppl, local)

    local_svi = engine.svi(local_model, local_guide, adam(), settings.estimator, settings.particles)
    theta_svi = svi(engine, model, settings, guide)

    def improve(key: Key, local: Params, params: Params, x: Array, step_sizes: Array) -> Params:
        """Take one local step for each step size: each at a draw of theta of its own, where q(theta) is fitted."""

        def one(state: State, step: tuple[Key, Array]) -> tuple[State, None]:
            key, step_size = step
            state = {**state, "optimizer": {**state["optimizer"], "step_size": step_size}}
            theta = sampled(engine, model, settings.theta, key, params)
            return local_svi.update(key, state, theta, x)[0], None

        state = local_svi.init(local, step_sizes[0])
        state, _ = engine.scan(one, state, (engine.split(key, len(step_sizes)), step_sizes))
        return state["params"]

    def init(key: Key, theta: Params, phi: Params, x: Array, step_size: Array) -> State:
        params = with_scales(engine, settings.theta, join(theta=theta))
        return {**theta_svi.init(params, step_size), "local": prior(engine, x, model.n_latent)}

    def step(key: Key, state: State, batch: Batch) -> tuple[State, Info]:
        local_key, theta_key = engine.split(key)
        rows = {name: values[batch.indices] for name, values in state["local"].items()}
        sizes = engine.array(decaying(settings.local_step_size, settings.local_steps))
        rows = improve(local_key, rows, state["params"], batch.x, sizes)
        local = {name: engine.put(values, batch.indices, rows[name]) for name, values in state["local"].items()}
        svi_state = {"params": state["params"], "optimizer": state["optimizer"]}
        svi_state, loss = theta_svi.update(theta_key, svi_state, batch.x, batch.fraction, rows)
        n = batch.x.shape[0]
        evals = n * settings.particles * (settings.local_steps + 1)
        return {**svi_state, "local": local}, Info(-loss / n, evals, float("nan"))

    fit_sizes = decaying(settings.local_step_size, settings.fit_steps)
    fit = engine.compile(improve)

    def posterior(key: Key, state: State, x: Array, indices: Array | None) -> Posterior:
        if indices is not None:
            return Posterior(normal, ({name: values[indices] for name, values in state["local"].items()},))
        local = fit(key, prior(engine, x, model.n_latent), state["params"], x, engine.array(fit_sizes))
        return Posterior(normal, (local,), settings.fit_steps)

    return Backend(init, step, theta, posterior, theta_posterior(model, settings.theta))


def decaying(step_size: float, steps: int) -> list[float]:
    """Return step sizes that fall to zero, which leaves a local fit without the noise of its last steps."""
    return [step_size * (1.0 - i / steps) for i in range(steps)]


def normal(ppl: Ppl, local: Params) -> None:
    """Sample z ~ N(loc, diag exp(log_scale)^2), both [n, n_latent]."""
    with ppl.plate("data", local["loc"].shape[0]):
        ppl.sample("z", ppl.dist.Normal(local["loc"], ppl.xp.exp(local["log_scale"])).to_event(1))


def prior(engine: Engine, x: Array, n_latent: int) -> Params:
    """Start at q(z_i) = p(z): the exact posterior of a decoder that does not look at z yet, as the initial one."""
    like = x[:, :1] @ engine.array([[0.0] * n_latent])
    return {"loc": like, "log_scale": like}


MEAN_FIELD = Method(
    mean_field,
    title="mean-field VI",
    settings=MeanFieldSettings,
    has_q=True,
    has_q_theta=True,
    evaluations=lambda settings: settings.particles * (settings.local_steps + 1),
)
