"""The state of the cells in a folder of results: done, running, waiting, failed, and how far they have come.

Looks at files alone, so it can be asked at any time, from another terminal.

Examples:

    python -m comparisons.status results/marginal_likelihood
    python -m comparisons.status results/lower_bound results/full_vb
"""

import sys
import textwrap
from pathlib import Path

from comparisons import cli
from comparisons.cli.flags import RUN
from comparisons.errors import FlagError
from comparisons.runner.watching import STATES, look, shortened


def main(arguments: list[str] | None = None) -> int:
    """Print a line for each cell and a summary; return 1 where cells failed, else 0. Raises UserError."""
    parser = cli.Parser("status", __doc__ or "")
    usual = "results/marginal_likelihood"
    parser.add_argument("folders", nargs="*", metavar="DIR", help=f"folders of results (default: {usual})")
    parser.add(RUN, "--out", nargs="+", default=[], metavar="DIR", help="the same, by the flag that wrote them")
    flags = parser.parse_args(arguments)
    seen = []
    for out in [*flags.folders, *flags.out] or [usual]:
        folder = Path(out) / "cells"
        if not folder.is_dir():
            raise FlagError(f"there are no cells in {out}; name a folder that a comparison wrote to with --out")
        seen += [look(Path(out), path.name) for path in sorted(folder.iterdir()) if path.is_dir()]
    seen.sort(key=lambda one: STATES.index(one.status) if one.status in STATES else len(STATES))
    for one in seen:
        far = f"{one.n_seen:,} of {one.samples:,}" if one.samples else ""
        print(shortened(f"{one.share:4.0%} {one.status:11} {one.name}  {far}  {one.doing}".rstrip(), sys.stdout))
        if one.reason:
            print(textwrap.fill(one.reason, 80, initial_indent=" " * 17, subsequent_indent=" " * 17))
    counts = {state: sum(one.status == state for one in seen) for state in STATES}
    print("\n" + ", ".join(f"{count} {state}" for state, count in counts.items() if count))
    return 1 if counts["failed"] or counts["diverged"] or counts["damaged"] else 0


if __name__ == "__main__":
    cli.main(lambda: main(sys.argv[1:]))
