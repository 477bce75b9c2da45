"""Estimated log p(x) and lower bound of every backend on every engine, as in the paper's Figure 3.

Examples:

    python -m comparisons.marginal_likelihood --backend aevb wake_sleep --seeds 0 1 --workers 2
    python -m comparisons.marginal_likelihood --data mnist --n-latent 2 --samples 1e6 --engine numpyro
    python -m comparisons.marginal_likelihood --preset quick
"""

import sys

from comparisons import cli
from comparisons.paper.panels import EVIDENCE
from comparisons.reporting.folder import report
from comparisons.runner.grid import EVERYTHING, parse_preset, run_grids

DEFAULTS = EVERYTHING
PRESETS = EVIDENCE


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison for these flags; return the exit code."""
    return run_grids(parse_preset("marginal_likelihood", __doc__ or "", DEFAULTS, PRESETS, arguments), report)


if __name__ == "__main__":
    cli.main(lambda: main(sys.argv[1:]))
