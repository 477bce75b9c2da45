"""Lower bound on train and test against training points seen, as in the paper's Figure 2; no estimate of log p(x)."""

import sys
from typing import Any

from comparisons import cli
from comparisons.paper.panels import FIGURE2
from comparisons.reporting.folder import report
from comparisons.runner.grid import run_grids
from comparisons.runner.request import parse_preset

DEFAULTS = {
    "data": "mnist",
    "backend": ("aevb", "wake_sleep"),
    "n_latent": (3, 5, 10, 20, 200),
    "n_hidden": 500,
    "samples": 1_000_000,
    "eval_points": 10_000,
    "evidence": ("none",),
}
_MNIST = {**FIGURE2, "data": "mnist", "n_hidden": 500, "n_latent": (3, 5, 10, 20, 200)}
_FREY = {**FIGURE2, "data": "frey", "n_hidden": 200, "n_latent": (2, 5, 10, 20)}
PRESETS: dict[str, tuple[dict[str, Any], ...]] = {
    "quick": (
        {**FIGURE2, "data": "digits", "n_hidden": 100, "n_latent": (3, 10), "samples": 200_000, "pilot_steps": 300},
        {**_MNIST, "n_latent": (3,), "samples": 200_000, "pilot_steps": 300},
    ),
    "standard": ({**_MNIST, "samples": 10_000_000}, {**_FREY, "samples": 10_000_000}),
    "paper": ({**_MNIST, "samples": 100_000_000}, {**_FREY, "samples": 100_000_000}),
}


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison for these flags; return the exit code."""
    return run_grids(parse_preset("lower_bound", __doc__ or "", DEFAULTS, PRESETS, arguments), report)


if __name__ == "__main__":
    cli.main(lambda: main(sys.argv[1:]))
