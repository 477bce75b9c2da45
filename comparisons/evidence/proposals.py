"""A mixture of normals for each datapoint, fitted to HMC draws from its posterior, that weights can be taken against.

Annealed chains look for the modes, and HMC goes on from each of their ends. Chains whose draws lie apart stand on
different islands of the posterior. A mixture has a normal for each island; one for all of them, and one twice as wide;
and the prior. The last three are broad: they bound the weights (a defensive mixture, Hesterberg 1995), and where they
hit nothing between the islands, only the chains can tell how many there are.
"""

from typing import NamedTuple

import numpy as np

from comparisons.evidence.annealed import annealed_ends
from comparisons.evidence.base import Target
from comparisons.evidence.blocks import by_blocks
from comparisons.evidence.draws import Chains, Moves, posterior_draws
from comparisons.evidence.journal import Columns
from comparisons.evidence.means import LOG_2PI, log_mean_exp

CHAINS = 32  # of a datapoint: a mode with a fifth of the mass is missed by all of them once in a thousand times
WARMUP = 40  # moves
ISLANDS = 12  # of a datapoint that have a normal of their own: those of most mass
SHARES = (0.5, 0.25, 0.15, 0.1)  # of the draws: islands, all of them as one, the same twice as wide, the prior
BROAD = len(SHARES) - 1
INFLATION = 1.2  # of a fitted covariance: a proposal must have heavier tails than what it stands for
EQUAL = 3.0  # nats by which the masses of two chains may differ before the lesser counts less


class Mixture(NamedTuple):
    """Per datapoint: log shares [n, c], means [n, c, k], Cholesky factors [n, c, k, k], and how it was found.

    The last three components are the broad ones. `chains` [n, c] counts the chains on each island; `annealed` and
    `annealed_stderr` [n] are log p(x) as the annealed chains that looked for the islands estimate it, in nats.
    """

    log_share: np.ndarray
    loc: np.ndarray
    scale_tril: np.ndarray
    chains: np.ndarray
    annealed: np.ndarray
    annealed_stderr: np.ndarray

    def take(self, rows: np.ndarray) -> "Mixture":
        """Return the mixtures of some of the datapoints."""
        return Mixture(*(array[rows] for array in self))

    def draw(self, rng: np.random.Generator, draws: int) -> np.ndarray:
        """Return z [draws, n, k] in float32; each component has its share of the draws, to within one."""
        n, _, k = self.loc.shape
        edges = np.cumsum(np.exp(self.log_share), 1)
        at = (np.arange(draws)[:, None] + rng.random(n)) / draws
        component = (edges[:, None] < at.T[..., None]).sum(-1).clip(max=edges.shape[1] - 1)
        z = rng.standard_normal((draws, n, k))
        for i in range(n):
            for c in np.unique(component[i]):
                rows = component[i] == c
                z[rows, i] = self.loc[i, c] + z[rows, i] @ self.scale_tril[i, c].T
        return z.astype(np.float32)

    def log_parts(self, z: np.ndarray) -> np.ndarray:
        """Return log of share times density of each component at z [draws, n, k], [c, draws, n]."""
        draws, n, k = z.shape
        found = np.empty((self.loc.shape[1], draws, n))
        log_volume = np.log(np.diagonal(self.scale_tril, axis1=-2, axis2=-1)).sum(-1) + 0.5 * k * LOG_2PI
        inverse = np.linalg.inv(self.scale_tril)
        for i in range(n):
            white = (z[None, :, i] - self.loc[i, :, None]) @ inverse[i].transpose(0, 2, 1)
            found[:, :, i] = (self.log_share[i] - log_volume[i])[:, None] - 0.5 * np.square(white).sum(-1)
        return found


def fitted_mixture(target: Target, seed: int, max_memory: float = 1e9, known: np.ndarray | None = None) -> Mixture:
    """Return a mixture for each datapoint. Every other chain begins at `known` [n, k], where that is given."""
    engine, k = target.engine, target.latents.size
    moves = Moves(WARMUP, max(WARMUP, 4 * k), leapfrog=10)
    key = engine.fold_in(engine.key(seed), 0)

    def block(number: int, rows: np.ndarray, count: int) -> Columns:
        among = target.take(rows)
        start, log_w = annealed_ends(among, seed + number, CHAINS, max_memory)
        if known is not None:
            start[::2] = known[rows]
        drawn = posterior_draws(among, engine.fold_in(key, number), Chains.at(start), CHAINS, moves, max_memory)
        z, log_joint = drawn.z.transpose(2, 1, 0, 3)[:count], drawn.log_joint.mean(0).T[:count]
        return (*_components(z, log_joint), *log_mean_exp(log_w[:, :count]))

    size = int(max_memory // (8 * 8 * CHAINS * (moves.draws * k + 2 * k * k)))
    return Mixture(*by_blocks(block, len(target.x), size))


def _components(z: np.ndarray, log_joint: np.ndarray) -> Columns:
    """Fit to draws z [n, chains, draws, k] with mean log p(x, z) [n, chains]: log shares, means, factors, chains."""
    n, _, draws, k = z.shape
    loc = z.mean(2)
    centred = z - loc[:, :, None]
    within = np.einsum("ncdi,ncdj->ncij", centred, centred) / (draws - 1)
    # Of a normal, log mass = mean log p(x, z) + entropy: a chain far below the best has come to rest where nothing is.
    count = _shares(log_joint + _entropy(within), EQUAL)
    island = _islands(loc, within)
    member = (island[:, None] == np.arange(loc.shape[1])[:, None]) * 1.0  # [n, chains as islands, chains]
    weight = member * np.maximum(count, 1e-12)[:, None]  # an island of chains that count nothing has moments too
    empty = member.sum(2) == 0
    own_loc, own = _moments(np.where(empty[..., None], 1.0 / loc.shape[1], weight), loc, within)
    height = (weight * log_joint[:, None]).sum(2) / np.where(empty, 1.0, weight.sum(2))
    mass = np.where(empty, -np.inf, height + _entropy(own))
    best = np.argsort(-mass, 1, kind="stable")[:, :ISLANDS]
    rows = np.arange(n)[:, None]
    mass, own_loc, own, chains = (array[rows, best] for array in (mass, own_loc, own, member.sum(2)))
    # An island whose mass is reckoned too low has draws all the same, and weights that then say so.
    share = np.where(np.isneginf(mass), 0.0, 0.02 + np.sqrt(_shares(mass)))
    share *= SHARES[0] / share.sum(1, keepdims=True)
    own *= (INFLATION + 3.0 * k / (draws * np.maximum(chains, 1)))[..., None, None]
    all_loc, overall = _moments(count[:, None], loc, within)
    with np.errstate(divide="ignore"):
        log_share = np.log(np.concatenate([share, np.broadcast_to(SHARES[1:], (n, BROAD))], 1))
    means = np.concatenate([own_loc, all_loc, all_loc, np.zeros((n, 1, k))], 1)
    prior = np.broadcast_to(np.eye(k), (n, 1, k, k))
    covariance = np.concatenate([own, INFLATION * overall, 4.0 * overall, prior], 1)
    chains = np.concatenate([chains, np.full((n, BROAD), z.shape[1])], 1)
    return log_share, means, _factor(covariance), chains


def _islands(loc: np.ndarray, within: np.ndarray) -> np.ndarray:
    """Return for chains with means loc [n, chains, k] the number of the first chain on the same island, [n, chains].

    Two chains lie next to each other where the distance of their means is a few standard deviations of their draws, of
    covariances within [n, chains, k, k]; an island is what can be walked over from chain to chain.
    """
    n, chains, k = loc.shape
    one, two = np.triu_indices(chains, 1)
    near = np.broadcast_to(np.eye(chains, dtype=bool), (n, chains, chains)).copy()
    for i in range(n):
        apart = loc[i, one] - loc[i, two]
        white = np.linalg.solve(_factor(within[i, one] + within[i, two]), apart[..., None])
        near[i, one, two] = near[i, two, one] = np.square(white).sum((1, 2)) <= 0.5 * (9.0 + 2.0 * k)
    for _ in range(5):  # a walk of up to 2^5 chains
        near = np.matmul(near * 1.0, near * 1.0) > 0
    return np.asarray(near.argmax(2))


def _moments(weight: np.ndarray, loc: np.ndarray, within: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return means [n, c, k] and covariances [n, c, k, k] of chains' draws, for weights [n, c, chains]."""
    weight = weight / weight.sum(2, keepdims=True)
    centre = weight @ loc
    apart = loc[:, None] - centre[:, :, None]
    between = np.einsum("ncm,ncmi,ncmj->ncij", weight, apart, apart)
    return centre, np.einsum("ncm,nmij->ncij", weight, within) + between


def _shares(log_mass: np.ndarray, equal: float = 0.0) -> np.ndarray:
    """Return exp(log mass - its maximum) [n, c]: 1 for all that come within `equal` nats of it."""
    return np.asarray(np.exp(np.minimum(0.0, log_mass - log_mass.max(1, keepdims=True) + equal)))


def _entropy(covariance: np.ndarray) -> np.ndarray:
    """Return the entropy of normals with these covariances [..., k, k], in nats."""
    k = covariance.shape[-1]
    return np.asarray(np.log(np.diagonal(_factor(covariance), axis1=-2, axis2=-1)).sum(-1) + 0.5 * k * (1 + LOG_2PI))


def _factor(covariance: np.ndarray) -> np.ndarray:
    """Return Cholesky factors of covariances [..., k, k], which chains that never moved have left singular."""
    k = covariance.shape[-1]
    jitter = 1e-12 + 1e-7 * np.trace(covariance, axis1=-2, axis2=-1) / k
    return np.linalg.cholesky(covariance + jitter[..., None, None] * np.eye(k))
