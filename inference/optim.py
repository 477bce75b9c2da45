"""Adagrad, Adam and SGD, once for both engines: the libraries' own differ in constants that change the result.

optax starts Adagrad's accumulator at 0.1, NumPyro gives it a momentum of 0.9, torch adds epsilon outside the root.
The tests hold these against torch and optax with every constant spelled out.
"""

from typing import Any

from inference.base import Array, Optimizer, Params, State

EPSILON = 1e-8


def adagrad(warmup: int = 0) -> Optimizer:
    """Adagrad (Duchi et al. 2011): p -= step_size * g / sqrt(sum g^2 + 1e-8), the form in the authors' code.

    The first `warmup` steps accumulate g^2 without moving, which tames the early steps: unwarmed, each is as large as
    the step size whatever the gradient.
    """

    def init(xp: Any, params: Params, step_size: Array) -> State:
        return {"step_size": step_size, "count": _zero(xp, params), "sum": _zeros(xp, params)}

    def update(xp: Any, grads: Params, state: State) -> tuple[Params, State]:
        total = {name: state["sum"][name] + g * g for name, g in grads.items()}
        count = state["count"] + 1.0
        rate = -state["step_size"] * (count > warmup)
        updates = {name: rate * g / xp.sqrt(total[name] + EPSILON) for name, g in grads.items()}
        return updates, {"step_size": state["step_size"], "count": count, "sum": total}

    return Optimizer(init, update)


def adam(warmup: int = 0, b1: float = 0.9, b2: float = 0.999) -> Optimizer:
    """Adam (Kingma & Ba 2015, algorithm 1), with bias correction and epsilon 1e-8 outside the root.

    The first `warmup` steps update the moments without moving.
    """

    def init(xp: Any, params: Params, step_size: Array) -> State:
        return {
            "step_size": step_size,
            "count": _zero(xp, params),
            "mean": _zeros(xp, params),
            "square": _zeros(xp, params),
        }

    def update(xp: Any, grads: Params, state: State) -> tuple[Params, State]:
        count = state["count"] + 1.0
        mean = {name: b1 * state["mean"][name] + (1.0 - b1) * g for name, g in grads.items()}
        square = {name: b2 * state["square"][name] + (1.0 - b2) * g * g for name, g in grads.items()}
        rate = -state["step_size"] * (count > warmup) / (1.0 - b1**count)
        root = {name: xp.sqrt(s / (1.0 - b2**count)) + EPSILON for name, s in square.items()}
        updates = {name: rate * mean[name] / root[name] for name in grads}
        return updates, {"step_size": state["step_size"], "count": count, "mean": mean, "square": square}

    return Optimizer(init, update)


def sgd(warmup: int = 0) -> Optimizer:
    """Stochastic gradient descent, p -= step_size * g (algorithm 1: "e.g. SGD or Adagrad").

    Here g is the gradient of the sum over a minibatch. Nothing accumulates, so there is no warm-up: it is not read.
    """

    def init(xp: Any, params: Params, step_size: Array) -> State:
        return {"step_size": step_size}

    def update(xp: Any, grads: Params, state: State) -> tuple[Params, State]:
        return {name: -state["step_size"] * g for name, g in grads.items()}, state

    return Optimizer(init, update)


OPTIMIZERS = {"adagrad": adagrad, "adam": adam, "sgd": sgd}
# What `auto` chooses among: the paper's section 5; SGD's steps are as large as the gradient of a sum over a minibatch.
STEP_SIZES = {"adagrad": (0.01, 0.02, 0.1), "adam": (0.01, 0.02, 0.1), "sgd": (1e-5, 1e-4, 1e-3)}


def apply(params: Params, updates: Params) -> Params:
    """Return params + updates."""
    return {name: value + updates[name] for name, value in params.items()}


def _zeros(xp: Any, params: Params) -> Params:
    return {name: xp.zeros_like(value) for name, value in params.items()}


def _zero(xp: Any, params: Params) -> Any:
    """A scalar zero on the parameters' device and of their type."""
    return xp.zeros_like(next(iter(params.values()))).reshape(-1)[0]
