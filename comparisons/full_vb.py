"""One model, three answers for theta: maximum likelihood, MAP, and full variational Bayes (the paper's appendix F).

Examples:

    python -m comparisons.full_vb --data digits --n-train 1000 --samples 1e5
    python -m comparisons.full_vb --step-size 0.1 --samples 1e7
"""

import sys
from pathlib import Path
from typing import Any

from comparisons import cli
from comparisons.runner.grid import parse, run_grids

DEFAULTS = {
    "data": "mnist",
    "theta": ("ml", "map", "vb"),
    "n_train": (1000, 50_000),
    "samples": 1_000_000,
}


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison for these flags; return the exit code."""
    return run_grids([parse("full_vb", __doc__ or "", DEFAULTS, arguments)], report)


def report(rows: Any, out: Path, mine: Any) -> str:
    """Write table.md and figure.svg of all rows; return the table of `mine` for a terminal."""
    from comparisons.paper import full_vb_report

    return full_vb_report.report(rows, out, mine)


if __name__ == "__main__":
    cli.main(lambda: main(sys.argv[1:]))
