"""The latent variables as a representation of images: a use of the model that the paper names in section 2.1.

An image is the mean of its q(z | x). Of 2 latent variables there is a map, coloured by digit. Of any number, logistic
regression learns the digit from so many labels, beside one on pixels. A method without a q(z | x) is left out.

Examples:

    python -m comparisons.embedding --backend aevb --n-latent 2
    python -m comparisons.embedding --data mnist --samples 1e6
"""

import sys

from comparisons import cli
from comparisons.benchmarks.embedding import Plan, embed


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison for these flags; return the exit code. Raises UserError."""
    return embed(*cli.parse_plan("embedding", __doc__ or "", Plan, arguments))


if __name__ == "__main__":
    cli.main(lambda: main(sys.argv[1:]))
