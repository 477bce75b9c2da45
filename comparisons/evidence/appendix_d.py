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

from dataclasses import dataclass
from functools import partial

import numpy as np

from comparisons.evidence.annealed import annealed_points
from comparisons.evidence.base import Estimate, Estimator, Facts, Keeper, StartSettings, Target, hold
from comparisons.evidence.blocks import by_blocks
from comparisons.evidence.draws import Chains, Draws, Moves, begun, continued, evaluations, moved, posterior_draws
from comparisons.evidence.journal import Columns
from comparisons.evidence.means import LOG_2PI, log_mean_exp
from comparisons.evidence.mixing import ess, rhat
from inference.base import Key, Posterior, setting

MAX_LATENT = 10  # beyond, a density fitted to few draws is hopeless
MAX_RHAT = 1.1
MIN_ESS = 10.0
DEFENSE = 1e-6  # of q is the prior
MAX_HELD_OUT = 250  # draws of a half that score a bandwidth
MULTIPLES = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0)  # of Scott's bandwidth, among which it is chosen
MAX_PAIRS = 4_000_000  # of draws whose distances are held at once
unflagged = partial(setting, flag=False)  # no cell of a grid was ever told another value


@dataclass(frozen=True, kw_only=True)
class AppendixDSettings(StartSettings):
    """What the paper's estimator is told; the defaults are the paper's where it has one."""

    chains: str = setting(
        "auto",
        "appendix_d: kept along training, each going on from where it stood (authors' code), or begun anew at each "
        "stop, which is doubtful: a chain from the prior often settles in a wrong mode; auto: kept if start is prior",
        choices=("auto", "kept", "anew"),
        before="anew",
    )
    chain_interval: int = setting(
        100,
        "appendix_d, chains kept: training points between two looks of 5 moves, or a tenth of all if more [datapoints]",
        low=1,
        high=10**9,
    )
    hmc_draws: int = setting(
        50, "appendix_d: draws of a chain, half to fit the density and half to average over [draws]", low=8, high=10**6
    )
    hmc_chains: int = unflagged(1, "appendix_d: chains of a datapoint", low=1, high=1000)
    hmc_warmup: int = unflagged(
        50, "appendix_d, chains anew: moves before the first draw, which tune the step size [moves]", low=0, high=10**6
    )
    hmc_leapfrog: int = unflagged(4, "appendix_d: leapfrog steps of a move [steps]", low=1, high=10_000)
    density: str = unflagged(
        "kde", "appendix_d: what is fitted, a kernel density or one normal", choices=("kde", "normal")
    )
    reuse_draws: bool = unflagged(
        False, "appendix_d: average over the draws that the density was fitted to (wrong: shows by how much)"
    )
    force: bool = unflagged(False, "appendix_d: run even above 10 latent variables, where it cannot be trusted")


def appendix_d(target: Target, settings: AppendixDSettings, seed: int = 0) -> Estimate:
    """Return the paper's estimate of log p(x) for each datapoint, in nats, by chains that are begun here, anew.

    It is doubtful where `start` is the prior: see `appendix_d_kept` for the authors' reading. A chain that starts in a
    mode of little mass stays there, and its draws look well mixed; with `start="annealed"` chains begin where annealed
    ones end, which finds the modes. `stderr` reckons with the draws' autocorrelation.

    Diagnostics per datapoint: `rhat` (rank-normalised, of split chains), `ess` and `acceptance` of the draws,
    `bandwidth`, and `flagged`: rhat > 1.1, ess < 10, a stuck chain, a singular covariance, or draws of which one makes
    up half the average. Raises ValueError for n_latent > 10 unless forced, and for a start that is not there.
    """
    hold(_refuses(target.facts, settings))
    key, chains, max_memory = target.engine.key(seed), settings.hmc_chains, settings.max_memory
    moves = Moves(settings.hmc_warmup, settings.hmc_draws, settings.hmc_leapfrog)

    def block(number: int, rows: np.ndarray, count: int) -> Columns:
        among = target.take(rows)
        start: Posterior | Chains | None = among.q if settings.start == "recognition" else None
        if settings.start == "annealed":
            start = Chains.at(annealed_points(among, seed + number, chains, max_memory))
        drawn = posterior_draws(among, target.engine.fold_in(key, number), start, chains, moves, max_memory)
        return _averaged(drawn, settings)

    return _estimate(*by_blocks(block, len(target.x), _block_size(target.latents.size, settings, chains)))


def appendix_d_kept(target: Target, settings: AppendixDSettings, key: Key, chains: Chains) -> tuple[Estimate, Chains]:
    """Return the paper's estimate by chains kept along training, as its authors ran it, and where these then stand.

    As `appendix_d`, but that the chains are given: five moves of burn-in from where they stood, then the draws. R-hat
    and ESS of one chain cannot tell a mode that it never left from the only one.
    """
    hold(_too_many(target.facts, settings))

    def block(number: int, rows: np.ndarray, count: int) -> Columns:
        among, own_key = target.take(rows), target.engine.fold_in(key, number)
        lengths = settings.hmc_draws, settings.hmc_leapfrog, settings.max_memory
        drawn, after = continued(among, own_key, chains.take(rows), *lengths)
        return (*_averaged(drawn, settings), after.z.swapaxes(0, 1), after.log_step)

    size = _block_size(target.latents.size, settings, len(chains.z))
    *columns, z, log_step = by_blocks(block, len(target.x), size)
    return _estimate(*columns), Chains(z.swapaxes(0, 1), log_step)


def _too_many(facts: Facts, settings: AppendixDSettings) -> str:
    if facts.n_latent > MAX_LATENT and not settings.force:
        return (
            f"evidence 'appendix_d' cannot be trusted above {MAX_LATENT} latent variables, and n_latent is "
            f"{facts.n_latent}; choose --evidence importance or annealed (in Python, the setting force runs it)"
        )
    return ""


def _refuses(facts: Facts, settings: AppendixDSettings) -> str:
    if settings.chains == "kept" and settings.start != "prior":
        return f"chains 'kept' start at the prior, not at {settings.start!r}; choose --chains anew or --start prior"
    if settings.start == "recognition" and facts.has_q is False:
        return f"evidence 'appendix_d': {facts.backend} has no q(z|x) to start from; choose --start prior"
    return _too_many(facts, settings)


def _settle(settings: AppendixDSettings, asked: bool) -> dict[str, str]:
    """Return whether chains are kept: `auto` where the estimator is not asked for, which is then no setting."""
    if not asked:
        return {"chains": "auto"}
    chains = settings.chains
    return {"chains": ("kept" if settings.start == "prior" else "anew") if chains == "auto" else chains}


CARD = Estimator(
    appendix_d,
    AppendixDSettings,
    version=2,
    refuses=_refuses,
    settle=_settle,
    keeper=Keeper(
        wanted=lambda told: told.chains == "kept" or (told.chains == "auto" and told.start == "prior"),
        every=lambda told: told.chain_interval,
        begin=lambda target, told, key: begun(target, key, told.hmc_chains),
        look=lambda target, told, key, chains: moved(target, key, chains, told.hmc_leapfrog, told.max_memory),
        judge=appendix_d_kept,
        evaluations=lambda told, points, judged: evaluations(
            points, told.hmc_chains, told.hmc_draws if judged else 0, told.hmc_leapfrog
        ),
        restored=lambda arrays: Chains(**arrays),
    ),
)


def _block_size(k: int, settings: AppendixDSettings, chains: int) -> int:
    """Return how many datapoints are judged at once.

    Ranks and transforms of the draws, for R-hat and ESS, are two dozen arrays as large as the draws.
    """
    return int(settings.max_memory // (24 * 8 * settings.hmc_draws * chains * (k + 1)))


def _estimate(value: np.ndarray, stderr: np.ndarray, *rest: np.ndarray) -> Estimate:
    names = ("rhat", "ess", "acceptance", "bandwidth", "flagged")
    return Estimate(value, stderr, diagnostics=dict(zip(names, rest, strict=True)))


def _averaged(drawn: Draws, settings: AppendixDSettings) -> Columns:
    """Fit the density to the draws and average; return value, stderr, and the diagnostics in their order, all [n]."""
    draws, chains, n, k = drawn.z.shape
    density, reuse_draws, half = DENSITIES[settings.density], settings.reuse_draws, draws // 2
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


# Densities that are fitted to posterior draws


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


DENSITIES = {"kde": kde, "normal": normal}
