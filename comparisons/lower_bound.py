"""Lower bound on train and test against training points seen, as in the paper's Figure 2; no estimate of log p(x)."""

import sys

from comparisons import cli
from comparisons.grid import run_grid
from comparisons.marginal_likelihood import report

DEFAULTS = {
    "data": "mnist",
    "backend": ("aevb", "wake_sleep"),
    "n_latent": (3, 5, 10, 20, 200),
    "n_hidden": 500,
    "samples": 1_000_000,
    "eval_points": 10_000,
    "evidence": ("none",),
}


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison for these flags; return the exit code."""
    return run_grid(cli.parse("lower_bound", __doc__ or "", DEFAULTS, arguments), report)


if __name__ == "__main__":
    cli.main(lambda: main(sys.argv[1:]))
