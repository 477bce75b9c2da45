"""The section on the paper's estimator: its error at each stop, its cost, and the pairs of methods that it turns."""

from comparisons.paper import paper_estimator, turns
from comparisons.paper.found import Found
from comparisons.paper.verdicts import SIZES
from comparisons.reporting.blocks import Block, Figures, Fold, Heading, Items, Paragraph, Table, not_run

TEXT = (
    "The paper estimates log p(x) from 50 posterior draws of short HMC chains (its appendix D). Its authors keep a "
    "datapoint's chain, and its step size, from one judgement to the next along training. Below is the mean error "
    "of that estimator at each stop: its value minus that of quadrature on the same fits and datapoints. ± is the "
    "standard error over seeds, for one seed that of the estimators."
)
TURNS = (
    "A pair turns where both estimates tell the two apart by more than two standard errors, and the other way round; "
    "of one seed the error is that of the estimators, and knows nothing of other seeds."
)


def blocks(found: Found) -> list[Block]:
    """Return what the estimator's error is and what follows from it, in sentences and tables."""
    numbers: list[Block] = []
    for n_train in SIZES:
        for split in paper_estimator.SPLITS:
            head, body = paper_estimator.table(found.figure3, n_train, split)
            title = Heading(f"N = {n_train:,}, {split}: the estimator minus quadrature, nats")
            numbers += [title, Table(head, body)] if body else []
    if not numbers:
        return [Paragraph(TEXT), *not_run()]
    said = [*paper_estimator.sentences(found.figure3), *turns.sentences(found.figure3)]
    if not any(one.kept for one in paper_estimator.everyone(found.figure3)):
        said.insert(0, "Not run yet: no run here keeps its chains from one judgement to the next.")
    turned = turns.table(found.figure3)
    if turned:
        title = Heading("Pairs of methods that it orders otherwise than quadrature")
        numbers += [title, Paragraph(TURNS), Table(turns.HEAD, turned)]
    return [Paragraph(TEXT), Items(said, lined=True), Figures(()), Fold("The numbers", numbers)]
