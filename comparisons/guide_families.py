"""The family of q(z | x): which of those of the paper's section 2.4 gives the highest lower bound, and what it costs.

One model and prior, one recognition network whose heads are the family's parameters, fitted by AEVB with each family
that lives where the prior does. log p(x) is of the theta that was fitted with it: what is left between the two is the
divergence of q(z | x) from the posterior.

Examples:

    python -m comparisons.guide_families --data mnist
    python -m comparisons.guide_families --prior-family exponential --engine pyro
    python -m comparisons.guide_families --families normal full_normal laplace --runs 3
"""

import sys

from comparisons import cli
from comparisons.benchmarks.guide_families import Plan, compare


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison for these flags; return the exit code. Raises UserError."""
    return compare(*cli.parse_plan("guide_families", __doc__ or "", Plan, arguments))


if __name__ == "__main__":
    cli.main(lambda: main(sys.argv[1:]))
