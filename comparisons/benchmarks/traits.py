"""What of a backend decides where its cost shows, asked of the backend itself on a problem of no size."""

from functools import cache

import numpy as np

from comparisons.runner.training import training
from inference import AllSettings
from inference.base import Backend, Batch, Engine, State, arrays
from inference.nested import flat
from models.vae import VaeBernoulli

N = 7  # training points: a size that nothing else has here
MODEL = VaeBernoulli(n_x=5, n_latent=2, n_hidden=3)


def remembers(engine: Engine, backend: str) -> bool:
    """Say whether its state has a row for each training point."""
    return any(value.shape[:1] == (N,) for value in flat(_built(engine, backend)[1]).values())


def leaps(engine: Engine, backend: str) -> bool:
    """Say whether it moves by HMC, and so by leapfrog steps."""
    built, state = _built(engine, backend)
    x, rows = engine.array(_images()), engine.array(np.arange(2))
    _, info = built.step(engine.key(1), state, Batch(x[rows], rows, 2 / N))
    return bool(np.isfinite(engine.numpy(engine.array(info.acceptance))))


def recognises(engine: Engine, backend: str) -> bool:
    """Say whether it has a recognition network: a q(z | x) of new points that no local fit goes before."""
    built, state = _built(engine, backend)
    if built.posterior is None:
        return False
    return built.posterior(engine.key(1), state, engine.array(_images()), None).fit_steps == 0


def infers(engine: Engine, backend: str) -> bool:
    """Say whether it has a q(z | x), whatever that costs."""
    return _built(engine, backend)[0].posterior is not None


@cache
def _built(engine: Engine, backend: str) -> tuple[Backend, State]:
    built, _ = training(engine, MODEL, backend, AllSettings(minibatch=2), False)
    groups = (arrays(engine, group) for group in MODEL.init(0))
    return built, built.init(engine.key(0), *groups, engine.array(_images()), engine.array(0.01))


def _images() -> np.ndarray:
    return np.random.default_rng(0).random((N, MODEL.n_x), dtype=np.float32)
