"""Lower bound on train and test against training points seen, as in the paper's Figure 2; no estimate of log p(x).

Examples:

    python -m comparisons.lower_bound --preset quick
    python -m comparisons.lower_bound --data digits --n-latent 3 --samples 1e5
"""

import sys

from comparisons import cli
from comparisons.paper.panels import BOUNDS, RIVALS
from comparisons.reporting.folder import report
from comparisons.runner.grid import parse_preset, run_grids

DEFAULTS = {
    "data": "mnist",
    "backend": RIVALS,
    "n_latent": (3, 5, 10, 20, 200),
    "n_hidden": 500,
    "samples": 1_000_000,
    "eval_points": 10_000,
    "evidence": ("none",),
}
PRESETS = BOUNDS


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison for these flags; return the exit code."""
    return run_grids(parse_preset("lower_bound", __doc__ or "", DEFAULTS, PRESETS, arguments), report)


if __name__ == "__main__":
    cli.main(lambda: main(sys.argv[1:]))
