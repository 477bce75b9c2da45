"""The amortized q(z | x): the model's recognition network, kept by a backend under `params` as `phi.*`."""

from typing import Any

from inference.base import Array, Key, Posterior, State, pick
from inference.rows import recognition
from models.base import Model


def amortized_posterior(model: Model) -> Any:
    """Return `Backend.posterior` for a recognition network kept under `params` as `phi.*`."""

    def posterior(key: Key, state: State, x: Array, indices: Array | None) -> Posterior:
        return Posterior(recognition(model), (pick(state["params"], "phi"), x))

    return posterior
