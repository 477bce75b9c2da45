"""What a training step costs, beside its matrix products alone and beside what each library gives.

Parts: step (every backend on every engine, and the peers), growth (with N, n_hidden, n_latent, M and leapfrog steps),
bound (of 10,000 points), memory (the peak of a run), grid (cells per hour with workers). Within a part, contestants
take turns in random order, so that a machine that slows down slows all of them.
"""

import sys

from comparisons import cli
from comparisons.benchmarks.speed import Plan, measure


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison for these flags; return the exit code. Raises UserError."""
    return measure(*cli.parse_plan("speed", __doc__ or "", Plan, arguments))


if __name__ == "__main__":
    cli.main(lambda: main(sys.argv[1:]))
