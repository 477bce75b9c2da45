"""log p(x) = log of the integral of p(x | z) p(z) over z in up to three dimensions, on a grid refined where it matters.

A sum over a grid of spacing h converges faster than any power of h for a smooth, decaying integrand (Trefethen &
Weideman 2014): for a normal posterior of standard deviation s the relative error is about 2 exp(-2 (pi s / h)^2), so
halving h takes it to its fourth power, and the difference between two levels says how far the coarser one was off.

1. One grid over the prior serves all datapoints (`pairs`).
2. A datapoint whose two levels differ has its cells halved, those alone that can hold mass, until two levels agree.
   Cells are kept by their height below the mode, with room for peaks between the nodes of a grid that is still too
   coarse, so several modes are followed at once.
3. A datapoint whose posterior touches the grid's edge starts again on a grid twice as wide.
4. Two levels that are both too coarse can agree by accident. A datapoint is in doubt where its last cells do not
   resolve what they hold (`aliasing`), where a mode with mass was missed, where cells were left out or sums in
   float32 cancel. It is integrated again, on grids along its posterior's own axes (`own_axes`). A number that is
   confirmed stays; what is not resolved there either is flagged.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from comparisons.evidence.base import Estimate, Estimator, Facts, MemorySettings, Target, hold
from comparisons.evidence.blocks import joined, pairs_within
from comparisons.evidence.journal import once
from comparisons.evidence.means import log_sum
from comparisons.evidence.modes import STARTS, Peaks, climbed, peaks, posterior_mode
from comparisons.evidence.own_axes import BYTES, MAX_NODES, aliasing, on_own_axes
from comparisons.evidence.pairs import Scorer
from inference.base import setting

HALF_WIDTH = 6.0  # of the first grid, in prior standard deviations
SPACING = {1: 6 / 512, 2: 0.15, 3: 0.6}  # of the first grid; its half width is a multiple of twice that
MAX_LATENT = 3
MAX_LEVELS = 10  # halvings
MAX_CELLS = 50_000  # of one datapoint that are halved: of more, the highest
MAX_ROWS = 1000  # datapoints of a block
MIN_MEMORY = 1e7  # bytes that halved cells may have, however little was asked for
MAX_DOUBTFUL = 64  # datapoints that are integrated again at once
DEPTH = 50.0  # nats below the highest node, where peaks of the first grid are no longer looked at
NEAR = 12.0  # and its cells, where no finer ones are needed
TOO_NARROW = 4.0  # (h / s)^2 of a normal whose sum is off by more than 0.015 of itself
SEEDS = 32  # cells of a datapoint, each for an equal part of its mass, that its own grids grow from
CELL_BYTES = 24  # that a cell takes


@dataclass(frozen=True, kw_only=True)
class QuadratureSettings(MemorySettings):
    """What quadrature is told."""

    tolerance: float = setting(
        0.1, "quadrature: difference of two levels below which a datapoint is done [nats]", above=0.0, high=10.0
    )


def quadrature(target: Target, settings: QuadratureSettings, seed: int = 0) -> Estimate:
    """Return log p(x) for each datapoint, in nats; `stderr` is the difference between its last two levels.

    Diagnostics, per datapoint: `levels`, how often its cells were halved; `nodes`, how many it took in all; `again`,
    whether it was in doubt, and integrated again; and `flagged`, where the posterior is not resolved: then `stderr` is
    a guess. Raises ValueError for n_latent > 3.
    """
    hold(_refuses(target.facts, settings))
    found, flagged = _integrated(target._replace(q=None), settings, HALF_WIDTH)
    diagnostics = {"levels": found.levels, "nodes": found.nodes, "again": found.doubt, "flagged": flagged}
    return Estimate(found.value, found.error, systematic=True, diagnostics=diagnostics)


def _refuses(facts: Facts, settings: QuadratureSettings) -> str:
    if facts.n_latent > MAX_LATENT:
        return (
            f"evidence 'quadrature' needs n_latent <= {MAX_LATENT}, not {facts.n_latent}; "
            "choose --evidence importance or annealed"
        )
    return ""


CARD = Estimator(quadrature, QuadratureSettings, version=4, refuses=_refuses, rank=1)


def _integrated(target: Target, settings: QuadratureSettings, half_width: float) -> tuple["_Found", np.ndarray]:
    """Begin with a grid of this half width; wider ones follow where mass lies at its edge. Say what is flagged too."""
    n, k = len(target.x), target.latents.size
    spacing = SPACING[k] * half_width / HALF_WIDTH
    # Scores of a block are held in float32 and float64; and one that is broken off should not cost many minutes.
    within = pairs_within(settings.max_memory, target.model)
    most = min(settings.max_memory / (32 * len(_grid(half_width, spacing, k)[0])), within / (2 * k + 1))
    rows = int(np.clip(most, 1, min(n, MAX_ROWS)))
    settings = QuadratureSettings(tolerance=settings.tolerance, max_memory=max(settings.max_memory, MIN_MEMORY))
    among = (target.take(np.arange(start, min(start + rows, n))) for start in range(0, n, rows))
    found = _Found(*joined([once(partial(_block, each, settings, half_width)) for each in among]))
    flagged = ~np.isfinite(found.value) | found.touching
    doubtful, outside = np.flatnonzero(found.doubt), np.flatnonzero(found.touching)
    if len(outside) and half_width < 64 * HALF_WIDTH:
        wider, flagged[outside] = _integrated(target.take(outside), settings, 2 * half_width)
        wider.nodes[:] += found.nodes[outside]
        for column, further in zip(found, wider, strict=True):
            column[outside] = further
    size = int(np.clip(settings.max_memory / (BYTES * MAX_NODES), 1, MAX_DOUBTFUL))
    for start in range(0, len(doubtful), size):
        points = doubtful[start : start + size]
        flagged[points] = _integrated_again(target, points, found, settings)
    return found, flagged


class _Found(NamedTuple):
    """What the common grid and its halved cells say of each datapoint, [n] each."""

    value: np.ndarray
    error: np.ndarray
    levels: np.ndarray
    nodes: np.ndarray
    touching: np.ndarray  # mass lies at the grid's edge
    doubt: np.ndarray  # the number is not to be trusted
    peaks: np.ndarray  # [n, STARTS, k], of the first grid where in doubt; else NaN
    seeds: np.ndarray  # [n, SEEDS, k], cells of the last level by their mass; NaN where there are none


def _integrated_again(target: Target, points: np.ndarray, found: _Found, settings: QuadratureSettings) -> np.ndarray:
    """Integrate datapoints along their posterior's own axes, and correct what was found; return which are flagged.

    A number that is confirmed stays as it is.
    """
    tolerance, max_memory = settings.tolerance, settings.max_memory

    def work() -> tuple[np.ndarray, ...]:
        seeds = found.seeds[points]
        climbing = np.concatenate([found.peaks[points], seeds[:, :: SEEDS // 8]], 1)
        owner, nth = np.nonzero(np.isfinite(climbing[:, :, 0]))
        modes = climbed(target, points[owner], climbing[owner, nth], max_memory)._replace(owner=owner)
        # Where mass is spread over a plateau, or over more modes than were climbed, the seeds have to do.
        everywhere = np.concatenate([climbing, seeds], 1)
        of, nth = np.nonzero(np.isfinite(everywhere[:, :, 0]))
        starts = np.concatenate([owner, of]), np.concatenate([modes.z, everywhere[of, nth]])
        return tuple(on_own_axes(Scorer(target, max_memory), points, modes, starts, tolerance, max_memory))

    value, error, resolved, nodes = once(work)
    found.nodes[points] += nodes
    known, stated = found.value[points], found.error[points]
    confirmed = (np.abs(value - known) <= np.maximum(stated, tolerance / 10)) & (stated <= tolerance)
    apart = np.where(np.isfinite(value), np.abs(value - known), np.inf)
    better = resolved & ~confirmed | ~resolved & (error < stated)
    found.value[points] = np.where(better, value, known)
    unresolved = np.maximum(apart, np.minimum(error, 10.0))
    found.error[points] = np.where(resolved, np.where(better, error, stated), unresolved)
    return ~resolved


def _block(target: Target, settings: QuadratureSettings, half_width: float) -> _Found:
    """Integrate for all datapoints on the common grid, and halve its cells where that is not enough."""
    n, k, tolerance = len(target.x), target.latents.size, settings.tolerance
    spacing = SPACING[k] * half_width / HALF_WIDTH
    z, coarse, edge = _grid(half_width, spacing, k)
    scorer = Scorer(target, settings.max_memory)
    log_p = scorer.grid(z)  # [n, nodes]
    top = log_p.max(1)
    mass = np.exp(log_p - top[:, None])  # relative to the highest cell's
    log_cell = k * np.log(spacing)
    with np.errstate(divide="ignore"):
        value = top + np.log(mass.sum(1)) + log_cell
        error = np.abs(np.log(mass.sum(1)) - np.log(mass[:, coarse].sum(1)) - k * np.log(2))
    touching = mass[:, edge].sum(1) > 1e-5 * mass.sum(1)

    share = top + log_cell - value
    open_ = _open(error, share, k, tolerance) & ~touching
    peak, width = top.copy(), np.ones(n)
    if open_.any():
        best = z[log_p[open_].argmax(1)]
        _, covariance, height = posterior_mode(target.take(np.flatnonzero(open_)), best)
        peak[open_] = np.maximum(height, top[open_])
        width[open_] = np.sqrt(np.linalg.eigvalsh(covariance)[:, 0])
    floor = partial(_floor, peak=peak, width=width, k=k, tolerance=tolerance)
    keep = open_[:, None] & (log_p > floor(top, spacing=spacing)[:, None])
    mass[keep] = 0.0
    with np.errstate(divide="ignore"):
        closed = top + np.log(mass.sum(1)) + log_cell  # the mass of cells that are not halved
    order = _z_order(z, spacing)
    node, owner = np.nonzero(keep.T[order])
    cells = _Cells(z[order], node, owner, log_p.T[order[node], owner]).compact()
    seen = peaks(log_p, k, spacing, DEPTH)
    seeds = np.full((n, SEEDS, k), np.nan)
    near = np.nonzero(~open_[:, None] & (log_p > top[:, None] - NEAR))
    off = _off(_Cells(z, near[1], near[0], log_p[near]), top - NEAR, value - log_cell, ~open_, spacing, seeds)
    doubt = (off > tolerance / 2) | _rounded(scorer, z[log_p.argmax(1)], top, tolerance)
    del log_p, mass

    found = _Found(value, error, np.zeros(n, int), np.full(n, len(z)), touching, doubt, np.zeros(n), seeds)
    _halve(scorer, found, cells, open_, closed, top, floor, spacing, settings)
    doubt |= _missed(target, seen, keep, z, found, spacing, settings)
    doubt &= ~touching & np.isfinite(value)
    return found._replace(peaks=_starts(seen, z, doubt))


def _halve(
    scorer: Scorer,
    found: _Found,
    cells: "_Cells",
    open_: np.ndarray,
    closed: np.ndarray,
    top: np.ndarray,
    floor: Callable[..., np.ndarray],
    spacing: float,
    settings: QuadratureSettings,
) -> None:
    """Halve cells of this spacing, level by level, until each datapoint's last two agree or MAX_LEVELS are done.

    `open_` are datapoints where two levels have not agreed yet, `closed` the log of the mass of cells that are not
    halved, and `top` the highest node's height, [n] each. Corrects what was found.
    """
    value, error, levels, nodes, _, doubt, _, seeds = found
    tolerance, max_memory, n, k = settings.tolerance, settings.max_memory, len(value), cells.z.shape[1]
    log_cell = k * np.log(spacing)
    for level in range(1, MAX_LEVELS + 1):
        crowded = _too_many(cells, n, max_memory)
        if crowded.any():
            _off(cells, top - DEPTH, value - log_cell, crowded, spacing, seeds)
            doubt |= crowded
            open_, cells = open_ & ~crowded, cells.compact(~crowded[cells.owner])
        if not len(cells.owner):
            break
        above = partial(floor, spacing=spacing / 2)
        split, rest, top, counts, cells = _halved(scorer, cells, spacing, above, max_memory)
        spacing, log_cell = spacing / 2, log_cell - k * np.log(2)
        finer = np.where(open_, np.logaddexp(closed, split + log_cell), value)
        error[:] = np.where(open_, np.abs(finer - value), error)
        value[:] = finer
        levels[open_] = level
        nodes += counts
        done = open_ & (~_open(error, top + log_cell - value, k, tolerance) | (level == MAX_LEVELS))
        doubt |= _off(cells, above(top), value - log_cell, done, spacing, seeds) > tolerance / 2
        doubt |= done & ~(error <= tolerance)
        open_ = open_ & ~done
        closed = np.logaddexp(closed, rest + log_cell)
        among = _highest(cells, n)
        left_out = log_sum(np.where(among, -np.inf, cells.height), cells.owner, n) + log_cell
        doubt |= open_ & (left_out > value + np.log(tolerance / 10))
        kept = open_[cells.owner] & (cells.height > above(top)[cells.owner]) & among
        lost = np.where(kept, -np.inf, cells.height)
        closed = np.logaddexp(closed, log_sum(lost, cells.owner, n) + log_cell)
        cells = cells.compact(kept)


class _Cells(NamedTuple):
    """Cells to be halved, of all datapoints: a node that several of them want is there once."""

    z: np.ndarray  # [m, k], in Z-order: nodes that follow one another are near, and of interest to the same datapoints
    node: np.ndarray  # [p], in ascending order
    owner: np.ndarray  # [p], the datapoint
    height: np.ndarray  # [p], log p(x_owner, z_node)

    def compact(self, keep: np.ndarray | slice = slice(None)) -> "_Cells":
        """Return the pairs to keep and their nodes."""
        node = self.node[keep]
        used = np.zeros(len(self.z), bool)
        used[node] = True
        return _Cells(self.z[used], (np.cumsum(used) - 1)[node], self.owner[keep], self.height[keep])


def _halved(
    scorer: Scorer, cells: _Cells, spacing: float, floor: Callable[[np.ndarray], np.ndarray], max_memory: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, _Cells]:
    """Halve cells of this spacing along every axis, and score the new ones.

    Returns, per datapoint, the log of the sum over its new cells, and over those below the floor; the highest of them
    and how many they are, [n] each; and the cells above the floor, which rises to floor(top) as higher ones turn up.
    """
    n, k = len(scorer.x), cells.z.shape[1]
    corners = spacing * np.stack(np.meshgrid(*[[-0.25, 0.25]] * k, indexing="ij"), -1).reshape(-1, k)
    split, rest, top, counts = np.full(n, -np.inf), np.full(n, -np.inf), np.full(n, -np.inf), np.zeros(n, int)
    parts: list[_Cells] = []
    size = max(1, int(min(scorer.size, max_memory / (CELL_BYTES * n))) // 2**k)
    found = 0
    bounds = np.searchsorted(cells.node, np.arange(0, len(cells.z) + size, size))
    for number, (begin, end) in enumerate(pairwise(bounds)):
        parents = cells.z[number * size : (number + 1) * size]
        z = (parents[:, None] + corners).reshape(-1, k)
        points, row = np.unique(cells.owner[begin:end], return_inverse=True)
        wanted = np.zeros((len(points), len(parents)), bool)
        wanted[row, cells.node[begin:end] - number * size] = True
        height = scorer.where(points, z, np.repeat(wanted, 2**k, axis=1))
        highest = height.max(1)
        top[points] = np.maximum(top[points], highest)
        mass = np.exp(height - highest[:, None])
        keep = height > floor(top)[points, None]
        with np.errstate(divide="ignore"):
            split[points] = np.logaddexp(split[points], highest + np.log(mass.sum(1, dtype=np.float64)))
            below = np.where(keep, 0.0, mass).sum(1, dtype=np.float64)
            rest[points] = np.logaddexp(rest[points], highest + np.log(below))
        counts[points] += 2**k * wanted.sum(1)
        node, row = np.nonzero(keep.T)
        parts.append(_Cells(z, node, points[row], height[row, node]).compact())
        parts[-1] = parts[-1]._replace(node=parts[-1].node + found)
        found += len(parts[-1].z)
    together = _Cells(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    return split, rest, top, counts, together


def _highest(cells: _Cells, n: int) -> np.ndarray:
    """Say which cells are among the MAX_CELLS highest of their datapoint, [p]."""
    among = np.ones(len(cells.owner), bool)
    for crowded in np.flatnonzero(np.bincount(cells.owner, minlength=n) > MAX_CELLS):
        own = np.flatnonzero(cells.owner == crowded)
        among[own[np.argsort(cells.height[own])[:-MAX_CELLS]]] = False
    return among


def _open(error: np.ndarray, share: np.ndarray, k: int, tolerance: float) -> np.ndarray:
    """Say which datapoints need finer cells: two levels differ, or the highest cell holds too much of the mass.

    Two levels that are both too coarse can agree by accident. A normal posterior with s >= 0.8 h has at most half the
    mass in one cell per dimension.
    """
    return ~(error <= tolerance) | (share > k * np.log(0.5))


def _too_many(cells: _Cells, n: int, max_memory: float) -> np.ndarray:
    """Say which datapoints, those with the most cells, are left out so that the halved ones fit in memory, [n]."""
    count = np.bincount(cells.owner, minlength=n)
    order = np.argsort(count, kind="stable")
    fits = np.cumsum(count[order]) * 2 ** cells.z.shape[1] * CELL_BYTES <= max_memory
    return np.isin(np.arange(n), order[~fits]) & (count > 0)


def _rounded(scorer: Scorer, z: np.ndarray, height: np.ndarray, tolerance: float) -> np.ndarray:
    """Say where log p(x_i, z_i) [n], by a product of matrices, is not what the program itself says: terms cancel."""
    return np.abs(scorer.each(np.arange(len(z)), z) - height) > max(0.005, tolerance / 5)


def _off(
    cells: _Cells, floor: np.ndarray, log_sum: np.ndarray, which: np.ndarray, spacing: float, seeds: np.ndarray
) -> np.ndarray:
    """Return what part of the sum over these cells of one spacing they do not resolve, [n]; 0 but for `which` [n].

    Writes the `seeds` [n, SEEDS, k] of those: cells as far apart as equal parts of the mass, in the order of places.
    """
    n, k = len(which), cells.z.shape[1]
    among = which[cells.owner]
    owner, node, height = cells.owner[among], cells.node[among], cells.height[among].astype(np.float64)
    if not len(owner):
        return np.zeros(n)
    place = np.rint((cells.z - cells.z.min(0)) / spacing).astype(np.int64)
    side = place.max() + 2  # a step beyond the edge leads to a place that is never taken
    strides = side ** np.arange(k)[::-1]
    code = owner * side**k + (place @ strides)[node]
    order = np.argsort(code)
    code, owner, node, height = code[order], owner[order], node[order], height[order]
    mass = np.exp(height - log_sum[owner])
    off = aliasing(code, strides, np.maximum(height, floor[owner]), floor[owner])

    total = np.cumsum(mass)
    each, first = np.unique(owner, return_index=True)
    whole = np.bincount(owner, mass, minlength=n)[each]
    before = total[first] - mass[first]
    wanted = before[:, None] + whole[:, None] * (np.arange(SEEDS) + 0.5) / SEEDS
    chosen = np.minimum(np.searchsorted(total, wanted), len(total) - 1)
    seeds[each] = cells.z[node[chosen]]
    return np.bincount(owner, mass * off, minlength=n)


def _missed(
    target: Target,
    seen: Peaks,
    halved: np.ndarray,
    z: np.ndarray,
    found: _Found,
    spacing: float,
    settings: QuadratureSettings,
) -> np.ndarray:
    """Say which datapoints have a mode that holds mass and is too narrow for the cells there, [n].

    Peaks of the first grid that were not `halved` [n, nodes], and look as if mass were hidden there, are climbed.
    """
    value, worth, k = found.value, np.log(settings.tolerance / 10), z.shape[1]
    suspect = ~halved[seen.row, seen.node] & (seen.curvature > TOO_NARROW) & (seen.log_mass - value[seen.row] > worth)
    result = np.zeros(len(value), bool)
    if suspect.any():
        modes = climbed(target, seen.row[suspect], z[seen.node[suspect]], settings.max_memory)
        place = np.rint((modes.z - z[0]) / spacing).astype(int)
        node = np.ravel_multi_index(tuple(place.T), [round(len(z) ** (1 / k))] * k, mode="clip")
        level = np.where(halved[modes.owner, node], found.levels[modes.owner], 0)
        narrow = (spacing / 2.0**level) ** 2 / np.linalg.eigvalsh(modes.covariance)[:, 0] > TOO_NARROW
        result[modes.owner[narrow & (modes.log_mass - value[modes.owner] > worth)]] = True
    return result


def _starts(seen: Peaks, z: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Return the peaks of datapoints that look the weightiest, [n, STARTS, k]; NaN but for `which` [n]."""
    starts = np.full((len(which), STARTS, z.shape[1]), np.nan)
    order = np.lexsort((-seen.log_mass, seen.row))
    row = seen.row[order]
    nth = np.arange(len(row)) - np.searchsorted(row, row)
    taken = which[row] & (nth < STARTS)
    starts[row[taken], nth[taken]] = z[seen.node[order][taken]]
    return starts


def _floor(
    top: np.ndarray, *, peak: np.ndarray, width: np.ndarray, spacing: float, k: int, tolerance: float
) -> np.ndarray:
    """Return the height above which a cell is still halved, per datapoint: some nats below the mode, less some room.

    Cells 6.5 nats down hold 0.5 % of a normal mass in three dimensions, and keep what the coarser level gave them,
    which is near it: enough for a tolerance of 0.1, and a tighter one asks for as much more. On a grid coarser than the
    posterior a peak between nodes looks low, by up to k / 2 (h / 2 s)^2 nats; s is taken as 0.7 of the posterior's
    smallest standard deviation `width` at its mode, to have room for sharper modes elsewhere. The highest node `top` is
    lower than the mode's `peak` for the same reason; by more than half the room it is not believed, so that the highest
    cells are always halved.
    """
    room = 0.25 * k * (spacing / width) ** 2
    return np.minimum(peak, top + room / 2) - room - 6.5 - max(0.0, np.log(0.1 / tolerance))


def _grid(half_width: float, spacing: float, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return nodes [g, k], the indices of every second one per axis, and of those at the edge."""
    count = 2 * round(half_width / spacing) + 1
    index = np.stack([a.ravel() for a in np.meshgrid(*[np.arange(count)] * k, indexing="ij")], 1)
    on_edge = ((index == 0) | (index == count - 1)).any(1)
    return (
        np.linspace(-half_width, half_width, count)[index],
        np.flatnonzero((index % 2 == 0).all(1)),
        np.flatnonzero(on_edge),
    )


def _z_order(z: np.ndarray, spacing: float) -> np.ndarray:
    """Return the order of a grid's nodes z [g, k] by the interleaved bits of their places."""
    place = np.rint((z - z.min(0)) / spacing).astype(np.int64)
    code = np.zeros(len(z), np.int64)
    for axis in range(z.shape[1]):
        for bit in range(int(place.max()).bit_length()):
            code |= (place[:, axis] >> bit & 1) << (bit * z.shape[1] + axis)
    return np.argsort(code)
