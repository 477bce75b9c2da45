"""Images restored from what is seen of them: a use of the model that the paper names in section 2.1.

    denoising          each pixel is flipped with a known probability, or has normal noise added
    inpainting         half of the image is not seen
    super-resolution   of each block of pixels the mean alone is seen

Under the fitted model p(z | y, theta) ~ p(z) p(y | z, theta), where the way from pixels x to what is seen y is part of
the model: p(y | z) is exact. z is drawn by HMC from where annealed chains end, and a pixel is E[x | y] over the draws.
Beside it: the recognition network alone, each pixel by itself, and the nearest training images.

Examples:

    python -m comparisons.restoration --tasks inpainting --backend all
    python -m comparisons.restoration --data mnist frey --n-latent 10 --samples 1e6 --block 4
"""

import sys

from comparisons import cli
from comparisons.benchmarks.restoration import Plan, restore


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison for these flags; return the exit code. Raises UserError."""
    return restore(*cli.parse_plan("restoration", __doc__ or "", Plan, arguments))


if __name__ == "__main__":
    cli.main(lambda: main(sys.argv[1:]))
