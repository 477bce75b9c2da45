"""Runs end to end: what is written for every cell, that it repeats, and what is left when something goes wrong."""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from frames import table_of

from comparisons import cli, marginal_likelihood
from comparisons.data import Data
from comparisons.disk import writing
from comparisons.errors import StorageError
from comparisons.evidence.judge import ESTIMATORS
from comparisons.reporting import figures, outcomes, tables
from comparisons.runner import baselines, grid, run, store
from comparisons.runner.cell import Cell, on
from comparisons.runner.experiment import Experiment, identity
from comparisons.runner.rows import COLUMNS, METRICS
from inference import BACKENDS, ENGINES
from inference.base import Backend, Batch, Engine, Info, Key, Settings, State, pick
from inference.optim import STEP_SIZES
from models.base import Model
from models.vae import VaeBernoulli

# Three steps, the first of which only warms up; all runs below share its shapes, so that nothing compiles twice.
TINY = {
    "--samples": 600,
    "--minibatch": 200,
    "--eval-points": 20,
    "--n-hidden": 8,
    "--fit-steps": 20,
    "--elbo-draws": 4,
    "--warmup": 1,
    "--step-size": 0.05,
}
OF_Q = ("elbo_nats", "kl_z_nats", "active_latents")
CLOCKS = ["seconds", "eval_seconds", "compile_seconds"]


def command(out: Path, *arguments: str) -> int:
    tiny = [text for flag, value in TINY.items() for text in (flag, str(value))]
    return marginal_likelihood.main([*tiny, "--out", str(out), *arguments])


def read(out: Path) -> pd.DataFrame:
    """All rows as text, just as they stand in the file."""
    return pd.read_csv(out / "rows.csv", dtype=str, keep_default_na=False)


def small(name: str, n_train: int = 300, n_x: int = 6, fresh: bool = False) -> Data:
    """Made-up data under the name of a real one."""
    rng = np.random.default_rng(0)
    train, test = rng.random((n_train, n_x), np.float32), rng.random((100, n_x), np.float32)
    if fresh:
        test = (test < 0.5).astype(np.float32)
    return Data(name, train, test, (1, n_x), "binary" if fresh else "unit", "", fresh)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one grid of every backend on every engine."""
    out = tmp_path_factory.mktemp("grid")
    assert command(out, "--backend", "all", "--engine", "all") == 0
    return out


# Every cell


def test_every_cell_writes_its_rows(finished: Path) -> None:
    rows = read(finished)
    assert tuple(rows.columns) == COLUMNS
    assert set(rows.groupby(["backend", "engine"]).groups) == {(b, e) for b in BACKENDS for e in ENGINES}
    assert set(rows.status) == {"ok"} and set(rows.method) == {"warmup=1 minibatch=200 fit_steps=20 step_size=0.05"}
    for backend, part in rows.groupby("backend"):
        expected = {("log_px_quadrature_nats", "train"), ("log_px_quadrature_nats", "test")}
        if backend == "monte_carlo_em":
            expected |= {("hmc_acceptance", "train")}
        else:
            expected |= {(name, split) for name in OF_Q for split in ("train", "test")}
        assert set(zip(part.metric, part.split, strict=True)) == expected
        assert len(part) == len(expected) * 3 * len(ENGINES) and set(part.n_seen) == {"200", "400", "600"}


def test_every_number_is_finite_and_in_its_range(finished: Path) -> None:
    rows = pd.read_csv(finished / "rows.csv", keep_default_na=False)
    for name in (
        "value",
        "stderr",
        "seconds",
        "step_size",
        "decoder_evals",
        "fit_steps",
        "eval_seconds",
        "compile_seconds",
    ):
        assert np.isfinite(rows[name]).all(), name
    assert (rows.stderr >= 0).all() and (rows.eval_seconds >= 0).all() and (rows.step_size == 0.05).all()
    nats = rows[rows.metric.str.endswith("_nats")]
    kl = nats.metric == "kl_z_nats"
    assert nats.value[~kl].between(-100, 0).all() and (nats.n_points == 20).all()
    assert (nats.value > -5 * nats.stderr)[kl].all() and (nats.value < 100)[kl].all()
    assert set(rows[rows.metric == "active_latents"].value) <= {0.0, 1.0, 2.0, 3.0}
    assert rows[rows.metric == "hmc_acceptance"].value.between(0, 1).all()
    fitted = rows[(rows.backend == "mean_field") & (rows.metric == "elbo_nats") & (rows.split == "test")]
    assert set(fitted.fit_steps) == {20} and (rows.drop(fitted.index).fit_steps == 0).all()
    assert (rows[rows.engine == "pyro"].compile_seconds == 0).all()  # not compiled
    for _, cell in rows.groupby("cell"):
        assert cell.compile_seconds.is_monotonic_increasing
        assert cell.seconds.is_monotonic_increasing and cell.decoder_evals.is_monotonic_increasing


def test_no_bound_exceeds_the_evidence(finished: Path) -> None:
    rows = pd.read_csv(finished / "rows.csv", keep_default_na=False)
    wide = rows.pivot_table(index=["cell", "split", "n_seen"], columns="metric", values=["value", "stderr"]).dropna(
        subset=[("value", "elbo_nats")]
    )
    value, stderr = wide["value"], wide["stderr"]
    excess = value["elbo_nats"] - value["log_px_quadrature_nats"]
    assert len(excess) == 3 * len(ENGINES) * 2 * 3
    assert (excess <= 5 * np.hypot(stderr["elbo_nats"], stderr["log_px_quadrature_nats"])).all()


def test_the_engines_count_the_same_work(finished: Path) -> None:
    rows = read(finished)
    for _, part in rows.groupby(["backend", "n_seen"]):
        assert part.decoder_evals.nunique() == 1


def test_tables_and_figures_are_written(finished: Path) -> None:
    lines = [line for line in (finished / "table.md").read_text().splitlines() if line.startswith("|")]
    assert len(lines) == 3 + len(BACKENDS) * len(ENGINES)  # a head, its rule, and what ignores z
    table = pd.read_csv(finished / "table.csv", keep_default_na=False)
    assert len(table) == len(BACKENDS) * len(ENGINES) and set(table.n_seen) == {600}
    assert ElementTree.parse(finished / "figure.svg").getroot().tag.endswith("svg")


def test_tables_and_figures_are_a_pure_function_of_the_rows(finished: Path) -> None:
    rows = store.collect(finished)
    known = baselines.read(finished)
    assert table_of(outcomes.explained(rows, finished), known) == (finished / "table.md").read_text()
    assert figures.learning_curves(rows) == (finished / "figure.svg").read_text()
    assert tables.summary(rows, known).to_csv(index=False, lineterminator="\n") == (finished / "table.csv").read_text()


def test_numbers_of_an_earlier_version_make_way_for_those_of_a_later_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both cells lie there; a seed is not counted twice, and nothing makes way before the later one is finished."""
    monkeypatch.setattr("comparisons.runner.experiment.NUMBERS_VERSION", 1)
    for name, card in ESTIMATORS.items():
        monkeypatch.setitem(ESTIMATORS, name, card._replace(version=1))
    assert command(tmp_path, "--backend", "wake_sleep", "--engine", "pyro", "--seeds", "0", "1") == 0
    first = set(read(tmp_path).cell)
    monkeypatch.undo()
    assert command(tmp_path, "--backend", "wake_sleep", "--engine", "pyro") == 0
    both = read(tmp_path)
    assert len({path.name for path in (tmp_path / "cells").iterdir()}) == 3
    assert len(both.groupby("seed").cell.unique()) == both.cell.nunique() == 2
    assert len(set(both.cell) & first) == 1
    later = next(iter(set(both.cell) - first))
    manifest = store.read_manifest(tmp_path, later)
    writing.write_json(tmp_path / "cells" / later / "manifest.json", {**manifest, "status": "running"})
    assert store.superseded(tmp_path) == set()


def test_gathering_again_changes_no_byte(finished: Path) -> None:
    before = (finished / "rows.csv").read_bytes()
    store.collect(finished)
    assert (finished / "rows.csv").read_bytes() == before
    parts = [path.read_text().splitlines()[1:] for path in sorted((finished / "cells").glob("*/rows.csv"))]
    assert before.decode().splitlines()[1:] == [line for part in parts for line in part]


def test_a_second_run_gives_the_same_numbers(finished: Path, tmp_path: Path) -> None:
    assert command(tmp_path, "--backend", "all", "--engine", "all") == 0
    pd.testing.assert_frame_equal(read(tmp_path).drop(columns=CLOCKS), read(finished).drop(columns=CLOCKS))


def test_the_fitted_model_reloads(finished: Path) -> None:
    shapes = {"w1": (3, 8), "b1": (8,), "w2": (8, 64), "b2": (64,)}
    cells = sorted(path.name for path in (finished / "cells").iterdir())
    assert len(cells) == len(BACKENDS) * len(ENGINES) and set(cells) == set(read(finished).cell)
    for cell in cells:
        theta = store.load_state(finished, cell)["params"]
        theta = pick(theta, "theta")
        assert {name: value.shape for name, value in theta.items()} == shapes
        assert all(value.dtype == np.float32 and np.isfinite(value).all() for value in theta.values())


def test_a_manifest_says_what_a_number_depends_on(finished: Path) -> None:
    import json

    for cell in (finished / "cells").iterdir():
        manifest = json.loads((cell / "manifest.json").read_text())
        assert {"settings", "data_digest", "versions", "python", "processor", "commit", "command"} <= set(manifest)
        assert identity(Experiment(**manifest["settings"]), manifest["data_digest"]) == cell.name


# Choices


def test_the_step_size_is_chosen_among_the_papers(tmp_path: Path) -> None:
    assert command(tmp_path, "--step-size", "auto", "--backend", "aevb", "--engine", "pyro", "--evidence", "none") == 0
    (chosen,) = set(read(tmp_path).step_size)
    assert float(chosen) in STEP_SIZES["adagrad"]


def test_the_best_step_size_is_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One that does not move, one that does, and one that diverges."""
    monkeypatch.setitem(STEP_SIZES, "adagrad", (1e-9, 0.05, 1e8))
    flags = ["--step-size", "auto", "--backend", "aevb", "--engine", "pyro", "--evidence", "none"]
    assert command(tmp_path, *flags, "--samples", "2000") == 0
    assert set(read(tmp_path).step_size) == {"0.05"}
    (cell,) = (tmp_path / "cells").iterdir()
    pilot = store.read_manifest(tmp_path, cell.name)["pilot"]
    still, best, lost = (float(pilot[size]) for size in ("1e-09", "0.05", "100000000.0"))
    assert best > still > lost == -math.inf


def test_initial_values_are_the_models_times_their_scale(tmp_path: Path) -> None:
    flags = ["--warmup", "100", "--backend", "wake_sleep", "--engine", "pyro", "--evidence", "none"]  # nothing moves
    assert command(tmp_path, *flags, "--initial-scale", "10") == 0
    (cell,) = (tmp_path / "cells").iterdir()
    params = store.load_state(tmp_path, cell.name)["params"]
    for group, values in zip(("theta", "phi"), VaeBernoulli(64, 3, 8).init(0), strict=True):
        for name, value in values.items():
            np.testing.assert_array_equal(pick(params, group)[name], np.float32(10) * value)
    assert {"initial_scale=10.0" in method for method in read(tmp_path).method} == {True}


def test_steps_that_are_all_of_the_warm_up_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Monte Carlo EM moves theta five times a step, and so beyond it; the others' bounds are of where they began."""
    flags = ["--backend", "aevb", "monte_carlo_em", "--engine", "pyro", "--evidence", "none"]
    assert command(tmp_path, *flags, "--warmup", "10") == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "warm-up" in line]
    assert told == [
        "aevb: all 3 steps are of the warm-up of 10, in which nothing moves; raise --samples well above 2,000, or "
        "lower --warmup"
    ]
    cells = [*(tmp_path / "cells").iterdir()]
    assert len(cells) == 2
    for cell in cells:
        reached = pick(store.load_state(tmp_path, cell.name)["params"], "theta")["w1"]
        assert np.array_equal(reached, VaeBernoulli(64, 3, 8).init(0)[0]["w1"]) == ("aevb" in cell.name)


def test_known_theta_is_judged_exactly(tmp_path: Path) -> None:
    assert command(tmp_path, "--data", "synthetic", "--backend", "aevb", "monte_carlo_em", "--engine", "pyro") == 0
    rows = read(tmp_path)
    evidence = rows[rows.metric == "log_px_exact_nats"]
    assert set(rows.model) == {"linear_gaussian"} and len(evidence) == 2 * 2 * 3
    assert set(evidence.stderr.astype(float)) == {0.0}


def test_grey_film_has_a_gaussian_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "load", lambda name, folder: small(name))
    flags = ["--data", "frey", "--backend", "all", "--engine", "pyro", "--n-latent", "2"]
    assert command(tmp_path, *flags) == 0
    rows = read(tmp_path)
    assert set(rows.model) == {"vae_gaussian"} and set(rows.status) == {"ok"}
    assert "log_px_quadrature_nats" in set(rows.metric)


def test_each_visit_binarises_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training sees 0 and 1 in the proportions of the grey values, another draw at each visit."""
    visits: list[np.ndarray] = []
    card = BACKENDS["aevb"]

    def spying(engine: Engine, model: Model, settings: Settings) -> Backend:
        backend = card.build(engine, model, settings)

        def step(key: Key, state: State, batch: Batch) -> tuple[State, Info]:
            visit = np.full(data.train.shape, np.nan)
            visit[engine.numpy(batch.indices)] = engine.numpy(batch.x)
            visits.append(visit)
            return backend.step(key, state, batch)

        return backend._replace(step=step)

    monkeypatch.setitem(BACKENDS, "aevb", card._replace(build=spying))
    data = small("mnist_binary", n_train=100, fresh=True)
    experiment = Experiment(
        data="mnist_binary", engine="pyro", samples=4000, minibatch=100, n_hidden=5, n_latent=2, step_size=0.05,
        eval_points=20, elbo_draws=4, evidence=("none",),
    )  # fmt: skip
    *_, last = run.run("test", on(experiment, data), data)
    assert len(visits) == 40 and all(set(np.unique(visit)) == {0.0, 1.0} for visit in visits)
    mean, stderr = np.mean(visits, 0), np.sqrt(data.train * (1 - data.train) / 40)
    assert abs((mean - data.train).sum()) < 5 * np.sqrt(np.square(stderr).sum())
    assert np.abs(mean - data.train).max() < 0.5 and not np.array_equal(visits[0], visits[1])
    assert {row["status"] for row in last.rows} == {"ok"}


def test_fresh_data_run_through_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "load", lambda name, folder: small(name, fresh=True))
    flags = ["--data", "mnist_binary", "--backend", "all", "--engine", "pyro", "--n-latent", "2"]
    assert command(tmp_path, *flags) == 0
    rows = read(tmp_path)
    assert set(rows.status) == {"ok"} and "cross-entropy" not in (tmp_path / "table.md").read_text()


def test_a_full_e_step_runs_through_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "load", lambda name, folder: small(name))
    flags = ["--data", "mnist", "--backend", "monte_carlo_em", "--engine", "pyro", "--e-step", "full"]
    assert command(tmp_path, *flags, "--n-latent", "2") == 0
    assert set(read(tmp_path).n_seen) == {"300", "600"}


# Runs that go wrong


@pytest.mark.fault("data in which every value is the same", "finite rows from every backend on both engines")
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_constant_data(value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    same = np.full((300, 6), value, np.float32)
    data = Data("digits", same, same[:100], (1, 6), "unit", "", False)
    monkeypatch.setattr(grid, "load", lambda *_: data)
    assert command(tmp_path, "--backend", "all", "--engine", "all", "--n-latent", "2") == 0
    rows = read(tmp_path)
    assert set(rows.status) == {"ok"} and np.isfinite(rows.value.astype(float)).all()
    assert set(rows.backend) == set(BACKENDS) and set(rows.engine) == set(ENGINES)


@pytest.mark.fault("a step size of a million", "rows say that the run diverged, or hold finite numbers")
@pytest.mark.parametrize("engine", ENGINES)
def test_a_step_size_of_a_million(engine: str, tmp_path: Path) -> None:
    code = command(tmp_path, "--step-size", "1e6", "--backend", "all", "--engine", engine, "--evidence", "none")
    rows = read(tmp_path)
    assert code == (1 if "diverged" in set(rows.status) else 0) and set(rows.backend) == set(BACKENDS)
    assert np.isfinite(rows[rows.status == "ok"].value.astype(float)).all()
    assert set(rows[rows.status == "diverged"].value) <= {""}


@pytest.mark.fault("a run that diverges", "rows say so, the others finish, exit code 1")
def test_a_run_that_diverges_says_so_and_the_others_finish(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    flags = ["--step-size", "1e8", "--backend", "wake_sleep", "monte_carlo_em", "--evidence", "none"]
    assert command(tmp_path, *flags, "--engine", "all") == 1
    rows = read(tmp_path)
    lost, others = rows[rows.backend == "wake_sleep"], rows[rows.backend == "monte_carlo_em"]
    assert set(others.status) == {"ok"} and set(others.engine) == set(ENGINES) and "600" in set(others.n_seen)
    for _, cell in lost.groupby("engine"):
        end = cell[cell.status == "diverged"]
        assert set(zip(end.metric, end.split, strict=True)) == {
            (name, split) for name in OF_Q for split in ("train", "test")
        }
        assert set(end.value) == {""} and set(end.stderr) == {""}
        assert end.n_seen.astype(int).min() == cell.n_seen.astype(int).max()
    assert set(lost.engine) == set(ENGINES)
    assert "diverged" in (tmp_path / "table.md").read_text()
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert "wake_sleep" in last and "--step-size" in last and "monte_carlo_em" not in last


def test_a_run_without_any_step_size_that_works_diverges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STEP_SIZES, "adagrad", (1e8, 1e9))
    flags = ["--step-size", "auto", "--backend", "wake_sleep", "--engine", "pyro"]
    assert command(tmp_path, *flags) == 1
    rows = read(tmp_path)
    assert set(rows.status) == {"diverged"} and set(rows.value) == {""} and set(rows.step_size) == {""}
    assert "diverged" in (tmp_path / "table.md").read_text()


def test_what_came_before_an_interruption_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C during the second cell, after its first checkpoint."""
    whole = run.run

    def interrupted(comparison: str, cell: Cell, *args: Any) -> Iterator[run.Result]:
        for result in whole(comparison, cell, *args):
            yield result
            if cell.experiment.seed == 1:
                raise KeyboardInterrupt

    monkeypatch.setattr(run, "run", interrupted)
    with pytest.raises(SystemExit) as caught:
        cli.main(lambda: command(tmp_path, "--backend", "aevb", "--engine", "pyro", "--seeds", "0", "1", "2"))
    assert caught.value.code == 130
    rows = read(tmp_path)
    assert {seed: set(part.n_seen) for seed, part in rows.groupby("seed")} == {
        "0": {"200", "400", "600"}, "1": {"200"},
    }  # fmt: skip
    assert (tmp_path / "table.md").exists() and (tmp_path / "figure.svg").exists()
    err = capfd.readouterr().err
    assert "interrupted" in err.splitlines()[-1] and "Traceback" not in err


# Storage


def no_space(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("fault", [(os, "fsync"), (os, "replace")], ids=["fsync", "rename"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: tuple[Any, str]
) -> None:
    path = tmp_path / "rows.csv"
    writing.write(path, "old")
    monkeypatch.setattr(*fault, no_space)
    with pytest.raises(StorageError, match="No space left on device") as caught:
        writing.write(path, "new" * 1000)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_write_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "below" / "table.md"
    writing.write(path, "a longer text")
    writing.write(path, "é".encode())
    assert path.read_bytes() == "é".encode() and list(path.parent.iterdir()) == [path]


def test_a_state_reloads_bit_for_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    params: dict[str, np.ndarray] = {"theta.w": rng.standard_normal((3, 4), np.float32), "transposed": np.eye(3, 4).T}
    scalar = np.array(math.pi, np.float32)
    store.save_cell(tmp_path, "cell", [], {}, {"params": params, "optimizer": {"sum": params}, "step_size": scalar})
    found = store.load_state(tmp_path, "cell")
    assert set(found) == {"params", "optimizer", "step_size"}
    assert found["step_size"].shape == () and found["step_size"] == scalar
    for group in (found["params"], found["optimizer"]["sum"]):
        assert set(group) == set(params)
        for name, value in params.items():
            assert group[name].dtype == value.dtype
            np.testing.assert_array_equal(group[name], value)


@pytest.mark.parametrize("damage", [None, b"", b"damaged"])
def test_a_state_that_is_gone_or_damaged_is_a_storage_error(tmp_path: Path, damage: bytes | None) -> None:
    path = tmp_path / "cells" / "cell" / "state.safetensors"
    path.parent.mkdir(parents=True)
    if damage is not None:
        path.write_bytes(damage)
    with pytest.raises(StorageError, match="state"):
        store.load_state(tmp_path, "cell")


@pytest.mark.parametrize("damage", [b"", b"a,b\n1,2\n", b"\xff\xfe"])
def test_a_damaged_row_file_is_a_storage_error_and_none_of_the_rows_that_count(
    tmp_path: Path, damage: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cells" / "cell" / "rows.csv"
    path.parent.mkdir(parents=True)
    path.write_bytes(damage)
    with pytest.raises(StorageError) as caught:
        store.read_rows(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert store.collect(tmp_path).empty
    assert capsys.readouterr().err.startswith("cell is damaged, and not counted: ")


def test_no_rows_are_an_empty_table(tmp_path: Path) -> None:
    assert tuple(store.collect(tmp_path).columns) == COLUMNS


def test_every_name_of_a_row_is_documented() -> None:
    needed = (
        "comparison model data n_train n_latent n_hidden backend engine seed n_seen split metric value stderr seconds "
        "status"
    )
    assert set(needed.split()) <= set(COLUMNS) and len(set(COLUMNS)) == len(COLUMNS)
    assert {f"log_px_{name}_nats" for name in ESTIMATORS} <= set(METRICS)


def test_a_report_that_breaks_takes_no_run_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its rows are there, the next grid runs, one line says where; a reader who has gone is none of its faults."""
    flags = ["--samples", "100", "--n-hidden", "4", "--eval-points", "4", "--elbo-draws", "2", "--step-size", "0.01"]
    flags += ["--engine", "pyro", "--backend", "aevb", "--evidence", "none"]
    requests = [grid.parse("fit", "", {}, [*flags, "--out", str(tmp_path / name)]) for name in ("one", "two")]

    def report(rows: Any, out: Path, mine: Any) -> str:
        if out.name == "one":
            raise KeyError("usetex")
        return "the table"

    assert grid.run_grids(requests, report) == 1
    out, err = capfd.readouterr()
    assert out == "the table\n" and "the report of" in err and "KeyError" in err
    assert len(store.collect(tmp_path / "one")) and len(store.collect(tmp_path / "two"))


@pytest.mark.parametrize(
    ("evidence", "metric", "words"),
    [
        ("quadrature", "log_px_quadrature_nats", "log p(x)"),
        ("none", "elbo_nats", "lower bound"),
    ],
)
def test_what_a_cell_came_to_is_on_the_screen_when_it_has(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], evidence: str, metric: str, words: str
) -> None:
    """The number of its end that a table compares by, before the table: for each cell, once."""
    arguments = ["--backend", "aevb", "--engine", "pyro", "--seeds", "0", "1", "--evidence", evidence]
    assert command(tmp_path, *arguments) == 0
    lines = [line for line in capfd.readouterr().err.splitlines() if f"{words} on test" in line]
    rows = pd.read_csv(tmp_path / "rows.csv")
    rows = rows[(rows.metric == metric) & (rows.split == "test") & (rows.n_seen == rows.n_seen.max())]
    expected = [f"seed {row.seed}: {words} on test {row.value:.2f}" for row in rows.itertuples()]
    assert sorted(line[line.index("seed") :] for line in lines) == sorted(expected)
    assert command(tmp_path, *arguments) == 0  # reused
    assert f"{words} on test" not in capfd.readouterr().err
