"""log p(x) in closed form, of a model that knows it: the truth that the other estimators are held against."""

import numpy as np

from comparisons.evidence.base import Estimate, Estimator, Facts, MemorySettings, Target


def exact(target: Target, settings: object = None, seed: int = 0) -> Estimate:
    """Return the model's own log p(x) for each row of x [n, n_x], in nats, computed in float64 with error zero.

    Raises TypeError for a model without one.
    """
    if target.model.log_px is None:
        raise TypeError(_refuses(target.facts))
    numpy = target.engine.numpy
    value = target.model.log_px({name: numpy(array) for name, array in target.theta.items()}, numpy(target.x))
    return Estimate(value, np.zeros(len(value)), systematic=True)


def _refuses(facts: Facts, settings: object = None) -> str:
    if facts.closed_form is False:
        return (
            f"evidence 'exact' needs a closed form of log p(x), which {facts.model} does not have; "
            "choose --evidence quadrature or importance"
        )
    return ""


CARD = Estimator(exact, MemorySettings, version=2, refuses=_refuses, rank=0)
