"""Estimated log p(x) and lower bound of every backend on every engine, as in the paper's Figure 3."""

import sys
from pathlib import Path
from typing import Any

from comparisons import cli
from comparisons.grid import run_grid

DEFAULTS = {"backend": ("all",), "engine": ("all",), "seed": (0,)}


def report(rows: Any, out: Path) -> None:
    """Write table.md, table.csv and figure.svg."""
    from comparisons import figures, store, tables

    store.write(out / "table.md", tables.markdown(rows))
    store.write(out / "table.csv", tables.summary(rows).to_csv(index=False, lineterminator="\n"))
    store.write(out / "figure.svg", figures.learning_curves(rows))


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison for these flags; return the exit code."""
    return run_grid(cli.parse("marginal_likelihood", __doc__ or "", DEFAULTS, arguments), report)


if __name__ == "__main__":
    cli.main(lambda: main(sys.argv[1:]))
