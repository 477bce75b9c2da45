"""Does a grid resolve what is summed on it? How far the sum can be off, from the heights of its own cells.

Two sums that are both too coarse can agree by accident, as on a narrow ridge that is oblique to the grid. The second
difference of log p along an axis cannot: D = 2 log p(z) - log p(z + h) - log p(z - h) is (h / s)^2 where p is a normal
of standard deviation s along the axis, wherever its mode lies between the nodes. The sum of such a normal is off by at
most 2 exp(-2 pi^2 / D) (Trefethen & Weideman 2014). In k dimensions, for an oblique one, the leading terms of the error
are no larger than those of its axes: (m' S m) (e' inv(S) e) >= (m' e)^2, by Cauchy and Schwarz.
"""

import numpy as np


def aliasing(code: np.ndarray, strides: np.ndarray, height: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """Return how much of each cell's mass may be an error, [p] between 0 and 1/2.

    `code` [p] is the place of each cell as one number, ascending, in which a step along an axis is one of `strides`
    [k]; `height` [p] is log p there, and a neighbour that is not among them counts as high as `floor` [p]. A cell is
    off by no more than half its own mass where the edge of a region cuts through it.
    """
    total = np.zeros(len(code))
    for stride in strides:
        above, below = (_looked_up(code, height, code + sign * stride, floor) for sign in (1, -1))
        second = 2 * height - above - below
        total += 2 * np.exp(-2 * np.pi**2 / np.maximum(second, 1e-3))
    return np.minimum(total, 0.5)


def _looked_up(code: np.ndarray, height: np.ndarray, wanted: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """Return the height of the cells `wanted` [p] where they are known, else `otherwise` [p]."""
    place = np.minimum(np.searchsorted(code, wanted), len(code) - 1)
    return np.where(code[place] == wanted, height[place], otherwise)
