"""What every estimator returns."""

from typing import Any, NamedTuple

import numpy as np


class Estimate(NamedTuple):
    """One number per datapoint, and its own error, in nats, float64.

    `stderr` is a Monte-Carlo standard error, independent between datapoints, or, where `systematic`, the size of a
    deterministic error such as quadrature's, which may share its sign between datapoints.
    """

    value: np.ndarray
    stderr: np.ndarray
    systematic: bool = False
    diagnostics: dict[str, Any] | None = None

    def mean(self) -> tuple[float, float]:
        """Return the mean over datapoints and its error: errors add in quadrature, systematic ones linearly.

        The error is that of the estimator on THESE datapoints; it does not speak of other draws of data.
        """
        n = len(self.value)
        error = self.stderr.mean() if self.systematic else np.sqrt(np.square(self.stderr).sum()) / n
        return float(self.value.mean()), float(error)
