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
from comparisons.evidence.base import Estimate, rounding
from comparisons.evidence.importance import log_joint_of, mixture_weights
from comparisons.evidence.journal import once
from comparisons.evidence.proposals import Mixture, fitted_mixture
from inference.base import Engine, Params
from models.base import Array, Model


def sandwich(
    engine: Engine,
    model: Model,
    theta: Params,
    x: Array,
    seed: int = 0,
    *,
    z: Array,
    importance_samples: int = 10_000,
    max_memory: float = 1e9,
) -> Estimate:
    """Return the middle of the two bounds for x [n, n_x] drawn from p(x | z) at the z [n, k] given, in nats.

    `stderr` is half the bounds' distance and the Monte-Carlo error of K = `importance_samples` weights. Diagnostics
    per datapoint: `lower`, `upper` and `gap`, their difference. Raises ValueError for a z that is not [n, k].
    """
    hold_exact_draws("sandwich", model, x, z)
    known = engine.numpy(z)
    mixture = fitted_mixture(engine, model, theta, x, seed, max_memory, known)

    def reduce(rows: np.ndarray, fit: Mixture, joint: np.ndarray, log_parts: np.ndarray) -> tuple[np.ndarray, ...]:
        at = engine.array(rows)
        exact = engine.numpy(log_joint_of(engine, model)(theta, z[at][None], x[at])).astype(np.float64)[0]
        exact = exact - np.logaddexp.reduce(fit.log_parts(known[rows][None]))[0]
        return bounds(joint - np.logaddexp.reduce(log_parts), exact)

    cut = mixture_weights(engine, model, theta, x, mixture, seed, importance_samples, max_memory, reduce)
    parts = [once(each) for each in cut]
    lower, upper, noise = (np.concatenate(column) for column in zip(*parts, strict=True))
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
