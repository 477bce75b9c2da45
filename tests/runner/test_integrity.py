"""What is shown comes from cells that are as they were written; two commands and a Ctrl-C lose none of it."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import pandas as pd
import pytest

from comparisons import marginal_likelihood, report, status
from comparisons.benchmarks import pieces
from comparisons.errors import StorageError
from comparisons.paper import found
from comparisons.reporting import folder
from comparisons.runner import grid, jobs, run, store

REPORTS = Path(__file__).parents[2] / "reports"
FLAGS = [
    *("--data", "digits", "--samples", "300", "--n-hidden", "4", "--eval-points", "4", "--elbo-draws", "2"),
    *("--step-size", "0.01", "--engine", "pyro", "--backend", "aevb", "--evidence", "none"),
    *("--checkpoint-seconds", "0"),
]


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grid of one cell."""
    out = tmp_path_factory.mktemp("grown") / "marginal_likelihood"
    assert marginal_likelihood.main([*FLAGS, "--out", str(out)]) == 0
    return out


@pytest.fixture
def out(grown: Path, tmp_path: Path) -> Path:
    copytree(grown, tmp_path / "marginal_likelihood")
    return tmp_path / "marginal_likelihood"


@pytest.fixture
def published(tmp_path: Path) -> Path:
    copytree(REPORTS / "full_vb", tmp_path / "reports" / "full_vb")
    return tmp_path / "reports" / "full_vb"


def one(out: Path) -> Path:
    return min(path for path in (out / "cells").iterdir() if path.is_dir())


def digit(path: Path) -> None:
    """Edit one digit of a file's first number of a bound."""
    head, line, *rest = path.read_text().splitlines()
    fields, at = line.split(","), head.split(",").index("value")
    fields[at] = fields[at][:-1] + str((int(fields[at][-1]) + 1) % 10)
    path.write_text("\n".join([head, ",".join(fields), *rest]) + "\n")


def again(manifest: Path, **changes: Any) -> None:
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **changes}))


def renamed(cell: Path) -> None:
    cell.rename(cell.with_name("another"))


def copied(cell: Path) -> None:
    copytree(cell, cell.with_name(cell.name.replace("seed0", "seed7")))


def reseeded(cell: Path) -> None:
    told = json.loads((cell / "manifest.json").read_text())
    again(cell / "manifest.json", settings={**told["settings"], "seed": 9})


def broken(cell: Path) -> None:
    digit(cell / "rows.csv")
    (cell / "manifest.json").write_text("{")


EDITS: dict[str, Callable[[Path], Any]] = {
    "a digit of its rows": lambda cell: digit(cell / "rows.csv"),
    "rows beside a broken manifest": broken,
    "no manifest": lambda cell: (cell / "manifest.json").unlink(),
    "a renamed folder": renamed,
    "a copied folder": copied,
    "another seed in its settings": reseeded,
    "other data": lambda cell: again(cell / "manifest.json", data_digest="0" * 64),
    "another version": lambda cell: again(cell / "manifest.json", numbers_version=99),
    "no sums": lambda cell: again(cell / "manifest.json", files={}),
    "another cell's rows": lambda cell: shutil.copy(max(cell.parent.iterdir()) / "rows.csv", cell),
}


@pytest.mark.fault("a cell that was edited, renamed or copied", "said, and not counted")
@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_a_cell_that_is_not_as_written_is_said_and_not_counted(
    edit: Callable[[Path], Any], published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(one(published))
    rows = store.collect(published)
    assert rows.cell.nunique() == (6 if edit is copied else 5)
    assert len(rows) == len(rows.drop_duplicates(["cell", "n_seen", "split", "metric"]))
    assert capsys.readouterr().err.count("is damaged, and not counted: ") == 1
    assert status.main([str(published)]) == 1
    assert "1 damaged" in capsys.readouterr().out


@pytest.mark.fault("a digit edited in collected rows", "the report has what the cells hold, and says so")
def test_edited_rows_make_way_for_those_of_the_cells(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = found.believed(published)
    assert capsys.readouterr().err == ""
    digit(published / "rows.csv")
    pd.testing.assert_frame_equal(found.believed(published), before)
    assert "differs from its cells" in capsys.readouterr().err
    assert report.main(["--out", str(published.parent)]) == 0


@pytest.mark.fault("rows or a figure of a comparison swapped", "refused, with the file's name")
@pytest.mark.parametrize("name", ["calibration", "gradient_variance", "speed", "attempts"])
def test_gathered_rows_that_no_part_has_are_refused(name: str, tmp_path: Path) -> None:
    copytree(REPORTS / name, tmp_path / name)
    path = tmp_path / name / "rows.csv"
    assert len(found.extra(path.parent).rows)
    rows = pd.read_csv(path)
    at = next(one for one in ("bias", "value") if one in rows)
    rows.loc[rows[at].first_valid_index(), at] += 0.125
    rows.to_csv(path, index=False)
    with pytest.raises(StorageError, match=f"column {at}"):
        found.extra(path.parent)


@pytest.mark.fault("rows or a figure of a comparison swapped", "refused, with the file's name")
@pytest.mark.parametrize("name", ["rows.csv", "figure.svg"])
def test_a_file_that_was_swapped_is_refused(name: str, tmp_path: Path) -> None:
    new = folder.begin(tmp_path, {"command": "x"})
    (new / "rows.csv").write_text("a\n1\n")
    (new / "figure.svg").write_text("<svg/>")
    folder.complete(tmp_path)
    assert len(found.extra(tmp_path).rows) == 1
    (tmp_path / name).write_text("a\n2\n")
    with pytest.raises(StorageError, match=name):
        found.extra(tmp_path)


def test_a_piece_whose_rows_were_edited_is_run_again(tmp_path: Path) -> None:
    ran = []

    def rows() -> Any:
        ran.append(1)
        yield {"n_latent": 2, "estimator": "e", "settings": "", "bias": 0.1, "sd": 0.1, "coverage": 1, "flagged": 0,
               "seconds_per_1000": 1.0}  # fmt: skip

    piece = pieces.Piece("linear", "2", ("seed",), rows)
    for _ in range(2):
        pieces.run(piece, pieces.Plan(), tmp_path)
    assert len(ran) == 1
    path = tmp_path / "parts" / "linear-2.csv"
    path.write_text(path.read_text().replace("0.1", "0.2", 1))
    pieces.run(piece, pieces.Plan(), tmp_path)
    assert len(ran) == 2


# Two at once, and a folder that goes away


@pytest.mark.fault("two grids in one folder", "both are collected")
def test_a_grid_that_collects_waits_for_another(out: Path) -> None:
    import fcntl

    with store.gathering(out):
        other = os.open(out / "cells", os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(other)


@pytest.mark.parametrize("number", [errno.EBADF, errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_that_locks_no_folder_is_collected(
    out: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    import fcntl

    def refuse(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with store.gathering(out):
        assert len(store.collect(out))


def gone(out: Path) -> None:
    shutil.rmtree(out)


def moved(out: Path) -> None:
    out.rename(out.with_name("moved"))


def replaced(out: Path) -> None:
    moved(out)
    (out / "cells").mkdir(parents=True)


def cell_gone(out: Path) -> None:
    shutil.rmtree(one(out))


def cell_replaced(out: Path) -> None:
    cell = one(out)
    cell.rename(out / "elsewhere")
    cell.mkdir()


@pytest.mark.fault("the folder of results moved, removed or replaced under a run", "one line, exit code 5")
@pytest.mark.parametrize("moment", ["before the first checkpoint", "after the run"])
@pytest.mark.thorough(do=(gone, moved, cell_gone, cell_replaced), moment="after the run")
@pytest.mark.thorough(do=(gone, replaced), moment="before the first checkpoint")
@pytest.mark.parametrize("do", [gone, moved, replaced, cell_gone, cell_replaced])
def test_a_folder_that_goes_away_is_said(
    do: Callable[[Path], None], moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, done = tmp_path / "out", False
    at, name = (jobs.store, "save_checkpoint") if moment.startswith("before") else (jobs.store, "drop_checkpoint")
    usual = getattr(at, name)

    def then(*told: Any, **more: Any) -> None:
        nonlocal done
        usual(*told, **more)
        if not done:
            done = True
            do(out)

    monkeypatch.setattr(at, name, then)
    with pytest.raises(StorageError, match="moved, removed or replaced"):
        marginal_likelihood.main([*FLAGS, "--out", str(out)])
    monkeypatch.undo()
    if do is moved and moment == "after the run":
        assert store.collect(out.with_name("moved")).cell.nunique() == 1
    assert not (out / "rows.csv").exists() or store.collect(out).empty


# Old results stand until new ones are complete


class BreakError(Exception):
    """Something broke."""


@pytest.mark.fault("--fresh, then Ctrl-C or a failure", "the old results stand until the new are complete")
@pytest.mark.thorough(error=StorageError)
@pytest.mark.thorough(error=BreakError, when="at the end")
@pytest.mark.thorough(error=KeyboardInterrupt, when="at the start")
@pytest.mark.parametrize("error", [KeyboardInterrupt, BreakError, StorageError])
@pytest.mark.parametrize("when", ["at the start", "at the end"])
def test_old_results_stand_until_new_ones_are_complete(
    error: type[BaseException], when: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in (one(out) / "rows.csv", one(out) / "manifest.json")}
    usual = run.run

    def breaks(*told: Any, **more: Any) -> Any:
        results = usual(*told, **more)
        if when == "at the end":
            for result in results:
                if result.status == "done":
                    break
                yield result
        raise error("broke")

    monkeypatch.setattr(run, "run", breaks)
    command = [*FLAGS, "--out", str(out), "--fresh"]
    if error is BreakError:
        assert marginal_likelihood.main(command) == 1
    else:
        with pytest.raises(error):
            marginal_likelihood.main(command)
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in before} == before
    assert store.finished(out, one(out).name) and store.collect(out).cell.nunique() == 1
    assert status.main([str(out)]) == (1 if error is BreakError else 0)
    assert marginal_likelihood.main(command[:-1]) == 0  # goes on with the run that was asked for
    assert not store.renewed(out, one(out).name) and status.main([str(out)]) == 0


def test_a_fresh_run_takes_the_place_of_the_old_one(out: Path) -> None:
    digits = (one(out) / "manifest.json").stat().st_mtime_ns
    assert marginal_likelihood.main([*FLAGS, "--out", str(out), "--fresh"]) == 0
    assert (one(out) / "manifest.json").stat().st_mtime_ns > digits and not store.renewed(out, one(out).name)


@pytest.mark.fault("--fresh, then Ctrl-C or a failure", "the old results stand until the new are complete")
@pytest.mark.parametrize("written", [("rows.csv",), ("rows.csv", "table.md"), ()])
def test_a_comparison_that_ends_in_the_middle_leaves_the_old_whole(written: tuple[str, ...], tmp_path: Path) -> None:
    for name in ("rows.csv", "table.md", "figure.svg"):
        (tmp_path / name).write_text("old")
    new = folder.begin(tmp_path, {"command": "new"})
    for name in written:
        (new / name).write_text("new")
    assert {path.read_text() for path in tmp_path.iterdir() if path.is_file()} == {"old"}
    (new / "rows.csv").write_text("newer")
    folder.complete(tmp_path)
    assert (tmp_path / "rows.csv").read_text() == "newer" and not new.exists()


def test_no_command_writes_its_rows_as_they_come() -> None:
    """Rows of a comparison are written beside those of before, or from the parts and cells that hold them."""
    allowed = {"calibration.py", "speed.py", "gradients_report.py", "attempts_report.py"}
    house = Path(grid.__file__).parents[1]
    direct = {
        path.name for room in ("benchmarks", "paper") for path in (house / room).glob("*.py")
        if any("write" in line and 'out / "rows.csv"' in line for line in path.read_text().splitlines())
    }  # fmt: skip
    assert direct <= allowed
