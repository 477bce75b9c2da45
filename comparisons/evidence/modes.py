"""The modes of p(z | x): where a grid has peaks, where they are once climbed, and how wide the posterior is there."""

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from comparisons.evidence.base import Target
from comparisons.evidence.blocks import pairs_within
from comparisons.evidence.means import LOG_2PI
from inference.base import Engine
from inference.latents import latents
from models.base import Array, Model

STARTS = 8  # peaks of a datapoint that are climbed, the highest first
APART = 3.0  # standard deviations between two modes that are told apart


class Modes(NamedTuple):
    """Modes of several datapoints, [m] in all, and the normal that fits each."""

    owner: np.ndarray  # [m], the datapoint
    z: np.ndarray  # [m, k]
    covariance: np.ndarray  # [m, k, k], the inverse of the negative Hessian
    log_mass: np.ndarray  # [m], log of the integral of the normal: Laplace's log p(x), in nats

    def take(self, which: np.ndarray) -> "Modes":
        """Return some of them."""
        return Modes(*(column[which] for column in self))


def climbed(target: Target, owner: np.ndarray, z: np.ndarray, max_memory: float) -> Modes:
    """Climb from z [m, k], of the datapoints `owner`, each to a mode: one for each start, in their order.

    The Hessian is a difference of gradients, first over 0.01 and then over a third of the smallest standard deviation.
    """
    m, k = z.shape
    size = int(np.clip(pairs_within(max_memory, target.model) // (2 * k + 1), 1, 256))
    parts = []
    for start in range(0, m, size):
        count = min(size, m - start)
        # Few different lengths: few compilations.
        rows = np.resize(np.arange(start, start + count), min(size, max(16, 1 << (count - 1).bit_length())))
        among = target.take(owner[rows])
        at, covariance, _ = posterior_mode(among, z[rows])
        narrow = np.sqrt(np.linalg.eigvalsh(covariance)[:, 0])
        step = np.clip(narrow / 3, 1e-4, 1e-2)
        parts.append([a[:count] for a in posterior_mode(among, at, steps=5, step=step)])
    at, covariance, height = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Modes(owner, at, covariance, height + 0.5 * (k * LOG_2PI + np.linalg.slogdet(covariance)[1]))


def distinct(modes: Modes) -> np.ndarray:
    """Return the indices of modes that are far from every weightier one of their datapoint, the weightiest first."""
    kept: list[int] = []
    precision = np.linalg.inv(modes.covariance)
    of_owner: dict[int, list[int]] = {}
    for candidate in np.argsort(-modes.log_mass, kind="stable"):
        others = of_owner.setdefault(int(modes.owner[candidate]), [])
        offset = modes.z[others] - modes.z[candidate]
        if not len(others) or np.einsum("ok,okl,ol->o", offset, precision[others], offset).min() > APART**2:
            others.append(int(candidate))
            kept.append(int(candidate))
    return np.array(kept, int)


class Peaks(NamedTuple):
    """Nodes of a grid that are higher than their neighbours along every axis, [m] in all."""

    row: np.ndarray  # [m], the datapoint
    node: np.ndarray  # [m]
    curvature: np.ndarray  # [m], the largest second difference along an axis: (spacing / standard deviation)^2
    log_mass: np.ndarray  # [m], of the parabola through the node and its neighbours, in nats: no more than a guess


def peaks(log_p: np.ndarray, k: int, spacing: float, depth: float) -> Peaks:
    """Find the peaks of each datapoint's heights log_p [n, g] on a cubic grid, no lower than `depth` below the top."""
    n, g = log_p.shape
    side = round(g ** (1 / k))
    shaped = log_p.reshape(n, *[side] * k)
    is_peak = np.ones(shaped.shape, bool)
    for axis in range(1, k + 1):
        along, rising = (np.moveaxis(array, axis, 0) for array in (is_peak, np.diff(shaped, axis=axis) > 0))
        along[1:] &= rising
        along[:-1] &= ~rising
    row, node = np.nonzero(is_peak.reshape(n, g))
    near = log_p[row, node] > log_p.max(1)[row] - depth
    row, node = row[near], node[near]
    height = log_p[row, node]
    log_mass, curvature = height + k * np.log(spacing), np.zeros(len(row))
    for axis in range(k):
        stride = side ** (k - 1 - axis)
        place = node // stride % side
        above = np.where(place < side - 1, log_p[row, np.minimum(node + stride, g - 1)], -np.inf)
        below = np.where(place > 0, log_p[row, np.maximum(node - stride, 0)], -np.inf)
        above, below = np.maximum(above, below - 1e3), np.maximum(below, above - 1e3)  # at the edge of the grid
        second = np.maximum(2 * height - above - below, spacing**2)
        curvature = np.maximum(curvature, second)
        log_mass += (above - below) ** 2 / (8 * second) + 0.5 * (LOG_2PI - np.log(second))
    return Peaks(row, node, curvature, log_mass)


def posterior_mode(
    target: Target, z: np.ndarray, steps: int = 25, step: float | np.ndarray = 1e-2
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Climb log p(x, z) from z [n, k] by damped Newton steps; return modes, inverse negative Hessians, and heights [n].

    Levenberg-Marquardt damping per datapoint; the Hessian [k, k] is a central difference of gradients over `step`, one
    or [n].
    """
    n, k = z.shape
    engine, evaluate = target.engine, _log_joint_and_gradient(target.engine, target.model)
    place = target.place
    step = np.broadcast_to(step, n)[:, None]
    offsets = step * np.concatenate([np.zeros((1, k)), np.eye(k), -np.eye(k)])[:, None]

    def look(z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        scored = evaluate(place, target.x, engine.array(z + offsets))
        value, gradient = (engine.numpy(a).astype(np.float64) for a in scored)
        hessian = (gradient[1 : k + 1] - gradient[k + 1 :]).transpose(1, 0, 2) / (2 * step[:, :, None])
        return value[0], gradient[0], -(hessian + hessian.transpose(0, 2, 1)) / 2

    value, gradient, precision = look(z)
    damping = np.ones(n)
    for _ in range(steps):
        # |precision| has the same eigenvectors and none that points downhill.
        move = np.linalg.solve(_positive(precision) + damping[:, None, None] * np.eye(k), gradient[:, :, None])[:, :, 0]
        found = look(z + move)
        better = found[0] > value
        z = np.where(better[:, None], z + move, z)
        value = np.where(better, found[0], value)
        gradient = np.where(better[:, None], found[1], gradient)
        precision = np.where(better[:, None, None], found[2], precision)
        damping = np.clip(np.where(better, damping / 5, damping * 5), 1e-6, 1e8)
        if np.abs(np.where(better[:, None], move, 0.0)).max() < 1e-4:
            break
    return z, np.linalg.inv(_positive(precision)), value


def _positive(matrices: np.ndarray) -> np.ndarray:
    """Return symmetric matrices [n, k, k] with the absolute values of their eigenvalues, at least 1 (the prior's)."""
    values, vectors = np.linalg.eigh(matrices)
    return (vectors * np.maximum(np.abs(values), 1.0)[:, None, :]) @ vectors.transpose(0, 2, 1)


@cache
def _log_joint_and_gradient(engine: Engine, model: Model) -> Any:
    """Return f(place, x, z [m, n, k]) -> (log p(x, z) [m, n], its gradient in z [m, n, k])."""
    sites = latents(engine, model)

    def total(z: Array, place: Any, x: Array) -> tuple[Array, Array]:
        each = sites.log_joint(place, x, z)
        return each.sum(), each

    differentiate = engine.value_and_grad(total, has_aux=True)

    def evaluate(place: Any, x: Array, z: Array) -> tuple[Array, Array]:
        (_, each), gradient = differentiate(z, place, x)
        return each, gradient

    return engine.compile(evaluate)
