"""The curves of the paper's Figures 2 and 3 as numbers; `README.md` beside this file says where they come from."""

import csv
import io
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from comparisons.errors import StorageError

FILE = Path(__file__).parent / "curves.csv"
WHOLE = {"mnist": 50_000, "frey": 1600}  # training points of a set that is used whole; Frey Face's are this project's


class Curve(NamedTuple):
    """One line of a figure: `value` [m], nats per datapoint, at `n_seen` [m] training points, which rises."""

    figure: str  # "figure2" or "figure3"
    data: str
    n_latent: int
    n_train: int
    backend: str
    split: str
    metric: str
    n_seen: np.ndarray
    value: np.ndarray


def read(text: str) -> tuple[Curve, ...]:
    """Return the curves of a CSV file's text, in its order. Raises KeyError, ValueError where it is none."""
    names = ["figure", "dataset", "n_latent", "n_train", "backend", "split", "metric"]
    rows = pd.DataFrame(csv.DictReader(io.StringIO(text)))
    if rows.empty:
        raise ValueError("it holds no curve")
    rows = rows.astype({"n_latent": int, "n_train": int, "n_seen": float, "value": float})
    found = []
    for (figure, data, n_latent, n_train, backend, split, metric), along in rows.groupby(names, sort=False):
        if not along.n_seen.is_monotonic_increasing or not along.n_seen.is_unique:
            raise ValueError(f"points seen do not rise along {figure} {data} {n_latent} {backend} {split} {metric}")
        place = figure, data, n_latent, n_train or WHOLE[data], backend, split, metric
        found.append(Curve(*place, along.n_seen.to_numpy(), along.value.to_numpy()))
    return tuple(found)


@cache
def curves() -> tuple[Curve, ...]:
    """Return the paper's curves. Raises StorageError where their file is missing or damaged."""
    try:
        return read(FILE.read_text())
    except (OSError, KeyError, ValueError) as error:
        raise StorageError(f"cannot read the paper's curves, {FILE.name} ({error}); restore it from git") from error


def value_at(curve: Curve, n_seen: float) -> float:
    """Return the curve's value [nats] at a number of points seen: linear in its logarithm, NaN outside the curve."""
    if not curve.n_seen[0] <= n_seen <= curve.n_seen[-1]:
        return float("nan")
    return float(np.interp(np.log(n_seen), np.log(curve.n_seen), curve.value))


def papers(settings: Mapping[str, object], split: str, n_seen: float) -> float:
    """Return the paper's value [nats] of the curve with these fields; NaN where there is none, or none there."""
    wanted = {**settings, "split": split}
    found = [curve for curve in curves() if all(getattr(curve, name) == value for name, value in wanted.items())]
    return value_at(found[0], n_seen) if found else float("nan")
