"""Rows of a file that is read where they are asked for: memory holds those, and never all of it."""

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from comparisons.errors import DataError

HELD = 2**26  # bytes of rows that memory holds at once, in float32


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows [n, d] of a .npy file in some order, to be indexed by a slice or by integers, as arrays are.

    What comes back lies in memory: float32, divided by `scale`. Raises DataError where the file is not what it was.

    A file is read at offsets, and not mapped: what was touched of a map counts as a process's memory, and a process
    dies of one whose file has been cut short.
    """

    name: str  # of the data
    path: str
    dtype: np.dtype
    offset: int  # of the first row [bytes]
    width: int  # d
    order: np.ndarray  # [n] which row of the file each is
    scale: float
    stamp: tuple[int, int]  # time of the last change [ns] and size [bytes] of the file
    content: str = ""  # the SHA-256, in hex, of all its values as they come back, in the order of the file
    largest: float = 0.0  # of all its values

    def __len__(self) -> int:
        return len(self.order)

    @property
    def shape(self) -> tuple[int, int]:
        """What that of an array would be."""
        return len(self), self.width

    def max(self) -> float:
        """Return the largest value of the file."""
        return self.largest

    def first(self, n: int) -> Any:
        """Return the first `n` rows: in memory where they are few, HELD bytes at most."""
        return self[:n] if 4 * n * self.width <= HELD else replace(self, order=self.order[:n])

    def __getitem__(self, which: slice | np.ndarray) -> np.ndarray:
        return scaled(self.read(which), self.scale)

    def read(self, which: slice | np.ndarray) -> np.ndarray:
        """Return rows as they lie in the file. Raises DataError."""
        rows, step = self.order[which].astype(np.int64), self.width * self.dtype.itemsize
        first, last = (rows.min(), rows.max()) if len(rows) else (0, -1)
        dense = last - first < 2 * len(rows)  # then all that lies between is read with them, at once
        starts, size = (np.array([first]), step * (last - first + 1)) if dense else (rows, step)
        try:
            with open(self.path, "rb", buffering=0) as file:
                number = file.fileno()
                read = b"".join([os.pread(number, size, at) for at in (self.offset + step * starts).tolist()])
                stat = os.fstat(number)
        except OSError as error:
            raise DataError(f"{self.name} cannot be read any more: {error.strerror or error}") from error
        if (stat.st_mtime_ns, stat.st_size) != self.stamp:
            raise DataError(f"{self.name} has changed since it was looked at; leave it alone, and start again")
        found = np.frombuffer(read, self.dtype).reshape(-1, self.width)
        return found[rows - first] if dense else found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or np.float32)


def scaled(array: np.ndarray, scale: float) -> np.ndarray:
    """Return a new array in float32, divided by `scale`; what float32 cannot hold is infinite."""
    with np.errstate(over="ignore"):
        return array.astype(np.float32) / np.float32(scale)
