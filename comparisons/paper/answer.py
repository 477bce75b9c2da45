"""The first and the last section: how many of the paper's curves come out again, and how to read what is said here."""

from comparisons.data import GREY
from comparisons.paper import reproduction_figures as figures
from comparisons.paper.found import Found
from comparisons.paper.verdicts import BELOW, JUDGED, TRUSTED, Claim
from comparisons.reporting.blocks import Beside, Block, Figure, Fold, Heading, Item, Items, Long, Paragraph, Short, Word

TOLERANCE = (
    "Reproduced means within 2 nats on MNIST and within 5 % on Frey Face, of the paper's curve at the same number of "
    f"training points seen. Where an estimator flags over {TRUSTED:.0%} of its datapoints no verdict rests on it."
)
ERRORS = (
    "± is a standard error over seeds, as everywhere here; one seed has none. The bands of the figures are as wide."
)
GREY_NOTE = f"Every number on MNIST is a {GREY}, as in the paper."
CAPTION = (
    "Ours minus the paper's at the furthest point that both have; the grey band is what counts as reproduced. A "
    "triangle lies beyond the axis."
)
OVERVIEW = "figures/overview.svg"
CONCLUDED = "What the paper concluded"
TONES = {"reproduced": "good", "holds": "good", BELOW: "bad", "does not hold": "bad"}  # above it is a deviation too
FEW = 3  # lines of evidence that are shown at once


def blocks(found: Found) -> list[Block]:
    """Return the one sentence, the one figure, and what became of the paper's conclusions."""
    answer = summary(found)
    claims = Items([_item(claim) for claim in found.claims])
    return [
        Long([Paragraph(answer), Paragraph(TOLERANCE)]),
        Short([Paragraph(f"{answer} {TOLERANCE}")]),
        Beside([overview(found)], [Long([Heading(CONCLUDED)]), Short([Heading(CONCLUDED, 2)]), claims]),
    ]


def overview(found: Found) -> Figure:
    """Return the one figure: ours minus the paper's for each of its curves."""
    words = {word: sum(v.word == word for v in figures.furthest(found.verdicts)) for word in JUDGED}
    alt = (
        "The difference between ours and the paper's value for each curve of Figures 2 and 3, at the most points seen "
        f"that both have: {', '.join(f'{words[word]} {word}' for word in JUDGED)}."
    )
    return Figure(figures.overview(found.verdicts).encode(), OVERVIEW, alt, caption=CAPTION)


def _item(claim: Claim) -> Item:
    evidence: Block = Items(claim.evidence)
    if len(claim.evidence) > FEW:
        evidence = Fold(f"The numbers, in {len(claim.evidence)} panels", [evidence])
    return Item((f"{claim.sentence}: ", word(claim.word, strong=True), "."), [evidence])


def word(judgement: str, strong: bool = False) -> Word:
    """Return a verdict's or a claim's word in its colour."""
    return Word(judgement, TONES.get(judgement, "soft"), strong)


def summary(found: Found) -> str:
    """Return in a sentence how many of the paper's curves are reproduced."""
    last = figures.furthest(found.verdicts)
    if not last:
        return "None of the paper's curves has been run yet."
    counts = ", ".join(f"{sum(v.word == w for v in last)} {w}" for w in JUDGED)
    curves_of = {(v.curve[:6], v.metric) for v in found.verdicts}
    doubted = {(v.curve[:6], v.metric) for v in found.verdicts if v.word == "not trusted"}
    doubted -= {(v.curve[:6], v.metric) for v in last}
    rest = len(curves_of) - len(last) - len(doubted)
    against = any(v.point and v.point.contradicted for v in found.verdicts)
    why = "flags its own result, or a bound contradicts it" if against else "flags its own result"
    others = f" In {len(doubted)} more the estimator {why}." if doubted else ""
    others += f" {rest} more have not been run, or not as far as the paper's axes begin." if rest else ""
    return (
        f"Of {len(curves_of)} comparisons, one for each curve of Figures 2 and 3 and each estimator, {len(last)} "
        f"can be made: {counts}.{others}"
    )


def reading(found: Found) -> list[Block]:
    """Return what words and errors mean, and which run stands for a curve."""
    texts = [
        "Figures and tables with an R before their number are this report's; all others are the paper's.",
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
