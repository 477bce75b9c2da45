"""How the generative parameters are treated: a point with a prior (`map`, the paper) or without one (`ml`).

For SVI, MAP is a Delta guide over theta: a normal guide in its place would be the paper's appendix F. A minibatch is
the fraction M / N of the data, and sees that fraction of the prior (equation 8, divided by N / M).
"""

from collections.abc import Callable

from inference.base import Array, Engine, Params, Program, Settings, Svi, pick
from inference.optim import OPTIMIZERS
from models.base import Model, Ppl


def joint_program(model: Model, kind: str) -> Program:
    """Return program(ppl, params, x, fraction, ...) for p(theta)^fraction p(x, z | theta), with x observed."""

    def program(ppl: Ppl, params: Params, x: Array, fraction: Array, *_: Array) -> None:
        theta = pick(params, "theta")
        if kind == "map":
            with ppl.scale(scale=fraction):
                theta = model.prior(ppl)
        ppl.condition(model.generative, {"x": x})(ppl, theta, x.shape[0])

    return program


def svi(engine: Engine, model: Model, settings: Settings, guide: Program) -> Svi:
    """Return the library's SVI of theta, and of what `guide` adds, on the joint program."""
    optimizer = OPTIMIZERS[settings.optimizer](settings.warmup)
    program = joint_program(model, settings.theta)
    return engine.svi(program, guide, optimizer, settings.estimator, settings.particles)


def point_guide(ppl: Ppl, model: Model, kind: str, params: Params, fraction: Array) -> None:
    """Sample theta from a point mass at its parameters, where the joint program has sites for it."""
    if kind == "map":
        theta = pick(params, "theta")
        with ppl.scale(scale=fraction):
            for name, shape in model.theta_shapes.items():  # in the prior's order, as the analytic-KL ELBO asks
                ppl.sample(name, ppl.dist.Delta(theta[name], event_dim=len(shape)))


def log_joint(engine: Engine, model: Model, kind: str) -> Callable[..., Array]:
    """Return f(theta, x, z, fraction) = sum_i log p(x_i, z_i | theta) + fraction log p(theta), a scalar in nats."""

    def function(theta: Params, x: Array, z: Array, fraction: Array) -> Array:
        total = engine.log_prob(model.generative, {"x": x, "z": z}, theta, x.shape[0]).sum()
        return total + fraction * engine.log_prob(model.prior, theta) if kind == "map" else total

    return function
