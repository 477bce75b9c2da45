"""The sections of comparisons that the paper has no figure of: their tables, folded where they are long."""

from itertools import takewhile
from types import ModuleType
from typing import NamedTuple

from comparisons.paper import findings, made
from comparisons.paper.found import Found
from comparisons.reporting.blocks import (
    Block,
    Figure,
    Figures,
    Fold,
    Heading,
    Item,
    Items,
    Link,
    Paragraph,
    Table,
    Text,
    not_run,
)

LEAD = 10  # items of a list that are shown before the rest is folded away


class Comparison(NamedTuple):
    """A comparison as a section: its folder's name, its title, its word in the navigation, its file and command."""

    name: str
    title: str
    word: str
    report: ModuleType  # its file: ABOUT, a sentence, and blocks(rows)
    command: str

    def blocks(self, found: Found) -> list[Block]:
        """Return the section: what the rows say, the figure, and the tables."""
        if self.name not in found.extras:
            return [Paragraph(self.report.ABOUT), *not_run(self.command)]
        extra = found.extras[self.name]
        tables = self.report.blocks(extra.rows)
        lead = list(takewhile(lambda block: not isinstance(block, Heading | Table), tables))
        long = any(isinstance(block, Items) and len(block.items) > LEAD for block in lead)
        shown = [] if long else lead
        rest = tables[len(shown) :]
        alt = f"{self.title}: the figure of this comparison; its numbers are in the tables below."
        figure = Figures([Figure(extra.figure, f"{self.name}/figure.svg", alt)], "wide")
        return [
            Paragraph(self.report.ABOUT),
            Items(findings.of_comparison(self.name, found.rows)),
            *shown,
            *([figure] if extra.figure else []),
            *([Fold("Findings and tables", rest)] if len(rest) > 3 or long else rest),
            *made.blocks(extra.manifests),
            Paragraph(("Data: ", Link(f"{self.name}/table.md", "the table"), "."), "note"),
        ]

    def item(self, found: Found) -> Item:
        """Return the line of it in an index: where its tables lie, and what its rows say."""
        there = self.name in found.extras
        title: Text = Link(f"{self.name}/table.md", self.title) if there else self.title
        said = findings.of_comparison(self.name, found.rows)
        return Item((title, f": {self.report.ABOUT}{'' if there else ' Not run yet.'}"), [Items(said)])
