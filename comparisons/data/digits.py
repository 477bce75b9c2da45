"""Scikit-learn's 1797 digits, 8 x 8, 17 grey levels: 1297 for training, 500 for testing; needs no file."""

from pathlib import Path

import numpy as np

from comparisons.data.base import GREY, DataCard, split


def digits(data_dir: str | Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Return train [1297, 64] and test [500, 64], in sixteenths."""
    from sklearn.datasets import load_digits

    return split(load_digits().data.astype(np.float32) / 16, 1297)  # shuffled: the file runs writer by writer


DIGITS = DataCard("digits", 1297, (8, 8), "unit", GREY, "vae_bernoulli", digits)
