"""log p(x) by importance sampling from a proposal q(z | x), with what tells whether the proposal was good enough.

    log p(x) = log E_q[w],   w = p(x, z | theta) / q(z | x)

Jensen: the log of a mean of K weights lies below log p(x) on average. At K = 1 that is the lower bound (equation 2), at
small K the bound of Burda et al. (2016), and it rises to log p(x) as K grows (their theorem 1).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from comparisons.evidence.annealed import hold_exact_draws
from comparisons.evidence.base import PARTIAL, Estimate, Estimator, Facts, MemorySettings, Target, hold
from comparisons.evidence.blocks import by_blocks, pairs_within
from comparisons.evidence.elbo import weigh
from comparisons.evidence.journal import Columns
from comparisons.evidence.means import log_mean_exp, rounding
from comparisons.evidence.proposals import BROAD, CHAINS, Mixture, fitted_mixture
from inference.base import Key, setting
from models.base import Array

MIN_ESS = 10.0
MIN_ESS_BROAD = 20.0  # of the broad draws: with fewer they do not see what lies between the islands
LONELY = 0.05  # share of the mass on islands that one chain alone has found, from which on there may well be others
MAX_WEIGHTS = 4e6  # of a block: about a minute's work, which is what a run that is broken off may lose
ARRAYS_PER_DRAW = 8  # float64 as long as z and the components, that scoring a draw under a mixture keeps alive


# Of a block's rows [n], their mixtures, log p(x, z) [draws, n], and the mixture's log parts at z [c, draws, n].
Reduce = Callable[[np.ndarray, Mixture, np.ndarray, np.ndarray], Columns]


@dataclass(frozen=True, kw_only=True)
class ImportanceSettings(MemorySettings):
    """What importance sampling is told."""

    importance_samples: int = setting(
        1000, "importance: K, draws from the proposal for each datapoint [draws]", low=25, high=1_000_000
    )
    proposal: str = setting(
        "auto",
        "importance: a mixture fitted to HMC draws (auto is hmc), or the backend's q(z|x), whose weights do not tell "
        "of modes that it leaves out",
        choices=("auto", "q", "hmc"),
    )


def importance(target: Target, settings: ImportanceSettings, seed: int = 0) -> Estimate:
    """Return log of the mean of K = `importance_samples` weights for each datapoint, in nats.

    Diagnostics per datapoint: `ess`, the effective number of draws (sum w)^2 / sum w^2; `khat`, the shape of the
    weights' Pareto tail (Vehtari et al. 2024); `flagged`, where khat exceeds min(1 - 1 / log10 K, 0.7), the point from
    which K draws do not suffice, or ess < 10.

    No weight tells of a mode that no draw has met. Of q nothing can: it may leave out half of the posterior and look
    perfect. Of hmc three things can, and flag: the annealed chains' own estimate, where it is higher; modes that one
    chain of 32 alone has found; and broad draws that give another value. A mode that neither a chain nor a broad draw
    meets, as narrow as a needle, remains unknown.

    Raises ValueError for `proposal="q"` without q.
    """
    hold(_refuses(target.facts, settings))
    draws, max_memory = settings.importance_samples, settings.max_memory
    if settings.proposal == "q":
        key = target.engine.fold_in(target.engine.key(seed), 1)
        columns = weights_of_q(target, key, draws, _reduced, max_memory)
    else:
        mixture = fitted_mixture(target, seed, max_memory)
        columns = mixture_weights(target, mixture, settings, seed, lambda rows, *known: _judged(*known))
    value, stderr, ess, khat, *more = columns
    flagged = (khat > min(1 - 1 / np.log10(draws), 0.7)) | (ess < MIN_ESS) | ~np.isfinite(value)
    diagnostics = {"ess": ess, "khat": khat, "flagged": flagged}
    if more:
        lonely, unseen = more
        diagnostics |= {"lonely": lonely, "flagged": flagged | (unseen > 0)}
    return Estimate(value, np.hypot(stderr, rounding(value)), diagnostics=diagnostics)


def _refuses(facts: Facts, settings: ImportanceSettings) -> str:
    if settings.proposal == "q" and facts.has_q is False:
        return f"evidence 'importance': {facts.backend} has no q(z|x) to propose from; choose --proposal hmc"
    if settings.proposal == "q" and not facts.covers:
        return f"evidence 'importance': {PARTIAL}, and weights of its draws miss the rest; choose --proposal hmc"
    return ""


CARD = Estimator(importance, ImportanceSettings, version=4, refuses=_refuses, rank=2)


def k_sample_bound(target: Target, key: Key, k: int, repeats: int = 20) -> Estimate:
    """Return the bound E[log 1/K sum_k w_k] of Burda et al. (2016, equation 8), from `repeats` means of K weights of q.

    Raises ValueError for a target without q.
    """

    def reduce(log_w: np.ndarray) -> Columns:
        each = np.stack([np.logaddexp.reduce(part) - np.log(k) for part in np.split(log_w, repeats)])
        return each.mean(0), each.std(0, ddof=1) / np.sqrt(repeats)

    value, stderr = weights_of_q(target, key, k * repeats, reduce)
    return Estimate(value, stderr)


def sandwich(target: Target, z: Array, settings: ImportanceSettings, seed: int = 0) -> Estimate:
    """Return log p(x) between two bounds, for datapoints drawn from p(x | z) at the z [n, k] given, in nats.

        lower:  E log R,    R = (w_1 + ... + w_K) / K,   z_1 ... z_K ~ q,   w = p(x, z | theta) / q(z)
        upper:  the same, with one of the z drawn from p(z | x, theta) instead

    R / p(x) is the density of the second way of drawing against the first, so that the means of log R lie below and
    above log p(x) by the two divergences between them (Burda et al. 2016; Sobolev & Vetrov 2019). q is the mixture of
    `proposals`; half of its chains begin at the z that x was made from, which is such a draw: the mode that it lies in
    is known however narrow it is. Where posteriors are narrow this holds log p(x) far tighter than annealing does.

    The value is the middle of the bounds, `stderr` half their distance and the Monte-Carlo error of
    K = `importance_samples` weights. Diagnostics per datapoint: `lower`, `upper` and `gap`, their difference. Raises
    ValueError for a z that is not [n, k].
    """
    hold_exact_draws("sandwich", target, z)
    engine = target.engine
    known = engine.numpy(z)
    mixture = fitted_mixture(target, seed, settings.max_memory, known)

    def reduce(rows: np.ndarray, fit: Mixture, joint: np.ndarray, log_parts: np.ndarray) -> Columns:
        exact = engine.numpy(target.take(rows).log_joint(z[engine.array(rows)][None])).astype(np.float64)[0]
        exact = exact - np.logaddexp.reduce(fit.log_parts(known[rows][None]))[0]
        return bounds(joint - np.logaddexp.reduce(log_parts), exact)

    lower, upper, noise = mixture_weights(target, mixture, settings, seed, reduce)
    value = (lower + upper) / 2
    error = np.sqrt(((upper - lower) / 2) ** 2 + noise**2 + rounding(value) ** 2)
    diagnostics = {"lower": lower, "upper": upper, "gap": upper - lower}
    return Estimate(value, error, systematic=True, diagnostics=diagnostics)


def bounds(log_w: np.ndarray, exact: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return both bounds and their Monte-Carlo error [n], from log weights [K, n] of q and one [n] of the posterior.

    The posterior's draw takes the place of each of the others in turn, so that the upper bound knows no lucky one.
    """
    count = len(log_w)
    top = np.maximum(log_w.max(0), exact)
    w, w_exact = np.exp(log_w - top), np.exp(exact - top)
    total = w.sum(0)
    with np.errstate(divide="ignore"):
        lower = top + np.log(total / count)
        upper = top + np.log((total - w + w_exact) / count).mean(0)
    noise = w.std(0, ddof=1) / w.mean(0) / np.sqrt(count)
    return lower, upper, noise


def weights_of_q(
    target: Target, key: Key, draws: int, reduce: Callable[[np.ndarray], Columns], max_memory: float = 1e9
) -> Columns:
    """Return what `reduce` makes of log w [draws, n], in float64, block by block of datapoints."""
    engine, within = target.engine, pairs_within(max_memory / 2, target.model)

    def block(number: int, rows: np.ndarray, count: int) -> Columns:
        among = target.take(rows)
        own_key, each = engine.fold_in(key, number), max(1, min(draws, within // len(rows)))
        evaluate = weigh(engine, target.model, among.posterior.program, each)
        parts = [
            engine.numpy(evaluate(engine.fold_in(own_key, part), among.theta, among.posterior.args, among.x))
            for part in range(-(-draws // each))
        ]
        return reduce(np.asarray(np.concatenate(parts)[:draws, :count], np.float64))

    # A block's weights, and copies of them while they are sorted; and one draw for each of its datapoints.
    size = min(max(1, int(min(max_memory / 4 // 8, MAX_WEIGHTS) // draws)), within)
    return by_blocks(block, len(target.x), size)


def mixture_weights(
    target: Target, mixture: Mixture, settings: ImportanceSettings, seed: int, reduce: Reduce
) -> Columns:
    """Return what `reduce` makes of weights of draws from the datapoints' mixtures, block by block."""
    engine, draws, max_memory = target.engine, settings.importance_samples, settings.max_memory
    components, k = mixture.loc.shape[1:]
    within = pairs_within(max_memory / 2, target.model)

    def block(number: int, rows: np.ndarray, count: int) -> Columns:
        fit, among = mixture.take(rows), target.take(rows)
        z = fit.draw(np.random.default_rng([seed, number]), draws)
        each = max(1, min(draws, within // len(rows)))
        # Every piece has one length, so that nothing recompiles; the last one is filled up.
        cuts = [np.resize(np.arange(start, min(start + each, draws)), each) for start in range(0, draws, each)]
        scores = [engine.numpy(among.log_joint(engine.array(z[cut]))) for cut in cuts]
        joint = np.concatenate([score.astype(np.float64) for score in scores])[:draws]
        return reduce(rows, fit, joint, fit.log_parts(z))

    size = int(max_memory / 4 // (8 * ARRAYS_PER_DRAW * draws * (components + k)))
    size = min(max(1, size), max(1, int(MAX_WEIGHTS // draws)), within)
    return by_blocks(block, len(target.x), size)


def _judged(fit: Mixture, joint: np.ndarray, log_parts: np.ndarray) -> Columns:
    """Reduce log p(x, z) [draws, n] and log share times density of each component [c, draws, n] to what counts of them.

    Returns value, error, ess, khat, `lonely`, and whether there is a sign of mass that no draw has met, all [n].
    """
    log_w = joint - np.logaddexp.reduce(log_parts)
    value, _, ess, khat = _reduced(log_w)
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


def _reduced(log_w: np.ndarray) -> Columns:
    """Reduce log weights [draws, n] to value, error, ess and khat, [n]."""
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
