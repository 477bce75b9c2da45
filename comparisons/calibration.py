"""Every estimator of log p(x) against the truth, and the paper's own estimator on fits of every backend.

Parts: linear (closed form, n_latent 2 to 50), mnist (decoders trained here, quadrature), simulated (data drawn from
decoders with 20 and 50 latent variables, between two bounds), paper (the estimator of the paper's Figure 3 on four
backends and two training sets), engines (both engines on the same theta and x), defaults (what each estimator says of
its own error when it is told nothing, on decoders of digits: trained, saturated, narrow).

A part is run in pieces, a fit or a decoder each, and a piece that is done is not run again.

It takes no model or method of yours: what it holds are estimators, against models whose log p(x) is known.

Examples:

    python -m comparisons.calibration --parts linear --n-latent 2 10
    python -m comparisons.calibration --parts paper --engine pyro
"""

import sys

from comparisons import cli
from comparisons.benchmarks.calibration import Plan, calibrate


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison for these flags; return the exit code. Raises UserError."""
    return calibrate(*cli.parse_plan("calibration", __doc__ or "", Plan, arguments))


if __name__ == "__main__":
    cli.main(lambda: main(sys.argv[1:]))
