"""The estimators of log p(x) against truths: what is run, in pieces, each kept in files of its own."""

from collections.abc import Callable, Iterator
from pathlib import Path

import inference
from comparisons.benchmarks.across_engines import engines
from comparisons.benchmarks.against_truths import linear, mnist, simulated
from comparisons.benchmarks.at_defaults import defaults
from comparisons.benchmarks.every_fit import paper
from comparisons.benchmarks.pieces import Piece, Plan, kept, run
from comparisons.data import Data, load
from comparisons.runner import store
from inference.base import Engine

PIECES: dict[str, Callable[[Plan, Engine, Data | None, Path], Iterator[Piece]]] = {
    part.__name__: part for part in (linear, mnist, simulated, paper, engines, defaults)
}
WITHOUT_MNIST = {"linear", "defaults"}


def calibrate(plan: Plan, out: Path, data_dir: Path | None) -> int:
    """Run what has not been run, write rows.csv, table.md and figure.svg; return 0. Raises UserError."""
    store.prepare(out)
    data = load("mnist", data_dir) if set(plan.parts) - WITHOUT_MNIST else None
    engine = inference.engine(plan.engine, "cpu", plan.threads)
    for part in plan.parts:
        for piece in PIECES[part](plan, engine, data, out):
            run(piece, plan, out)
    report(out)
    print((out / "table.md").read_text())
    return 0


def report(out: Path) -> None:
    """Gather the rows of all pieces in `out`, whenever they were run, and write rows.csv, table.md and figure.svg."""
    import pandas as pd

    from comparisons.benchmarks import calibration_report
    from comparisons.reporting import markdown

    rows = pd.concat([pd.read_csv(path) for path in kept(out)], ignore_index=True)
    store.write(out / "rows.csv", rows.to_csv(index=False, lineterminator="\n"))
    store.write(out / "table.md", markdown.printed(calibration_report.blocks(rows), calibration_report.TITLE))
    store.write(out / "figure.svg", calibration_report.error_against_cost(rows))
