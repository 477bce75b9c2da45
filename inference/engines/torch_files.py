"""Arrays by name as torch writes them."""

import io
from collections.abc import Mapping

import numpy as np
import torch


def packed(arrays: Mapping[str, np.ndarray], told: Mapping[str, str]) -> bytes:
    """Return a dict of tensors and words, which `torch.load(..., weights_only=True)` reads."""
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}
    torch.save({**tensors, **told}, file := io.BytesIO())
    return file.getvalue()
