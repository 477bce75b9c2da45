"""Data sets by name: `load("mnist")` gives train [n, d] and test [m, d], float32, as the model sees them.

One name means one array: other values, another order or another split would be another name. The authors' choices are
read off their code (github.com/dpkingma/anglepy, April 2014); where they are unknown, ours are stated beside the data.

To add a set: write what loads it and its card in a file of its own, and give it a line here.
"""

from pathlib import Path

from comparisons.data.base import GREY, Data, DataCard, check, digest, take
from comparisons.data.digits import DIGITS
from comparisons.data.frey import FREY
from comparisons.data.mnist import MNIST, MNIST_BINARY
from comparisons.data.synthetic import SYNTHETIC
from comparisons.errors import unknown

__all__ = ["DATA", "GREY", "Data", "DataCard", "check", "digest", "load", "take"]

DATA: dict[str, DataCard] = {
    "digits": DIGITS,
    "mnist": MNIST,
    "mnist_binary": MNIST_BINARY,
    "frey": FREY,
    "synthetic": SYNTHETIC,
}


def load(name: str, data_dir: str | Path | None = None) -> Data:
    """Return the data set called `name`, one of `DATA`, reading its files from `data_folder(data_dir)`.

    Raises FlagError for an unknown name, DataError for a file that is missing, damaged or holds unusable values.
    """
    if name not in DATA:
        raise unknown("data", name, DATA)
    card = DATA[name]
    train, test = card.load(data_dir)
    check(f"{name} train", train, "unit" if card.fresh else card.support)
    check(f"{name} test", test, card.support)
    return Data(name, train, test, card.shape, card.support, card.note, card.fresh)
