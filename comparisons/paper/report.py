"""The report: its sections as one page of HTML, and in short as an index in Markdown."""

from collections.abc import Callable, Sequence
from itertools import takewhile
from types import ModuleType
from typing import NamedTuple

from comparisons.paper import findings, made
from comparisons.paper.found import Extra, Found
from comparisons.reporting import blocks as b
from comparisons.reporting import html, markdown
from comparisons.reporting.blocks import Code, Heading, Items, Link, Paragraph, Section

TITLE = "Auto-Encoding Variational Bayes, run again"
OWN = "Runs in this folder"
OWN_QUESTION = "Each table holds methods against one another: one model, the same data, the same seeds, one judge."
QUESTION = (
    "In 2013 Kingma and Welling fitted one model, a decoder p(x | z) with a prior p(z), by several methods: their own "
    "auto-encoding variational Bayes (AEVB), wake-sleep and Monte Carlo EM. They showed single runs, without error "
    "bars. Do the curves come out again, and do the conclusions stand?"
)
COMMAND = Code("python -m comparisons.report")
BOTH = " in this folder says the same at length, and opens offline. Both are built by "
INDEX = (Code("index.html"), BOTH, COMMAND, " from the rows and files here.")
BUILT = ". This page is built from the rows and files beside it by "
FOOTER = ("The paper is ", made.PAPER, BUILT, COMMAND, ", and from nothing else.")
OWN_FOOTER = (BUILT[2:], COMMAND, ", and from nothing else.")
SHEETS = {"figure4": "manifold", "figure5": "samples"}
LEAD = 10  # items of a list that are shown before the rest is folded away
NAMED_BEFORE = {"judge_again": "figure4"}  # sections that the navigation names before one that stands above them


class Part(NamedTuple):
    """A section about the paper: its name, its title, its word in the navigation, and what builds it."""

    name: str
    title: str
    word: str
    blocks: Callable[[Found], list[b.Block]]


class Comparison(NamedTuple):
    """A comparison as a section: its folder's name, its title, its word in the navigation, its file and command."""

    name: str
    title: str
    word: str
    report: ModuleType  # its file: ABOUT, a sentence, blocks(rows), and FIGURE, the caption, or FIGURES, some by name
    command: str

    def blocks(self, found: Found) -> list[b.Block]:
        """Return the section: what the rows say, the figure, and the tables."""
        if self.name not in found.extras:
            return [Paragraph(self.report.ABOUT), *b.not_run(self.command)]
        extra = found.extras[self.name]
        tables = self.report.blocks(extra.rows)
        lead = list(takewhile(lambda block: not isinstance(block, Heading | b.Table), tables))
        long = any(isinstance(block, Items) and len(block.items) > LEAD for block in lead)
        shown = [] if long else lead
        rest = tables[len(shown) :]
        captions = getattr(self.report, "FIGURES", {"figure": getattr(self.report, "FIGURE", "")})
        figures = [self._figure(name, caption, extra) for name, caption in captions.items() if name in extra.figures]
        return [
            Paragraph(self.report.ABOUT),
            Items(findings.of_comparison(self.name, found.rows)),
            *shown,
            *figures,
            *([b.Fold("Findings and tables", rest)] if len(rest) > 3 or long else rest),
            *made.blocks(extra.manifests),
            Paragraph(("Data: ", Link(f"{self.name}/table.md", "the table"), "."), "note"),
        ]

    def _figure(self, name: str, caption: str, extra: Extra) -> b.Figures:
        alt = f"{self.title}: the figure of this comparison; its numbers are in the tables below."
        return b.Figures([b.Figure(extra.figures[name], f"{self.name}/{name}.svg", alt)], "wide", caption=caption)

    def item(self, found: Found) -> b.Item:
        """Return the line of it in an index: where its tables lie, and what its rows say."""
        there = self.name in found.extras
        title: b.Text = Link(f"{self.name}/table.md", self.title) if there else self.title
        said = findings.of_comparison(self.name, found.rows)
        return b.Item((title, f": {self.report.ABOUT}{'' if there else ' Not run yet.'}"), [Items(said)])


def shown(parts: Sequence[Part | Comparison], found: Found) -> list[Part | Comparison]:
    """Return the sections that a folder has something for: those of the paper only where its data were run."""
    there = {"runs", "made", *found.extras, *(figure for figure, name in SHEETS.items() if found.sheets[name])}
    kept = [part for part in parts if found.of_paper or part.name in there]
    # Runs are behind the answer, where there is one.
    return sorted(kept, key=lambda part: (part.name == "made", found.of_paper and part.name == "runs"))


def page(sections: Sequence[Section], parts: Sequence[Part | Comparison], found: Found) -> str:
    """Return the whole page, the same bytes for the same rows and files."""
    words = {part.name: part.word for part in parts}
    names = [name for name in words if name not in NAMED_BEFORE]
    for name, other in NAMED_BEFORE.items():
        if name in words:
            names.insert(names.index(other) if other in names else len(names), name)
    opening, footer = ((TITLE, QUESTION), FOOTER) if found.of_paper else ((OWN, OWN_QUESTION), OWN_FOOTER)
    sections = b.numbered(sections, b.Short, "R" if found.of_paper else "")  # the paper has a Figure 2 of its own
    return html.page(*opening, sections, [(name, words[name]) for name in names], Paragraph(footer))


def index(sections: Sequence[Section], parts: Sequence[Part | Comparison], found: Found) -> str:
    """Return the same for those who read on a code host: the answer, the figures, and where the rest lies."""
    title, question = (TITLE, QUESTION) if found.of_paper else (OWN, OWN_QUESTION)
    blocks: list[b.Block] = [Heading(title, 1), Paragraph(question), Paragraph(INDEX)]
    sections = b.numbered(sections, b.Long, "R" if found.of_paper else "")
    for part, section in zip(parts, sections, strict=True):
        if isinstance(part, Part) and not all(isinstance(block, b.Long) for block in section.blocks):
            opening = part is parts[0] or part.name == "answer"  # belongs to the title
            gap = [] if opening else [b.Gap()]
            blocks += [*gap, Heading(section.title, 2), *section.blocks]
    more = Items([part.item(found) for part in parts if isinstance(part, Comparison)])
    end: list[b.Block] = [b.Gap(), Heading("And more", 2), more] if more.items else []
    return markdown.page([*blocks, *end])
