"""A training set that memory does not hold: the rows of results are those of one that it does, bit for bit."""

import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_runs import timeless

from comparisons import compare
from comparisons.data import Data, Own, Rows, find, load, take
from comparisons.data import own as owns
from comparisons.errors import DataError, UnfitError
from comparisons.runner import jobs, run, store, training
from comparisons.runner.cell import on
from comparisons.runner.experiment import Experiment
from comparisons.runner.training import Standing
from inference import BACKENDS, ENGINES
from inference.base import numpys

N, D = 3000, 9
WAYS = [(backend, engine, "off") for backend in BACKENDS for engine in ENGINES] + [("aevb", "pyro", "on")]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Data, Data]]:
    """A file in memory, and the same left where it is."""
    path = tmp_path_factory.mktemp("large") / "x.npy"
    np.save(path, np.random.default_rng(0).random((N, D), np.float32))
    name = find(str(path))
    with pytest.MonkeyPatch.context() as patch:
        whole = load(name)
        patch.setattr(owns, "LARGE", 0)
        yield whole, load(name)


def tiny(data: Data, **changes: Any) -> Experiment:
    assert isinstance(data.name, Own)
    settings: dict[str, Any] = {
        "data": data.name, "samples": 13 * 12, "minibatch": 13, "n_hidden": 4, "n_latent": 2, "warmup": 0,
        "eval_points": 10, "fit_steps": 5, "local_steps": 2, "leapfrog_steps": 2, "elbo_draws": 3, "pilot_steps": 7,
        "evidence": ("none",), "model": "vae_gaussian", **changes,
    }  # fmt: skip
    return Experiment(**settings)


def rows(experiment: Experiment, data: Data) -> list[Any]:
    result = list(run.run("test", on(experiment, data, "the same"), data))[-1]
    assert result.status == "done"
    return timeless(result.rows)


def ends(experiment: Experiment, data: Data) -> tuple[Any, ...]:
    """Train for two chunks, of 10 steps and of 2; return all that training hands on."""
    train, standing = training.trainer(on(experiment, data, "the same"), data), Standing()
    standing.state = train.initial(0.1)
    told = []
    for last in (10, 12):
        train.advance(standing, last)
        told.append((standing.objective, standing.acceptance, standing.decoder_evals))
    return told, numpys(train.engine, standing.state)


@pytest.mark.parametrize(("backend", "engine", "compiled"), WAYS)
def test_training_is_that_of_memory(
    both: tuple[Data, Data], backend: str, engine: str, compiled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of 4 steps are read at a time: what is told of a chunk is over all of it."""
    whole, large = both
    experiment = tiny(large, backend=backend, engine=engine, compile=compiled)
    expected = ends(experiment, whole)
    monkeypatch.setattr(training, "HELD", 4 * D * 13 * 4)
    np.testing.assert_equal(ends(experiment, large), expected)


@pytest.mark.parametrize(("backend", "engine"), [("mean_field", "numpyro"), ("monte_carlo_em", "pyro")])
def test_its_rows_are_those_of_memory(both: tuple[Data, Data], backend: str, engine: str) -> None:
    whole, large = both
    experiment = tiny(large, backend=backend, engine=engine)
    expected = rows(experiment, whole)
    assert len({row["n_seen"] for row in expected}) > 3
    np.testing.assert_equal(rows(experiment, large), expected)


def test_what_needs_every_row_at_once_is_refused_and_the_remedy_helps(both: tuple[Data, Data]) -> None:
    whole, large = both
    full = tiny(large, backend="monte_carlo_em", e_step="full", samples=2 * N)
    with pytest.raises(UnfitError, match=r"a full E-step takes all 2,400 rows of 'x\.npy' at once.* --n-train \d+ at"):
        on(full, large)
    with pytest.raises(UnfitError, match=r"the bound of theta 'vb' takes .* choose --theta map, or"):
        on(tiny(large, theta="vb"), large)
    some = take(large, 50)
    assert isinstance(some.train, np.ndarray)
    np.testing.assert_equal(rows(full, some), rows(full, take(whole, 50)))


def test_a_job_opens_the_file_itself(both: tuple[Data, Data], tmp_path: Path) -> None:
    """As in a worker: neither rows nor their order travel."""
    _, large = both
    experiment = tiny(large)
    job = jobs.Job("test", on(experiment, large), tmp_path, store.environment())
    sent = pickle.dumps(job)
    assert len(sent) < 5000
    assert jobs.work(pickle.loads(sent)) == "done"
    (folder,) = (tmp_path / "cells").iterdir()
    assert store.finished(tmp_path, folder.name)


def test_a_file_that_changes_in_a_run_ends_it_in_one_line(both: tuple[Data, Data], tmp_path: Path) -> None:
    _, large = both
    results = run.run("test", on(tiny(large), large), large)
    assert next(results).status == "running"
    before = os.stat(large.name.path)  # type: ignore[attr-defined]
    os.utime(large.name.path, ns=(0, 0))  # type: ignore[attr-defined]
    try:
        with pytest.raises(DataError, match=r"x\.npy has changed since it was looked at"):
            list(results)
    finally:
        os.utime(large.name.path, ns=(before.st_atime_ns, before.st_mtime_ns))  # type: ignore[attr-defined]


def test_compare_takes_its_path(both: tuple[Data, Data], tmp_path: Path) -> None:
    whole, large = both
    path = large.name.path  # type: ignore[attr-defined]
    told: dict[str, Any] = {"samples": 390, "minibatch": 13, "n_hidden": 4, "n_latent": 2, "eval_points": 10}
    told |= {"evidence": "none", "engine": "pyro", "elbo_draws": 2}
    found = compare(path, out=tmp_path, backend="aevb", step_size=0.1, quiet=True, **told)
    fit = found.fit("aevb")
    assert isinstance(fit.data.test, Rows) and fit.embed(fit.data.test[:5]).shape == (5, 2)
    np.testing.assert_array_equal(fit.data.test[:5], whole.test[:5])
    with pytest.raises(DataError, match=r"is a memory map; give its path, .*x\.npy"):
        compare(np.load(path, mmap_mode="r"), out=tmp_path, backend="aevb", **told)
