"""One model, three answers for theta: maximum likelihood, MAP, and full variational Bayes (the paper's appendix F)."""

import sys

from comparisons import cli
from comparisons.paper.full_vb_report import report
from comparisons.runner.grid import run_grids
from comparisons.runner.request import parse

DEFAULTS = {
    "data": "mnist",
    "theta": ("ml", "map", "vb"),
    "n_train": (1000, 50_000),
    "samples": 1_000_000,
}


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison for these flags; return the exit code."""
    return run_grids([parse("full_vb", __doc__ or "", DEFAULTS, arguments)], report)


if __name__ == "__main__":
    cli.main(lambda: main(sys.argv[1:]))
