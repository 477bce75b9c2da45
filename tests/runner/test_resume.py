"""A run that is broken off and gone on with gives the same numbers as one that was not, bit for bit."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from tiny_runs import BrokenError, broken_at, same, small, tiny, unbroken

from comparisons.errors import StorageError
from comparisons.evidence.journal import Journal, kept_in, once, pieces
from comparisons.runner import checkpoint, run, store
from comparisons.runner.cell import Cell, on
from comparisons.runner.experiment import Experiment
from comparisons.runner.jobs import Job, run_cell
from inference import BACKENDS, ENGINES
from inference.base import Engine

JUDGES: dict[str, dict[str, Any]] = {
    "importance": {"importance_samples": 50, "proposal": "hmc", "max_memory": 1e7},
    "annealed": {"temperatures": 55, "annealed_chains": 2},
    "appendix_d": {"hmc_draws": 60, "hmc_warmup": 20, "chains": "anew"},
    "quadrature": {"tolerance": 0.5},
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("engine", ENGINES)
def test_training_goes_on_bit_for_bit(
    engine: str, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken off while step sizes are tried, while theta is trained, and while it is judged."""
    monkeypatch.setattr("comparisons.runner.training.CHUNK", 3)
    experiment = tiny(engine=engine, backend=backend, evidence=("quadrature",), tolerance=1.0, pilot_steps=6)
    found, pauses = broken_at(experiment, tmp_path, list(range(1, 40, 2)))
    same(found, unbroken(experiment))
    assert pauses > 15 and found.status == "done"


@pytest.mark.parametrize(
    ("engine", "judge"), [*(("numpyro", judge) for judge in JUDGES), ("pyro", "appendix_d"), ("pyro", "quadrature")]
)
def test_an_estimate_goes_on_bit_for_bit(engine: str, judge: str, tmp_path: Path) -> None:
    experiment = tiny(engine=engine, evidence=(judge,), step_size=0.05, samples=20, eval_points=5, **JUDGES[judge])
    found, pauses = broken_at(experiment, tmp_path, list(range(1, 60, 3)))
    same(found, unbroken(experiment))
    assert pauses > (4 if judge == "quadrature" else 12)


@pytest.mark.parametrize("backend", ["aevb", "monte_carlo_em"])
@pytest.mark.parametrize("engine", ENGINES)
def test_kept_chains_go_on_bit_for_bit(
    engine: str, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken off between two looks, in one, and in an estimate: chains, step sizes and costs are as if it never was."""
    monkeypatch.setattr("comparisons.runner.training.CHUNK", 2)
    changes = {"evidence": ("appendix_d",), "chains": "kept", "chain_interval": 30, "hmc_draws": 20}
    experiment = tiny(engine=engine, backend=backend, pilot_steps=3, hmc_chains=2, **changes)
    found, pauses = broken_at(experiment, tmp_path, list(range(1, 60, 2)))
    same(found, unbroken(experiment))
    assert pauses > 15 and found.status == "done"


def test_training_never_sees_the_kept_chains() -> None:
    """The fit is the same to the bit, whoever looks at it and how often."""
    fits = [
        unbroken(tiny(backend="wake_sleep", step_size=0.05, **changes)).state
        for changes in ({}, *({"evidence": ("appendix_d",), "chain_interval": n} for n in (10, 50)))
    ]
    assert len({checkpoint.pack(fit, {}) for fit in fits}) == 1


def test_compiled_training_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long runs on Pyro are compiled, which short ones are not."""
    monkeypatch.setattr("comparisons.runner.training.CHUNK", 3)
    experiment = tiny(engine="pyro", backend="mean_field", step_size=0.05, compile="on")
    found, _ = broken_at(experiment, tmp_path, [1, 2])
    same(found, unbroken(experiment))
    assert found.status == "done"


def test_a_full_e_step_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comparisons.runner.training.CHUNK", 1)
    experiment = tiny(backend="monte_carlo_em", e_step="full", samples=600, step_size=0.05)
    found, _ = broken_at(experiment, tmp_path, [1, 2, 4])
    same(found, unbroken(experiment))


def test_steps_of_many_datapoints_are_not_a_hundred_to_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two chunks a run may be interrupted and kept: 150 chains move in each step, and two steps fit."""
    monkeypatch.setattr("comparisons.runner.training.CHUNK_ROWS", 320)
    kept: list[run.Kept] = []
    experiment = tiny(backend="monte_carlo_em", e_step="full", samples=1500, step_size=0.05)
    list(run.run("test", on(experiment, small()), small(), keep=lambda *each: kept.append(each), every=0.0))
    steps = sorted({facts["step"] for _, facts in kept})
    assert steps[0] <= 2 and np.diff(steps).max() <= 2 and steps[-1] >= 4


def test_a_run_that_diverges_later_diverges_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comparisons.runner.training.CHUNK", 1)
    experiment = tiny(backend="wake_sleep", step_size=1e8)
    one, two = unbroken(experiment), broken_at(experiment, tmp_path, [1, 2])[0]
    assert one.status == two.status == "diverged"
    same(one, two)


@pytest.mark.fault("a checkpoint with NaN weights, other shapes or names", "not used")
def test_a_checkpoint_of_another_shape_is_refused() -> None:
    kept: list[run.Kept] = []
    experiment = tiny(step_size=0.05)
    list(run.run("test", on(experiment, small()), small(), keep=lambda *each: kept.append(each), every=0.0))
    arrays, facts = kept[0]
    weights = arrays["state"]["params"]["theta.w1"]
    for damaged, words in (
        (weights[:, :2], "expected float32"),
        (weights.astype(np.float64), "float64"),
        (np.full_like(weights, np.nan), "not finite"),
    ):
        state = {**arrays["state"], "params": {**arrays["state"]["params"], "theta.w1": damaged}}
        with pytest.raises(run.MisfitError, match=words):
            list(run.run("test", on(experiment, small()), small(), kept=({"state": state}, facts)))
    with pytest.raises(run.MisfitError, match="lacks"):
        list(run.run("test", on(experiment, small()), small(), kept=({"state": {}}, facts)))


# The journal


class Column(NamedTuple):
    """What a piece leaves of each of its items."""

    total: Any


def add(count: Any, carry: tuple[Any, ...], items: Any) -> tuple[tuple[Any, ...], Column]:
    """Add up the first `count` items; what stands behind them is of no account."""
    taken = items[: int(count)]
    rest = items[int(count) :] - 1e6
    return (carry[0] + taken.sum(),), Column(np.concatenate([np.asarray(carry[0] + taken.cumsum(0)), np.asarray(rest)]))


def test_pieces_fold_like_one(engine: Engine) -> None:
    carry, (column,) = pieces(engine, add, (engine.array(0.0),), (engine.array(np.arange(123.0)),))
    assert engine.numpy(carry[0]) == np.arange(123).sum()
    np.testing.assert_array_equal(column, np.cumsum(np.arange(123)))
    assert pieces(engine, add, (engine.array(0.0),), (engine.array(np.arange(5.0)),), kept=False)[1] == []


def test_a_journal_gives_back_what_was_worked_out(engine: Engine) -> None:
    """Whatever the piece it is broken off after, each piece of work is done once, and forgotten with its whole."""
    done: list[str] = []

    def leaf(name: str) -> tuple[np.ndarray, ...]:
        done.append(name)
        return (np.array([len(name), 1.5]), np.array(True))

    def branch(name: str) -> tuple[np.ndarray, ...]:
        first = once(lambda: leaf(name + "a"))
        _, (column,) = pieces(engine, add, (engine.array(first[0][0]),), (engine.array(np.arange(120.0)),))
        return (column + once(lambda: leaf(name + "b"))[0][1],)

    def whole() -> np.ndarray:
        return np.concatenate([once(lambda name=name: branch(name))[0] for name in ("x", "yy")])  # type: ignore[misc]

    expected = whole()
    done.clear()
    records: dict[str, Any] = {}
    attempts = 0
    while True:
        attempts += 1
        count = 0

        def paused() -> None:
            nonlocal count
            count += 1
            if count > 1:
                raise BrokenError

        journal = Journal(records, paused)
        try:
            with kept_in(journal):
                found = whole()
            break
        except BrokenError:
            records = checkpoint_round_trip(journal.records())
    assert attempts > 5 and sorted(done) == ["xa", "xb", "yya", "yyb"]
    np.testing.assert_array_equal(found, expected)
    assert set(journal.records()) == {"0", "1"}


def checkpoint_round_trip(records: dict[str, Any]) -> dict[str, Any]:
    return {place: {name: np.array(array) for name, array in arrays.items()} for place, arrays in records.items()}


# The file


def test_a_file_holds_arrays_and_facts(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    arrays = {"a": {"b": np.array([1, 2], np.float32), "c": {"d": np.array(3)}}, "e": np.array([True, False])}
    facts = {"rows": [{"value": 0.1, "n": 3}], "nothing": None, "worst": float("-inf")}
    path.write_bytes(checkpoint.pack(arrays, facts))
    found, told = checkpoint.read(path)
    assert told == facts and not checkpoint.misfit(found, arrays)
    np.testing.assert_equal(found, arrays)


@pytest.mark.fault("a checkpoint with any bit flipped", "not used")
def test_any_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    whole = checkpoint.pack({"w": np.arange(6, dtype=np.float32)}, {"step": 7})
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            found, told = checkpoint.read(path)
        except StorageError as error:
            assert str(path) in str(error) and "\n" not in str(error)
        else:  # a bit of padding
            np.testing.assert_array_equal(found["w"], np.arange(6))
            assert told == {"step": 7}


@pytest.mark.fault("a checkpoint cut at every length", "not used")
def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    whole = checkpoint.pack({"w": np.arange(6, dtype=np.float32)}, {"step": 7})
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(StorageError):
            checkpoint.read(path)


@pytest.mark.fault("a pickle under a checkpoint's name", "refused, and its code not run")
def test_a_pickle_under_this_name_is_refused_and_not_run(tmp_path: Path) -> None:
    import pickle

    class Shell:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "touched",))

    path = tmp_path / "x.safetensors"
    path.write_bytes(pickle.dumps(Shell()))
    with pytest.raises(StorageError):
        checkpoint.read(path)
    assert not (tmp_path / "touched").exists()


# A cell's folder


@pytest.mark.fault("a checkpoint of other settings, data or engine", "refused with the difference")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"engine": "numpyro"}, "engine: pyro there, numpyro here"),
        ({"n_latent": 3}, "n_latent: 2 there, 3 here"),
        ({"data_digest": "other"}, "data_digest: data there, other here"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    changes = dict(changes)
    half_way(tmp_path, tiny(engine="pyro", step_size=0.05))
    data_digest = changes.pop("data_digest", "data")
    experiment = tiny(**{"engine": "pyro", "step_size": 0.05, **changes})
    with pytest.raises(StorageError, match=words) as caught:
        run_cell(job(tmp_path, experiment, data_digest), small())
    assert "--fresh" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.fault("a checkpoint of before there was a setting", "the cell goes on, with the setting's default")
def test_a_checkpoint_that_did_not_know_a_setting_goes_on(tmp_path: Path) -> None:
    half_way(tmp_path, tiny(engine="pyro", step_size=0.05))
    path = tmp_path / "cells" / "cell" / "checkpoint.safetensors"
    arrays, facts = checkpoint.read(path)
    assert facts["identity"]["settings"].pop("initial_scale") == 1.0
    path.write_bytes(checkpoint.pack(arrays, facts))
    other = tiny(engine="pyro", step_size=0.05, initial_scale=2.0)
    with pytest.raises(StorageError, match=r"initial_scale: 1\.0 there, 2\.0 here"):
        run_cell(job(tmp_path, other), small())
    run_cell(job(tmp_path, tiny(engine="pyro", step_size=0.05)), small())
    assert len(store.read_manifest(tmp_path, "cell")["resumed"]) == 1


@pytest.mark.fault("a checkpoint that is damaged", "said in a line; the cell starts again")
def test_a_damaged_checkpoint_is_left_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = tiny(engine="pyro", step_size=0.05)
    half_way(tmp_path, experiment)
    path = tmp_path / "cells" / "cell" / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert run_cell(job(tmp_path, experiment), small()) == "done"
    assert "it starts again" in capsys.readouterr().err and not path.exists()
    same(unbroken(experiment), run.Result(*finished_cell(tmp_path), "done", {}))


def test_another_version_goes_on_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = tiny(engine="pyro", step_size=0.05)
    half_way(tmp_path, experiment)
    monkeypatch.setattr(store, "versions", lambda: {"torch": "9"})
    run_cell(job(tmp_path, experiment), small())
    assert "torch" in capsys.readouterr().err
    assert "9 now" in store.read_manifest(tmp_path, "cell")["resumed"][0]["changed"]


class InOneFolder(Cell):
    """A cell whose folder does not tell its settings, as one that somebody renamed."""

    name = "cell"


def job(out: Path, experiment: Experiment, data_digest: str = "data") -> Job:
    cell = InOneFolder(*on(experiment, small(), data_digest))
    return Job("test", cell, out, {})


def half_way(out: Path, experiment: Experiment) -> None:
    """Leave a checkpoint as a process does that is killed when it has written its first one."""

    def stop(*_: Any) -> None:
        if (out / "cells" / "cell" / "checkpoint.safetensors").exists():
            raise BrokenError

    with pytest.raises(BrokenError):
        run_cell(replace(job(out, experiment), checkpoint_seconds=0.0), small(), stop)


def finished_cell(out: Path) -> tuple[list[Any], dict[str, Any]]:
    """Return a cell's rows as the run gave them, and its state."""
    expected = unbroken(tiny(engine="pyro", step_size=0.05)).rows
    text = (out / "cells" / "cell" / "rows.csv").read_text()
    assert len(text.splitlines()) == 1 + len(expected)
    return expected, store.load_state(out, "cell")
