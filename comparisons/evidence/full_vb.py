"""What q(theta) is worth (appendix F): the bound on log p(X), its KL term, and log p(x) under draws of theta.

A draw of theta is shared by all datapoints, so errors are reckoned over draws and not over datapoints.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from comparisons.evidence.base import Average, Estimate, Target
from comparisons.evidence.blocks import blocks
from comparisons.evidence.elbo import weigh
from comparisons.evidence.journal import once
from inference.base import Engine, Key, Params, Posterior

ROWS = 1000  # datapoints scored at once
AT_PRIOR = 0.05  # nats: a weight whose KL is below this says next to nothing about the data


def divergence(engine: Engine, q_theta: Posterior) -> np.ndarray:
    """Return KL(q(theta) || N(0, I)) of each parameter, flat, in nats and float64.

    0.5 (mu^2 + sigma^2 - 1 - log sigma^2): the paper's appendices B and F.1 with the sign turned.
    """
    loc, log_scale = (
        np.concatenate([np.ravel(engine.numpy(group[name])) for name in sorted(group)]).astype(np.float64)
        for group in q_theta.args
    )
    return 0.5 * (loc**2 + np.exp(2 * log_scale) - 1 - 2 * log_scale)


def draw(engine: Engine, q_theta: Posterior, key: Key, number: int) -> Params:
    """Return draw number `number` of theta ~ q(theta)."""
    return engine.draw(engine.fold_in(key, number), q_theta.program, *q_theta.args)


def bound(target: Target, q_theta: Posterior, key: Key, draws: int) -> Average:
    """Estimate the bound on log p(X) / N for all N datapoints, from draws of theta and, for each, of z:

        (E_q[sum_i log p(x_i, z_i | theta) - log q(z_i | x_i)] - KL(q(theta) || N(0, I))) / N      (appendix F)

    The KL is in closed form. The error is over the draws, the noise of z in it. Nats per datapoint, higher is better.
    Raises ValueError for a target without q.
    """
    engine, n = target.engine, len(target.x)
    theta_key, z_key = engine.split(key)
    evaluate = weigh(engine, target.model, target.posterior.program, 1)

    def one(number: int) -> tuple[np.ndarray, ...]:
        theta = draw(engine, q_theta, theta_key, number)
        total = 0.0
        for block, (rows, count) in enumerate(blocks(n, ROWS)):
            among = target.take(rows)
            noise = engine.fold_in(engine.fold_in(z_key, number), block)
            each = engine.numpy(evaluate(noise, theta, among.posterior.args, among.x))
            total += float(each[0, :count].astype(np.float64).sum())
        return (np.array(total / n),)

    means = np.array([once(partial(one, number))[0] for number in range(draws)], np.float64)
    penalty = divergence(engine, q_theta).sum() / n
    return Average(float(means.mean() - penalty), _stderr(means), n)


def under_draws(
    target: Target, q_theta: Posterior, key: Key, draws: int, log_px: Callable[[Target, int], Estimate]
) -> list[Estimate]:
    """Return log_px(target, number) under each of `draws` draws of theta ~ q(theta): the same theta for the same key.

    The theta of the target given counts for nothing.
    """
    thetas = (draw(target.engine, q_theta, key, number) for number in range(draws))
    return [log_px(target._replace(theta=theta), number) for number, theta in enumerate(thetas)]


def expected(found: list[Estimate]) -> Average:
    """Return E_q(theta)[log p(x | theta)], the mean over draws: how good one draw is. Never above `predictive`.

    The error is that over draws; what is systematic in each estimate is added to it in quadrature.
    """
    means = np.array([estimate.mean()[0] for estimate in found])
    error = float(np.hypot(_stderr(means), _systematic(found)))
    flagged = float(np.mean([estimate.flagged for estimate in found]))
    return Average(float(means.mean()), error, len(found[0].value), flagged)


def predictive(found: list[Estimate]) -> Average:
    """Return log E_q(theta)[p(x | theta)], the posterior predictive density, from its S draws (a nested estimate).

    log (1/S) sum_s p(x | theta_s) is too low by Jensen, by an amount of order 1/S that the jackknife over draws takes
    off (Efron & Tibshirani 1993, chapters 10 and 11). The error is the jackknife's over draws, with the whole of that
    correction added in quadrature, for where draws differ by nats the correction is itself too small, and the value too
    low: on MNIST (N = 1000, 2e5 points seen, draws 3.4 nats apart) -172.0 +- 0.9 from 10 draws, -171.3 +- 0.4 from 80.
    `flagged` is the share of datapoints for which one draw has more than half of the sum.
    """
    log_p = np.stack([estimate.value for estimate in found])  # [S, n]
    count, n = log_p.shape
    total = np.logaddexp.reduce(log_p, 0)
    plain = float((total - np.log(count)).mean())
    left_out = np.array(
        [(np.logaddexp.reduce(np.delete(log_p, s, 0), 0) - np.log(count - 1)).mean() for s in range(count)]
    )
    correction = (count - 1) * (plain - float(left_out.mean()))
    spread = np.sqrt((count - 1) * left_out.var()) * _widened(count)
    error = float(np.sqrt(spread**2 + correction**2 + _systematic(found) ** 2))
    doubtful = (log_p.max(0) - total > np.log(0.5)) | (np.mean([e.doubtful for e in found], 0) > 0.5)
    return Average(plain + correction, error, n, float(doubtful.mean()))


def _stderr(means: np.ndarray) -> float:
    """Return the standard error of the mean of a few draws."""
    return float(means.std(ddof=1) / np.sqrt(len(means)) * _widened(len(means)))


def _widened(count: int) -> float:
    """Return how much wider Student's t asks an error of `count` draws to be, so that 1.96 of it hold 95 %."""
    from scipy.special import stdtrit  # quantiles of Student's t

    return float(stdtrit(count - 1.0, 0.975)) / 1.96


def _systematic(found: list[Estimate]) -> float:
    """Return the error that no number of draws averages out; that of Monte Carlo is in the spread over them."""
    return float(np.mean([estimate.mean()[1] if estimate.systematic else 0.0 for estimate in found]))
