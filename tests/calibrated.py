"""A row of a calibration, as its parts write them."""

from typing import Any

import numpy as np


def row(**changes: Any) -> dict[str, Any]:
    """A row of the part paper, with what a report asks of it."""
    named = {"part": "paper", "model": "vae_bernoulli", "n_latent": 3, "estimator": "appendix_d", "settings": ""}
    errors = {"bias": 0.1, "bias_stderr": 0.01, "median": 0.1, "bias_trusted": 0.1, "sd": 0.2, "rmse": 0.2}
    words = {"stderr": 0.2, "coverage": 0.95, "flagged": 0.1, "bad": 0.0, "bad_flagged": np.nan}
    counts = {"n_points": 100, "repeats": 1, "level": 1, "seconds_per_1000": 1.0, "peak_megabytes": 1.0}
    fit = {"n_train": 1000, "backend": "aevb", "split": "test", "truth": -10.1, "estimate": -10.0}
    return {**named, **errors, **words, **counts, **fit, **changes}
