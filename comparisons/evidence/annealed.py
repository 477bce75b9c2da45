"""log p(x) by annealed importance sampling (Neal 2001), and between two bounds where an exact posterior draw is known.

A chain is led from a start q(z) whose density is known to the posterior, through

    log f_b(z) = (1 - b) log q(z) + b log p(x, z | theta),   0 = b_0 < b_1 < ... < b_T = 1,

by HMC moves that leave each f_b as it is. The weight w = prod_t f_t(z_t) / f_{t-1}(z_t) has mean p(x): the log of a
mean of weights is a lower bound on average. Led backwards from an exact posterior draw, the weight of a chain has mean
1 / p(x), which bounds log p(x) from above (Grosse, Ghahramani & Adams 2015; Wu et al. 2017, whose sigmoidal schedule
this is). Data simulated from the model come with such a draw: the z they were made from.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

from comparisons.evidence.base import PARTIAL, Estimate, Estimator, Facts, StartSettings, Target, hold
from comparisons.evidence.blocks import by_blocks, pairs_within
from comparisons.evidence.draws import INITIAL_STEP_SIZE, JITTER, followed, settling_rates, starting_points
from comparisons.evidence.journal import Columns, pieces
from comparisons.evidence.means import log_mean_exp, skewed_error
from inference.base import Engine, Key, Params, Posterior, Program, setting
from inference.hmc import hmc
from inference.latents import latents
from inference.rows import generative, packed, width
from models.base import Array, Model

PILOT_CHAINS = 2  # tune the step sizes, of each datapoint at each temperature, and are thrown away
SETTLING = 50  # moves at the first temperature before a pilot leaves it
ENDS = 50  # temperatures of chains that look for modes
LOG_2 = float(np.log(2.0))
MAX_ERROR = 0.3  # nats, of an error reckoned amply: with more, half a nat is nothing unusual


@dataclass(frozen=True, kw_only=True)
class AnnealedSettings(StartSettings):
    """What annealed importance sampling is told."""

    temperatures: int = setting(200, "annealed: temperatures between start and posterior", low=1, high=1_000_000)
    annealed_chains: int = setting(16, "annealed: chains of a datapoint", low=2, high=10_000)
    annealed_leapfrog: int = setting(5, "annealed: leapfrog steps of a move [steps]", low=1, high=10_000)


def annealed(target: Target, settings: AnnealedSettings, seed: int = 0) -> Estimate:
    """Return log of the mean weight of `annealed_chains` chains for each datapoint, in nats.

    Chains start from the prior or, with `start="recognition"`, half of them from q and half from the prior: the density
    of a start is then that of the mixture of both. From q it takes fewer temperatures; but chains from q alone would
    never meet a mode that q leaves out, and all weights would be alike. `stderr` reckons with weights so few and so
    skew that the largest are yet to come (`skewed_error`).

    Diagnostics per datapoint: `spread`, the standard deviation of the log weights in nats, of chains from q where there
    are some; `acceptance`; `flagged`, where the error exceeds 0.3 nat or the chains hardly moved. Where the posterior
    is narrow or latent variables are many, most datapoints are flagged at the default 200 temperatures. A mode that no
    chain meets remains unknown. Raises ValueError for a start that is not there.
    """
    log_w, acceptance = _by_parts(_forward, target, settings, seed, (1, 0))
    halves = [log_w] if settings.start == "prior" else np.split(log_w, 2)
    value, stderr = log_mean_exp(log_w)[0], _error(halves)
    spread = halves[0].std(0, ddof=1)
    flagged = ~(stderr <= MAX_ERROR) | (acceptance < 0.2)
    return Estimate(value, stderr, diagnostics={"spread": spread, "acceptance": acceptance, "flagged": flagged})


def _refuses(facts: Facts, settings: AnnealedSettings) -> str:
    if settings.start == "recognition" and facts.has_q is False:
        return f"evidence 'annealed': {facts.backend} has no q(z|x) to start from; choose --start prior"
    if settings.start == "recognition" and not facts.covers:
        return f"evidence 'annealed': {PARTIAL}, and its density has no gradient at that edge; choose --start prior"
    if settings.start not in ("prior", "recognition"):
        return "evidence 'annealed' cannot start where it ends; choose --start prior or recognition"
    return ""


CARD = Estimator(annealed, AnnealedSettings, version=4, refuses=_refuses)


def bidirectional(target: Target, z: Array, settings: AnnealedSettings, seed: int = 0) -> Estimate:
    """Return log p(x) between two bounds, for datapoints drawn from p(x | z) at the z [n, k] given (`simulate`).

    The value is the middle of the bounds, `stderr` half their distance and Monte-Carlo error.
    Diagnostics per datapoint: `lower`, `upper`, and `gap`, the difference, which is negative where noise exceeds it.
    Raises ValueError for a z that is not [n, k].
    """
    hold_exact_draws("bidirectional", target, z)

    def both(part: _Part) -> Columns:
        forward, *_, log_steps = _forward(part)
        return forward, _backward(part, z[target.engine.array(part.rows)], log_steps)

    forward, backward = _by_parts(both, target, settings, seed, (1, 1))
    lower, lower_error = log_mean_exp(forward)
    inverse, upper_error = log_mean_exp(backward)
    gap = -inverse - lower
    error = np.sqrt(gap**2 + lower_error**2 + upper_error**2) / 2
    return Estimate(
        (lower - inverse) / 2, error, systematic=True, diagnostics={"lower": lower, "upper": -inverse, "gap": gap}
    )


def annealed_points(target: Target, seed: int, count: int, max_memory: float = 1e9) -> np.ndarray:
    """Return z [count, n, k], about as draws from p(z | x, theta): ends of annealed chains, drawn by their weights.

    Chains of plain HMC stay in the mode that lies next to their start, however little of the posterior it holds. These
    have crossed while the posterior was still flat, and each mode receives as many as its mass asks for. Twice as many
    chains are led from the prior as are drawn, 16 at least.
    """

    def chosen(part: _Part) -> Columns:
        log_w, _, z, _ = _forward(part)
        # Systematic resampling: a chain that holds a share s of the weight is drawn s count times, give or take one.
        share = np.cumsum(np.exp(log_w - np.logaddexp.reduce(log_w)), 0)
        at = (np.arange(count)[:, None] + np.random.default_rng([seed, part.number]).random(log_w.shape[1])) / count
        drawn = (share[:, None] < at).sum(0).clip(max=len(log_w) - 1)
        return (np.take_along_axis(z, drawn[..., None], 0),)

    return _by_parts(chosen, target, _to_ends(max(16, 2 * count), max_memory), seed, (1,))[0]


def annealed_ends(target: Target, seed: int, chains: int, max_memory: float = 1e9) -> Columns:
    """Return z [chains, n, k], all ends of chains that were led from the prior, and their log weights [chains, n].

    Where temperatures are few, one weight of many is by far the largest: who looks for modes wants all ends.
    """

    def ends(part: _Part) -> Columns:
        log_w, _, z, _ = _forward(part)
        return z, log_w

    return _by_parts(ends, target, _to_ends(chains, max_memory), seed, (1, 1))


def _to_ends(chains: int, max_memory: float) -> AnnealedSettings:
    return AnnealedSettings(temperatures=ENDS, annealed_chains=chains, max_memory=max_memory)


def simulate(engine: Engine, model: Model, theta: Params, n: int, key: Key, like: Any = None) -> tuple[Array, Array]:
    """Draw z ~ p(z) and x ~ p(x | z, theta): x [n, d], and coordinates z [n, k], an exact draw from p(z | x).

    Covariates and gaps are those of the rows `like` [n, d], where the model has some.
    """
    x = engine.array(np.zeros((n, width(model)))) if like is None else like
    drawn = engine.draw(key, generative(model, x), theta)
    x = packed(engine.ppl, model, drawn, x)
    target = Target(engine, model, theta, x)
    return x, target.latents.coordinates(target.place, drawn)


def hold_exact_draws(estimator: str, target: Target, z: Array) -> None:
    """Raise ValueError where z is not as many draws, of as many latent variables, as x was simulated from."""
    wanted = (len(target.x), target.latents.size)
    if tuple(z.shape) != wanted:
        raise ValueError(f"{estimator} needs the z that x was drawn from, {list(wanted)}, not {tuple(z.shape)}")


def schedule(temperatures: int, delta: float = 4.0) -> np.ndarray:
    """Return b_0 = 0 ... b_T = 1, [T + 1], dense at both ends: a sigmoid from -delta to delta, stretched to [0, 1]."""
    b = 1.0 / (1.0 + np.exp(-delta * (2.0 * np.arange(temperatures + 1) / temperatures - 1.0)))
    return np.asarray((b - b[0]) / (b[-1] - b[0]))


class _Part(NamedTuple):
    """A block of datapoints that fits the memory. Where the target has a q, half of the chains start there."""

    number: int
    rows: np.ndarray
    target: Target
    key: Key
    chains: int
    settings: AnnealedSettings

    def start(self, number: int, chains: int) -> Array:
        """Return where chains start, [chains, n, k]: the first half of them at q, where there is one."""
        engine = self.target.engine
        key = engine.fold_in(self.key, number)
        if self.target.q is None:
            return starting_points(self.target, None, key, chains)
        keys = engine.split(key)
        origins = zip((self.target.q, None), keys, strict=True)
        halves = [starting_points(self.target, origin, each, chains // 2) for origin, each in origins]
        return engine.array(np.concatenate([engine.numpy(half) for half in halves]))


class _Path(NamedTuple):
    """Per move and datapoint [T, n]."""

    log_step: Array
    acceptance: Array


def _by_parts(
    work: Callable[[_Part], Columns], target: Target, settings: AnnealedSettings, seed: int, axes: tuple[int, ...]
) -> Columns:
    """Return the columns of work(part) for all datapoints, as many as `axes`, along which these lie in each."""
    hold(_refuses(target.facts, settings))
    engine, chains = target.engine, settings.annealed_chains
    if settings.start == "prior":
        target = target._replace(q=None)
    else:  # halves that each have a spread
        chains = max(4, chains + chains % 2)

    def block(number: int, rows: np.ndarray, count: int) -> Columns:
        key = engine.fold_in(engine.key(seed), number)
        return work(_Part(number, rows, target.take(rows), key, chains, settings))

    size = pairs_within(settings.max_memory, target.model) // max(chains, PILOT_CHAINS)
    return by_blocks(block, len(target.x), size, axes)


def _error(halves: Sequence[np.ndarray]) -> np.ndarray:
    """Return the error of the log of the mean of all weights, of which each half [m, n] varies about its own mean."""
    means = np.stack([log_mean_exp(half)[0] for half in halves])
    share = np.exp(means - np.logaddexp.reduce(means))
    return np.asarray(np.sqrt(sum(np.square(s * skewed_error(half)) for s, half in zip(share, halves, strict=True))))


def _forward(part: _Part) -> tuple[np.ndarray, np.ndarray, np.ndarray, Array]:
    """Return log w [chains, n], mean acceptance [n], and the ends z [chains, n, k] of chains led to the posterior.

    And the log step sizes [T, n] of their moves: those that gave a pilot run its acceptance.
    """
    engine, b = part.target.engine, schedule(part.settings.temperatures)
    rates = np.concatenate([settling_rates(SETTLING), np.full(len(b) - 1, 0.2)])
    first = engine.array(np.full((len(rates), len(part.rows)), np.log(INITIAL_STEP_SIZE)))
    _, _, tuned, _ = _led(part, 1, part.start(0, PILOT_CHAINS), _stayed(b), first, rates)
    log_steps = engine.array(tuned[SETTLING:])
    log_w, z, _, acceptance = _led(part, 3, part.start(2, part.chains), b, log_steps)
    return log_w, acceptance.astype(np.float64).mean(0), z, log_steps


def _backward(part: _Part, z: Array, log_steps: Array) -> np.ndarray:
    """Return log w [chains, n] of chains led from z [n, k] to the start, through the same moves in reverse order.

    All chains of a datapoint have z in common: moves at b = 1 first take them apart, and each stays an exact draw.
    """
    engine, b = part.target.engine, schedule(part.settings.temperatures)
    order = engine.array(_stayed(np.arange(len(b) - 1)[::-1]))
    chains = z + engine.array(np.zeros((part.chains, 1, 1)))
    return _led(part, 4, chains, _stayed(b[::-1]), log_steps[order], weigh_first=False)[0]


def _stayed(values: np.ndarray) -> np.ndarray:
    """Return what is given move by move, with its first value for SETTLING moves more."""
    return np.pad(values, (SETTLING, 0), "edge")


def _led(
    part: _Part,
    number: int,
    z: Array,
    b: np.ndarray,
    log_steps: Array,
    rates: np.ndarray | None = None,
    weigh_first: bool = True,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Lead chains from z through temperatures b [T + 1], by moves of these log step sizes [T, n].

    Where `rates` [T] are given, the step sizes follow the acceptance at these instead. Returns log w [chains, n], the
    ends z, and of each move the log step size after it, and the acceptance, [T, n] each.
    """
    (engine, model, _, x, q, _), adapt = part.target, rates is not None
    lead = _leading(engine, model, q.program if q else None, part.settings.annealed_leapfrog, adapt, weigh_first)
    columns = np.arange(len(b) - 1), b[:-1], b[1:], rates if adapt else np.zeros(len(b) - 1)
    run = partial(lead, engine.fold_in(part.key, number), part.target.place, x, q.args if q else ())
    carry = (z, 0.0 * z[..., 0], log_steps[0])
    (z, log_w, _), (log_step, acceptance) = pieces(engine, run, carry, (log_steps, *map(engine.array, columns)))
    return engine.numpy(log_w).astype(np.float64), engine.numpy(z), log_step, acceptance


@cache
def _leading(
    engine: Engine, model: Model, program: Program | None, leapfrog: int, adapt: bool, weigh_first: bool
) -> Any:
    """Return f(key, place, x, args, count, carry, log_steps, numbers, before, after, rates) -> (carry, path).

    A carry is (z, log w, log step). One item of the scan weighs a chain by f_after / f_before where it stands, and
    moves it at the temperature after; or moves it at the one before, and then weighs it.
    """
    xp, sites = engine.ppl.xp, latents(engine, model)

    def run(key: Key, place: Any, x: Array, args: tuple[Any, ...], count: Array, carry: Any, *plan: Array) -> Any:
        def ends(z: Array) -> tuple[Array, Array]:
            """Return the log density of the start and log p(x, z), both [chains, n]."""
            joint, prior = sites.log_joint(place, x, z), sites.log_prior(place, x, z)
            if program is None:
                return prior, joint
            return xp.logaddexp(sites.log_q(Posterior(program, args), place, z), prior) - LOG_2, joint

        def weight(z: Array, change: Array) -> Array:
            log_q, joint = ends(z)
            return change * (joint - log_q)

        def one(carry: tuple[Array, ...], item: tuple[Array, ...]) -> tuple[tuple[Array, ...], _Path]:
            z, log_w, log_step = carry
            given, number, before, after, rate = item
            at = after if weigh_first else before
            if not adapt:
                log_step = given

            def log_density(z: Array) -> Array:
                log_q, joint = ends(z)
                return (1.0 - at) * log_q + at * joint

            if weigh_first:
                log_w = log_w + weight(z, after - before)
            moved = hmc(engine, log_density, leapfrog, JITTER)
            z, info = moved(engine.fold_in(key, number), z, xp.exp(log_step)[:, None])
            if not weigh_first:
                log_w = log_w + weight(z, after - before)
            acceptance = info.acceptance.mean(0)
            log_step = followed(engine, log_step, acceptance, rate)
            return (z, log_w, log_step), _Path(log_step, acceptance)

        return engine.scan(one, carry, plan, count)

    return engine.compile(run)
