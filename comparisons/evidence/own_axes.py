"""The integral of p(x, z) over z on grids that lie along the posterior's own axes, for what no common grid resolves.

A narrow posterior oblique to the axes of z takes (length / width)^k cells of a cube's shape. In the coordinates u of
z = mode + L u, with L L' the inverse curvature at the mode, a normal posterior is round, and a few hundred cells do.

1. Each mode has a grid of its own. Where there are several, p(x, z) is shared out between them, in proportion to the
   normals that fit them: the shares add up to one everywhere, so the integrals of the shares add up to the whole.
2. A grid grows from its mode cell by cell, as far as cells hold mass: it follows a bent ridge as well.
3. Its cells are halved until they resolve what they hold (`aliasing`) and the sums over every second cell, which are
   2^k coarser grids, agree. Where that takes too many cells a grid of cubes, as fine as the posterior is narrow, gets
   its turn: it is better where a ridge turns by a right angle. Where that fails too, the datapoint is not resolved.
"""

from typing import NamedTuple

import numpy as np

from comparisons.evidence.means import log_sum
from comparisons.evidence.modes import Modes, distinct
from comparisons.evidence.pairs import Scorer

SPACING = 0.75  # of the first grid, in standard deviations at the mode
LEVELS = 7  # spacings tried, each half of the one before
MAX_NODES = 200_000  # of one datapoint at once
DEPTH = 10.0  # nats below the top, where a grid ends: a normal has 2e-4 of its mass further out in three dimensions
SIDE = 16  # bits of a cell's place along an axis, with its sign
BYTES = 150  # that a node takes while a grid grows


class Integral(NamedTuple):
    """log p(x) of datapoints, [n] each: value, what it may be off by, whether it is resolved, and nodes scored."""

    value: np.ndarray
    error: np.ndarray
    resolved: np.ndarray
    nodes: np.ndarray


class _Grids(NamedTuple):
    """Grids z = origin + basis u, one or several for each datapoint, and how p(x, z) is shared out between them."""

    owner: np.ndarray  # [g], the datapoint, in ascending order
    row: np.ndarray  # [g], its row among those of the scorer
    origin: np.ndarray  # [g, k]
    basis: np.ndarray  # [g, k, k]
    modes: Modes | None  # one for each grid: the normals to share by; None where each datapoint has one grid


class _Cells(NamedTuple):
    """Cells of grids, ascending by their code."""

    code: np.ndarray  # [p], the grid and the place on it as one number
    height: np.ndarray  # [p], log of the share of p(x, z), -inf where it is not to be had


def on_own_axes(
    scorer: Scorer,
    points: np.ndarray,
    modes: Modes,
    starts: tuple[np.ndarray, np.ndarray],
    tolerance: float,
    max_memory: float,
) -> Integral:
    """Integrate p(x, z) for the datapoints `points` [n] of the scorer, whose modes these are: each has at least one.

    Grids grow from the `starts`, owner [m] and z [m, k], wherever these hold mass. `tolerance` is in nats: a datapoint
    is resolved where coarser sums are no further off, nor can the cells be.
    """
    n, k = len(points), modes.z.shape[1]
    most = int(min(MAX_NODES, max_memory / n / BYTES))
    kept = distinct(modes)
    kept = kept[np.argsort(modes.owner[kept], kind="stable")]  # the weightiest of a datapoint first
    chosen = modes.take(kept)
    basis = np.linalg.cholesky(chosen.covariance)
    grids = _Grids(chosen.owner, points[chosen.owner], chosen.z, basis, chosen)
    found = _refined(scorer, grids, starts, n, tolerance, most)
    left = np.flatnonzero(~found.resolved)
    if k > 1 and len(left):
        first = np.searchsorted(chosen.owner, left)
        narrow = np.sqrt(np.linalg.eigvalsh(chosen.covariance[first])[:, 0])
        cubes = _Grids(left, points[left], chosen.z[first], narrow[:, None, None] * np.eye(k), None)
        other = _refined(scorer, cubes, starts, n, tolerance, most)
        found.nodes[left] += other.nodes[left]
        better = left[other.resolved[left] | (other.error[left] < found.error[left])]
        for column, known in zip(other[:3], found[:3], strict=True):
            known[better] = column[better]
    return found


def aliasing(code: np.ndarray, strides: np.ndarray, height: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """Return how much of each cell's mass may be an error, [p] between 0 and 1/2, by the heights of its neighbours.

    Two sums that are both too coarse can agree by accident, as on a narrow ridge that is oblique to the grid. The
    second difference of log p along an axis cannot: D = 2 log p(z) - log p(z + h) - log p(z - h) is (h / s)^2 where p
    is a normal of standard deviation s along the axis, wherever its mode lies between the nodes. The sum of such a
    normal is off by at most 2 exp(-2 pi^2 / D) (Trefethen & Weideman 2014). In k dimensions, for an oblique one, the
    leading terms of the error are no larger than those of its axes: (m' S m) (e' inv(S) e) >= (m' e)^2, by Cauchy and
    Schwarz.

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


def _refined(
    scorer: Scorer, grids: _Grids, starts: tuple[np.ndarray, np.ndarray], n: int, tolerance: float, most: int
) -> Integral:
    """Halve the cells of these grids until their datapoints, some of 0 ... n - 1, are resolved."""
    k = grids.origin.shape[1]
    depth = DEPTH + max(0.0, np.log(0.1 / tolerance))
    result = Integral(np.full(n, np.nan), np.full(n, np.inf), np.zeros(n, bool), np.zeros(n, int))
    value, error = np.full(len(grids.owner), -np.inf), np.full(len(grids.owner), np.inf)
    active, points = np.ones(len(grids.owner), bool), np.unique(grids.owner)
    seeds = _seeds(grids, *starts)
    log_volume = np.linalg.slogdet(grids.basis)[1]
    for level in range(LEVELS):
        spacing = SPACING / 2**level
        cells, whole, top = _grown(scorer, grids, spacing, active, seeds, depth, most)
        grid = cells.code >> SIDE * k
        result.nodes[:] += np.bincount(grids.owner[grid], minlength=n)
        sums, bounds = _sums(cells, top, k, depth)
        known = active & whole
        value[known] = (sums + k * np.log(spacing) + log_volume)[known]
        error[known] = bounds[known]
        total = log_sum(value, grids.owner, n)
        with np.errstate(invalid="ignore"):
            share = np.exp(value - total[grids.owner])
        weighed = np.where(share > 0, share * error, np.where(np.isfinite(error), 0.0, np.inf))
        off = np.bincount(grids.owner, weighed, minlength=n)
        result.value[points], result.error[points] = total[points], np.log1p(off[points])
        result.resolved[points] = off[points] <= tolerance
        # A grid that grew too large is given up, and its datapoint with it.
        lost = np.bincount(grids.owner, active & ~whole, minlength=n) > 0
        active &= ~result.resolved[grids.owner] & ~lost[grids.owner] & (weighed > tolerance / 100)
        if not active.any():
            break
        among = active[grid] & (cells.height > top[grid] - DEPTH)
        seeds = grid[among], 2 * _place(cells.code[among], k)
    return result


def _seeds(grids: _Grids, owner: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the cells from which the first grids grow, grid [m] and place [m, k]: those nearest to all starts."""
    start, grid = np.nonzero(owner[:, None] == grids.owner)
    offset = np.linalg.solve(grids.basis[grid], (z[start] - grids.origin[grid])[:, :, None])[:, :, 0]
    place = np.rint(offset / SPACING)
    inside = (np.abs(place) < 2 ** (SIDE - 1) - 2).all(1)
    return grid[inside], place[inside].astype(np.int64)


def _grown(
    scorer: Scorer,
    grids: _Grids,
    spacing: float,
    active: np.ndarray,
    seeds: tuple[np.ndarray, np.ndarray],
    depth: float,
    most: int,
) -> tuple[_Cells, np.ndarray, np.ndarray]:
    """Score the seeds' cells of the active grids, and the neighbours of all cells less than `depth` below the top.

    Returns the cells; which grids are whole [g]: their datapoint has no more than `most` nodes, nor have they come to
    the end of the numbers; and the height of each grid's highest cell [g], -inf where it has none.
    """
    count, k = grids.origin.shape
    around = np.stack(np.meshgrid(*[[-1, 0, 1]] * k, indexing="ij"), -1).reshape(-1, k)
    steps = around[np.abs(around).sum(1) > 0] @ _strides(k)
    whole, top, size = np.ones(count, bool), np.full(count, -np.inf), np.zeros(grids.owner[-1] + 1, int)
    among = active[seeds[0]]
    new = np.unique(_code(seeds[0][among], seeds[1][among]))
    cells = _Cells(np.zeros(0, np.int64), np.zeros(0))
    while len(new):
        grid = new >> SIDE * k
        size += np.bincount(grids.owner[grid], minlength=len(size))
        whole &= size[grids.owner] <= most
        new, grid = new[whole[grid]], grid[whole[grid]]
        height = _scored(scorer, grids, grid, spacing * _place(new, k))
        np.maximum.at(top, grid, height)
        whole[grid[(np.abs(_place(new, k)) >= 2 ** (SIDE - 1) - 2).any(1)]] = False
        where = np.searchsorted(cells.code, new)
        cells = _Cells(np.insert(cells.code, where, new), np.insert(cells.height, where, height))
        growing = new[(height > top[grid] - depth) & whole[grid]]
        new = np.unique(growing[:, None] + steps)
        new = new[np.isnan(_looked_up(cells.code, cells.height, new, np.nan))]
    return cells, whole, top


def _scored(scorer: Scorer, grids: _Grids, grid: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Return the log of the grid's share of p(x, z) at u [p, k], [p] in float64; -inf for what is not finite."""
    z = grids.origin[grid] + np.einsum("pkl,pl->pk", grids.basis[grid], u)
    height = scorer.each(grids.row[grid], z).astype(np.float64)
    if grids.modes is not None:
        height += _log_share(grids.modes, grid, z)
    return np.where(np.isfinite(height), height, -np.inf)


def _log_share(modes: Modes, mode: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return the log of the mode's share of its datapoint's fitted normals at z [p, k], [p]."""
    first, last = (np.searchsorted(modes.owner, modes.owner[mode], side) for side in ("left", "right"))
    result = np.zeros(len(mode))
    several = np.flatnonzero(last - first > 1)
    if not len(several):
        return result
    precision = np.linalg.inv(modes.covariance)
    log_weight = modes.log_mass + 0.5 * np.linalg.slogdet(precision)[1]

    def log_normal(which: np.ndarray, z: np.ndarray) -> np.ndarray:
        offset = z - modes.z[which]
        return log_weight[which] - 0.5 * np.einsum("pk,pkl,pl->p", offset, precision[which], offset)

    own = log_normal(mode[several], z[several])
    total = np.full(len(several), -np.inf)
    for nth in range(int((last - first).max())):
        other = first[several] + nth
        has = other < last[several]
        total[has] = np.logaddexp(total[has], log_normal(other[has], z[several[has]]))
    result[several] = own - total
    return result


def _sums(cells: _Cells, top: np.ndarray, k: int, depth: float) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each grid, the log of the sum over its cells, and by what part of itself it may be off, [g] each.

    That is the largest of what the cells cannot resolve, and of the difference to a sum over every second cell.
    """
    grid, count = cells.code >> SIDE * k, len(top)
    finite = np.where(np.isfinite(top), top, 0.0)
    mass = np.exp(cells.height - finite[grid])
    total = np.bincount(grid, mass, minlength=count)
    parity = ((_place(cells.code, k) & 1) << np.arange(k)).sum(1)
    coarser = np.bincount(grid << k | parity, mass, minlength=count << k).reshape(count, -1)
    floor = (finite - depth)[grid]
    doubtful = np.bincount(
        grid, mass * aliasing(cells.code, _strides(k), np.maximum(cells.height, floor), floor), minlength=count
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.abs(2**k * coarser / total[:, None] - 1).max(1)
        return finite + np.log(total), np.maximum(spread, doubtful / total)


def _strides(k: int) -> np.ndarray:
    """Return what a step along each axis adds to a cell's code, [k]."""
    return np.int64(1) << np.int64(SIDE) * np.arange(k)[::-1]


def _code(grid: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Return grid [p] and place [p, k] as one number."""
    k = place.shape[1]
    return (grid.astype(np.int64) << SIDE * k) + (place + 2 ** (SIDE - 1)) @ _strides(k)


def _place(code: np.ndarray, k: int) -> np.ndarray:
    """Return the place [p, k] of cells by their code."""
    shifts = SIDE * np.arange(k)[::-1]
    return (code[:, None] >> shifts & (2**SIDE - 1)) - 2 ** (SIDE - 1)


def _looked_up(code: np.ndarray, height: np.ndarray, wanted: np.ndarray, otherwise: np.ndarray | float) -> np.ndarray:
    """Return the height of the cells `wanted` [p] where they are known, else `otherwise` [p]."""
    place = np.minimum(np.searchsorted(code, wanted), len(code) - 1)
    return np.where(code[place] == wanted, height[place], otherwise)
