"""Pieces of a calibration: what is done is not run again, what was cut off or damaged is."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from calibrated import row

from comparisons.benchmarks import calibration
from comparisons.benchmarks.pieces import Piece, Plan, run
from comparisons.cli import parse_plan
from comparisons.disk import writing
from comparisons.errors import FlagError
from comparisons.evidence.judge import ESTIMATORS


def test_a_piece_is_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done is not run again, unless a setting that its rows depend on, or a version of the numbers, changed."""
    ran: list[str] = []

    def piece(name: str) -> Piece:
        def rows() -> Any:
            ran.append(name)
            yield row(part="linear", model="linear_gaussian", n_latent=int(name), estimator="importance, q")

        return Piece("linear", name, ("seed", "repeats"), rows)

    plan = Plan(parts=("linear",), repeats=2)
    for name in ("10", "2"):
        run(piece(name), plan, tmp_path)
    run(piece("2"), replace(plan, points=20, threads=2), tmp_path)
    assert ran == ["10", "2"]
    calibration.report(tmp_path)
    assert pd.read_csv(tmp_path / "rows.csv").n_latent.tolist() == [2, 10]  # by number, not by name
    run(piece("2"), replace(plan, repeats=3), tmp_path)
    monkeypatch.setitem(ESTIMATORS, "newer", ESTIMATORS["exact"]._replace(version=99))
    run(piece("10"), plan, tmp_path)
    assert ran == ["10", "2", "2", "10"]


def test_a_piece_that_was_cut_off_is_run_again(tmp_path: Path) -> None:
    def rows() -> Any:
        yield row()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Piece("paper", "aevb-1000", (), rows), Plan(), tmp_path)
    done = Piece("paper", "aevb-1000", (), lambda: iter([row(), row(backend="wake_sleep")]))
    run(done, Plan(), tmp_path)
    assert len(pd.read_csv(tmp_path / "parts" / "paper-aevb-1000.csv")) == 2
    writing.write_rows(tmp_path / "parts" / "paper.csv", [row(bias=9.0)])  # of a version that knew no pieces
    calibration.report(tmp_path)
    assert pd.read_csv(tmp_path / "rows.csv").bias.tolist() == [0.1, 0.1]


def test_a_damaged_piece_is_run_again(tmp_path: Path) -> None:
    piece = Piece("paper", "aevb-1000", ("seed",), lambda: iter([row()]))
    run(piece, Plan(), tmp_path)
    path = tmp_path / "parts" / "paper-aevb-1000.json"
    whole = path.read_text()
    for harm in ("", "[]", whole[:40]):
        path.write_text(harm)
        run(piece, Plan(), tmp_path)
        assert '"identity"' in path.read_text()


# Flags


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--parts", "nonsense"], ["parts", "nonsense", "linear"]),
        (["--latents", "0"], ["n_latent", "0", "at least 1"]),
        (["--repeats", "1.5"], ["repeats", "1.5", "whole number"]),
        (["--engine", "stan"], ["engine", "stan", "numpyro"]),
    ],
)
def test_a_wrong_flag_is_named(arguments: list[str], words: list[str]) -> None:
    with pytest.raises(FlagError) as caught:
        parse_plan("calibration", "", Plan, arguments)
    text = str(caught.value)
    assert "\n" not in text and all(word in text for word in words)
