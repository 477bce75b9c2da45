"""What the folder of reports holds: the rows, manifests and figures of every comparison, and the verdicts on them."""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from comparisons.disk import reading
from comparisons.errors import DamagedError, printable
from comparisons.paper import pictures, verdicts
from comparisons.paper.curves import curves
from comparisons.paper.pictures import Sheet
from comparisons.paper.verdicts import Claim, Verdict
from comparisons.paper.words import TITLES
from comparisons.reporting import outcomes
from comparisons.runner import baselines, store
from comparisons.runner.baselines import Baselines
from comparisons.runner.manifests import Manifest
from comparisons.runner.rows import COLUMNS

FIGURES = {"figure2": "lower_bound", "figure3": "marginal_likelihood"}
SHEETS = ("manifold", "samples")
LONG = ("full_vb",)  # comparisons whose rows are of the long format, as those of figures are


class Rows(NamedTuple):
    """The rows of each comparison that sentences are worked out from, empty where it was not run."""

    figure2: pd.DataFrame
    figure3: pd.DataFrame
    full_vb: pd.DataFrame
    calibration: pd.DataFrame
    inference_gap: pd.DataFrame
    speed: pd.DataFrame
    judge_again: pd.DataFrame
    attempts: pd.DataFrame


class Extra(NamedTuple):
    """What another comparison left in its folder: its rows, its figures (SVG) by their names, and its manifests."""

    rows: pd.DataFrame
    figures: dict[str, bytes]
    manifests: list[dict[str, Any]]


class Found(NamedTuple):
    """Everything that the folder holds, and what follows from it."""

    rows: Rows
    manifests: dict[str, dict[str, dict[str, Any]]]  # figure -> cell -> manifest
    verdicts: list[Verdict]
    claims: list[Claim]
    sheets: dict[str, list[Sheet]]
    extras: dict[str, Extra]
    known: dict[str, Baselines]  # figure -> what its fits would be worth if they ignored z

    @property
    def of_paper(self) -> bool:
        """Whether any of the paper's data were run."""
        return any(rows.data.isin([*TITLES]).any() for rows in (self.rows.figure2, self.rows.figure3))


def read(out: Path) -> Found:
    """Return what the folder holds, and the verdicts on it. Raises StorageError for a file that cannot be read."""
    rows, manifests = {}, {}
    for figure, name in FIGURES.items():
        path = out / name / "rows.csv"
        there = believed(out / name) if path.exists() else pd.DataFrame(columns=list(COLUMNS))
        rows[figure] = outcomes.explained(there, out / name)
        manifests[figure] = _of_cells(out / name)
    both = rows["figure2"], rows["figure3"]
    others = [path.parent for path in sorted(out.glob("*/rows.csv")) if path.parent.name not in FIGURES.values()]
    extras = {folder.name: extra(folder) for folder in others}
    sheets = {name: pictures.read(out / name) for name in SHEETS}
    named = {name: extras[name].rows if name in extras else pd.DataFrame() for name in Rows._fields[2:]}
    judged = verdicts.verdicts(*both, curves())
    known = {figure: baselines.read(out / name) for figure, name in FIGURES.items()}
    return Found(Rows(**rows, **named), manifests, judged, verdicts.claims(*both), sheets, extras, known)


def extra(folder: Path) -> Extra:
    """Return what a comparison left in its folder. Raises StorageError for a file that cannot be read."""
    manifests = [folder / "manifest.json", *sorted(folder.glob("parts/*.json"))]
    manifests = [path for path in manifests if path.exists()]
    long = folder.name in LONG
    rows = outcomes.explained(believed(folder), folder) if long else reading.table(folder / "rows.csv")
    drawn = {path.stem: reading.content(path) for path in sorted(folder.glob("*.svg"))}
    held = [reading.record(path, Manifest) for path in manifests]
    for path, one in zip(manifests, held, strict=True):
        if name := reading.altered(path.parent, one):
            raise DamagedError(path.parent / name, "it is not as its command wrote it", reading.AGAIN)
    if stray := _stray(folder, rows, held):
        raise DamagedError(folder / "rows.csv", f"its column {stray} has what none of its parts has", reading.AGAIN)
    return Extra(rows, drawn, [*held, *_of_cells(folder).values()])


def _of_cells(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the manifests of a grid's cells; one that cannot be read is said, by who reads its rows if it has any."""
    held = {}
    for path in sorted(folder.glob("cells/*/manifest.json")):
        try:
            held[path.parent.name] = reading.record(path, Manifest)
        except DamagedError as error:
            if not (path.parent / "rows.csv").exists():
                print(f"{printable(path.parent.name)} is damaged, and not counted: {error.why}", file=sys.stderr)
    return held


def _stray(folder: Path, rows: pd.DataFrame, held: list[dict[str, Any]]) -> str:
    """Return a column of gathered rows with a value that none of the parts has, "" where there is none."""
    frames = [reading.table(path) for path in sorted(folder.glob("parts/*.csv"))]
    frames += [pd.DataFrame(one["rows"]) for one in held if "rows" in one]
    if not frames or COLUMNS[0] in rows:  # which rows have that are gathered from cells, and no part
        return ""
    parts = pd.concat(frames)
    return next(
        (name for name in rows.columns if name in parts and not _values(rows[name]) <= _values(parts[name])), ""
    )


def _values(column: Any) -> set[Any]:
    numbers = pd.to_numeric(column, errors="coerce")
    return {*numbers.dropna()} | {*column[numbers.isna()].dropna()}


def believed(folder: Path) -> pd.DataFrame:
    """Return the rows of a grid, those of its cells where they lie beside it; a line says that they differ.

    Raises StorageError for a file that cannot be read.
    """
    held = store.read_rows(folder / "rows.csv")
    if not any(folder.glob("cells/*/rows.csv")):
        return held
    rows = store.gathered(folder)
    if store.as_csv(rows) != reading.content(folder / "rows.csv", reading.TABLE).decode():
        print(f"{folder / 'rows.csv'} differs from its cells; the page has what these hold", file=sys.stderr)
    return rows
