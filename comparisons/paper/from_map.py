"""Where the bound of appendix F stands when q(theta) is put around a MAP fit, and where it goes from there.

If full VB ended in a bad optimum of its bound, a q(theta) around weights that fit better would have the higher bound.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

import inference
from comparisons.data import Data
from comparisons.evidence.base import Target
from comparisons.evidence.full_vb import AT_PRIOR, bound, divergence
from comparisons.runner.fits import Fit
from comparisons.runner.run import training
from inference.base import Backend, State, join, pick
from inference.theta import SCALES

CHUNK = 100  # steps compiled as one
WIDTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # of a q(theta) that is as wide in every weight


def from_map(fit: Fit, data: Data, scales: tuple[float, ...]) -> Iterator[dict[str, Any]]:
    """Yield rows: the bound around the MAP fit for each of `WIDTHS`, and after training from each of `scales`.

    Training goes on for as many points as the MAP fit had, with its step size; phi starts at the MAP fit's.
    """
    experiment = replace(fit.experiment, theta="vb")
    engine = inference.engine(experiment.engine, experiment.device, experiment.threads)
    backend, train = training(engine, fit.model, experiment.backend, experiment.settings, data.fresh)
    theta, phi = (pick(fit.state["params"], group) for group in ("theta", "phi"))
    x = engine.array(data.train)

    def start(width: float) -> State:
        state = backend.init(engine.key(0), theta, phi, x, engine.array(np.float32(experiment.step_size)))
        wide = {name: engine.ppl.xp.zeros_like(value) + float(np.log(width)) for name, value in theta.items()}
        params = {**state["params"], **join(**{SCALES: wide})}
        # Training gives up the memory of its state, and the MAP fit's arrays are in it.
        return _copied(engine, {**state, "params": params})

    for width in WIDTHS:
        yield from _rows(fit, backend, start(width), x, f"at MAP, width {width:g}", 0)
    m, steps = experiment.minibatch, experiment.samples // experiment.minibatch
    for width in scales:
        state = start(width)
        for first in range(0, steps, CHUNK):
            numbers = np.arange(first, min(first + CHUNK, steps))
            rng = np.random.default_rng([experiment.seed, 30, first])
            rows = np.stack([rng.choice(len(data.train), m, replace=False) for _ in numbers])
            key = engine.key(experiment.seed)
            state, _ = train(state, x, key, engine.array(numbers), engine.array(rows))
        yield from _rows(fit, backend, state, x, f"trained from width {width:g}", steps * m)


def _rows(fit: Fit, backend: Backend, state: State, x: Any, where: str, n_seen: int) -> Iterator[dict[str, Any]]:
    engine = fit.engine
    assert backend.theta_posterior is not None
    assert backend.posterior is not None
    q_theta = backend.theta_posterior(state)
    q = backend.posterior(engine.key(1), state, x, None)
    found = bound(Target(engine, fit.model, backend.theta(state), x, q), q_theta, engine.key(2), 20)
    weights = divergence(engine, q_theta)
    common = {"start": where, "n_seen": n_seen, "n_points": len(x)}
    yield {**common, "metric": "elbo_full_nats", "value": found.value, "stderr": found.stderr}
    yield {**common, "metric": "kl_theta_nats", "value": float(weights.sum()) / len(x), "stderr": 0.0}
    yield {**common, "metric": "theta_at_prior", "value": float((weights < AT_PRIOR).mean()), "stderr": 0.0}


def _copied(engine: Any, state: State) -> State:
    return {
        name: _copied(engine, value) if isinstance(value, dict) else engine.array(engine.numpy(value))
        for name, value in state.items()
    }
