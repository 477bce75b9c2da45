"""p(x, z) and q(z | x) of two latent variables on grids, one for each datapoint, and the divergences between them.

A sum over a grid of spacing h converges faster than any power of h for smooth densities that decay (Trefethen &
Weideman 2014), once h is near their standard deviation: the sum over every second node along both axes says how far off
it is.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from comparisons.evidence.base import Target
from comparisons.evidence.pairs import Scorer
from inference.base import Engine, Posterior, Program
from inference.latents import latents
from models.base import Model

HALF_WIDTH = 8.0  # of the first grid, in standard deviations of the prior
SIDE = 97  # nodes along an axis of the first grids; odd, so that every second node is a grid too
FINEST = 769  # of the last
DEPTH = 30.0  # nats below its top, where a density ends: 1e-13 of it lies further out
TOLERANCE = 1e-4  # nats, to which a grid and its every second node agree
LOOKS = 12  # grids tried
REACH, SIDE_OF_Q = 7.0, 49  # standard deviations of q that its own grid reaches, and nodes along an axis
MEMORY = 2e8  # bytes that scoring may take


class Plane(NamedTuple):
    """A grid for each datapoint, and how high log p(x, z) and log q(z | x) are at its nodes, in nats."""

    z: np.ndarray  # [g, n, 2]
    log_p: np.ndarray  # [g, n]
    log_q: np.ndarray  # [g, n]
    log_cell: np.ndarray  # [n], log of a cell's area

    @property
    def log_px(self) -> np.ndarray:
        """log p(x), the log of the integral of p(x, z) over z, in nats [n]."""
        return np.asarray(np.logaddexp.reduce(self.log_p) + self.log_cell)

    @property
    def bound(self) -> np.ndarray:
        """The bound, the integral of q(z | x) (log p(x, z) - log q(z | x)) (equation 2), in nats [n]."""
        q = np.exp(self.log_q + self.log_cell)
        return np.asarray((q * (self.log_p - self.log_q)).sum(0))

    @property
    def kl(self) -> np.ndarray:
        """KL(q(z | x) || p(z | x)) in nats [n]."""
        return divergence(self.log_q, self.log_p)

    @property
    def kl_forward(self) -> np.ndarray:
        """KL(p(z | x) || q(z | x)) in nats [n]."""
        return divergence(self.log_p, self.log_q)

    def coarser(self) -> "Plane":
        """Return the grid of every second node along both axes."""
        side = round(len(self.z) ** 0.5)
        every = np.arange(side**2).reshape(side, side)[::2, ::2].ravel()
        return Plane(self.z[every], self.log_p[every], self.log_q[every], self.log_cell + 2 * np.log(2.0))


def divergence(log_a: np.ndarray, log_b: np.ndarray) -> np.ndarray:
    """Return KL(a || b) = sum a (log a - log b) of two densities on the nodes of one grid, in nats [...].

    log_a and log_b [g, ...] are their heights, each up to a constant: both are normalised over the grid.
    """
    log_a, log_b = (each - np.logaddexp.reduce(each) for each in (log_a, log_b))
    return np.asarray((np.exp(log_a) * (log_a - log_b)).sum(0))


def of_both(target: Target) -> tuple[Plane, np.ndarray]:
    """Return a grid for each datapoint that holds q and the posterior alike, and what it may be off by, in nats [n].

    It closes in on where either is high, or widens where one is cut off, and is then halved until log p(x), the mass of
    q and KL(q || p) are the same by every second node. Without a q the posterior stands in its place.
    """
    scorer, side = Scorer(target, MEMORY), SIDE
    low, high = (np.full((len(target.x), 2), end) for end in (-HALF_WIDTH, HALF_WIDTH))
    for _ in range(LOOKS):
        plane = _scored(target, scorer, low, high, side)
        left, right, cut = _held(plane, low, high, side)
        if cut or (np.prod(right - left, 1) < 0.5 * np.prod(high - low, 1)).any():
            low, high = left, right
        elif _off(plane).max() <= TOLERANCE or 2 * side - 1 > FINEST:
            break
        else:
            side = 2 * side - 1
    return plane, _off(plane)


def of_q(target: Target, plane: Plane) -> tuple[Plane, np.ndarray]:
    """Return a grid for each datapoint laid out by the moments of q alone, and what its bound may be off by [n].

    It shares no node with the `plane` that the moments are read off.
    """
    q = np.exp(plane.log_q - np.logaddexp.reduce(plane.log_q))[:, :, None]
    mean = (q * plane.z).sum(0)
    reach = REACH * np.sqrt((q * (plane.z - mean) ** 2).sum(0))
    found = _scored(target, Scorer(target, MEMORY), mean - reach, mean + reach, SIDE_OF_Q)
    return found, np.abs(found.bound - found.coarser().bound)


def grid(low: np.ndarray, high: np.ndarray, side: int) -> np.ndarray:
    """Return nodes [side * side, n, 2] that fill boxes from low to high, [n, 2] each, ends included."""
    share = np.linspace(0.0, 1.0, side)
    both = np.stack(np.meshgrid(share, share, indexing="ij"), -1).reshape(-1, 1, 2)
    return np.asarray(low + both * (high - low))


def _scored(target: Target, scorer: Scorer, low: np.ndarray, high: np.ndarray, side: int) -> Plane:
    """Score the nodes of grids over these boxes."""
    z, n = grid(low, high, side), len(low)
    if (low == low[0]).all() and (high == high[0]).all():  # each node is decoded once
        log_p = scorer.grid(z[:, 0]).T
    else:
        log_p = scorer.each(np.tile(np.arange(n), len(z)), z.reshape(-1, 2), ()).reshape(-1, n).astype(np.float64)
    engine, q, log_q = target.engine, target.q, log_p
    if q is not None:
        height = _log_q(engine, target.model, q.program)(target.place, engine.array(z), *q.args)
        log_q = engine.numpy(height).astype(np.float64)
    return Plane(z, log_p, log_q, np.log(np.prod((high - low) / (side - 1), 1)))


def _held(plane: Plane, low: np.ndarray, high: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return the box of the nodes where p or q is high, a cell wider, and whether an edge cuts any of it off.

    There it is a quarter of its width wider.
    """
    among = np.zeros(plane.log_p.shape, bool)
    for height in (plane.log_p, plane.log_q):
        among |= height > height.max(0) - DEPTH
    cell = (high - low) / (side - 1)
    least = np.where(among[:, :, None], plane.z, np.inf).min(0)
    most = np.where(among[:, :, None], plane.z, -np.inf).max(0)
    wider, below, above = 0.25 * (high - low), least < low + 0.5 * cell, most > high - 0.5 * cell
    left, right = np.where(below, low - wider, least - cell), np.where(above, high + wider, most + cell)
    return left, right, bool((below | above).any())


def _off(plane: Plane) -> np.ndarray:
    """Return by how much every second node tells otherwise, [n]."""
    coarse = plane.coarser()
    mass, other = (np.logaddexp.reduce(each.log_q) + each.log_cell for each in (plane, coarse))
    pairs = (plane.log_px, coarse.log_px), (plane.kl, coarse.kl), (mass, other)
    return np.max([np.abs(one - two) for one, two in pairs], axis=0)


@cache
def _log_q(engine: Engine, model: Model, program: Program) -> Any:
    sites = latents(engine, model)
    return engine.compile(lambda place, z, *args: sites.log_q(Posterior(program, args), place, z))
