"""Inference of z given x (section 2.1), seen: each method's q(z | x) beside the exact posterior, with two latents.

Each method is fitted, and for test datapoints its q is laid over the posterior under its own decoder, which quadrature
knows on a grid. HMC draws of the same posterior stand beside it: of Monte Carlo EM, which has no q, they are all there
is.

Examples:

    python -m comparisons.posteriors
    python -m comparisons.posteriors --data mnist --backend aevb wake_sleep
"""

import sys

from comparisons import cli
from comparisons.benchmarks.posteriors import Plan, compare


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison for these flags; return the exit code. Raises UserError."""
    return compare(*cli.parse_plan("posteriors", __doc__ or "", Plan, arguments))


if __name__ == "__main__":
    cli.main(lambda: main(sys.argv[1:]))
