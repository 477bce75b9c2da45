"""Data sets by name: `load("mnist")` gives train [n, d] and test [m, d], float32, as the model sees them.

One name means one array: other values, another order or another split would be another name. The authors' choices are
read off their code (github.com/dpkingma/anglepy, April 2014); where they are unknown, ours are stated beside the data.

To add a set: write what loads it and its card in a file of its own, and give it a line here.
"""

from pathlib import Path

import numpy as np

from comparisons.data.base import GREY, Data, DataCard, check, digest, take
from comparisons.data.digits import DIGITS
from comparisons.data.frey import FREY
from comparisons.data.mnist import MNIST, MNIST_255, MNIST_BINARY
from comparisons.data.own import Own, find
from comparisons.data.rows import Rows
from comparisons.data.synthetic import SYNTHETIC
from comparisons.errors import FlagError, unknown

__all__ = [
    "DATA",
    "GREY",
    "Data",
    "DataCard",
    "Own",
    "Rows",
    "card_of",
    "check",
    "digest",
    "find",
    "labels",
    "load",
    "take",
]

DATA: dict[str, DataCard] = {
    "digits": DIGITS,
    "mnist": MNIST,
    "mnist_255": MNIST_255,
    "mnist_binary": MNIST_BINARY,
    "frey": FREY,
    "synthetic": SYNTHETIC,
}


def card_of(name: str) -> DataCard:
    """Return what is known of a data set: a user's file is read for it. Raises FlagError for an unknown name."""
    if not isinstance(name, Own) and name not in DATA:
        raise unknown("data", name, DATA)
    return name.card if isinstance(name, Own) else DATA[name]


def load(name: str, data_dir: str | Path | None = None) -> Data:
    """Return the data set called `name`, one of `DATA` or a user's, with its files from `data_folder(data_dir)`.

    Raises FlagError for an unknown name, DataError for a file that is missing, damaged or holds unusable values.
    """
    known = card_of(name)
    train, test = known.load(data_dir)
    said = known.shape, known.support, known.note, known.fresh
    if isinstance(name, Own):  # looked at when it was opened
        content = train.content if isinstance(train, Rows) else ""
        return Data(name, train, test, *said, content=content, columns=known.columns)
    check(f"{name} train", train, "unit" if known.fresh else known.support)
    check(f"{name} test", test, known.support)
    n = known.n_train
    return Data(name, train[:n], test, *said, train[n:] if len(train) > n else None)


def labels(name: str, data_dir: str | Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the class of each image that `load` gives, train [n] and test [m]: no model ever sees one.

    Raises FlagError for a data set without labels, DataError for a file that is missing or damaged.
    """
    known = card_of(name)
    if known.labels is None:
        raise FlagError(f"data {str(name)!r} has no labels; choose from {', '.join(n for n in DATA if DATA[n].labels)}")
    train, test = known.labels(data_dir)
    return train[: known.n_train], test
