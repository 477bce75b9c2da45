"""Scikit-learn's 1797 digits, 8 x 8, 17 grey levels: 1297 for training, 500 for testing.

The file that scikit-learn ships is read without importing the package, which takes longer than a short run trains.
"""

import warnings
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from comparisons.data.base import GREY, DataCard, split
from comparisons.errors import DataError

SHAPE = (1797, 65)  # the last column is the digit
REMEDY = "install it again with pip install --force-reinstall scikit-learn"


def digits(data_dir: str | Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Return train [1297, 64] and test [500, 64], in sixteenths. Raises DataError without scikit-learn's file."""
    return split(_table()[:, :-1] / np.float32(16), 1297)  # shuffled: the file runs writer by writer


def labels(data_dir: str | Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Return which digit each image of train [1297] and test [500] is. Raises DataError."""
    return split(_table()[:, -1].astype(np.uint8), 1297)


def _table() -> np.ndarray:
    package = find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise DataError("digits is a file of scikit-learn, which is missing; install it with pip install scikit-learn")
    path = Path(package.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
    try:
        with warnings.catch_warnings(action="error"):  # NumPy's, of an empty file
            table = np.loadtxt(path, np.float32, delimiter=",")
    except (OSError, EOFError, ValueError, zlib.error, UserWarning) as error:
        raise DataError(f"{path} of scikit-learn cannot be read ({error}); {REMEDY}") from error
    if table.shape != SHAPE:
        raise DataError(f"{path} of scikit-learn has the shape {table.shape}, not {SHAPE}; {REMEDY}")
    return table


DIGITS = DataCard("digits", 1297, (8, 8), "unit", GREY, "vae_bernoulli", digits, labels=labels)
