"""Updates in closed form beside what approximates them, and the exact log p(x) above both.

SVI's mean field comes to the fixed point of coordinate ascent (CAVI), Monte Carlo EM to where EM ends, and EM to the
maximum likelihood of Tipping & Bishop (1999): on rows drawn from `linear_gaussian` and `gaussian_mixture`, and on
images. The bounds of a Bayesian mixture of Gaussians and of latent Dirichlet allocation stand beside scikit-learn's,
and below the evidence that a sum over all assignments gives.

Examples:

    python -m comparisons.closed_form
    python -m comparisons.closed_form --data mnist --n-latent 5 --engine pyro
"""

import sys

from comparisons import cli
from comparisons.benchmarks.closed_form import Plan, compared


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison for these flags; return the exit code. Raises UserError."""
    return compared(*cli.parse_plan("closed_form", __doc__ or "", Plan, arguments))


if __name__ == "__main__":
    cli.main(lambda: main(sys.argv[1:]))
