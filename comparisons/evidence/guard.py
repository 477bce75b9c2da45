"""Whether a lower bound and log p(x) of the same datapoints can both be right.

    L(x) = log p(x) - KL(q(z | x) || p(z | x)) <= log p(x)        (equations 1 and 2)

Where a bound lies above by more than both errors, one of the two is wrong: an estimator that missed where the posterior
is, say, or a density that is none. Which of them is not told by this; nothing may be concluded from either.
"""

import numpy as np

from comparisons.evidence.base import Estimate

ERRORS = 4.0  # standard errors: of 30,000 right numbers one is further off
LEAST, LEAST_OF_ONE = 0.01, 0.5  # nats that a mean, and a single datapoint, has to be off by
FEW = 500  # one datapoint in so many may be off by chance: log weights are skewed, which Student's t does not know
ROUNDING = 1e-5  # of a score's size, in float32


def contradiction(bound: Estimate, log_px: Estimate, draws: int) -> str:
    """Say by how much a bound lies above log p(x), where that is more than both errors; nothing where it is not.

    Both are of the same datapoints, in nats; the bound's errors come from `draws` draws of z each. Datapoints that one
    of the two does not trust itself are left out. What counts is the mean, off by 4 errors and 0.01 nat beyond, or more
    than one datapoint in 500, and more than one, each off by half a nat and as many errors as leave one false alarm in
    30,000 rows. That is 8.5 for 20 draws and 1000 datapoints, and hundreds for 4, where a bound's error is a guess.
    Raises ValueError for estimates of different numbers of datapoints.
    """
    if bound.points != log_px.points:
        raise ValueError(f"the bound is of {bound.points} datapoints, and log p(x) of {log_px.points}")
    trusted = ~np.logical_or(bound.doubtful, log_px.doubtful)
    n = int(trusted.sum())
    if not n:
        return ""
    above = (bound.value - log_px.value)[trusted]
    noise, error = bound.stderr[trusted], log_px.stderr[trusted]
    rounding = ROUNDING * np.abs(log_px.value[trusted])

    of_one = _errors(draws - 1, n) * noise + ERRORS * error
    clear = int((above > of_one + LEAST_OF_ONE + rounding).sum())
    parts = Estimate(above, noise).mean()[1], Estimate(above, error, log_px.systematic).mean()[1]
    both = float(np.hypot(*parts))
    mean, needed = float(above.mean()), _errors(n * (draws - 1), 1) * both + LEAST + float(rounding.mean())
    told = [f"by {mean:.3g} ± {both:.1g} nats on average"] if mean > needed else []
    told += [f"clearly at {clear} of {n} datapoints"] if clear > max(1, n // FEW) else []
    return f"the lower bound exceeds it {' and '.join(told)}" if told else ""


def _errors(freedom: int, times: int) -> float:
    """Return ERRORS for an error known from so many degrees of freedom (Student's t), asked so many times."""
    from scipy.special import ndtr, stdtrit

    return -float(stdtrit(max(freedom, 1), ndtr(-ERRORS) / times))
