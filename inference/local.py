"""A q(z_i) = N(mu_i, diag sigma_i^2) of its own for each datapoint, and its fit with theta held fast.

It is a normal of the coordinates of the latent sites (see `latents`), and what the libraries' bijections make of one.

    mu_i, sigma_i = argmax E_q[log p(x_i, z | theta) - log q(z)]                     (equation 2)

by the library's SVI: what mean-field VI is made of, and the best that a recognition network could say.
"""

from collections.abc import Callable
from dataclasses import dataclass

from inference import gradients
from inference.base import Array, Engine, Key, Params, Posterior, Settings, State, Svi, setting
from inference.latents import latents
from inference.optim import adam
from inference.rows import joint
from inference.theta import sampled
from models.base import Model, Ppl


@dataclass(frozen=True, kw_only=True)
class LocalSettings(Settings):
    """What a method with a q(z_i) for each datapoint may be told besides."""

    local_steps: int = setting(
        10, "mean_field: Adam steps on a minibatch's own q(z_i) before each step of theta [steps]", low=1, high=100_000
    )
    local_step_size: float = setting(0.1, "mean_field: step size of those", above=0.0, high=10.0)
    fit_steps: int = setting(
        500, "mean_field: steps of the local fit of points outside the training set, theta frozen [steps]", low=1
    )


def improvement(
    engine: Engine, model: Model, settings: LocalSettings
) -> Callable[[Key, Params, Params, Array, Array], Params]:
    """Return improve(key, local, params, x [n, n_x], step_sizes [s]) -> local, one step of Adam for each step size.

    `params` hold theta, or q(theta), of which each step sees a draw of its own.
    """

    local_svi = _svi(engine, model, settings)

    def improve(key: Key, local: Params, params: Params, x: Array, step_sizes: Array) -> Params:
        def one(state: State, step: tuple[Key, Array]) -> tuple[State, None]:
            key, step_size = step
            state = {**state, "optimizer": {**state["optimizer"], "step_size": step_size}}
            theta = sampled(engine, model, settings.theta, key, params)
            return local_svi.update(key, state, theta, x)[0], None

        state = local_svi.init(local, step_sizes[0])
        state, _ = engine.scan(one, state, (engine.split(key, len(step_sizes)), step_sizes))
        return state["params"]

    return improve


def _svi(engine: Engine, model: Model, settings: LocalSettings) -> Svi:
    """Return the SVI of q(z_i) alone, with updates on theta and x [n, n_x]: see `inference.theta.svi`."""
    normal = latents(engine, model).normal
    if settings.estimator in gradients.LIBRARIES:

        def local_model(ppl: Ppl, local: Params, theta: Params, x: Array) -> None:
            joint(model, x)(ppl, theta)

        def local_guide(ppl: Ppl, local: Params, theta: Params, x: Array) -> None:
            normal(ppl, local)

        return engine.svi(local_model, local_guide, adam(), settings.estimator, settings.particles)

    estimate = gradients.estimator(engine, model, settings.estimator, settings.particles)

    def objective(key: Key, local: Params, theta: Params, x: Array) -> tuple[Array, Array]:
        value, surrogate = estimate(key, theta, x, Posterior(normal, (local,)))
        return value.sum(), surrogate.sum()

    return gradients.Ascent(engine, adam(), objective)


def local_fit(engine: Engine, model: Model, settings: LocalSettings) -> Callable[[Key, Params, Array], Posterior]:
    """Return fit(key, params, x [n, n_x]) -> q(z | x), from the prior in `fit_steps` steps."""
    improve = engine.compile(improvement(engine, model, settings))
    sizes = decaying(settings.local_step_size, settings.fit_steps)
    sites = latents(engine, model)

    def fit(key: Key, params: Params, x: Array) -> Posterior:
        local = improve(key, prior(engine, x, sites.size), params, x, engine.array(sizes))
        return Posterior(sites.normal, (local,), settings.fit_steps)

    return fit


def decaying(step_size: float, steps: int) -> list[float]:
    """Return step sizes that fall to zero, which leaves a local fit without the noise of its last steps."""
    return [step_size * (1.0 - i / steps) for i in range(steps)]


def prior(engine: Engine, x: Array, size: int) -> Params:
    """Start at q(z_i) = p(z): the exact posterior of a decoder that does not look at z yet, as the initial one."""
    like = engine.array(range(len(x)))[:, None] * engine.array([[0.0] * size])  # x may not be in memory
    return {"loc": like, "log_scale": like}
