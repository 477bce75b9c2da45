"""Rows drawn from `linear_gaussian` at a theta that is known: 2000 for training and 1000 for testing."""

import math
from pathlib import Path

import numpy as np

from comparisons.data.base import SEED, DataCard


def synthetic_theta() -> dict[str, np.ndarray]:
    """Return the theta that `synthetic` is drawn from, for k = 3 latents and d = 10 observed values.

    x = z w + b + exp(log_scale) e, with z ~ N(0, I_k) and e ~ N(0, I_d); so x ~ N(b, w' w + exp(2 log_scale) I).
    Here w [k, d] ~ N(0, 1), b [d] = 0 and log_scale [] = log 0.5, the natural logarithm of the noise's standard
    deviation.
    """
    w = np.random.default_rng(SEED).standard_normal((3, 10))
    theta = {"w": w, "b": np.zeros(10), "log_scale": np.array(math.log(0.5))}
    return {name: value.astype(np.float32) for name, value in theta.items()}


def synthetic(data_dir: str | Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Return train [2000, 10] and test [1000, 10]."""
    w, b, log_scale = (value.astype(np.float64) for value in synthetic_theta().values())
    rng = np.random.default_rng([SEED, 1])  # not the stream that theta came from
    z, noise = rng.standard_normal((3000, len(w))), rng.standard_normal((3000, len(b)))
    x = (z @ w + b + np.exp(log_scale) * noise).astype(np.float32)
    return x[:2000], x[2000:]


KNOWN = "drawn from linear_gaussian with known theta"
SYNTHETIC = DataCard("synthetic", 2000, (1, 10), "real", KNOWN, "linear_gaussian", synthetic)
