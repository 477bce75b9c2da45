"""Estimated log p(x) and lower bound of every backend on every engine, as in the paper's Figure 3."""

import sys
from typing import Any

from comparisons import cli
from comparisons.reporting.folder import report
from comparisons.runner.grid import run_grids
from comparisons.runner.request import parse_preset

DEFAULTS = {"backend": ("all",), "engine": ("all",), "seed": (0,)}
_FIGURE = {
    "data": "mnist", "n_train": 1000, "n_latent": 3, "n_hidden": 100, "warmup": 0,
    "pilot_steps": 3000, "engine": "numpyro",
    "evidence": ("quadrature", "appendix_d"),
}  # fmt: skip
# The authors' code moves all chains at once. A step is N points and five weight updates: the pilot of each step size
# takes some 300,000 points at N = 1000, and 20 steps at 50,000.
_FULL = {"backend": "monte_carlo_em", "e_step": "full"}


def _figure(samples: int) -> tuple[dict[str, Any], ...]:
    """Return the panels of Figure 3: three seeds at N = 1000, one at 50,000; last, the other engine at N = 1000."""
    small, large = (
        {**_FIGURE, "seed": (0, 1, 2), "samples": samples},
        {**_FIGURE, "n_train": 50_000, "samples": samples},
    )
    full = {**small, **_FULL, "pilot_steps": 300}, {**large, **_FULL, "pilot_steps": 20}
    return small, large, *full, {**small, "engine": "pyro"}


PRESETS: dict[str, tuple[dict[str, Any], ...]] = {
    "quick": (
        {"data": "digits", "samples": 30_000},
        {**_FIGURE, "samples": 50_000, "pilot_steps": 300, "eval_points": 100},
    ),
    "standard": _figure(10_000_000),
    "paper": _figure(60_000_000),
}


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison for these flags; return the exit code."""
    return run_grids(parse_preset("marginal_likelihood", __doc__ or "", DEFAULTS, PRESETS, arguments), report)


if __name__ == "__main__":
    cli.main(lambda: main(sys.argv[1:]))
