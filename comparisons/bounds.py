"""What the bound leaves open, seen: log p(x) = KL(q(z | x) || p(z | x)) + L (equation 1), term by term, on a plane.

With two latent variables all three terms are integrals over a plane, and each is worked out by quadrature on a grid of
its own: along AEVB's training the bound and the divergence add up to log p(x). Beside that stand one normal fitted to
two modes by either divergence, and log p(x) by draws from the prior and by draws from q.

Examples:

    python -m comparisons.bounds
    python -m comparisons.bounds --data mnist --samples 1e6
    python -m comparisons.bounds --model linear_gaussian --data my.csv --engine pyro
"""

import sys

from comparisons import cli
from comparisons.benchmarks.bounds import Plan, measure
from comparisons.benchmarks.bounds_report import report


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison for these flags; return the exit code. Raises UserError."""
    return measure(*cli.parse_plan("bounds", __doc__ or "", Plan, arguments), report)


if __name__ == "__main__":
    cli.main(lambda: main(sys.argv[1:]))
