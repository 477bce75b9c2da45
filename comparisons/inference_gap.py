"""Where a lower bound loses: log p(x) - bound = approximation gap + amortization gap (Cremer, Li & Duvenaud 2018).

    approximation gap   log p(x) - L[q*]   what the best q of the family N(mu, diag sigma^2) leaves open
    amortization gap    L[q*] - L[q]       what the recognition network loses against a q* fitted to each datapoint

q* is mean-field VI's local fit under the same theta. log p(x) is by quadrature up to 3 latent variables, and above by
importance sampling from a mixture fitted to HMC draws: annealing from q* would not know of modes that q* leaves out.

Examples:

    python -m comparisons.inference_gap --data digits --n-latent 3 --samples 1e5
    python -m comparisons.inference_gap --backend aevb --n-latent 3 20
"""

import sys

from comparisons import cli
from comparisons.benchmarks.inference_gap import Plan, take_apart


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison for these flags; return the exit code. Raises UserError."""
    return take_apart(*cli.parse_plan("inference_gap", __doc__ or "", Plan, arguments))


if __name__ == "__main__":
    cli.main(lambda: main(sys.argv[1:]))
