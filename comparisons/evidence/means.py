"""The log of a mean of weights, and its error."""

import numpy as np

LOG_2PI = float(np.log(2 * np.pi))


def log_mean_exp(log_w: np.ndarray, effective: np.ndarray | float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return log of the mean of exp(log_w [m, n]) over m, [n], and its standard error by the delta method.

    The error is sd(w) / (mean(w) sqrt(m)), widened as Student's t asks for few draws; `effective` is the number of
    independent draws where that is not m.
    """
    from scipy.special import stdtrit  # quantiles of Student's t

    m = len(log_w)
    top = log_w.max(0)
    w = np.exp(log_w - top)
    mean = w.mean(0)
    effective = m if effective is None else np.clip(effective, 2.0, m)
    error = w.std(0, ddof=1) / mean / np.sqrt(effective)
    return top + np.log(mean), error * stdtrit(np.maximum(effective - 1, 1.0), 0.975) / 1.96


def log_sum(values: np.ndarray, owner: np.ndarray, n: int) -> np.ndarray:
    """Return log sum exp of the values of each owner 0 .. n - 1, [n], in float64; -inf for one that has none."""
    top = np.full(n, -np.inf)
    np.maximum.at(top, owner, values)
    finite = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return finite + np.log(np.bincount(owner, np.exp(values - finite[owner]), minlength=n))


def skewed_error(log_w: np.ndarray) -> np.ndarray:
    """Return the standard error of the log of a mean of exp(log_w [m, n]) for few weights of many sizes, [n].

    The larger of two: that of the weights seen, and that of log-normal weights whose logarithms spread as widely as the
    upper half of these does, with variance v: sqrt((exp(v) - 1) / m), and no more than v / 2 + sqrt(v), by which the
    largest of few lies below the log of the mean. Of weights that differ by nats the largest are yet to come, and what
    was seen speaks of too small an error.
    """
    from scipy.special import stdtrit

    m = len(log_w)
    above = np.maximum(log_w - np.median(log_w, 0), 0.0)
    variance = 2.0 * np.square(above).sum(0) / (m - 1) * (1.0 + 8.0 / m)  # few weights do not know it well
    error = np.sqrt(np.expm1(np.minimum(variance, 100.0)) / m) * stdtrit(m - 1, 0.975) / 1.96
    error = np.minimum(error, 0.5 * variance + np.sqrt(variance))
    return np.asarray(np.maximum(error, log_mean_exp(log_w)[1]))


def rounding(value: np.ndarray) -> np.ndarray:
    """Return what float32 may put a log density of that size wrong by, in nats."""
    return np.abs(value) * 2.0**-24
