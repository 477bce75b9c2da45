"""The benchmark: what it counts and how it is told; the numbers themselves are a machine's."""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import inference
from comparisons.benchmarks import speed, speed_report
from comparisons.benchmarks.peers import Shape, Steps
from comparisons.disk import writing
from comparisons.reporting import markdown
from comparisons.reporting.blocks import Table
from inference import BACKENDS

TINY = Shape(5, 2, n_train=150, minibatch=10, n_x=6)
NAMED = ("contestant", "engine")
PLAN = speed.Plan(repeats=2, seconds=1e-4, threads=1)


@pytest.fixture
def third(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One more engine, which is one of ours by another name; returns the names of all."""
    monkeypatch.setitem(inference.ENGINES, "third", inference.ENGINES["numpyro"])
    return list(inference.ENGINES)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """One shape, and contestants that cost nothing."""

    def idle(*told: Any) -> Steps:
        return lambda number: None

    monkeypatch.setattr(speed, "SHAPES", (TINY,))
    monkeypatch.setattr(speed, "ours", idle)
    monkeypatch.setattr(speed, "step_products", idle)
    monkeypatch.setattr(speed, "em_products", idle)
    monkeypatch.setattr(speed, "peers", lambda shape, x, device: [("by hand", "torch", idle)])
    monkeypatch.setattr(speed, "scans", lambda shape, x, device: [("scan by hand of aevb", "jax", idle)])


def test_every_backend_steps_on_every_engine_beside_the_roofs(small: None, third: list[str]) -> None:
    rows = pd.DataFrame(speed.step(PLAN))
    named = rows.set_index(list(NAMED)).leapfrog_steps.to_dict()
    roofs = {("matrix products", "torch"): 0, ("matrix products of monte_carlo_em", "torch"): 10}
    ours = {(name, engine): 10 * (name == "monte_carlo_em") for name in BACKENDS for engine in third}
    assert named == {**roofs, ("by hand", "torch"): 0, ("scan by hand of aevb", "jax"): 0, **ours}
    assert list(named)[:2] == list(roofs)
    assert all(sorted(each) == ["compile_s", "step_ms", "step_ms"] for _, each in rows.groupby(list(NAMED)).quantity)


def test_growth_is_followed_on_the_backend_that_it_shows_on(
    small: None, third: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every value; where an engine need not compile, at the ends."""
    values = {"n_train": (150, 200, 300), "n_latent": (1, 2, 3), "leapfrog_steps": (1, 2, 3)}
    monkeypatch.setattr(speed, "GROWTH", {axis: (TINY, each) for axis, each in values.items()})
    rows = pd.DataFrame(speed.growth(PLAN))
    shown = rows.groupby("axis", sort=False).contestant.unique().map(list).to_dict()
    assert shown == {"n_train": ["mean_field"], "n_latent": ["aevb"], "leapfrog_steps": ["monte_carlo_em"]}
    for axis, each in values.items():
        for engine in third:
            mine = rows[(rows.axis == axis) & (rows.engine == engine)]
            followed = [each[0], each[-1]] if engine == "pyro" else list(each)
            assert sorted(mine[axis]) == sorted(2 * followed)


def test_growth_and_bound_measure_what_is_there(monkeypatch: pytest.MonkeyPatch, third: list[str]) -> None:
    """With real steps and bounds on a small shape, on an engine by another name."""
    for name in third[:-1]:
        monkeypatch.delitem(inference.ENGINES, name)
    monkeypatch.setattr(speed, "SHAPES", (TINY,))
    monkeypatch.setattr(speed, "GROWTH", {"n_hidden": (TINY, (5,))})
    monkeypatch.setattr(speed, "DRAWS", (2,))
    monkeypatch.setattr(speed, "leaps", lambda engine, backend: False)
    grown = list(speed.growth(PLAN))
    assert len(grown) == PLAN.repeats and all(row["value"] > 0 and row["axis"] == "n_hidden" for row in grown)
    bounds = [(row["engine"], row["draws"], row["repeat"]) for row in speed.bound(PLAN)]
    assert bounds == [("third", 2, repeat) for repeat in range(PLAN.repeats)]


def test_a_grids_ways_take_turns_without_our_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []

    def run(command: list[str], env: dict[str, str], **_: Any) -> None:
        assert "OMP_NUM_THREADS" not in env
        commands.append(command)

    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(speed.subprocess, "run", run)
    rows = pd.DataFrame(speed.grid(replace(PLAN, repeats=9, cells=16, threads=2)))
    assert ["--workers" in command for command in commands] == [True, False] * speed.GRID_TURNS
    assert (rows.cells == 16).all() and commands[0][commands[0].index("--seeds") :][1:3] == ["0", "1"]
    seconds, rate = (rows[rows.quantity == name].value.to_numpy() for name in ("grid_s", "cells_per_hour"))
    np.testing.assert_allclose(rate * seconds, 16 * 3600)


def test_memory_is_that_of_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch, third: list[str]) -> None:
    def run(command: list[str], **_: Any) -> Any:
        programs.append(compile(command[-1], "alone", "exec"))
        return SimpleNamespace(stdout="1000000\n2500000\n")

    programs: list[Any] = []
    monkeypatch.setattr(speed.subprocess, "run", run)
    rows = pd.DataFrame(speed.memory(PLAN))
    assert list(rows.engine) == third and (rows.value == 2.5).all() and (rows.contestant == "aevb").all()
    assert len(programs) == len(third)


def test_a_part_takes_the_place_of_its_rows_and_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also those of a part that is measured no more."""
    told = {"engine": "numpyro", **TINY._asdict(), "repeat": 0}
    for part in ("seeds", "bound"):
        row = {"part": part, "contestant": "one seed", **told, "draws": 2, "quantity": "bound_s", "value": 1.0}
        writing.write_rows(tmp_path / "parts" / f"{part}.csv", [row])
    new = {"contestant": "bound", **told, "draws": 4, "quantity": "bound_s", "value": 7.0}
    monkeypatch.setitem(speed.MEASURE, "bound", lambda plan: iter([new]))
    monkeypatch.setattr(speed.inference, "engine", lambda *told: None)
    monkeypatch.setattr(speed.os, "environ", {**os.environ})
    assert speed.measure(replace(PLAN, parts=("bound",)), tmp_path, None) == 0
    rows = pd.read_csv(tmp_path / "rows.csv")
    assert rows.part.tolist() == ["seeds", "bound"] and rows.value.tolist() == [1.0, 7.0]
    assert json.loads((tmp_path / "parts" / "bound.json").read_text())["plan"]["repeats"] == 2
    printed, said = capsys.readouterr()
    assert said.endswith(f"report --out {tmp_path.parent}\n")
    assert "| 4 | 7.00 |" in (tmp_path / "table.md").read_text() and json.loads(printed.splitlines()[-1]) == {}


def measured() -> pd.DataFrame:
    """Rows in which every median is known."""
    rows: list[dict[str, Any]] = []
    torch = {speed_report.ROOF: 1.0, f"{speed_report.OWN}monte_carlo_em": 5.0, "by hand": 3.0}
    pyro = {"SVI, Trace_ELBO": 8.0, "SVI, CompiledELBO": 4.0, "aevb": 1.5, "wake_sleep": 2.4, "monte_carlo_em": 10.0}
    numpyro = {"SVI, Python loop": 2.5, "aevb": 1.25, "wake_sleep": 2.0, "monte_carlo_em": 9.0}
    libraries = {"torch": torch, "pyro": pyro, "numpyro": numpyro}
    ms = {(name, library): value for library, each in libraries.items() for name, value in each.items()}
    told = {"n_hidden": 100, "n_latent": 3, "minibatch": 100, "leapfrog_steps": 0, "n_x": 784, "threads": 2}
    for (name, engine), value in ms.items():
        one = {"part": "step", "contestant": name, "engine": engine, **told, "n_train": 50_000}
        rows.append({**one, "quantity": "compile_s", "repeat": 0, "value": 7.0})
        rows += [{**one, "quantity": "step_ms", "repeat": r, "value": value * f} for r, f in enumerate((0.9, 1.0, 5.0))]
    for n, value in ((1000, 2.0), (1_000_000, 2.1)):
        one = {"part": "growth", "axis": "n_train", "contestant": "mean_field", "engine": "numpyro", **told}
        rows.append({**one, "n_train": n, "quantity": "step_ms", "repeat": 0, "value": value})
    for name, value in (("2 workers of one thread", 60.0), ("one at a time, 2 threads", 100.0)):
        one = {"part": "grid", "contestant": name, "cells": 16, "repeat": 0}
        rows.append({**one, "quantity": "grid_s", "value": value})
        rows.append({**one, "quantity": "cells_per_hour", "value": 3600 * 16 / value})
    return pd.DataFrame(rows)


def test_ratios_are_of_medians() -> None:
    found = speed_report.ratios(measured())
    assert (
        found["100/3, 2 threads: aevb numpyro / its products"] == 1.25
        and found["100/3, 2 threads: aevb pyro / its products"] == 1.5
    )
    assert found["100/3, 2 threads: SVI, Trace_ELBO pyro / aevb pyro"] == pytest.approx(8 / 1.5, abs=1e-3)
    assert found["100/3, 2 threads: wake_sleep pyro / aevb pyro"] == 1.6
    assert found["100/3, 2 threads: monte_carlo_em pyro / its products"] == 2.0
    assert found["mean_field numpyro, N = 1,000,000 / 1,000"] == 1.05
    assert found["grid, 2 workers of one thread / one at a time, 2 threads"] == 0.6


def test_a_step_is_held_against_the_same_by_hand() -> None:
    rows = measured()
    assert not any("its scan by hand" in name for name in speed_report.ratios(rows))
    mine = rows.query("contestant == 'aevb' and engine == 'numpyro' and part == 'step'")
    by_hand = mine.assign(contestant="scan by hand of aevb", engine="jax", value=0.8 * mine.value)
    both = pd.concat([rows, by_hand])
    found = speed_report.ratios(both)
    assert found["100/3, 2 threads: aevb numpyro / its scan by hand"] == 1.25
    assert found["100/3, 2 threads: aevb pyro / its scan by hand"] == 1.5
    assert sum("scan by hand" in name for name in found) == 2
    table = next(
        block for block in speed_report.blocks(both) if "same step by hand" in (getattr(block, "caption", "") or "")
    )
    assert isinstance(table, Table) and table.body == [["aevb", "1.00", "1.50 x", "1.25 x"]]


def test_the_report_is_a_function_of_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    measured().to_csv(path, index=False)
    rows = speed_report.read([path])
    text = markdown.printed(speed_report.blocks(rows))
    assert "| aevb, numpyro | 1.25 | 1.12 | 6.25 | 1.25 x | 6.40 x | 2.40 x |" in text and "first steps, s 7.0." in text
    assert "1,000: 2.00, 1,000,000: 2.10" in text and "| 960 |" in text
    assert speed_report.figure(rows) == speed_report.figure(speed_report.read([path]))
    empty = rows[rows.part == "nothing"]
    assert speed_report.blocks(empty) == [] and speed_report.ratios(empty) == {}


def test_half_a_part_is_kept_and_never_takes_a_whole_ones_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut() -> Iterator[dict[str, Any]]:
        yield {"quantity": "step_ms", "value": 1.0}
        raise KeyboardInterrupt

    monkeypatch.setattr(speed, "report", lambda out: {})
    plan = replace(PLAN, parts=("step",))

    def measured(*_: Any) -> Iterator[dict[str, Any]]:
        return cut() if next(turns) else iter([{"value": 2.0}, {"value": 3.0}])

    monkeypatch.setitem(speed.MEASURE, "step", measured)
    turns = iter((True, False, True))
    for rows, done in ((1, False), (2, True), (2, True)):
        with contextlib.suppress(KeyboardInterrupt):
            speed.measure(plan, tmp_path, None)
        assert len(pd.read_csv(tmp_path / "parts" / "step-1.csv")) == rows
        assert json.loads((tmp_path / "parts" / "step-1.json").read_text())["done"] is done


def test_steps_of_several_numbers_of_threads_lie_side_by_side(tmp_path: Path) -> None:
    two, one = measured(), measured().query("part == 'step'").assign(threads=1)
    one.value *= 2.0
    (tmp_path / "parts").mkdir()
    two.drop(columns="threads").to_csv(tmp_path / "parts" / "step.csv", index=False)  # as the first rows were
    one.to_csv(tmp_path / "parts" / "step-1.csv", index=False)
    found = speed.report(tmp_path)
    assert found["100/3, 1 thread: aevb numpyro / its products"] == 1.25
    text = (tmp_path / "table.md").read_text()
    order = ["100, 2 threads", "Trace_ELBO | 8.00 |", "100, 1 thread", "Trace_ELBO | 16.00 |"]
    assert sorted(order, key=text.index) == order
