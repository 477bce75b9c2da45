"""A calibration in pieces: what it is told, and what of it is run, and kept, as one."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from comparisons import cli
from comparisons.cli.flags import FITTED, JUDGED, RUN
from comparisons.disk import reading, writing
from comparisons.evidence.judge import ESTIMATORS
from comparisons.runner import store
from comparisons.runner.experiment import NUMBERS_VERSION
from inference.base import setting

PARTS = ("linear", "mnist", "simulated", "paper", "engines", "defaults")

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Plan(cli.Plan):
    """What is run. Each field is a flag."""

    parts: tuple[str, ...] = setting(PARTS, "what to run", choices=PARTS, about=RUN)
    points: int = setting(
        1000,
        "datapoints of the parts mnist and paper [datapoints]",
        low=10,
        high=10_000,
        about=JUDGED,
        flag="--eval-points",
        also=("--points",),
    )
    simulated: int = setting(100, "datapoints of the part simulated [datapoints]", low=10, high=10_000)
    repeats: int = setting(200, "part linear: repetitions of each of 5 datapoints", low=2, high=10_000, about=JUDGED)
    latents: tuple[int, ...] = setting(
        (2, 3, 10, 20, 50), "part linear: latent variables", low=1, high=100, flag="--n-latent", also=("--latents",)
    )
    decoders: tuple[int, ...] = setting(
        (2, 3, 10, 20), "part defaults: decoders, each by its latent variables", low=1, high=100
    )
    levels: tuple[int, ...] = setting(
        (0, 1, 2), "levels of cost of each estimator, from cheap to dear", low=0, high=2, about=JUDGED
    )
    temperatures: int = setting(500, "part simulated: temperatures of the two bounds", low=10, high=10**6, about=JUDGED)
    samples: int = setting(1_000_000, "training points of each fit [datapoints]", low=1000, high=10**9, about=FITTED)


class Piece(NamedTuple):
    """What is run, and kept, as one: its rows, and the settings of the plan that they depend on."""

    part: str
    name: str
    reads: tuple[str, ...]
    rows: Callable[[], Iterator[Row]]

    @property
    def file(self) -> str:
        """The name of the files that hold its rows and what they were run with."""
        return f"{self.part}-{self.name}"


def run(piece: Piece, plan: Plan, out: Path) -> None:
    """Run a piece, unless its files in `out` are of the same settings and versions of the numbers. Raises UserError."""
    versions = {"numbers_version": NUMBERS_VERSION, "judge_version": max(card.version for card in ESTIMATORS.values())}
    identity = {**{name: getattr(plan, name) for name in piece.reads}, **versions}
    path = out / "parts" / f"{piece.file}.json"
    if reading.made_with(path, identity):
        return
    environment = store.environment()
    rows: list[Row] = []
    for row in piece.rows():
        rows.append({"part": piece.part, **row})
        print(_line(rows[-1]), file=sys.stderr)
    writing.write_rows(path.with_suffix(".csv"), rows)
    files = reading.sums([path.with_suffix(".csv")])
    writing.write_json(path, {**environment, "identity": identity, "plan": asdict(plan), **files})  # last: it says done


def kept(out: Path) -> list[Path]:
    """Return the files of rows that lie in a folder: of each part in turn, by the number that ends a piece's name."""
    folder = out / "parts"
    # A file of the whole part is of an earlier version, which did not run it in pieces.
    return [
        path
        for part in PARTS
        for path in sorted(folder.glob(f"{part}-*.csv"), key=_in_order) or folder.glob(f"{part}.csv")
    ]


def _in_order(path: Path) -> tuple[int, str]:
    number = path.stem.rpartition("-")[2]
    return (int(number) if number.isdigit() else 0, path.name)


def _line(row: Row) -> str:
    what = " ".join(str(row[name]) for name in ("part", "backend", "n_train", "split") if name in row)
    return (
        f"{what} k={row['n_latent']} {row['estimator']} {row['settings']}: bias {row['bias']:+.3f}, "
        f"sd {row['sd']:.3f}, coverage {row['coverage']:.0%}, flagged {row['flagged']:.0%}, "
        f"{row['seconds_per_1000']:.1f} s"
    )
