"""Fits to judge: trained once, taken from where they lie, moved to another engine, followed by chains."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from comparisons.data import Data
from comparisons.disk import writing
from comparisons.runner import store
from comparisons.runner.experiment import Experiment
from comparisons.runner.fits import fitted, followed
from inference import ENGINES
from inference.base import Engine


def small() -> Data:
    rng = np.random.default_rng(0)
    train, test = rng.random((300, 6), np.float32), rng.random((100, 6), np.float32)
    return Data("digits", train, test, (1, 6), "unit", "", False)


def tiny(**changes: Any) -> Experiment:
    settings: dict[str, Any] = {"samples": 200, "n_hidden": 4, "n_latent": 2, "step_size": 0.01, "warmup": 0, **changes}
    return Experiment(**settings)


def test_a_fit_is_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fitted(tiny(), small(), tmp_path)
    monkeypatch.setattr("comparisons.runner.fits.run_cell", lambda *args: pytest.fail("trained again"))
    for again in (fitted(tiny(), small(), tmp_path), fitted(tiny(), small(), tmp_path / "other", [tmp_path])):
        for name, value in first.theta.items():
            np.testing.assert_array_equal(again.engine.numpy(again.theta[name]), first.engine.numpy(value))


def test_a_fit_says_how_far_it_is_as_a_grid_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fitted(tiny(), small(), tmp_path)
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first.endswith(" left, training digits aevb numpyro seed 0 k=2")
    assert last.startswith("100% 0:00:00 left, judging digits aevb")


@pytest.mark.parametrize("name", ["state.safetensors", "rows.csv", "manifest.json"])
def test_a_damaged_fit_is_trained_again(name: str, tmp_path: Path) -> None:
    first = fitted(tiny(), small(), tmp_path)
    (tmp_path / "cells" / first.cell.name / name).write_bytes(b"damaged")
    assert not store.finished(tmp_path, first.cell.name, with_state=True)
    again = fitted(tiny(), small(), tmp_path)
    np.testing.assert_array_equal(again.engine.numpy(again.theta["w2"]), first.engine.numpy(first.theta["w2"]))
    assert store.finished(tmp_path, first.cell.name, with_state=True)


def test_an_unfinished_fit_is_not_taken_for_one(tmp_path: Path) -> None:
    fit = fitted(tiny(), small(), tmp_path)
    manifest = store.read_manifest(tmp_path, fit.cell.name)
    for status in ("running", "diverged", "failed", None):
        writing.write_json(tmp_path / "cells" / fit.cell.name / "manifest.json", {**manifest, "status": status})
        assert not store.finished(tmp_path, fit.cell.name, with_state=True) or status == "diverged"


@pytest.mark.parametrize("backend", ["aevb", "mean_field", "monte_carlo_em"])
def test_a_fit_moves_to_the_other_engine(backend: str, tmp_path: Path, engines: dict[str, Engine]) -> None:
    fit = fitted(tiny(backend=backend), small(), tmp_path)
    for name in ENGINES:
        moved = fit.on(engines[name])
        x, indices = moved.points(small(), "train", 10)
        np.testing.assert_array_equal(moved.engine.numpy(moved.theta["w2"]), fit.engine.numpy(fit.theta["w2"]))
        q = moved.posterior(x, indices)
        assert (q is None) == (backend == "monte_carlo_em")
        if q is not None:
            z = moved.engine.numpy(moved.engine.draw(moved.engine.key(0), q.program, *q.args)["z"])
            assert z.shape == (10, 2) and np.isfinite(z).all()


def test_a_fit_comes_with_the_chains_that_followed_it(tmp_path: Path) -> None:
    """Trained once, with the chains of both splits as they were before the last look; found again where it lies."""
    experiment, data = tiny(samples=400, minibatch=10, eval_points=10), small()
    fit, chains = followed(experiment, "appendix_d", data, tmp_path)
    assert {split: kept.z.shape for split, kept in chains.items()} == {"train": (1, 10, 2), "test": (1, 10, 2)}
    (folder,) = (tmp_path / "cells").iterdir()
    written = (folder / "manifest.json").stat().st_mtime_ns
    again, same = followed(experiment, "appendix_d", data, tmp_path)
    assert (folder / "manifest.json").stat().st_mtime_ns == written
    np.testing.assert_array_equal(same["test"].z, chains["test"].z)
    assert fit.cell.name == again.cell.name == folder.name
    (folder / "stops" / "40.safetensors").unlink()  # gone: trained again, to the same bits
    _, once_more = followed(experiment, "appendix_d", data, tmp_path)
    np.testing.assert_array_equal(once_more["train"].z, chains["train"].z)
