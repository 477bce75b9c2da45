"""Finished cells judged again at the stops they kept."""

from pathlib import Path

import pandas as pd
import pytest

from comparisons import marginal_likelihood
from comparisons.errors import StorageError
from comparisons.paper import judge_again
from comparisons.runner import store

SMALL = (
    "--backend",
    "aevb",
    "--engine",
    "numpyro",
    "--n-train",
    "100",
    "--n-latent",
    "2",
    "--n-hidden",
    "4",
    "--samples",
    "2000",
    "--step-size",
    "0.05",
    "--eval-points",
    "10",
)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cells")
    assert marginal_likelihood.main([*SMALL, "--keep-stops", "--out", str(out)]) == 0
    return out


def test_what_did_not_change_does_not_move_by_a_bit(cells: Path, tmp_path: Path) -> None:
    """Every stop, both splits: the fit of the stop gives the number of the row; and the cells stay as they were."""
    before = {path: path.read_bytes() for path in cells.rglob("*") if path.is_file()}
    assert judge_again.main(["--cells", str(cells), "--stops", "all", "--out", str(tmp_path)]) == 0
    rows, was = pd.read_csv(tmp_path / "rows.csv"), store.collect(cells)
    assert len(rows) == (was.metric == judge_again.METRIC).sum() >= 4
    assert (rows.moved == 0).all() and "moved, not by a bit" in (tmp_path / "table.md").read_text()
    assert {path: path.read_bytes() for path in before} == before


def test_what_moved_is_told(cells: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    (cell,) = (cells / "cells").iterdir()
    rows = store.read_rows(cell / "rows.csv")
    manifest = store.read_manifest(cells, cell.name)
    rows.loc[rows.metric == judge_again.METRIC, "value"] += 0.25
    store.save_cell(out, cell.name, rows.to_dict("records"), manifest, {})
    (out / "cells" / cell.name / "stops").symlink_to(cell / "stops")
    assert judge_again.main(["--cells", str(out), "--out", str(tmp_path / "again")]) == 0
    found = pd.read_csv(tmp_path / "again" / "rows.csv")
    assert len(found) == 2 and found.moved.to_numpy() == pytest.approx([-0.25, -0.25])
    assert "Of 2 means over datapoints 2 moved, by at most 0.2500 nats" in (tmp_path / "again/table.md").read_text()


def test_a_folder_without_stops_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="--keep-stops"):
        judge_again.main(["--cells", str(tmp_path), "--out", str(tmp_path / "out")])
