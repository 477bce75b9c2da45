"""Gradients on `linear_gaussian`, where the bound's own are in closed form.

With q(z | x) = N(m, diag s^2), m = x A + c, and r = x - m w - b:

    L = -n_x / 2 log(2 pi sigma^2) - (|r|^2 + sum_j s_j^2 |w_j|^2) / (2 sigma^2) - KL(q || N(0, I))

The setting is that of Rainforth et al. (2018) and Tucker et al. (2019), in 20 dimensions: x ~ N(z + b, I), q with the
exact posterior's mean and the variance 2/3 where the posterior's is 1/2, and all parameters moved by N(0, 0.01^2).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from comparisons.benchmarks.gradient_moments import BATCHES, Moments, mean_and_error, moments
from inference.base import Engine, Params, join, pick
from inference.gradients import ESTIMATORS
from models.linear_gaussian import LinearGaussian, posterior

SIZE, POINTS = 20, 10  # n_x and n_latent; datapoints
MOVED = 0.01
ASYMPTOTIC = 10  # draws from which slopes are fitted: 1 and 3 are not yet many
PAIR = {"iwae": "dreg", "dreg": "iwae"}  # who has the same mean
EXPECTED = {("iwae", "phi"): -0.5, ("iwae", "theta"): 0.5, ("dreg", "phi"): 0.5}  # Rainforth et al., Tucker et al.

Row = dict[str, Any]


def problem(seed: int) -> tuple[LinearGaussian, Params, np.ndarray]:
    """Return the model, its parameters theta.* and phi.*, float32, and datapoints x [POINTS, SIZE] drawn from it."""
    rng = np.random.default_rng(seed)
    b = rng.standard_normal(SIZE)
    theta = {"w": np.eye(SIZE), "b": b, "log_scale": np.zeros(())}
    phi = {"w": 0.5 * np.eye(SIZE), "b": -0.5 * b, "log_scale": np.full(SIZE, 0.5 * np.log(2 / 3))}
    x = rng.standard_normal((POINTS, SIZE)) + b + rng.standard_normal((POINTS, SIZE))
    params = {
        name: value + MOVED * rng.standard_normal(value.shape) for name, value in join(theta=theta, phi=phi).items()
    }
    return LinearGaussian(SIZE, SIZE), {name: np.float32(value) for name, value in params.items()}, x.astype(np.float32)


def bound(params: Params, x: np.ndarray) -> float:
    """Return the mean bound of datapoints x [n, n_x], in nats and float64."""
    theta, m, s, r, precision = _parts(params, x)
    d = x.shape[1]
    squares = np.square(r).sum(1) + (s**2 * np.square(theta["w"]).sum(1)).sum()
    divergence = 0.5 * (np.square(m) + s**2 - 1.0 - 2.0 * np.log(s)).sum(1)
    return float((-0.5 * d * np.log(2 * np.pi / precision) - 0.5 * precision * squares - divergence).mean())


def bound_gradient(params: Params, x: np.ndarray) -> Params:
    """Return the gradient of `bound`, in float64."""
    theta, m, s, r, precision = _parts(params, x)
    w, n = theta["w"], len(x)
    by_m = precision * r @ w.T - m
    squares = np.square(r).sum(1) + (s**2 * np.square(w).sum(1)).sum()
    return join(
        theta={
            "w": precision * (m.T @ r / n - s[:, None] ** 2 * w),
            "b": precision * r.mean(0),
            "log_scale": np.asarray((precision * squares).mean() - x.shape[1]),
        },
        phi={
            "w": x.T.astype(np.float64) @ by_m / n,
            "b": by_m.mean(0),
            "log_scale": 1.0 - s**2 - precision * s**2 * np.square(w).sum(1),
        },
    )


def evidence_gradient(params: Params, x: np.ndarray) -> Params:
    """Return the gradient of the mean log p(x) by theta: that of the bound, at the exact posterior (Fisher)."""
    theta = {name: np.asarray(value, np.float64) for name, value in pick(params, "theta").items()}
    m, covariance = posterior(theta, x)
    precision = np.exp(-2 * theta["log_scale"])
    r = x - m @ theta["w"] - theta["b"]
    second = m.T @ m / len(x) + covariance
    squares = np.square(x - theta["b"]).sum(1).mean() - 2 * (m @ theta["w"] * (x - theta["b"])).sum(1).mean()
    squares += np.trace(theta["w"].T @ second @ theta["w"])
    by_w = precision * (m.T @ (x - theta["b"]) / len(x) - second @ theta["w"])
    return join(
        theta={"w": by_w, "b": precision * r.mean(0), "log_scale": np.asarray(precision * squares - x.shape[1])}
    )


def rows(engine: Engine, counts: Sequence[int], repeats: int, seed: int) -> Iterator[Row]:
    """Yield for each estimator, K and group of parameters the bias, its t, the variance and the signal-to-noise ratio.

    And for each estimator and group the slope of log ratio against log K.
    """
    model, params, x = problem(seed)
    exact, limit = bound_gradient(params, x), evidence_gradient(params, x)
    found = {
        (name, count): moments(engine, model, name, count, params, x, len(x), repeats, seed + 1)
        for name, card in ESTIMATORS.items()
        for count in counts
        if count >= card.least
    }
    for group in ("theta", "phi"):
        for name, card in ESTIMATORS.items():
            known = None if card.multi_sample else _flat(exact, group)
            many = [count for count in counts if count >= card.least]
            signals = {k: found["dreg" if name == "iwae" and group == "phi" else name, k] for k in many}
            ratios = [
                [_ratio(found[name, k], signals[k], group, known, one) for k in many] for one in (None, *range(BATCHES))
            ]
            for count, *each in zip(many, *ratios, strict=True):
                one = found[name, count]
                if card.multi_sample and group == "phi":
                    told = against(one, found[PAIR[name], count], group)
                else:
                    told = against(one, _flat(limit, group) if known is None else known, group)
                variance, error = mean_and_error(one.total("variance", group))
                ratio, ratio_error = _jackknife(each)
                yield {
                    **{"estimator": name, "draws": count, "group": group, **told, "seconds": one.seconds},
                    **{"variance": variance, "variance_stderr": error},
                    **{"signal_to_noise": ratio, "signal_to_noise_stderr": ratio_error},
                }
            yield {"estimator": name, "group": group, **_asymptotic(many, ratios)}


def against(one: Moments, truth: "np.ndarray | Moments", group: str) -> Row:
    """Return how far a mean gradient is from the truth along the truth's own direction, relative to it, with its t.

    The truth is a vector, or another estimator's mean, whose error then counts too.
    """
    means = one.flat(group)
    if isinstance(truth, Moments):
        # Along the direction of the other batches: a batch's own noise is part of its direction, and makes the noisier
        # mean the longer one.
        others = truth.flat(group)
        both = (means + others) / 2
        rest = (both.sum(0) - both) / (BATCHES - 1)
        bias, error = mean_and_error(((means - others) * rest).sum(1) / float(both.mean(0) @ both.mean(0)))
    else:
        bias, error = mean_and_error(means @ truth / float(truth @ truth) - 1.0)
    return {"bias": bias, "bias_stderr": error, "t": bias / error}


def _ratio(one: Moments, signals: Moments, group: str, known: np.ndarray | None, left_out: int | None) -> float:
    """Return |E g| / sqrt(tr Var g) from all batches of repeats but one.

    Where E g is not known, |E g|^2 is that of `signals`, of the same mean, rid of what noise adds to it: by itself the
    K-sample bound's plain gradient by phi is lost in its noise. NaN where nothing is left.
    """
    kept = [batch for batch in range(BATCHES) if batch != left_out]
    means, variance = signals.flat(group)[kept], one.total("variance", group)[kept].mean()
    total = means.sum(0)
    signal = (
        (total @ total - np.square(means).sum()) / (len(kept) * (len(kept) - 1)) if known is None else known @ known
    )
    return float(np.sqrt(signal / variance)) if signal > 0 else float("nan")


def _asymptotic(counts: Sequence[int], ratios: Sequence[Sequence[float]]) -> Row:
    """Return the slope of log ratio against log K, with its error; NaN where there are not two K to fit it to."""
    kept = [i for i, count in enumerate(counts) if count >= ASYMPTOTIC]
    if len(kept) < 2:
        return {"slope": float("nan"), "slope_stderr": float("nan")}
    slope, error = _jackknife([_slope([counts[i] for i in kept], [each[i] for i in kept]) for each in ratios])
    return {"slope": slope, "slope_stderr": error}


def _slope(counts: Sequence[int], ratios: Sequence[float]) -> float:
    return float(np.polyfit(np.log(counts), np.log(ratios), 1)[0]) if np.isfinite(ratios).all() else float("nan")


def _jackknife(values: Sequence[float]) -> tuple[float, float]:
    """Return the first value, of all batches, with the error that follows from those without one of them."""
    whole, parts = values[0], np.asarray(values[1:])
    n = len(parts)
    return whole, float(np.sqrt((n - 1) / n * np.square(parts - parts.mean()).sum()))


def _flat(values: Params, group: str) -> np.ndarray:
    return np.concatenate([value.ravel() for value in pick(values, group).values()])


def _parts(params: Params, x: np.ndarray) -> tuple[Params, np.ndarray, np.ndarray, np.ndarray, float]:
    theta, phi = (
        {name: np.asarray(value, np.float64) for name, value in pick(params, group).items()}
        for group in ("theta", "phi")
    )
    m = x @ phi["w"] + phi["b"]
    return theta, m, np.exp(phi["log_scale"]), x - m @ theta["w"] - theta["b"], float(np.exp(-2 * theta["log_scale"]))
