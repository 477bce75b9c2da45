"""Log importance weights log p(x, z | theta) - log q(z | x): what the bound and importance sampling are means of."""

from functools import cache
from typing import Any

from comparisons.evidence.base import repeated
from inference.base import Engine, Key, Params, Program
from models.base import Array, Model


@cache
def weigh(engine: Engine, model: Model, program: Program, draws: int) -> Any:
    """Return f(key, theta, args, x) -> log weights [draws, n] of fresh z ~ program(ppl, *args), compiled."""

    def weights(key: Key, theta: Params, args: tuple[Any, ...], x: Array) -> Array:
        z = engine.draw(key, repeated(program, draws), *args)
        log_joint = engine.log_prob(model.generative, {"x": x, **z}, theta, x.shape[0])
        return log_joint - engine.log_prob(program, z, *args)

    return engine.compile(weights)
