"""What is committed is what the code writes: rows, tables, figures and the report, rebuilt byte for byte."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from comparisons import full_vb, marginal_likelihood, report
from comparisons.benchmarks import calibration, pytorch_example, speed
from comparisons.paper import attempts_report
from comparisons.runner import store

REPORTS = Path(__file__).parents[1] / "reports"
# The grids' rows are gathered from their cells; the others' from the parts that were run.
GRIDS = {
    "full_vb": full_vb.report,
    "lower_bound": marginal_likelihood.report,
    "marginal_likelihood": marginal_likelihood.report,
}
PARTS: dict[str, Callable[[Path], object]] = {
    "attempts": attempts_report.report,
    "calibration": calibration.report,
    "pytorch_example": pytorch_example.report,
    "speed": speed.report,
}
LEFT = shutil.ignore_patterns("*.safetensors", "lock", "progress.json", ".*")


def differing(out: Path, committed: Path) -> list[str]:
    """The files that were written otherwise than they are committed, or are not committed, or were not written."""
    written, there = (
        {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (out, committed)
    )
    kept = {name for name in there if not LEFT(str(committed), [Path(name).name])}
    return sorted(name for name in written.keys() | kept if written.get(name) != there.get(name))


@pytest.mark.parametrize("name", GRIDS)
def test_the_rows_of_cells_give_the_committed_rows_tables_and_figures(name: str, tmp_path: Path) -> None:
    out = tmp_path / name
    shutil.copytree(REPORTS / name, out, ignore=LEFT)
    for written in ("rows.csv", "table.md", "table.csv", "figure.svg"):
        (out / written).unlink(missing_ok=True)
    rows = store.collect(out)
    GRIDS[name](rows, out, rows)
    assert differing(out, REPORTS / name) == []


@pytest.mark.parametrize("name", PARTS)
def test_parts_give_the_committed_rows_tables_and_figures(name: str, tmp_path: Path) -> None:
    out = tmp_path / name
    shutil.copytree(REPORTS / name, out, ignore=LEFT)
    for written in ("rows.csv", "table.md", "figure.svg"):
        (out / written).unlink(missing_ok=True)
    PARTS[name](out)
    assert differing(out, REPORTS / name) == []


def test_the_report_is_the_committed_one(tmp_path: Path) -> None:
    out = tmp_path / "reports"
    shutil.copytree(REPORTS, out, ignore=LEFT)
    for written in ("index.html", "README.md", "verdicts.csv"):
        (out / written).unlink()
    shutil.rmtree(out / "figures")
    assert report.main(["--out", str(out)]) == 0
    assert differing(out, REPORTS) == []
