"""log p(x) = log of the integral of p(x | z) p(z) over z in up to three dimensions, on a grid refined where it matters.

A sum over a grid of spacing h converges faster than any power of h for a smooth, decaying integrand (Trefethen &
Weideman 2014): for a normal posterior of standard deviation s the relative error is about 2 exp(-2 (pi s / h)^2), so
halving h takes it to its fourth power, and the difference between two levels says how far the coarser one was off.

1. One grid over the prior serves all datapoints. Where the decoder is a Bernoulli or a normal,
   log p(x | z) = T(x) . eta(z) - A(z): eta and A are computed once a node, and all datapoints are scored by one matrix
   product.
2. A datapoint whose two levels differ has its cells halved, those alone that can hold mass, until two levels agree.
   Cells are kept by their height below the mode, with room for peaks between the nodes of a grid that is still too
   coarse, so several modes are followed at once.
3. A datapoint whose posterior touches the grid's edge starts again on a grid twice as wide.
"""

from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from comparisons.evidence.base import Estimate
from comparisons.evidence.journal import once
from inference.base import Engine, Params
from models.base import Array, Model

HALF_WIDTH = 6.0  # of the first grid, in prior standard deviations
SPACING = {1: 6 / 512, 2: 0.15, 3: 0.6}  # of the first grid; its half width is a multiple of twice that
MAX_LEVELS = 10  # halvings
MAX_CELLS = 50_000  # of one datapoint that are halved: of more, the highest
MAX_ROWS = 1000  # datapoints of a block
PAIRS = 4096  # (datapoint, z) pairs scored in one call
LOG_2PI = float(np.log(2 * np.pi))


def quadrature(
    engine: Engine,
    model: Model,
    theta: Params,
    x: Array,
    seed: int = 0,
    *,
    tolerance: float = 0.1,
    max_memory: float = 1e9,
    half_width: float = HALF_WIDTH,
) -> Estimate:
    """Return log p(x) for each row of x [n, n_x], in nats; `stderr` is the difference between its last two levels.

    `tolerance` is that difference, in nats, below which a datapoint is done; `max_memory` bounds the working arrays, in
    bytes. Diagnostics, per datapoint: `levels`, how often its cells were halved, and `nodes`, how many it took in all.
    Raises ValueError for n_latent > 3.
    """
    k = model.n_latent
    if k > 3:
        raise ValueError(f"quadrature needs n_latent <= 3, not {k}")
    spacing = SPACING[k] * half_width / HALF_WIDTH
    z, coarse, edge = _grid(half_width, spacing, k)
    # Scores of a block are held in float32 and float64; and one that is broken off should not cost many minutes.
    rows = int(np.clip(max_memory / (16 * len(z)), 1, min(len(x), MAX_ROWS)))
    parts = [
        once(partial(_block, engine, model, theta, x[start : start + rows], z, coarse, edge, spacing, tolerance))
        for start in range(0, len(x), rows)
    ]
    value, error, levels, nodes, touching = (np.concatenate(column) for column in zip(*parts, strict=True))
    outside = np.flatnonzero(touching)
    if len(outside) and half_width < 64 * HALF_WIDTH:
        wider = quadrature(
            engine, model, theta, x[engine.array(outside)], seed,
            tolerance=tolerance, max_memory=max_memory, half_width=2 * half_width,
        )  # fmt: skip
        value[outside], error[outside] = wider.value, wider.stderr
        assert wider.diagnostics is not None
        levels[outside] = wider.diagnostics["levels"]
        nodes[outside] += wider.diagnostics["nodes"]
    return Estimate(value, error, systematic=True, diagnostics={"levels": levels, "nodes": nodes})


def _block(
    engine: Engine,
    model: Model,
    theta: Params,
    x: Array,
    z: np.ndarray,
    coarse: np.ndarray,
    edge: np.ndarray,
    spacing: float,
    tolerance: float,
) -> tuple[np.ndarray, ...]:
    """Integrate for the rows of x: value, error, levels, nodes, and whether mass lies at the grid's edge, all [n]."""
    n, k = len(x), model.n_latent
    log_p = _shared(engine, model, theta, x, z)  # [n, nodes]
    top = log_p.max(1)
    mass = np.exp(log_p - top[:, None])  # relative to the highest cell's
    log_cell = k * np.log(spacing)
    with np.errstate(divide="ignore"):
        value = top + np.log(mass.sum(1)) + log_cell
        error = np.abs(np.log(mass.sum(1)) - np.log(mass[:, coarse].sum(1)) - k * np.log(2))
    touching = mass[:, edge].sum(1) > 1e-5 * mass.sum(1)
    levels, nodes = np.zeros(n, int), np.full(n, len(z))

    share = top + log_cell - value
    open_ = _open(error, share, k, tolerance) & ~touching
    peak, width = top.copy(), np.ones(n)
    if open_.any():
        best = z[log_p[open_].argmax(1)]
        _, covariance, height = posterior_mode(engine, model, theta, x[engine.array(np.flatnonzero(open_))], best)
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
    del log_p, mass, keep

    decode = _Decoder(engine, model, theta, x)
    for level in range(1, MAX_LEVELS + 1):
        if not len(cells.owner):
            break
        above = partial(floor, spacing=spacing / 2)
        split, rest, top, counts, cells = _halved(decode, cells, spacing, above)
        spacing, log_cell = spacing / 2, log_cell - k * np.log(2)
        finer = np.where(open_, np.logaddexp(closed, split + log_cell), value)
        error = np.where(open_, np.abs(finer - value), error)
        value = finer
        levels[open_] = level
        nodes += counts
        open_ &= _open(error, top + log_cell - value, k, tolerance)
        closed = np.logaddexp(closed, rest + log_cell)
        keep = open_[cells.owner] & (cells.height > above(top)[cells.owner]) & _highest(cells, n)
        lost = np.where(keep, -np.inf, cells.height)
        closed = np.logaddexp(closed, _log_sum(lost, cells.owner, n) + log_cell)
        cells = cells.compact(keep)
    return value, error, levels, nodes, touching


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
    decode: "_Decoder", cells: _Cells, spacing: float, floor: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, _Cells]:
    """Halve cells of this spacing along every axis, and score the new ones.

    Returns, per datapoint, the log of the sum over its new cells, and over those below the floor; the highest of them
    and how many they are, [n] each; and the cells above the floor, which rises to floor(top) as higher ones turn up.
    """
    n, k = len(decode.x), cells.z.shape[1]
    corners = spacing * np.stack(np.meshgrid(*[[-0.25, 0.25]] * k, indexing="ij"), -1).reshape(-1, k)
    split, rest, top, counts = np.full(n, -np.inf), np.full(n, -np.inf), np.full(n, -np.inf), np.zeros(n, int)
    parts: list[_Cells] = []
    size = PAIRS // 2**k
    found = 0
    bounds = np.searchsorted(cells.node, np.arange(0, len(cells.z) + size, size))
    for number, (begin, end) in enumerate(pairwise(bounds)):
        parents = cells.z[number * size : (number + 1) * size]
        z = (parents[:, None] + corners).reshape(-1, k)
        points, row = np.unique(cells.owner[begin:end], return_inverse=True)
        wanted = np.zeros((len(points), len(parents)), bool)
        wanted[row, cells.node[begin:end] - number * size] = True
        height = decode(points, z, np.repeat(wanted, 2**k, axis=1))
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


def posterior_mode(
    engine: Engine, model: Model, theta: Params, x: Array, z: np.ndarray, steps: int = 25
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Climb log p(x, z) from z [n, k] by damped Newton steps; return modes, inverse negative Hessians, and heights [n].

    Levenberg-Marquardt damping per datapoint; the Hessian [k, k] is a central difference of gradients.
    """
    n, k = z.shape
    evaluate = _log_joint_and_gradient(engine, model)
    step = 1e-2
    offsets = step * np.concatenate([np.zeros((1, k)), np.eye(k), -np.eye(k)])[:, None]

    def look(z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        value, gradient = (engine.numpy(a).astype(np.float64) for a in evaluate(theta, x, engine.array(z + offsets)))
        hessian = (gradient[1 : k + 1] - gradient[k + 1 :]).transpose(1, 0, 2) / (2 * step)
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


def _grid(half_width: float, spacing: float, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return nodes [g, k], the indices of every second one per axis, and of those at the edge."""
    count = 2 * round(half_width / spacing) + 1
    axis = np.linspace(-half_width, half_width, count)
    index = np.arange(count)
    z = np.stack([a.ravel() for a in np.meshgrid(*[axis] * k, indexing="ij")], 1)
    index = np.stack([a.ravel() for a in np.meshgrid(*[index] * k, indexing="ij")], 1)
    on_edge = ((index == 0) | (index == count - 1)).any(1)
    return z, np.flatnonzero((index % 2 == 0).all(1)), np.flatnonzero(on_edge)


def _log_sum(values: np.ndarray, owner: np.ndarray, n: int) -> np.ndarray:
    """Return log sum exp of the values of each owner 0 .. n - 1, [n], in float64; -inf for one that has none."""
    top = np.full(n, -np.inf)
    np.maximum.at(top, owner, values)
    finite = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return finite + np.log(np.bincount(owner, np.exp(values - finite[owner]), minlength=n))


def _shared(engine: Engine, model: Model, theta: Params, x: Array, z: np.ndarray) -> np.ndarray:
    """Return log p(x_i, z_j) for all pairs, [n, g]."""
    score = _all_pairs(engine, model)
    parts = [engine.numpy(score(theta, x, engine.array(part))) for part, _ in _padded(z, PAIRS)]
    return np.concatenate(parts, 1)[:, : len(z)].astype(np.float64)


class _Decoder:
    """Scores datapoints x [n, n_x] at nodes: log p(x_i, z_j)."""

    def __init__(self, engine: Engine, model: Model, theta: Params, x: Array) -> None:
        self.engine, self.theta, self.x = engine, theta, x
        self.table, self.pairs = _all_pairs(engine, model), _given_pairs(engine, model)
        z = engine.array(np.zeros((1, model.n_latent)))
        decoder = engine.conditional(model.generative, "x", {"z": z, "x": z[:, :1]}, theta, 1)
        self.factored = _family(decoder) in ("Bernoulli", "Normal")

    def __call__(self, points: np.ndarray, z: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """Return log p(x_i, z_j) [points, nodes] in float32 where it is `wanted`, else -inf; at most PAIRS nodes z.

        Where datapoints share nodes each node is decoded once and scored against all of `points` by a matrix product.
        """
        # Decoding a node costs about as much as scoring it against a hundred datapoints.
        if self.factored and wanted.sum() >= len(z) * (1 + len(points) / 100):
            filled = np.resize(points, _round_up(len(points)))  # few different lengths: few compilations
            padded, _ = next(_padded(z, PAIRS))
            table = self.table(self.theta, self.x[self.engine.array(filled)], self.engine.array(padded))
            scored = self.engine.numpy(table)[: len(points), : len(z)]
            return scored if wanted.all() else np.where(wanted, scored, np.float32(-np.inf))
        result = np.full(wanted.shape, -np.inf, np.float32)
        row, node = np.nonzero(wanted)
        parts = [
            self.engine.numpy(self.pairs(self.theta, self.x, self.engine.array(rows), self.engine.array(part)))[:count]
            for (rows, _), (part, count) in zip(_padded(points[row], PAIRS), _padded(z[node], PAIRS), strict=True)
        ]
        result[row, node] = np.concatenate(parts)
        return result


def _round_up(count: int) -> int:
    """Return the next of 32, 64, 128, 256, 384, ..."""
    return max(32, 1 << (count - 1).bit_length()) if count <= 128 else -(-count // 128) * 128


def _z_order(z: np.ndarray, spacing: float) -> np.ndarray:
    """Return the order of a grid's nodes z [g, k] by the interleaved bits of their places."""
    place = np.rint((z - z.min(0)) / spacing).astype(np.int64)
    code = np.zeros(len(z), np.int64)
    for axis in range(z.shape[1]):
        for bit in range(int(place.max()).bit_length()):
            code |= (place[:, axis] >> bit & 1) << (bit * z.shape[1] + axis)
    return np.argsort(code)


def _family(decoder: Any) -> str:
    """Return 'Bernoulli' or 'Normal' where log p(x | z) = T(x) . eta(z) - A(z) by matrix products, else ''."""
    name = type(getattr(decoder, "base_dist", None)).__name__
    return "Bernoulli" if name.startswith("Bernoulli") else name if name == "Normal" else ""


def _padded(array: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Cut into pieces of one size, the last filled up with zeros so that nothing recompiles, and their true length."""
    for start in range(0, len(array), size):
        part = array[start : start + size]
        filling = [(0, size - len(part))] + [(0, 0)] * (array.ndim - 1)
        yield np.pad(part, filling), len(part)


@cache
def _given_pairs(engine: Engine, model: Model) -> Any:
    def score(theta: Params, x: Array, rows: Array, z: Array) -> Array:
        return engine.log_prob(model.generative, {"x": x[rows], "z": z}, theta, z.shape[0])

    return engine.compile(score)


@cache
def _log_joint_and_gradient(engine: Engine, model: Model) -> Any:
    """Return f(theta, x, z [m, n, k]) -> (log p(x, z) [m, n], its gradient in z [m, n, k])."""

    def total(z: Array, theta: Params, x: Array) -> tuple[Array, Array]:
        each = engine.log_prob(model.generative, {"x": x, "z": z}, theta, x.shape[0])
        return each.sum(), each

    differentiate = engine.value_and_grad(total, has_aux=True)

    def evaluate(theta: Params, x: Array, z: Array) -> tuple[Array, Array]:
        (_, each), gradient = differentiate(z, theta, x)
        return each, gradient

    return engine.compile(evaluate)


@cache
def _all_pairs(engine: Engine, model: Model) -> Any:
    xp = engine.ppl.xp

    def score(theta: Params, x: Array, z: Array) -> Array:
        """Return log p(x_i, z_j) as [n, g], by matrix products where the decoder is a Bernoulli or a normal."""
        # The value given for x only stops the program from drawing one.
        decoder = engine.conditional(model.generative, "x", {"z": z, "x": z[:, :1]}, theta, z.shape[0])
        family = _family(decoder)
        base: Any = getattr(decoder, "base_dist", None)
        log_prior = -0.5 * ((z**2).sum(-1) + model.n_latent * LOG_2PI)
        if family == "Bernoulli":
            logits = base.logits
            normalizer = (xp.clip(logits, min=0.0) + xp.log1p(xp.exp(-xp.abs(logits)))).sum(-1)  # softplus
            return xp.matmul(x, logits.T) - normalizer + log_prior
        if family == "Normal":
            # Far from the origin a normal's sufficient statistics cancel badly in float32: measure x from its centre.
            centre = x.mean(0)
            loc, residual = base.loc - centre, x - centre
            precision = base.scale**-2.0 + xp.zeros_like(loc)
            normalizer = 0.5 * (loc**2 * precision - xp.log(precision) + LOG_2PI).sum(-1)
            quadratic = xp.matmul(residual, (loc * precision).T) - 0.5 * xp.matmul(residual**2, precision.T)
            return quadratic - normalizer + log_prior
        # Any other decoder: score every pair.
        pairs = z[:, None, :] + 0.0 * x[:, :1]
        return engine.log_prob(model.generative, {"x": x, "z": pairs}, theta, x.shape[0]).T

    return engine.compile(score)
