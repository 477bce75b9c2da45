"""A dry run: which cells would run and how long they take, from what lies there; nothing is run, written or fetched."""

import re
from pathlib import Path
from typing import Any

import pooch
import pytest
from tiny_runs import small, tiny

from comparisons import full_vb, lower_bound, marginal_likelihood
from comparisons.data import load
from comparisons.errors import FlagError
from comparisons.runner import ahead, store
from comparisons.runner.cell import on
from comparisons.runner.grid import parse
from comparisons.runner.jobs import Job
from comparisons.runner.rows import BLANK

HERE = {"processor": "of this kind"}


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("comparisons.runner.grid._run", "comparisons.runner.grid.writing.prepare"):
        monkeypatch.setattr(name, lambda *_: pytest.fail("it runs"))
    monkeypatch.setattr(pooch, "retrieve", lambda *_, **__: pytest.fail("it downloads"))


def job(out: Path, environment: dict[str, Any] = HERE, **settings: Any) -> Job:
    return Job("test", on(tiny(**{"samples": 1000, **settings}), small()), out, environment)


def finish(one: Job, each: float, status: str = "done") -> None:
    """Write a cell as if a training point had taken so long, the rest 3 seconds, and each number a second to judge."""
    rows, e = [], one.cell.experiment
    pilot = 3 * min(e.pilot_steps, one.cell.last) * e.minibatch if e.step_size == "auto" else 0
    for step in one.cell.stops:
        n_seen = step * one.cell.rows_per_step
        times = {"seconds": 1.0 + each * (n_seen + pilot), "compile_seconds": 2.0, "eval_seconds": 1.0}
        rows += [
            {**one.cell.common("test"), **BLANK, **times, "n_seen": n_seen, "split": split, "metric": "elbo_nats"}
            for split in ("train", "test")
        ]
    store.save_cell(one.out, one.cell.name, rows, {**one.manifest, "status": status}, {})


@pytest.mark.parametrize("changes", [{}, {"samples": 5000, "seed": 3}, {"step_size": 0.1}, {"pilot_steps": 7}])
def test_points_stops_and_the_pilot_make_the_time(tmp_path: Path, changes: dict[str, Any]) -> None:
    for seed, each in enumerate((0.01, 0.02, 9.0)):  # the median counts
        finish(job(tmp_path, seed=seed), each)
    one = job(tmp_path, **changes)
    e, last = one.cell.experiment, one.cell.last
    points = e.samples + (30 * min(e.pilot_steps, last) if e.step_size == "auto" else 0)
    found = ahead.estimated(one)
    assert found == pytest.approx(3.0 + 0.02 * points + 2.0 * len(one.cell.stops))


@pytest.mark.parametrize(
    "changes",
    [{"minibatch": 20}, {"n_hidden": 5}, {"backend": "wake_sleep"}, {"engine": "pyro"}, {"eval_points": 20}],
)
def test_other_work_takes_another_time(tmp_path: Path, changes: dict[str, Any]) -> None:
    finish(job(tmp_path), 0.01)
    assert ahead.estimated(job(tmp_path)) and ahead.estimated(job(tmp_path, **changes)) is None


def test_another_machine_an_end_without_numbers_and_other_steps_tell_nothing(tmp_path: Path) -> None:
    finish(job(tmp_path / "slow", {"processor": "another"}), 0.01)
    finish(job(tmp_path / "lost"), 0.01, "diverged")
    finish(job(tmp_path / "plain", engine="pyro"), 0.01)
    assert ahead.estimated(job(tmp_path / "slow")) is None and ahead.estimated(job(tmp_path / "lost")) is None
    assert ahead.estimated(job(tmp_path / "plain", engine="pyro", samples=100_000)) is None  # whose steps are compiled
    finish(one := job(tmp_path / "damaged"), 0.01)
    (one.out / "cells" / one.cell.name / "rows.csv").write_text("n_seen\n")
    assert ahead.estimated(one) is None


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    found = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in found)
    return found


@pytest.mark.parametrize("module", [marginal_likelihood, full_vb, lower_bound])
def test_a_dry_run_lists_and_leaves_nothing(module: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--data", "digits", "--n-train", "500", "--seeds", "0", "1", "--dry-run", "--out", str(tmp_path / "out")]
    assert module.main(flags) == 0
    cells = [line for line in lines(capsys) if line.startswith("digits ")]
    asked = parse("", "", module.DEFAULTS, flags).experiments
    assert len(cells) == len(asked) and all(line.endswith(" unknown") and " N=500 " in line for line in cells)
    assert not list(tmp_path.iterdir())


def test_what_is_finished_is_marked_and_the_rest_is_summed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--backend", "aevb", "--engine", "numpyro", "pyro", "--seeds", "0", "1", "2", "--evidence", "none"]
    asked = parse("", "", marginal_likelihood.DEFAULTS, flags).experiments
    done = next(e for e in asked if e.engine == "numpyro" and e.seed == 0)
    finish(Job("test", on(done, load("digits")), tmp_path, store.environment()), 1e-3)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    told = [*flags, "--dry-run", "--workers", "2", "--out", str(tmp_path)]
    assert marginal_likelihood.main(told) == 0
    *cells, one, two = lines(capsys)
    text, said = "\n".join(cells), f"{one} {two}"
    assert len(re.findall(r"numpyro seed 0 .* done$", text, re.MULTILINE)) == 1
    assert len(re.findall(r"numpyro seed [12] .* 0:03:\d\d$", text, re.MULTILINE)) == 2
    assert len(re.findall(r" pyro seed \d .* unknown$", text, re.MULTILINE)) == 3
    assert re.fullmatch(
        r"5 of 6 cells would run: 2 in about 0:0[67]:\d\d, .* shared by 2 workers\. .* one seed .*", said
    )
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert marginal_likelihood.main([*told, "--fresh"]) == 0
    assert " done" not in capsys.readouterr().out


def test_data_that_are_not_there_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--data", "mnist", "--data-dir", str(tmp_path / "data"), "--dry-run", "--out", str(tmp_path / "out")]
    assert marginal_likelihood.main(flags) == 0
    (line,) = lines(capsys)
    assert line.startswith("mnist, 8 cells: ") and "missing" in line and not list(tmp_path.iterdir())


@pytest.mark.parametrize("flags", [["--backend", "avb"], ["--minibatch", "5000"], ["--evidence", "exact"], ["--sed"]])
def test_a_wrong_flag_is_refused_as_in_a_run(tmp_path: Path, flags: list[str]) -> None:
    with pytest.raises(FlagError):
        marginal_likelihood.main([*flags, "--dry-run", "--out", str(tmp_path)])


def test_months_fit_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finish(job(tmp_path, seed=1), 1e4)
    ahead.show([job(tmp_path)], fresh=False, workers=1)
    assert " days, " in lines(capsys)[0]


def test_an_interrupted_run_needs_what_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finish(job(tmp_path, seed=1), 1.0)
    one = job(tmp_path)
    store.announce(tmp_path, one.cell.name, one.manifest, fresh=False)
    ahead.show([one], fresh=False, workers=1)
    whole = lines(capsys)[0].split()[-1]
    store.write_progress(tmp_path, one.cell.name, {"n_seen": 500, "doing": "training"})
    ahead.show([one], fresh=False, workers=1)
    half = lines(capsys)[0].split()[-1]
    minutes = [int(time.split(":")[0]) * 60 + int(time.split(":")[1]) for time in (whole, half)]
    assert minutes[0] // 2 == pytest.approx(minutes[1], abs=1)
