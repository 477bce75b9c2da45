"""log p(x) of `linear_gaussian` in closed form: the truth that the other estimators are held against."""

from typing import Any

import numpy as np

from comparisons.evidence.base import Estimate
from inference.base import Engine, Params
from models.base import Array, Model
from models.linear_gaussian import LinearGaussian, log_px


def exact(engine: Engine, model: Model, theta: Params, x: Array, seed: int = 0, **_: Any) -> Estimate:
    """Return log N(x; b, w'w + s^2 I) for each row of x [n, n_x], in nats, computed in float64 with error zero.

    Raises TypeError for any model but LinearGaussian.
    """
    if not isinstance(model, LinearGaussian):
        raise TypeError(f"exact is for LinearGaussian, not {type(model).__name__}; use quadrature")
    value = log_px({name: engine.numpy(array) for name, array in theta.items()}, engine.numpy(x))
    return Estimate(value, np.zeros(len(value)), systematic=True)
