"""How an estimator's work is cut into blocks of datapoints that fit the memory."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import repeat

import numpy as np

from comparisons.evidence.journal import Columns, once
from models.base import Model

# Arrays as wide as the widest layer that scoring and differentiating an (x, z) pair may keep alive; reckoned amply.
ARRAYS_PER_PAIR = 10


def blocks(n: int, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Cut n datapoints into blocks of one size, so that nothing recompiles: indices, and how many of them are new.

    The last block is filled up with repetitions.
    """
    size = max(1, min(n, size))
    for start in range(0, n, size):
        count = min(size, n - start)
        yield np.resize(np.arange(start, start + count), size), count


def pairs_within(max_memory: float, model: Model) -> int:
    """Return how many (x, z) pairs can be scored and differentiated at once in `max_memory` bytes."""
    width = max([model.n_x, *(size for shape in model.theta_shapes.values() for size in shape)])
    return max(1, int(max_memory // (4 * ARRAYS_PER_PAIR * width)))


def by_blocks(
    work: Callable[[int, np.ndarray, int], Columns], n: int, size: int, axes: Iterable[int] = repeat(0)
) -> Columns:
    """Return the columns of work(number, rows, count) for all blocks of n datapoints, each `once`.

    A column has its datapoints along its one of `axes`; what lies behind the `count` new ones is dropped, and so are
    columns beyond the last axis.
    """

    def new(number: int, rows: np.ndarray, count: int) -> Columns:
        columns = zip(work(number, rows, count), axes, strict=False)
        return tuple(column[(slice(None),) * axis + (slice(count),)] for column, axis in columns)

    return joined([once(partial(new, number, *each)) for number, each in enumerate(blocks(n, size))], axes)


def joined(parts: list[Columns], axes: Iterable[int] = repeat(0)) -> Columns:
    """Return the columns of all blocks, each as one array along its axis."""
    return tuple(np.concatenate(*each) for each in zip(zip(*parts, strict=True), axes, strict=False))
