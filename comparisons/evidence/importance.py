"""log p(x) by importance sampling from a proposal q(z | x), with what tells whether the proposal was good enough.

    log p(x) = log E_q[w],   w = p(x, z | theta) / q(z | x)

Jensen: the log of a mean of K weights lies below log p(x) on average. At K = 1 that is the lower bound (equation 2), at
small K the bound of Burda et al. (2016), and it rises to log p(x) as K grows (their theorem 1).
"""

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np

from comparisons.evidence.base import Estimate, blocks, log_mean_exp, pairs_within, rounding
from comparisons.evidence.journal import once
from comparisons.evidence.proposals import BROAD, CHAINS, Mixture, fitted_mixture
from comparisons.evidence.weights import weigh
from inference.base import Engine, Key, Params, Posterior
from models.base import Array, Model

MIN_ESS = 10.0
MIN_ESS_BROAD = 20.0  # of the broad draws: with fewer they do not see what lies between the islands
LONELY = 0.05  # share of the mass on islands that one chain alone has found, from which on there may well be others
MAX_WEIGHTS = 4e6  # of a block: about a minute's work, which is what a run that is broken off may lose
ARRAYS_PER_DRAW = 8  # float64 as long as z and the components, that scoring a draw under a mixture keeps alive


# Of a block's rows [n], their mixtures, log p(x, z) [draws, n], and the mixture's log parts at z [c, draws, n].
Reduce = Callable[[np.ndarray, Mixture, np.ndarray, np.ndarray], tuple[np.ndarray, ...]]


def importance(
    engine: Engine,
    model: Model,
    theta: Params,
    x: Array,
    seed: int = 0,
    *,
    q: Posterior | None = None,
    proposal: str = "auto",
    importance_samples: int = 1000,
    max_memory: float = 1e9,
) -> Estimate:
    """Return log of the mean of K = `importance_samples` weights for each row of x [n, n_x], in nats.

    `proposal` is `hmc`, a mixture of normals fitted to HMC draws from the posterior (`proposals`), or `q`, the
    approximate posterior that is passed in; `auto` is hmc. Diagnostics per datapoint: `ess`, the effective number of
    draws (sum w)^2 / sum w^2; `khat`, the shape of the weights' Pareto tail (Vehtari et al. 2024); `flagged`, where
    khat exceeds min(1 - 1 / log10 K, 0.7), the point from which K draws do not suffice, or ess < 10.

    No weight tells of a mode that no draw has met. Of q nothing can: it may leave out half of the posterior and look
    perfect. Of hmc three things can, and flag: the annealed chains' own estimate, where it is higher; modes that one
    chain of 32 alone has found; and broad draws that give another value. A mode that neither a chain nor a broad draw
    meets, as narrow as a needle, remains unknown.

    Raises ValueError for `proposal="q"` without q.
    """
    if proposal == "q":
        if q is None:
            raise ValueError("importance needs a proposal and this method has no q(z | x); choose proposal hmc")
        key = engine.fold_in(engine.key(seed), 1)
        log_w = log_weights(engine, model, theta, x, q, key, importance_samples, max_memory)
        parts = [once(partial(_reduced, each)) for each in log_w]
    else:
        mixture = fitted_mixture(engine, model, theta, x, seed, max_memory)
        weighed = mixture_weights(engine, model, theta, x, mixture, seed, importance_samples, max_memory)
        parts = [once(each) for each in weighed]
    value, stderr, ess, khat, *more = (np.concatenate(column) for column in zip(*parts, strict=True))
    flagged = (khat > min(1 - 1 / np.log10(importance_samples), 0.7)) | (ess < MIN_ESS) | ~np.isfinite(value)
    diagnostics = {"ess": ess, "khat": khat, "flagged": flagged}
    if more:
        lonely, unseen = more
        diagnostics |= {"lonely": lonely, "flagged": flagged | (unseen > 0)}
    return Estimate(value, np.hypot(stderr, rounding(value)), diagnostics=diagnostics)


def k_sample_bound(
    engine: Engine, model: Model, theta: Params, x: Array, q: Posterior, key: Key, k: int, repeats: int = 20
) -> Estimate:
    """Return the bound E[log 1/K sum_k w_k] of Burda et al. (2016, equation 8), from `repeats` means of K weights."""
    parts = []
    for log_w in log_weights(engine, model, theta, x, q, key, k * repeats):
        each = np.stack([np.logaddexp.reduce(part) - np.log(k) for part in np.split(log_w(), repeats)])
        parts.append((each.mean(0), each.std(0, ddof=1) / np.sqrt(repeats)))
    value, stderr = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Estimate(value, stderr)


def log_weights(
    engine: Engine,
    model: Model,
    theta: Params,
    x: Array,
    q: Posterior,
    key: Key,
    draws: int,
    max_memory: float = 1e9,
) -> Iterator[Callable[[], np.ndarray]]:
    """Yield, for one block of datapoints after the other, what works out its log w [draws, block], in float64."""

    def block(key: Key, rows: np.ndarray, count: int) -> np.ndarray:
        at = engine.array(rows)
        among, args = x[at], q.take(at).args
        each = max(1, min(draws, pairs_within(max_memory / 2, model) // len(rows)))
        parts = [
            engine.numpy(weigh(engine, model, q.program, each)(engine.fold_in(key, part), theta, args, among))
            for part in range(-(-draws // each))
        ]
        return np.asarray(np.concatenate(parts)[:draws, :count], np.float64)

    # A block's weights, and copies of them while they are sorted; and one draw for each of its datapoints.
    size = min(max(1, int(min(max_memory / 4 // 8, MAX_WEIGHTS) // draws)), pairs_within(max_memory / 2, model))
    for number, each in enumerate(blocks(len(x), size)):
        yield partial(block, engine.fold_in(key, number), *each)


def mixture_weights(
    engine: Engine,
    model: Model,
    theta: Params,
    x: Array,
    mixture: Mixture,
    seed: int,
    draws: int,
    max_memory: float = 1e9,
    reduce: Reduce | None = None,
) -> Iterator[Callable[[], tuple[np.ndarray, ...]]]:
    """Yield, for one block of datapoints after the other, what works out value, error and diagnostics of them.

    `reduce` makes something else of the weights than that.
    """
    reduced = reduce or (lambda rows, fit, joint, log_parts: _judged(fit, joint, log_parts))
    components, k = mixture.loc.shape[1:]
    log_joint = log_joint_of(engine, model)

    def block(number: int, rows: np.ndarray, count: int) -> tuple[np.ndarray, ...]:
        fit, among = mixture.take(rows), x[engine.array(rows)]
        z = fit.draw(np.random.default_rng([seed, number]), draws)
        each = max(1, min(draws, pairs_within(max_memory / 2, model) // len(rows)))
        # Every piece has one length, so that nothing recompiles; the last one is filled up.
        cuts = [np.resize(np.arange(start, min(start + each, draws)), each) for start in range(0, draws, each)]
        scores = [engine.numpy(log_joint(theta, engine.array(z[cut]), among)) for cut in cuts]
        joint = np.concatenate([score.astype(np.float64) for score in scores])[:draws]
        return tuple(column[:count] for column in reduced(rows, fit, joint, fit.log_parts(z)))

    size = int(max_memory / 4 // (8 * ARRAYS_PER_DRAW * draws * (components + k)))
    size = min(max(1, size), max(1, int(MAX_WEIGHTS // draws)), pairs_within(max_memory / 2, model))
    for number, each in enumerate(blocks(len(x), size)):
        yield partial(block, number, *each)


def _judged(fit: Mixture, joint: np.ndarray, log_parts: np.ndarray) -> tuple[np.ndarray, ...]:
    """Reduce log p(x, z) [draws, n] and log share times density of each component [c, draws, n] to what counts of them.

    Returns value, error, ess, khat, `lonely`, and whether there is a sign of mass that no draw has met, all [n].
    """
    log_w = joint - np.logaddexp.reduce(log_parts)
    value, _, ess, khat = _reduced(lambda: log_w)
    # Draws come component by component, each its share: what differs from one component to another is no noise, and
    # neighbours tell how much there is within.
    w = np.exp(log_w - log_w.max(0))
    stderr = np.sqrt(0.5 * np.square(np.diff(w, axis=0)).mean(0) / len(w)) / w.mean(0)
    # The same from the broad draws alone, as if there were no islands.
    broad = np.logaddexp.reduce(log_parts[-BROAD:])
    own = np.exp(broad - np.logaddexp.reduce(log_parts))  # how likely each draw is one of theirs
    share = np.exp(fit.log_share[:, -BROAD:]).sum(1)
    ratio = np.exp(joint - broad - (joint - broad).max(0))
    mean, square = (own * ratio).sum(0), (own * ratio**2).sum(0)
    ess_broad = mean**2 / square
    value_broad = np.log(mean / own.sum(0) * share) + (joint - broad).max(0)
    differs = np.abs(value_broad - value) > 4.0 * np.hypot(stderr, 1.0 / np.sqrt(ess_broad))
    blind = ess_broad < MIN_ESS_BROAD
    # How the mass lies on the islands, by the draws' weights; those of one chain tell of others (Good 1953).
    mass = np.einsum("cmn,mn->nc", np.exp(log_parts[:-BROAD] - np.logaddexp.reduce(log_parts[:-BROAD])), w)
    mass /= mass.sum(1, keepdims=True)
    lonely = np.where((fit.chains[:, :-BROAD] == 1), mass, 0.0).sum(1)
    islands = (mass > 0.01).sum(1)
    stderr = np.where(blind & (islands > 1), np.hypot(stderr, 1.0 / CHAINS), stderr)
    lower = fit.annealed - 3.0 * fit.annealed_stderr
    unseen = (lower > value + 3.0 * stderr) | (blind & (lonely > LONELY)) | (~blind & differs)
    return value, stderr, ess, khat, lonely, unseen


@cache
def log_joint_of(engine: Engine, model: Model) -> Any:
    """Return f(theta, z [draws, n, k], x) -> log p(x, z | theta) [draws, n], compiled."""

    def log_joint(theta: Params, z: Array, x: Array) -> Array:
        return engine.log_prob(model.generative, {"z": z, "x": x}, theta, x.shape[0])

    return engine.compile(log_joint)


def _reduced(weights: Callable[[], np.ndarray]) -> tuple[np.ndarray, ...]:
    log_w = weights()
    value, stderr = log_mean_exp(log_w)
    w = np.exp(log_w - log_w.max(0))
    ess = w.sum(0) ** 2 / np.square(w).sum(0)
    return value, stderr, ess, np.array([_khat(column) for column in np.ascontiguousarray(log_w.T)])


def _khat(log_w: np.ndarray) -> float:
    """Return the shape of the Pareto tail of weights [K >= 25]; minus infinity where the largest are all alike."""
    from arviz_stats.base import array_stats

    try:
        with np.errstate(all="ignore"):
            # It takes the log likelihoods that posterior draws are to be weighed against: minus the log weights.
            return float(array_stats.psislw(-log_w)[1])
    except ValueError:
        return -np.inf
