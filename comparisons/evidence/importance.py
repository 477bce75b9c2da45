"""log p(x) by importance sampling from a proposal q(z | x), with what tells whether the proposal was good enough.

    log p(x) = log E_q[w],   w = p(x, z | theta) / q(z | x)

Jensen: the log of a mean of K weights lies below log p(x) on average. At K = 1 that is the lower bound (equation 2), at
small K the bound of Burda et al. (2016), and it rises to log p(x) as K grows (their theorem 1).
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from comparisons.evidence.annealed import annealed_points
from comparisons.evidence.base import Estimate, blocks, log_mean_exp, pairs_within
from comparisons.evidence.draws import posterior_draws
from comparisons.evidence.journal import once
from comparisons.evidence.weights import weigh
from inference.base import Engine, Key, Params, Posterior
from models.base import Array, Model, Ppl

INFLATION = 1.2  # of a fitted covariance: a proposal must have heavier tails than what it stands for
MIN_ESS = 10.0
MAX_WEIGHTS = 4e6  # of a block: about a minute's work, which is what a run that is broken off may lose


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

    `proposal` is `q`, the approximate posterior that is passed in, or `hmc`, a normal fitted to HMC draws from the
    posterior, for a method that has no q; `auto` takes q where there is one. Diagnostics per datapoint: `ess`, the
    effective number of draws (sum w)^2 / sum w^2; `khat`, the shape of the weights' Pareto tail (Vehtari et al. 2024);
    `flagged`, where khat exceeds min(1 - 1 / log10 K, 0.7), the point from which K draws do not suffice, or ess < 10.
    Raises ValueError for `proposal="q"` without q.
    """
    key = engine.key(seed)
    if proposal == "q" and q is None:
        raise ValueError("importance needs a proposal and this method has no q(z | x); choose proposal hmc")
    if proposal == "hmc" or q is None:
        q = fitted_normal(engine, model, theta, x, seed, max_memory)
    log_w = log_weights(engine, model, theta, x, q, engine.fold_in(key, 1), importance_samples, max_memory)
    parts = [once(partial(_reduced, each)) for each in log_w]
    value, stderr, ess, khat = (np.concatenate(column) for column in zip(*parts, strict=True))
    flagged = (khat > min(1 - 1 / np.log10(importance_samples), 0.7)) | (ess < MIN_ESS) | ~np.isfinite(value)
    return Estimate(value, stderr, diagnostics={"ess": ess, "khat": khat, "flagged": flagged})


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


def fitted_normal(
    engine: Engine, model: Model, theta: Params, x: Array, seed: int, max_memory: float = 1e9
) -> Posterior:
    """Return a normal with full covariance for each datapoint, fitted to HMC draws from its posterior.

    Chains start where annealed ones end, so that every mode that matters has some. The covariance is the draws' own,
    1.2 times as wide: weights of a proposal too narrow have no finite variance.
    """
    k, draws, chains = model.n_latent, 50 + 10 * model.n_latent, 8
    key = engine.fold_in(engine.key(seed), 0)

    def block(number: int, rows: np.ndarray, count: int) -> tuple[np.ndarray, ...]:
        among = x[engine.array(rows)]
        start = annealed_points(engine, model, theta, among, seed + number, chains, max_memory=max_memory)
        drawn = posterior_draws(
            engine, model, theta, among, engine.fold_in(key, number),
            draws=draws, chains=chains, warmup=100, leapfrog_steps=10, start=start, max_memory=max_memory,
        )  # fmt: skip
        z = drawn.z.reshape(-1, *drawn.z.shape[2:])[:, :count]
        centred = z - z.mean(0)
        return z.mean(0), INFLATION * np.einsum("mni,mnj->nij", centred, centred) / (len(z) - 1)

    cut = enumerate(blocks(len(x), int(max_memory // (8 * 8 * draws * chains * k))))
    parts = [once(partial(block, number, *each)) for number, each in cut]
    loc, covariance = (np.concatenate(column) for column in zip(*parts, strict=True))
    jitter = 1e-6 * (1.0 + np.trace(covariance, axis1=1, axis2=2))[:, None, None] * np.eye(model.n_latent)
    scale_tril = np.linalg.cholesky(covariance + jitter)
    return Posterior(normal, ({"loc": engine.array(loc), "scale_tril": engine.array(scale_tril)},))


def normal(ppl: Ppl, fit: Params) -> None:
    """Sample z ~ N(loc [n, k], scale_tril scale_tril' [n, k, k])."""
    with ppl.plate("data", fit["loc"].shape[0]):
        ppl.sample("z", ppl.dist.MultivariateNormal(fit["loc"], scale_tril=fit["scale_tril"]))


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
