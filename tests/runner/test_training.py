"""The steps of a run: with and without the value of the bound, which only a choice of step size reads."""

import math
from dataclasses import replace

import numpy as np
import pytest

import inference
from comparisons.data import Data
from comparisons.runner import training
from comparisons.runner.cell import on
from comparisons.runner.experiment import Experiment
from comparisons.runner.training import MANY, DivergedError, Standing, choose_step_size
from inference import BACKENDS, ENGINES, AllSettings
from inference.base import arrays, numpys
from models.vae import VaeBernoulli

N, STEPS, M = 60, 3, 10
X = np.random.default_rng(0).random((N, 64), dtype=np.float32)
WAYS = [(backend, engine, False) for backend in BACKENDS for engine in ENGINES] + [("aevb", "pyro", True)]


@pytest.mark.parametrize(("backend", "engine_name", "compiled"), WAYS)
def test_training_is_the_same_without_the_bound_bit_for_bit(backend: str, engine_name: str, compiled: bool) -> None:
    engine = inference.engine(engine_name, compiled=compiled)
    model = VaeBernoulli(X.shape[1], n_latent=3, n_hidden=20)
    settings = AllSettings(warmup=1, minibatch=M, local_steps=2, leapfrog_steps=2)
    built, train = training.training(engine, model, backend, settings, False)
    x, key = engine.array(X), engine.key(2)
    rows = np.stack([np.random.default_rng(step).choice(N, M, replace=False) for step in range(STEPS)])
    ends, values = [], []
    for valued in (True, False):
        state = built.init(engine.key(0), *(arrays(engine, group) for group in model.init(0)), x, engine.array(0.1))
        state = arrays(engine, numpys(engine, state))
        items = engine.array(np.arange(STEPS)), engine.array(rows), engine.array(STEPS)
        state, info = train(state, x, key, *items, valued=valued)
        ends.append(numpys(engine, state))
        values.append(engine.numpy(info.objective))
    np.testing.assert_equal(ends[1], ends[0])
    assert np.isfinite(values[0]).all() and np.isnan(values[1]).all()


def trained(samples: int, step_size: str | float) -> training.Trainer:
    data = Data("made", X, X[:20], (1, X.shape[1]), "unit", "", False)
    told = Experiment(data="digits", backend="aevb", engine="numpyro", model="vae_bernoulli", samples=samples)
    told = replace(told, minibatch=M, n_hidden=20, step_size=step_size, eval_points=20, pilot_steps=2, warmup=0)
    return training.trainer(on(told, data), data)


def asked(trainer: training.Trainer) -> tuple[training.Trainer, list[bool]]:
    """The trainer, and a list of what was `valued`."""
    seen: list[bool] = []

    def steps(*args: object, valued: bool) -> object:
        seen.append(valued)
        return trainer.steps(*args, valued=valued)

    return replace(trainer, steps=steps), seen


@pytest.mark.parametrize(
    ("samples", "step_size", "expected"),
    [(20 * M, 0.1, False), (20 * M, "auto", True), (MANY * M, "auto", False)],
    ids=["no choice", "a choice, and few steps", "a choice, and many steps"],
)
def test_who_reads_the_bound(samples: int, step_size: str | float, expected: bool) -> None:
    """A choice of step size always; the steps after it where that spares compiling them again."""
    train, seen = asked(trained(samples, step_size))
    standing = Standing()
    if step_size == "auto":
        choose_step_size(train, standing, lambda n_seen, doing: None, lambda: None)
        assert seen and all(seen)
        assert all(math.isfinite(score) for score in standing.scores)
    standing.state, standing.step = train.initial(0.1), 0
    train.advance(standing, 3)
    assert seen[-1] is expected


def test_a_fit_that_leaves_the_finite_numbers_is_told_without_the_bound() -> None:
    train = trained(20 * M, 0.1)
    standing = Standing(state=train.initial(math.inf))
    with pytest.raises(DivergedError, match="not finite after step 3"):
        train.advance(standing, 3)
