"""What a data set is: its card, known without reading a file, and its arrays, split, scaled and checked."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from comparisons.data.rows import Rows
from comparisons.errors import DataError, FlagError

SEED = 13126114  # the paper's arXiv number; every shuffle and draw of a data set starts from it

# What each support allows, in words and as a test; NaN fails all three.
SUPPORTS: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "unit": ("a number in [0, 1]", lambda x: (x >= 0) & (x <= 1)),
    "binary": ("0 or 1", lambda x: (x == 0) | (x == 1)),
    "count": ("a whole number from 0 on", lambda x: (x >= 0) & (x == np.floor(x)) & np.isfinite(x)),
    "real": ("a finite number", np.isfinite),
}

GREY = "cross-entropy of grey values, not a normalised log density"


class DataCard(NamedTuple):
    """What is known of a data set before a file is read; a set registers itself by its card."""

    title: str
    n_train: int  # rows of train; what `load` has beyond them follows where more is asked for
    shape: tuple[int, int]  # of one image, rows x columns; (1, d) where a row is no image
    support: str  # "unit": [0, 1]; "binary": 0 or 1; "count": 0, 1, 2, ...; "real"
    note: str  # what a number on this data means; "" if there is nothing to say
    model: str  # the model that `auto` stands for
    load: Callable[[str | Path | None], tuple[np.ndarray, np.ndarray]]  # (data_dir) -> train [n, d], test [m, d]
    fresh: bool = False  # train holds probabilities, binarised anew at each visit; test is binarised already
    columns: tuple[tuple[str, int], ...] = ()  # names and widths of what a row holds, where that is more than x
    gaps: tuple[tuple[str, str], ...] = ()  # names of what has a NaN, and the refusal of it, which says where
    labels: Callable[[Any], tuple[np.ndarray, np.ndarray]] | None = None  # (data_dir) -> classes of train and of test


class Data(NamedTuple):
    """A data set, split and scaled; one row is one datapoint."""

    name: str
    train: np.ndarray  # [n, d] float32, C-contiguous; `Rows` of a large file
    test: np.ndarray  # [m, d] float32, C-contiguous; `Rows` of a large file
    shape: tuple[int, int]  # of one image, rows x columns; (1, d) where a row is no image
    support: str  # as its card says
    note: str  # what a number on this data means; "" if there is nothing to say
    fresh: bool  # True: train holds probabilities, binarised anew at each visit; test is binarised already
    spare: np.ndarray | None = None  # [m, d] rows that follow train's, for an `n_train` beyond them
    content: str = ""  # that of `Rows`
    columns: tuple[tuple[str, int], ...] = ()  # as its card says


def take(data: Data, n_train: int | None) -> Data:
    """Keep the first `n_train` rows of train, all of them for None; test stays whole. Beyond train, spare rows follow.

    Raises FlagError unless 1 <= n_train <= the rows there are.
    """
    if n_train is None:
        return data
    spare = data.train[:0] if data.spare is None else data.spare
    n, rows = len(data.train) + len(spare), "images" if data.shape[0] > 1 else "rows"
    if n_train < 1:
        raise FlagError(f"n_train {n_train} is less than 1; choose 1 to {n} for {data.name}")
    if n_train > n:
        raise FlagError(f"n_train {n_train} exceeds the {n} training {rows} of {data.name}; choose 1 to {n}")
    train: Any = data.train
    if isinstance(train, Rows):
        return data._replace(train=train.first(n_train))
    whole = np.concatenate([train, spare]) if n_train > len(train) else train
    return data._replace(train=whole[:n_train], spare=None)


def check(name: str, array: np.ndarray, support: str) -> None:
    """Refuse an array [n, d] that no model here accepts; `name` is what the message calls it.

    Raises DataError for fewer than 2 rows, no columns, or a value outside `support`, naming the first such value.
    """
    if support not in SUPPORTS:
        raise FlagError(f"unknown support {support!r}; choose from {', '.join(SUPPORTS)}")
    if array.ndim != 2 or len(array) < 2 or array.size == 0:
        raise DataError(f"{name}: shape is {array.shape}, not [n, d] with at least 2 rows and 1 column")
    check_values(name, array, support)


def check_values(name: str, array: np.ndarray, support: str, start: int = 0) -> None:
    """Raise DataError for a value of an array [n, d] outside `support`, naming the first; row 0 is number `start`."""
    allowed, test = SUPPORTS[support]
    valid = test(array)
    if not valid.all():
        row, column = np.unravel_index(np.argmin(valid), valid.shape)
        raise DataError(f"{name}: row {start + row}, column {column} is {array[row, column]!s}, not {allowed}")


def digest(data: Data) -> str:
    """Return the SHA-256, in hex, of the name, the shapes and the bytes of train and test: the arrays' identity.

    The values of a large file count in its own order, which is read in one go: the shapes tell the split. Whether a
    file is large depends on its size alone, so that each has one identity.
    """
    columns = f" {data.columns}" if data.columns else ""
    sha256 = hashlib.sha256(f"{data.name} {data.train.shape} {data.test.shape}{columns}".encode())
    sha256.update(data.content.encode())
    for array in () if data.content else (data.train, data.test):
        sha256.update(np.ascontiguousarray(array).data)
    return sha256.hexdigest()


def split(rows: np.ndarray, n_train: int) -> tuple[np.ndarray, np.ndarray]:
    """Shuffle with SEED; the first `n_train` rows are for training, the others for testing."""
    order = shuffled(len(rows))
    return rows[order[:n_train]], rows[order[n_train:]]


def shuffled(n: int) -> np.ndarray:
    """Return the numbers below n in the order of SEED, in as few bytes as they take."""
    order = np.arange(n, dtype=np.min_scalar_type(n))
    np.random.default_rng(SEED).shuffle(order)
    return order
