"""How an estimator's work is cut into blocks of datapoints that fit the memory."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from comparisons.evidence.journal import once
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
    work: Callable[[int, np.ndarray, int], tuple[np.ndarray, ...]], n: int, size: int
) -> list[tuple[np.ndarray, ...]]:
    """Return work(number, rows, count) for each block of n datapoints, each `once`: `count` of its rows are new."""
    return [once(partial(work, number, *each)) for number, each in enumerate(blocks(n, size))]


def joined(parts: list[tuple[np.ndarray, ...]], axis: int = 0) -> tuple[np.ndarray, ...]:
    """Return the columns of all blocks, each as one array."""
    return tuple(np.concatenate(column, axis) for column in zip(*parts, strict=True))
