"""log p(x, z) of many pairs of a datapoint and a point z, as few decodings of z and as much memory as asked for.

Where the decoder is a Bernoulli or a normal, log p(x | z) = T(x) . eta(z) - A(z): eta and A are computed once a node z,
and all datapoints are scored by one matrix product. Any other decoder is scored pair by pair.
"""

from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import numpy as np

from comparisons.evidence.base import Target
from comparisons.evidence.blocks import pairs_within
from comparisons.evidence.means import LOG_2PI
from inference.base import Engine, arrays
from inference.latents import Latents, latents
from inference.rows import widths
from models.base import Array, Model

PAIRS = 4096  # (datapoint, z) pairs scored in one call, where memory allows as many
FEW = (256, 1024)  # of a call that has no more, so that a handful does not cost as much as all


class Scorer:
    """Scores datapoints x [n, n_x] at nodes z: log p(x_i, z_j), in nats. Its arrays fit in `max_memory` bytes.

    `size` is how many nodes, or pairs, are scored in one call.
    """

    def __init__(self, target: Target, max_memory: float) -> None:
        engine, model, x = target.engine, target.model, target.x
        self.engine, self.place, self.x = engine, target.place, x
        self._table, self._pairs = _all_pairs(engine, model), _given_pairs(engine, model)
        self._within = pairs_within(max_memory, model)
        self.size = int(np.clip(self._within, 2**target.latents.size, PAIRS))
        self.factored = bool(_family(engine, model))

    def grid(self, z: np.ndarray) -> np.ndarray:
        """Return log p(x_i, z_j) for all datapoints and all nodes z [g, k], [n, g] in float64."""
        # A decoder that does not factor makes an array of all pairs, as wide as x.
        size = self.size if self.factored else int(np.clip(self._within // len(self.x), 1, self.size))
        result = np.empty((len(self.x), len(z)))
        for start, (part, count) in zip(range(0, len(z), size), _padded(z, size), strict=True):
            score = self.engine.numpy(self._table(self.place, self.x, self.engine.array(part)))
            result[:, start : start + count] = score[:, :count]
        return result

    def where(self, points: np.ndarray, z: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """Return log p(x_i, z_j) [points, nodes] in float32 where it is `wanted`, else -inf; at most `size` nodes z.

        Where datapoints share nodes each node is decoded once and scored against all of `points` by a matrix product.
        """
        # Decoding a node costs about as much as scoring it against a hundred datapoints.
        if self.factored and wanted.sum() >= len(z) * (1 + len(points) / 100):
            filled = np.resize(points, _round_up(len(points)))  # few different lengths: few compilations
            padded, _ = next(_padded(z, self.size))
            table = self._table(self.place, self.x[self.engine.array(filled)], self.engine.array(padded))
            scored = self.engine.numpy(table)[: len(points), : len(z)]
            return scored if wanted.all() else np.where(wanted, scored, np.float32(-np.inf))
        result = np.full(wanted.shape, -np.inf, np.float32)
        row, node = np.nonzero(wanted)
        result[row, node] = self.each(points[row], z[node], sizes=())
        return result

    def each(self, rows: np.ndarray, z: np.ndarray, sizes: tuple[int, ...] = FEW) -> np.ndarray:
        """Return log p(x_row, z) of given pairs: rows [p], z [p, k], [p] in float32."""
        size = next((size for size in sizes if len(z) <= size < self.size), self.size)
        parts = [
            self.engine.numpy(self._pairs(self.place, self.x, self.engine.array(row), self.engine.array(part)))[:count]
            for (row, _), (part, count) in zip(_padded(rows, size), _padded(z, size), strict=True)
        ]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _round_up(count: int) -> int:
    """Return the next of 32, 64, 128, 256, 384, ..."""
    return max(32, 1 << (count - 1).bit_length()) if count <= 128 else -(-count // 128) * 128


@cache
def _family(engine: Engine, model: Model) -> str:
    """Return 'bernoulli' or 'normal' where log p(x | z) = T(x) . eta(z) - A(z) by matrix products, else ''."""
    if widths(model).keys() != {"x"} or model.missing or model.summed:
        return ""
    theta = arrays(engine, model.init(0)[0])
    decoder = engine.outline(engine.key(0), partial(model.generative, n=1), theta)["x"].fn
    return _families(engine).get(type(getattr(decoder, "base_dist", None)), "")


def _columns(sites: Latents, place: Any, z: Array, x: Array) -> Any:
    """Return the library's distribution of each column of x, at nodes z [g, k]."""
    theta = place if sites.plain else place.theta
    # The value given for x only stops the program from drawing one.
    told = {**sites.values(place, z), "x": z[:, :1] if sites.plain else 0.0 * z[:, :1] + x[:1]}
    program = partial(sites.model.generative, n=z.shape[0])
    return sites.engine.conditional(program, "x", told, theta).base_dist


@cache
def _families(engine: Engine) -> dict[type, str]:
    """Return what the library makes of the words `Bernoulli` and `Normal`, whichever model says them."""
    dist = engine.ppl.dist
    bernoullis = (dist.Bernoulli(probs=0.5), dist.Bernoulli(logits=0.0))
    return {**{type(each): "bernoulli" for each in bernoullis}, type(dist.Normal(0.0, 1.0)): "normal"}


def _padded(array: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Cut into pieces of one size, the last filled up with zeros so that nothing recompiles, and their true length."""
    for start in range(0, len(array), size):
        part = array[start : start + size]
        filling = [(0, size - len(part))] + [(0, 0)] * (array.ndim - 1)
        yield np.pad(part, filling), len(part)


@cache
def _given_pairs(engine: Engine, model: Model) -> Any:
    sites = latents(engine, model)
    return engine.compile(lambda place, x, at, z: sites.log_joint(place, x[at], z))


@cache
def _all_pairs(engine: Engine, model: Model) -> Any:
    xp, sites, family = engine.ppl.xp, latents(engine, model), _family(engine, model)

    def log_prior(place: Any, x: Array, z: Array) -> Array:
        if sites.plain:
            return -0.5 * ((z**2).sum(-1) + sites.size * LOG_2PI)
        return sites.log_prior(place, 0.0 * z[:, :1] + x[:1], z)

    def score(place: Any, x: Array, z: Array) -> Array:
        """Return log p(x_i, z_j) as [n, g], by matrix products where the decoder is a Bernoulli or a normal."""
        if family == "bernoulli":
            logits = _columns(sites, place, z, x).logits
            normalizer = (xp.clip(logits, min=0.0) + xp.log1p(xp.exp(-xp.abs(logits)))).sum(-1)  # softplus
            return xp.matmul(x, logits.T) - normalizer + log_prior(place, x, z)
        if family == "normal":
            # Far from the origin a normal's sufficient statistics cancel badly in float32: measure x from its centre.
            base, centre = _columns(sites, place, z, x), x.mean(0)
            loc, residual = base.loc - centre, x - centre
            precision = base.scale**-2.0 + xp.zeros_like(loc)
            normalizer = 0.5 * (loc**2 * precision - xp.log(precision) + LOG_2PI).sum(-1)
            quadratic = xp.matmul(residual, (loc * precision).T) - 0.5 * xp.matmul(residual**2, precision.T)
            return quadratic - normalizer + log_prior(place, x, z)
        # Any other decoder: score every pair.
        pairs = z[:, None, :] + xp.zeros_like(x[:, :1])  # x may have gaps
        return sites.log_joint(place, x, pairs).T

    return engine.compile(score)
