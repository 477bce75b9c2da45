"""baselines.csv: what fits in a folder of results would be worth if they ignored z, by model, data and points."""

import csv
import io
import math
from collections.abc import Iterable
from pathlib import Path

from comparisons.data import Data, Rows
from comparisons.data.rows import HELD
from comparisons.disk import reading
from comparisons.errors import DamagedError
from comparisons.evidence.baseline import baseline
from comparisons.runner.cell import Cell, points
from comparisons.runner.experiment import built
from comparisons.runner.store import write

FILE = "baselines.csv"
OF = ("model", "data", "n_train", "split", "n_points")  # what a row of results says of itself

Key = tuple[str, ...]
Baselines = dict[Key, float]  # mean log p(x), in nats per datapoint


def key(model: str, data: str, n_train: int, split: str, n_points: int) -> Key:
    """Return what a baseline is known by."""
    return str(model), str(data), str(n_train), split, str(n_points)


def read(out: Path) -> Baselines:
    """Return what a folder of results holds, nothing where there is no such file. Raises StorageError for damage."""
    path = out / FILE
    if not path.exists():
        return {}
    rows = reading.table(path, ("n_train", "n_points", "value"), ())
    if list(rows.columns) != [*OF, "value"]:
        raise DamagedError(path, "it has other columns than this version writes", "remove it: it is worked out again")
    return {key(*of): value for *of, value in rows.itertuples(index=False)}


def keep(out: Path, cells: Iterable[tuple[Cell, Data]]) -> None:
    """Write down those of these cells, on their data, beside those that are there. Raises StorageError."""
    before = read(out)
    known = dict(before)
    for cell, data in cells:
        e = cell.experiment
        for split in ("train", "test"):
            x, _ = points(data, split, e.eval_points)
            name = key(e.model, e.data, cell.n_train, split, len(x))
            if name not in known:
                model = built(e, cell.n_x)
                if model.observed != ("x",) or model.missing:
                    continue  # what ignores z there is a regression, or sums over gaps
                binary = data.support == "binary" and model.columns == "categorical"  # train may hold probabilities
                columns = "binary" if binary else model.columns or model.support
                # Of a large file, the first rows: of 784 columns they are 20,000, which costs 784 / 40,000 nats.
                train = data.train[: HELD // (4 * cell.n_x)] if isinstance(data.train, Rows) else data.train
                known[name] = baseline(train[:, : model.n_x], x[:, : model.n_x], columns)
    if known == before:
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*OF, "value"))
    writer.writerows([*name, repr(value)] for name, value in sorted(known.items()))
    write(out / FILE, text.getvalue())


def of(known: Baselines, model: str, data: str, n_train: int, split: str, n_points: int) -> float:
    """Return a baseline, NaN where it is not known."""
    return known.get(key(model, data, n_train, split, n_points), math.nan)
