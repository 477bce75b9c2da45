"""The VAE that most people met first, PyTorch's example, as a preset: beside the example itself and public numbers.

784-400-20-400-784 with relu, Adam at 0.001, minibatches of 128, the 60,000 training images of MNIST in grey, and no
prior on theta. Minus the bound on the 10,000 test images is set beside what public logs of the example show after 4, 7
and 10 epochs; log p(x) of some of them, and the seconds of an epoch, beside the example's own loop in plain torch.

Examples:

    python -m comparisons.pytorch_example
    python -m comparisons.pytorch_example --engine numpyro --seeds 0
"""

import sys

from comparisons import cli
from comparisons.benchmarks.pytorch_example import PRESET, compare
from comparisons.runner.grid import parse


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison for these flags; return the exit code. Raises UserError."""
    return compare(parse("pytorch_example", __doc__ or "", PRESET, arguments))


if __name__ == "__main__":
    cli.main(lambda: main(sys.argv[1:]))
