"""What builds a registered backend, and a step of one, compiled and not."""

from collections.abc import Callable

import numpy as np

import inference
from inference import BACKENDS, AllSettings
from inference.base import Backend, Batch, Engine, Settings, arrays, numpys
from models.base import Model


def factory(name: str) -> Callable[[Engine, Model, Settings], Backend]:
    """Return f(engine, model, settings) -> Backend of a registered name."""
    return BACKENDS[name].build


def hold_compiled_step(model: Model, x: np.ndarray) -> None:
    """Hold a step of AEVB on Pyro that torch has compiled to the one that it has not, for all rows x at once."""
    found = []
    for compiled in (False, True):
        engine = inference.engine("pyro", "cpu", 1, compiled=compiled)
        backend = factory("aevb")(engine, model, AllSettings(warmup=0))
        at, rows = engine.array(x), engine.array(np.arange(len(x)))
        state = backend.init(engine.key(0), *(arrays(engine, one) for one in model.init(0)), at, engine.array(0.05))
        state, _ = engine.compile(backend.step)(engine.key(1), state, Batch(at, rows, 1.0))
        found.append(numpys(engine, state["params"]))
    for name, value in found[0].items():
        np.testing.assert_allclose(found[1][name], value, rtol=1e-4, atol=1e-5)
