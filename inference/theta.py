"""How the generative parameters are treated: a point with a prior (`map`, the paper), one without (`ml`), or q(theta).

For SVI, MAP is a Delta guide over theta, and `vb`, the paper's appendix F, a diagonal normal in its place:

    log p(X) >= E_q(theta)[sum_i L(theta, phi; x_i)] - KL(q(theta) || p(theta))      (appendix F)

with one draw of theta for each minibatch and particle, reparameterised as z is (algorithm 2). A minibatch is the
fraction M / N of the data, and sees that fraction of p(theta) and q(theta) (equation 8, divided by N / M).
"""

import math
from collections.abc import Callable
from typing import Any

from inference import gradients
from inference.base import Array, Engine, Key, Params, Posterior, Program, Settings, State, Svi, join, pick
from inference.latents import latents
from inference.optim import OPTIMIZERS
from inference.rows import joint
from models.base import Model, Ppl

SCALES = "theta_log_scale"  # the group of q(theta)'s log standard deviations; its means are `theta`
# As wide as the initial weights are spread. Wider, the noise of theta drowns what z says at first (on MNIST the bound
# after 1e6 points is 4 nats lower from 0.05 than from 0.01); much narrower, Adagrad needs long to widen what should be.
INITIAL_LOG_SCALE = math.log(0.01)


def theta(state: State) -> Params:
    """Return the generative parameters of a state that keeps them, or their mean, under `params` as `theta.*`."""
    return pick(state["params"], "theta")


def joint_program(model: Model, kind: str) -> Program:
    """Return program(ppl, params, x, fraction, ...) for p(theta)^fraction p(x, z | theta), with x observed."""

    def program(ppl: Ppl, params: Params, x: Array, fraction: Array, *_: Array) -> None:
        theta = pick(params, "theta")
        if kind != "ml":
            with ppl.scale(scale=fraction):
                theta = model.prior(ppl)
        joint(model, x)(ppl, theta)

    return program


def svi(engine: Engine, model: Model, settings: Settings, q: Callable[..., Posterior]) -> Svi:
    """Return the SVI of theta, and of the parameters of q(params, x, ...), with updates on x [n, n_x], fraction, ...

    It is the library's own for the two estimators that both libraries have. Raises ValueError.
    """
    optimizer, kind = OPTIMIZERS[settings.optimizer](settings.warmup), settings.theta
    if settings.estimator in gradients.LIBRARIES:

        def guide(ppl: Ppl, params: Params, x: Array, fraction: Array, *more: Any) -> None:
            theta_guide(ppl, model, kind, params, fraction)
            program, args, _ = q(params, x, *more)
            program(ppl, *args)

        return engine.svi(joint_program(model, kind), guide, optimizer, settings.estimator, settings.particles)

    if refusal := gradients.refusal(model, settings):
        raise ValueError(refusal)
    estimate = gradients.estimator(engine, model, settings.estimator, settings.particles)

    def objective(key: Key, params: Params, x: Array, fraction: Array, *more: Any) -> tuple[Array, Array]:
        theta = pick(params, "theta")
        prior = fraction * engine.log_prob(model.prior, theta) if kind == "map" else 0.0
        value, surrogate = estimate(key, theta, x, q(params, x, *more))
        return value.sum() + prior, surrogate.sum() + prior

    return gradients.Ascent(engine, optimizer, objective)


def with_scales(engine: Engine, kind: str, params: Params) -> Params:
    """Return the initial parameters; for `vb` with the log scales of q(theta), around the initial theta."""
    if kind != "vb":
        return params
    theta = pick(params, "theta")
    scales = {name: engine.ppl.xp.zeros_like(value) + INITIAL_LOG_SCALE for name, value in theta.items()}
    return params | join(**{SCALES: scales})


def theta_guide(ppl: Ppl, model: Model, kind: str, params: Params, fraction: Array) -> None:
    """Sample theta from its guide, where the joint program has sites for it: a point mass, or for `vb` a normal."""
    if kind == "ml":
        return
    theta = pick(params, "theta")
    with ppl.scale(scale=fraction):
        if kind == "vb":
            normal(model)(ppl, theta, pick(params, SCALES))
            return
        for name, shape in model.theta_shapes.items():  # in the prior's order, as the analytic-KL ELBO asks
            ppl.sample(name, ppl.dist.Delta(theta[name], event_dim=len(shape)))


def normal(model: Model) -> Program:
    """Return program(ppl, loc, log_scale) that samples theta ~ N(loc, diag exp(log_scale)^2), a site for each name."""

    def program(ppl: Ppl, loc: Params, log_scale: Params) -> None:
        for name, shape in model.theta_shapes.items():
            scale = ppl.xp.exp(log_scale[name])
            ppl.sample(name, ppl.dist.Normal(loc[name], scale).to_event(len(shape)))

    return program


def theta_posterior(model: Model, kind: str) -> Callable[[State], Posterior] | None:
    """Return `Backend.theta_posterior` for a state that keeps q(theta) under `params`; None where theta is a point."""
    if kind != "vb":
        return None
    program = normal(model)
    return lambda state: Posterior(program, (pick(state["params"], "theta"), pick(state["params"], SCALES)))


def sampled(engine: Engine, model: Model, kind: str, key: Key, params: Params) -> Params:
    """Return theta: for `vb` a draw from q(theta), by a key derived from this one, else the point."""
    theta = pick(params, "theta")
    if kind != "vb":
        return theta
    return engine.draw(engine.fold_in(key, 1), normal(model), theta, pick(params, SCALES))


def log_joint(engine: Engine, model: Model, kind: str) -> Callable[..., Array]:
    """Return f(params, x, values, fraction) = sum_i log p(x_i, z_i | theta) + fraction log p(theta), a scalar in nats.

    `values` are those of the latent sites, by name.
    Raises ValueError for `vb`, which has no theta to score at.
    """
    if kind == "vb":
        raise ValueError("theta 'vb' needs a bound that q(theta) can climb; this method fits theta as a point")

    score = latents(engine, model).score

    def function(params: Params, x: Array, values: Params, fraction: Array) -> Array:
        theta = pick(params, "theta")
        total = score(theta, x, values).sum()
        return total + fraction * engine.log_prob(model.prior, theta) if kind == "map" else total

    return function
