"""What builds a registered backend."""

from collections.abc import Callable

from inference import BACKENDS
from inference.base import Backend, Engine, Settings
from models.base import Model


def factory(name: str) -> Callable[[Engine, Model, Settings], Backend]:
    """Return f(engine, model, settings) -> Backend of a registered name."""
    return BACKENDS[name].build
