"""log p(x) by the paper's own estimator (appendix D): a density is fitted to posterior draws, new draws are weighed.

    1 / p(x) = E_{p(z | x)}[ q(z) / p(x, z | theta) ]

for any normalised density q: draw z from the posterior by HMC, fit q to these draws, draw AGAIN, average q / p over the
new draws, invert. With exact posterior draws the average has mean 1 / p(x), so by Jensen the estimate lies above
log p(x) on average; chains that have not found the posterior pull it either way. Averaging over the draws that q was
fitted to is wrong: q is high where they happen to lie (`reuse_draws` shows how wrong).

A density fitted to a chain that hardly moved is next to nothing where the chain goes then, and the estimate soars
without limit. So a millionth of q is the prior, a defensive mixture (Hesterberg 1995): the estimate is then at most
13.8 nats above the log p(x | z) of the best draw, and what it was where the fit is good.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from comparisons.evidence.annealed import annealed_points
from comparisons.evidence.base import Estimate, blocks, log_mean_exp
from comparisons.evidence.draws import Draws, posterior_draws
from comparisons.evidence.journal import once
from comparisons.evidence.kept import Chains, continued
from comparisons.evidence.mixing import ess, rhat
from inference.base import Engine, Key, Params, Posterior
from models.base import Array, Model

MAX_LATENT = 10  # beyond, a density fitted to few draws is hopeless
MAX_RHAT = 1.1
MIN_ESS = 10.0
MAX_HELD_OUT = 250  # draws of a half that score a bandwidth
DEFENSE = 1e-6  # of q is the prior
MULTIPLES = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0)  # of Scott's bandwidth, among which it is chosen
MAX_PAIRS = 4_000_000  # of draws whose distances are held at once
Density = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, float, bool]]
LOG_2PI = float(np.log(2 * np.pi))


def appendix_d(
    engine: Engine,
    model: Model,
    theta: Params,
    x: Array,
    seed: int = 0,
    *,
    q: Posterior | None = None,
    start: str = "prior",
    hmc_draws: int = 50,
    hmc_chains: int = 1,
    hmc_warmup: int = 50,
    hmc_leapfrog: int = 4,
    density: str = "kde",
    reuse_draws: bool = False,
    force: bool = False,
    max_memory: float = 1e9,
) -> Estimate:
    """Return the paper's estimate of log p(x) for each row of x [n, n_x], in nats, by chains that are begun here, anew.

    It is doubtful where `start` is the prior: see `appendix_d_kept` for the authors' reading. Each of `hmc_chains`
    chains makes `hmc_draws` draws after a warm-up that tunes its step size: the first half serves to fit the density,
    the second is weighed. `density` is a Gaussian `kde` whose bandwidth is chosen by held-out score, or one `normal`
    with full covariance. The defaults are the paper's: 50 draws, 4 leapfrog steps, chains that start at the prior. A
    chain that starts in a mode of little mass stays there, and its draws look well mixed; with `start="annealed"`
    chains begin where annealed ones end, which finds the modes. `stderr` reckons with the draws' autocorrelation.

    Diagnostics per datapoint: `rhat` (rank-normalised, of split chains), `ess` and `acceptance` of the draws,
    `bandwidth`, and `flagged`: rhat > 1.1, ess < 10, a stuck chain, a singular covariance, or draws of which one makes
    up half the average. Raises ValueError for n_latent > 10 unless forced, and for a start that is not there.
    """
    _hold_small(model, force)
    if start == "recognition" and q is None:
        raise ValueError("this method has no q(z | x) to start from; choose start prior")
    key = engine.key(seed)
    size = _block_size(model, hmc_draws * hmc_chains, max_memory)

    def block(number: int, rows: np.ndarray, count: int) -> tuple[np.ndarray, ...]:
        at = engine.array(rows)
        origin: Posterior | np.ndarray | None = q.take(at) if q and start == "recognition" else None
        if start == "annealed":
            origin = annealed_points(engine, model, theta, x[at], seed + number, hmc_chains, max_memory=max_memory)
        drawn = posterior_draws(
            engine, model, theta, x[at], engine.fold_in(key, number), draws=hmc_draws, chains=hmc_chains,
            warmup=hmc_warmup, leapfrog_steps=hmc_leapfrog, start=origin, max_memory=max_memory,
        )  # fmt: skip
        return tuple(column[:count] for column in _averaged(drawn, DENSITIES[density], reuse_draws))

    return _joined([once(partial(block, number, *each)) for number, each in enumerate(blocks(len(x), size))])


def appendix_d_kept(
    engine: Engine,
    model: Model,
    theta: Params,
    x: Array,
    key: Key,
    chains: Chains,
    *,
    hmc_draws: int = 50,
    hmc_leapfrog: int = 4,
    density: str = "kde",
    reuse_draws: bool = False,
    force: bool = False,
    max_memory: float = 1e9,
) -> tuple[Estimate, Chains]:
    """Return the paper's estimate by chains kept along training, as its authors ran it, and where these then stand.

    As `appendix_d`, but that the chains of x [n, n_x] are given: five moves of burn-in from where they stood, then the
    draws. R-hat and ESS of one chain cannot tell a mode that it never left from the only one.
    """
    _hold_small(model, force)
    size = _block_size(model, hmc_draws * len(chains.z), max_memory)

    def block(number: int, rows: np.ndarray, count: int) -> tuple[np.ndarray, ...]:
        mine = Chains(chains.z[:, rows], chains.log_step[rows])
        drawn, after = continued(
            engine, model, theta, x[engine.array(rows)], engine.fold_in(key, number), mine, hmc_draws, hmc_leapfrog,
            max_memory,
        )  # fmt: skip
        found = _averaged(drawn, DENSITIES[density], reuse_draws)
        ends = after.z.swapaxes(0, 1)
        return tuple(column[:count] for column in (*found, ends, after.log_step))

    parts = [once(partial(block, number, *each)) for number, each in enumerate(blocks(len(x), size))]
    z, log_step = (np.concatenate(column) for column in list(zip(*parts, strict=True))[-2:])
    return _joined([part[:-2] for part in parts]), Chains(z.swapaxes(0, 1), log_step)


def _hold_small(model: Model, force: bool) -> None:
    if model.n_latent > MAX_LATENT and not force:
        raise ValueError(
            f"appendix_d cannot be trusted above {MAX_LATENT} latent variables, and n_latent is {model.n_latent}; "
            "choose annealed or importance, or force it"
        )


def _block_size(model: Model, draws: int, max_memory: float) -> int:
    """Return how many datapoints are judged at once.

    Ranks and transforms of the draws, for R-hat and ESS, are two dozen arrays as large as the draws.
    """
    return int(max_memory // (24 * 8 * draws * (model.n_latent + 1)))


def _joined(parts: list[tuple[np.ndarray, ...]]) -> Estimate:
    value, stderr, *rest = (np.concatenate(column) for column in zip(*parts, strict=True))
    names = ("rhat", "ess", "acceptance", "bandwidth", "flagged")
    return Estimate(value, stderr, diagnostics=dict(zip(names, rest, strict=True)))


def _averaged(drawn: Draws, density: Density, reuse_draws: bool) -> tuple[np.ndarray, ...]:
    """Fit the density to the draws and average; return value, stderr, and the diagnostics in their order, all [n]."""
    draws, chains, n, k = drawn.z.shape
    half = draws // 2
    first, second = (slice(0, draws),) * 2 if reuse_draws else (slice(0, half), slice(half, None))
    log_r, bandwidth, singular = np.empty((n, chains, draws if reuse_draws else draws - half)), np.empty(n), np.empty(n)
    for i in range(n):
        weighed = drawn.z[second, :, i]
        log_q, bandwidth[i], singular[i] = density(drawn.z[first, :, i], weighed.reshape(-1, k))
        log_prior = -0.5 * (np.square(weighed.reshape(-1, k)).sum(1) + k * LOG_2PI)
        log_q = np.logaddexp(log_q + np.log1p(-DEFENSE), log_prior + np.log(DEFENSE))
        log_r[i] = (log_q.reshape(weighed.shape[:2]) - drawn.log_joint[second, :, i]).T
    effective = ess(np.exp(log_r - log_r.max((1, 2), keepdims=True)))  # what is averaged has a correlation of its own
    flat = log_r.reshape(n, -1).T
    inverse, stderr = log_mean_exp(flat, np.nan_to_num(effective, nan=2.0))
    share = np.exp(flat.max(0) - inverse) / len(flat)
    # R-hat and ESS of every coordinate and of log p(x, z): the worst of them counts.
    each = np.concatenate([drawn.z, drawn.log_joint[..., None]], -1).transpose(2, 3, 1, 0)
    worst, least = rhat(each).max(1), ess(each).min(1)
    stuck = (np.ptp(drawn.z[second], axis=0) == 0).any((0, 2))
    doubts = ~(worst <= MAX_RHAT) | ~(least >= MIN_ESS) | stuck | (singular > 0) | (share > 0.5) | ~np.isfinite(inverse)
    return -inverse, stderr, worst, least, drawn.acceptance, bandwidth, doubts


def normal(fit: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, float, bool]:
    """Score z [m, k] under a normal fitted to draws [.., chains, k]: log q [m], no bandwidth, whether singular."""
    centre, factor, singular = _whitening(fit.reshape(-1, fit.shape[-1]))
    white = np.linalg.solve(factor, (z - centre).T)
    return -0.5 * np.square(white).sum(0) - _log_volume(factor), np.nan, singular


def kde(fit: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, float, bool]:
    """Score z [m, k] under a Gaussian kernel density of draws [draws, chains, k], with their covariance as its shape.

    Of bandwidths around Scott's m^(-1 / (k + 4)), that one is taken under which the first and second half of the draws
    explain each other best: draws next to each other in a chain are alike, so that leaving out one alone would favour
    too small a bandwidth. Returns log q [m], the bandwidth, and whether the covariance is singular.
    """
    k, half = fit.shape[-1], len(fit) // 2
    flat = fit.reshape(-1, k)
    centre, factor, singular = _whitening(flat)

    def whiten(points: np.ndarray) -> np.ndarray:
        return np.asarray(np.linalg.solve(factor, (points.reshape(-1, k) - centre).T).T)

    # Some hundred draws of each half are enough to choose among six multiples of Scott's bandwidth for their number.
    step = max(1, half * fit.shape[1] // MAX_HELD_OUT)
    early, late = whiten(fit[:half][::step]), whiten(fit[half:][::step])
    between = _squared_distances(early, late)
    scott = [len(part) ** (-1.0 / (k + 4)) for part in (early, late)]
    scores = [_kernel(between.T, c * scott[0], k).sum() + _kernel(between, c * scott[1], k).sum() for c in MULTIPLES]
    best = MULTIPLES[int(np.argmax(scores))] * len(flat) ** (-1.0 / (k + 4))
    draws, z = whiten(flat), whiten(z)
    cuts = range(0, len(z), max(1, MAX_PAIRS // len(draws)))
    log_q = [_kernel(_squared_distances(z[cut : cut + cuts.step], draws), best, k) for cut in cuts]
    return np.concatenate(log_q) - _log_volume(factor) + 0.5 * k * LOG_2PI, best, singular


DENSITIES = {"kde": kde, "normal": normal}


def _kernel(squared: np.ndarray, bandwidth: float, k: int) -> np.ndarray:
    """Return log of the mean over columns of N(0, bandwidth^2 I) at squared distances [m, f]."""
    log_kernel = -0.5 * squared / bandwidth**2
    top = log_kernel.max(1, keepdims=True)
    return np.asarray(top[:, 0] + np.log(np.exp(log_kernel - top).mean(1)) - k * (np.log(bandwidth) + 0.5 * LOG_2PI))


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.maximum(np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2.0 * a @ b.T, 0.0)


def _whitening(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return mean [k], Cholesky factor [k, k] of the covariance of points [m, k], and whether it had to be mended."""
    m, k = points.shape
    covariance = np.atleast_2d(np.cov(points.T))
    values = np.linalg.eigvalsh(covariance)
    singular = m <= k or not values[0] > 1e-10 * max(values[-1], 1e-300)
    if singular:
        covariance = covariance + (1e-6 * max(np.trace(covariance) / k, 1e-12)) * np.eye(k)
    return points.mean(0), np.linalg.cholesky(covariance), singular


def _log_volume(factor: np.ndarray) -> float:
    """Return the log of a normal's normalising constant, from its covariance's Cholesky factor."""
    return float(np.log(np.diag(factor)).sum() + 0.5 * len(factor) * LOG_2PI)
