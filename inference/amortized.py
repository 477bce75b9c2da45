"""The amortized q(z | x): the model's recognition network, kept by a backend under `params` as `phi.*`."""

from typing import Any

from inference.base import Array, Key, Params, Posterior, State, pick
from inference.rows import recognition
from models.base import Model


def amortized(model: Model, params: Params, x: Array) -> Posterior:
    """Return q(z | x) of the recognition network whose parameters are `phi.*`."""
    return Posterior(recognition(model), (pick(params, "phi"), x))


def amortized_posterior(model: Model) -> Any:
    """Return `Backend.posterior` for a recognition network kept under `params` as `phi.*`."""

    def posterior(key: Key, state: State, x: Array, indices: Array | None) -> Posterior:
        return amortized(model, state["params"], x)

    return posterior
