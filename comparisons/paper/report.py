"""The report: its sections as one page of HTML, and in short as an index in Markdown."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from comparisons.paper.comparison import Comparison
from comparisons.paper.found import Found
from comparisons.reporting import html, markdown
from comparisons.reporting.blocks import Block, Code, Gap, Heading, Items, Link, Long, Paragraph, Section

TITLE = "Auto-Encoding Variational Bayes, run again"
QUESTION = (
    "In 2013 Kingma and Welling fitted one model, a decoder p(x | z) with a prior p(z), by several methods: their own "
    "auto-encoding variational Bayes (AEVB), wake-sleep and Monte Carlo EM. They showed single runs, without error "
    "bars. Do the curves come out again, and do the conclusions stand?"
)
COMMAND = Code("python -m comparisons.report")
BOTH = " in this folder says the same at length, and opens offline. Both are built by "
INDEX = (Code("index.html"), BOTH, COMMAND, " from the rows and files here.")
PAPER = Link("https://arxiv.org/abs/1312.6114v10", "arXiv 1312.6114v10")
BUILT = ". This page is built from the rows and files beside it by "
FOOTER = ("The paper is ", PAPER, BUILT, COMMAND, ", and from nothing else.")
NAMED_BEFORE = {"judge_again": "figure4"}  # sections that the navigation names before one that stands above them


class Part(NamedTuple):
    """A section about the paper: its name, its title, its word in the navigation, and what builds it."""

    name: str
    title: str
    word: str
    blocks: Callable[[Found], list[Block]]


def page(sections: Sequence[Section], parts: Sequence[Part | Comparison]) -> str:
    """Return the whole page, the same bytes for the same rows and files."""
    words = {part.name: part.word for part in parts}
    names = [name for name in words if name not in NAMED_BEFORE]
    for name, other in NAMED_BEFORE.items():
        names.insert(names.index(other), name)
    return html.page(TITLE, QUESTION, sections, [(name, words[name]) for name in names], Paragraph(FOOTER))


def index(sections: Sequence[Section], parts: Sequence[Part | Comparison], found: Found) -> str:
    """Return the same for those who read on a code host: the answer, the figures, and where the rest lies."""
    blocks: list[Block] = [Heading(TITLE, 1), Paragraph(QUESTION), Paragraph(INDEX)]
    for part, section in zip(parts, sections, strict=True):
        if isinstance(part, Part) and not all(isinstance(block, Long) for block in section.blocks):
            gap = [] if part.name == "answer" else [Gap()]  # the answer belongs to the opening
            blocks += [*gap, Heading(section.title, 2), *section.blocks]
    more = Items([part.item(found) for part in parts if isinstance(part, Comparison)])
    return markdown.page([*blocks, Gap(), Heading("And more", 2), more])
