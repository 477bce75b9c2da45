"""log p(x) between two bounds by importance sampling, for data drawn from the model together with their z.

    lower:  E log R,    R = (w_1 + ... + w_K) / K,   z_1 ... z_K ~ q,   w = p(x, z | theta) / q(z)
    upper:  the same, with one of the z drawn from p(z | x, theta) instead

R / p(x) is the density of the second way of drawing against the first, so that the means of log R lie below and above
log p(x) by the two divergences between them (Burda et al. 2016; Sobolev & Vetrov 2019). q is the mixture of
`proposals`; half of its chains begin at the z that x was made from, which is such a draw: the mode that it lies in is
known however narrow it is. Where posteriors are narrow this holds log p(x) far tighter than annealing does.
"""

import numpy as np

from comparisons.evidence.annealed import hold_exact_draws
from comparisons.evidence.base import Estimate, Target
from comparisons.evidence.importance import ImportanceSettings, mixture_weights
from comparisons.evidence.journal import Columns
from comparisons.evidence.means import rounding
from comparisons.evidence.proposals import Mixture, fitted_mixture
from models.base import Array


def sandwich(target: Target, z: Array, settings: ImportanceSettings, seed: int = 0) -> Estimate:
    """Return the middle of the two bounds for datapoints drawn from p(x | z) at the z [n, k] given, in nats.

    `stderr` is half the bounds' distance and the Monte-Carlo error of K = `importance_samples` weights. Diagnostics
    per datapoint: `lower`, `upper` and `gap`, their difference. Raises ValueError for a z that is not [n, k].
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
