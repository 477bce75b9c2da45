"""What takes training steps against the clock, and how contestants take turns."""

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

import inference
from comparisons.benchmarks.peers import Shape, Steps, minibatches
from comparisons.runner.training import training
from inference import AllSettings
from inference.base import arrays, numpys
from models.vae import VaeBernoulli

TURNS = 100  # steps at a time, as a comparison takes them

Row = dict[str, Any]


class Contestant(NamedTuple):
    """Something that takes steps, and what tells it apart."""

    name: str
    engine: str
    shape: Shape
    steps: Steps
    leapfrog_steps: int = 0

    @property
    def row(self) -> Row:
        """The columns that name it."""
        named = {"contestant": self.name, "engine": self.engine, **self.shape._asdict()}
        return {**named, "leapfrog_steps": self.leapfrog_steps}


def images(shape: Shape) -> np.ndarray:
    """Return grey values in [0, 1], [n_train, n_x]: what they show does not matter to a clock."""
    return np.random.default_rng(0).random((shape.n_train, shape.n_x), dtype=np.float32)


def ours(
    backend: str, engine_name: str, shape: Shape, threads: int, leapfrog_steps: int = AllSettings.leapfrog_steps
) -> Steps:
    """Return a backend's training as a comparison runs it, in chunks of 100 steps."""
    engine = inference.engine(engine_name, "cpu", threads, True)
    model = VaeBernoulli(shape.n_x, shape.n_latent, shape.n_hidden)
    settings = AllSettings(warmup=0, minibatch=shape.minibatch, leapfrog_steps=leapfrog_steps)
    built, train = training(engine, model, backend, settings, False)
    data, key = engine.array(images(shape)), engine.key(1)
    theta, phi = (arrays(engine, group) for group in model.init(0))
    state = built.init(engine.key(0), theta, phi, data, engine.array(0.01))
    state = arrays(engine, numpys(engine, state))  # no array twice: training reuses their memory
    batches, done = minibatches(shape), 0

    def steps(number: int) -> None:
        nonlocal state, done
        for _ in range(math.ceil(number / TURNS)):
            rows = engine.array(np.stack([next(batches) for _ in range(TURNS)]))
            state, info = train(state, data, key, engine.array(np.arange(done, done + TURNS)), rows)
            if not np.isfinite(engine.numpy(info.objective)).all():
                raise RuntimeError(f"{backend} on {engine_name} left the finite numbers")
            done += TURNS

    return steps


def compilation(contestant: Contestant) -> Row:
    """Time the first steps against later ones."""
    first, later = _timed(contestant, TURNS), _timed(contestant, TURNS)
    return {**contestant.row, "quantity": "compile_s", "repeat": 0, "value": max(0.0, first - later)}


def turns(contestants: Sequence[Contestant], repeats: int, least: float, seed: int) -> Iterator[Row]:
    """Time the contestants in turn, in another order each time; yield milliseconds a step.

    A turn is so many steps that it lasts `least` seconds.
    """
    numbers = [TURNS * math.ceil(least / _timed(one, TURNS)) for one in contestants]
    rng = np.random.default_rng(seed)
    for repeat in range(repeats):
        for i in rng.permutation(len(contestants)):
            value = 1e3 * _timed(contestants[i], numbers[i]) / numbers[i]
            yield {**contestants[i].row, "quantity": "step_ms", "repeat": repeat, "value": value}


def _timed(contestant: Contestant, number: int) -> float:
    start = time.perf_counter()
    contestant.steps(number)
    return time.perf_counter() - start
