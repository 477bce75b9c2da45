"""What a training step costs, beside its matrix products alone and beside what each library gives.

Parts: step (every backend on every engine, and the peers), growth (with N, n_hidden, n_latent, M and leapfrog steps),
bound (of 10,000 points), memory (the peak of a run), grid (cells per hour with workers). Within a part, contestants
take turns in random order, so that a machine that slows down slows all of them.

It takes no model or method of yours: who takes turns, and at which shapes, is the same on every machine.

Examples:

    python -m comparisons.speed --parts step
    python -m comparisons.speed --parts grid --n-cells 16 --threads 2
"""

import sys

from comparisons import cli
from comparisons.benchmarks.speed import Plan, measure


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison for these flags; return the exit code. Raises UserError."""
    return measure(*cli.parse_plan("speed", __doc__ or "", Plan, arguments))


if __name__ == "__main__":
    cli.main(lambda: main(sys.argv[1:]))
