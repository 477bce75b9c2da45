"""How noisy are the gradients that training climbs by, and what does it mean? The paper's section 2.2 to 2.4, measured.

Parts: exact (three gradients of a normal expectation in one dimension, by numerical integration), closed (bias and
variance of each estimator on a linear Gaussian model, where the bound's gradient is known), trained (variance on data
along AEVB's training, over minibatches and over draws of z). Where they are asked for, estimators and optimizers too
(the bound along training): they are some fifty fits.

Examples:

    python -m comparisons.gradient_variance --parts exact closed
    python -m comparisons.gradient_variance --data mnist --parts estimators optimizers --samples 1e5 --workers 2
    python -m comparisons.gradient_variance --data mnist --parts trained --stages 0 1e5 1e6 --particles 1 2 5 10
"""

import sys

from comparisons import cli
from comparisons.benchmarks.gradients import Plan, measure


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison for these flags; return the exit code. Raises UserError."""
    return measure(*cli.parse_plan("gradient_variance", __doc__ or "", Plan, arguments))


if __name__ == "__main__":
    cli.main(lambda: main(sys.argv[1:]))
