"""The section on how to read the others."""

from comparisons.data import GREY
from comparisons.paper.answer import TOLERANCE
from comparisons.paper.found import Found
from comparisons.reporting.blocks import Block, Items, Long

ERRORS = (
    "± is the standard deviation over seeds: what a single run, such as the paper's, scatters by. For one seed it is "
    "the estimator's own standard error."
)
GREY_NOTE = f"Every number on MNIST is a {GREY}, as in the paper."


def blocks(found: Found) -> list[Block]:
    """Return what words and errors mean, and which run stands for a curve."""
    texts = [
        TOLERANCE,
        ERRORS,
        "One run stands for each curve: of those with the paper's method, the longest; of equally long ones, that "
        "which chose its step size and warm-up on training data. The others are listed as experiments on the cause.",
        "The paper's curves are the vertices of its vector graphics, calibrated on the axis ticks; between two of them "
        "we interpolate in the logarithm of the points seen.",
        f"{GREY_NOTE} Compare them with each other, not with numbers for binarised MNIST.",
        "How the paper counts the points that Monte Carlo EM has seen cannot be established. Here each datapoint whose "
        "chain moves counts once, and decoder evaluations stand beside.",
        "Seconds were taken on machines shared by several runs: read them as upper bounds.",
    ]
    return [Long([Items(texts)])]
