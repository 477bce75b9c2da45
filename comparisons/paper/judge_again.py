"""Judge finished cells again by the quadrature of today, at the stops that they kept, and say which numbers moved.

A cell that was run with --keep-stops has the fit of each stop. Nothing is trained, and the cells stay as they are.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from comparisons import cli
from comparisons.data import Data, digest, load, take
from comparisons.disk import writing
from comparisons.errors import DataError, StorageError
from comparisons.evidence.base import Target
from comparisons.evidence.judge import estimate
from comparisons.reporting import markdown
from comparisons.reporting.blocks import Block, Paragraph, Table
from comparisons.reporting.folder import begin, beside, complete
from comparisons.runner import store
from comparisons.runner.cell import on
from comparisons.runner.experiment import Experiment, completed, method
from comparisons.runner.fits import restored
from inference.base import setting

if TYPE_CHECKING:
    import pandas as pd

ABOUT = "The fits of Figure 3 that were kept, under the quadrature that sees oblique narrow posteriors."
TITLE = "Judged again by quadrature"
JUDGE = "quadrature"
METRIC = f"log_px_{JUDGE}_nats"


@dataclass(frozen=True, kw_only=True)
class Plan(cli.Plan):
    """What is judged again. Each field is a flag."""

    cells: str = setting("results/marginal_likelihood", "folder of the comparison whose cells are judged", words=True)
    stops: str = setting("last", "which stops", choices=("last", "all"))


def main(arguments: list[str] | None = None) -> int:
    """Judge, write rows.csv and table.md; return 0. Raises UserError."""
    plan, out, data_dir = cli.parse_plan("paper.judge_again", __doc__ or "", Plan, arguments)
    writing.prepare(out)
    folders = sorted(path.parent for path in Path(plan.cells).glob("cells/*/stops"))
    if not folders:
        raise StorageError(f"no cell in {plan.cells[:100]!r} has kept its stops; run its command with --keep-stops")
    new = begin(out, {**store.environment(), "cells": [folder.name for folder in folders]})
    rows: list[dict[str, Any]] = []
    loaded: dict[str, Data] = {}
    for folder in folders:
        for row in judged(plan, folder, loaded, data_dir):
            rows.append(row)
            print(f"{row['cell']} {row['split']} at {row['n_seen']}: {row['moved']:+.4f}", file=sys.stderr)
            writing.write_rows(new / "rows.csv", rows)
    if not rows:
        raise StorageError(f"no stop kept in {plan.cells[:100]!r} was judged by {JUDGE}; there is nothing to compare")
    import pandas as pd

    table = beside(new, {"table.md": lambda: markdown.printed(blocks(pd.DataFrame(rows)), TITLE)})
    complete(out)
    print(table)
    return 0


def judged(plan: Plan, folder: Path, loaded: dict[str, Data], data_dir: Path | None) -> Iterator[dict[str, Any]]:
    """Yield a row for each stop and split of a finished cell: the mean log p(x) before and now, in nats."""
    out, cell = folder.parent.parent, folder.name
    manifest = store.read_manifest(out, cell)
    experiment = Experiment(**completed(manifest.get("settings", {})))
    if JUDGE not in experiment.evidence:
        return
    if experiment.data not in loaded:
        loaded[experiment.data] = load(experiment.data, data_dir)
    data = take(loaded[experiment.data], experiment.n_train)
    if digest(data) != manifest.get("data_digest"):
        raise DataError(f"{experiment.data} here is not the data of {cell}; name the folder it had with --data-dir")
    if not store.finished(out, cell):
        return
    before = store.read_rows(out / "cells" / cell / "rows.csv")
    before = before[(before.metric == METRIC) & before.value.notna()].set_index(["n_seen", "split"])
    found_on = on(experiment, data)
    steps = sorted(int(path.stem) for path in (folder / "stops").glob("*.safetensors"))
    for step in steps if plan.stops == "all" else steps[-1:]:
        kept, n_seen = store.load_checkpoint(out, cell, step), step * found_on.rows_per_step
        if kept is None or (n_seen, "test") not in before.index:
            continue
        fit = restored(found_on, kept[0]["state"])
        for split in ("train", "test"):
            x, _ = fit.points(data, split, experiment.eval_points)
            found = estimate(JUDGE, Target(fit.engine, fit.model, fit.theta, x), experiment, experiment.seed)
            now, stderr = found.mean()
            was = float(before.loc[(n_seen, split), "value"])
            again = np.asarray((found.diagnostics or {}).get("again", np.zeros(found.points, bool)))
            named = {"cell": cell, "backend": experiment.backend, "method": method(experiment)}
            where = {"n_train": len(data.train), "n_seen": n_seen, "split": split}
            found_now = {"before": was, "now": now, "moved": now - was, "stderr": stderr, "n_points": found.points}
            yield {**named, **where, **found_now, "again": float(again.mean()), "flagged": found.flagged}


def blocks(rows: "pd.DataFrame") -> list[Block]:
    """Return the table: what of each fit moved, in nats per datapoint."""
    moved = rows[rows.moved != 0].moved.abs()
    body = []
    for row in rows.fillna({"method": ""}).itertuples():
        numbers = [f"{row.before:.4f}", f"{row.now:.4f}", f"{row.moved:+.4f}", f"{row.again:.1%}", f"{row.flagged:.1%}"]
        body.append([row.backend, row.method, f"{row.n_train:,}", row.split, f"{row.n_seen:,}", *numbers])
    head = ["backend", "method", "training points", "split", "points seen"]
    head += ["log p(x) before", "now", "moved", "integrated again", "flagged"]
    far = f", by at most {moved.max():.4f} nats" if len(moved) else ", not by a bit"
    return [
        Paragraph(
            f"Of {len(rows)} means over datapoints {len(moved) or 'none'} moved{far}. A datapoint is integrated again, "
            "along its posterior's own axes, where the common grid may not resolve it; what it had stays where the two "
            "agree."
        ),
        Table(head, body, caption=ABOUT),
    ]


if __name__ == "__main__":
    cli.main(lambda: main(sys.argv[1:]))
