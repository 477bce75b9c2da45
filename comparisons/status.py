"""The state of the cells in a folder of results: done, running, waiting, failed, and how far they have come.

Looks at files alone, so it can be asked at any time, from another terminal.
"""

import argparse
import sys
from pathlib import Path

from comparisons import cli
from comparisons.errors import FlagError
from comparisons.runner.watching import STATES, look


def main(arguments: list[str] | None = None) -> int:
    """Print a line for each cell and a summary; return 1 where cells failed, else 0. Raises UserError."""
    parser = argparse.ArgumentParser(prog="python -m comparisons.status", description=__doc__, allow_abbrev=False)
    usual = "results/marginal_likelihood"
    parser.add_argument("out", nargs="*", default=[usual], help=f"folders of results (default: {usual})")
    seen = []
    for out in parser.parse_args(arguments).out:
        folder = Path(out) / "cells"
        if not folder.is_dir():
            raise FlagError(f"there are no cells in {out}; name a folder that a comparison wrote to with --out")
        seen += [look(Path(out), path.name) for path in sorted(folder.iterdir()) if path.is_dir()]
    seen.sort(key=lambda one: STATES.index(one.status) if one.status in STATES else len(STATES))
    for one in seen:
        far = f"{one.n_seen:,} of {one.samples:,}" if one.samples else ""
        print(f"{one.status:12}{one.name:40}{far:>24}  {one.reason or one.doing}".rstrip())
    counts = {state: sum(one.status == state for one in seen) for state in STATES}
    print("\n" + ", ".join(f"{count} {state}" for state, count in counts.items() if count))
    return 1 if counts["failed"] or counts["diverged"] or counts["damaged"] else 0


if __name__ == "__main__":
    cli.main(lambda: main(sys.argv[1:]))
