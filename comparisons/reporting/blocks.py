"""What a report is made of: blocks of text, tables and figures. `html` and `markdown` print them; none is ever parsed.

A text is a str, which is shown as it is whatever it holds, or a tuple of texts and of the pieces `Code`, `Strong`,
`Word` and `Link`.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Code:
    """Words of a program."""

    text: str


@dataclass(frozen=True)
class Strong:
    """What a sentence turns on."""

    text: str


@dataclass(frozen=True)
class Word:
    """A judgement: `tone` is good, bad or soft, and `strong` one that is no cell of a table."""

    text: str
    tone: str
    strong: bool = False


@dataclass(frozen=True)
class Link:
    """A link to a place in the page or a file beside it. Raises ValueError for any other address but https."""

    target: str
    text: str

    def __post_init__(self) -> None:
        if re.match(r"[a-z][a-z0-9+.-]*:|//", self.target, re.IGNORECASE) and not self.target.startswith("https://"):
            raise ValueError(f"{self.target!r} leads out of the report")


Text = str | Code | Strong | Word | Link | tuple["Text", ...]


@dataclass(frozen=True)
class Heading:
    """A heading: 1 is the report's, 2 a section's, 3 one within a section."""

    text: Text
    level: int = 3


@dataclass(frozen=True)
class Paragraph:
    """A paragraph; `kind` is empty, note or soft."""

    text: Text
    kind: str = ""


@dataclass(frozen=True)
class Item:
    """A line of a list, and what stands below it."""

    text: Text
    below: Sequence["Block"] = ()


@dataclass(frozen=True)
class Items:
    """A list; with `lined` HTML has a line for each item."""

    items: Sequence[Item | Text]
    lined: bool = False


@dataclass(frozen=True)
class Table:
    """A table. `label` says what is in it to those who do not see it (default: the heading above).

    `numbers` names the columns that are set flush right.
    """

    head: Sequence[str]
    body: Sequence[Sequence[Text]]
    label: str = ""
    numbers: Sequence[str] = ()


@dataclass(frozen=True)
class Figure:
    """An image: its bytes, and the file, from the report's folder, that holds the same. Raises ValueError without alt.

    `alt` is for those who do not see it, `kind` plot or sheet.
    """

    content: bytes
    file: str
    alt: str
    caption: str = ""
    kind: str = "plot"

    def __post_init__(self) -> None:
        if not self.alt.strip():
            raise ValueError("an image needs words for those who do not see it")

    @property
    def ours(self) -> bool:
        """Whether the report itself draws it, and keeps it in its own folder."""
        return self.file.startswith("figures/")


@dataclass(frozen=True)
class Figures:
    """Figures beside each other; `kind` is plots or wide."""

    figures: Sequence[Figure]
    kind: str = "plots"


@dataclass(frozen=True)
class Command:
    """A command as it was typed."""

    text: str


@dataclass(frozen=True)
class Fold:
    """What is folded away under a line, where a page can fold."""

    summary: str
    blocks: Sequence["Block"]


@dataclass(frozen=True)
class Beside:
    """Two columns, where a page is wide enough."""

    left: Sequence["Block"]
    right: Sequence["Block"]


@dataclass(frozen=True)
class Long:
    """What the page alone says, which has room for it: HTML."""

    blocks: Sequence["Block"]


@dataclass(frozen=True)
class Short:
    """What the index alone says, most often in place of more: Markdown."""

    blocks: Sequence["Block"]


@dataclass(frozen=True)
class Gap:
    """One more empty line in Markdown."""


Shown = Heading | Paragraph | Items | Table | Figure | Figures | Command | Gap
Block = Shown | Fold | Beside | Long | Short


class Section(NamedTuple):
    """A part of a page, to which `#name` leads."""

    name: str
    title: str
    blocks: Sequence[Block]


def figures(blocks: Iterable[Block]) -> Iterator[Figure]:
    """Yield every figure, wherever it is."""
    for block in blocks:
        match block:
            case Figure():
                yield block
            case Figures():
                yield from block.figures
            case Fold() | Long() | Short():
                yield from figures(block.blocks)
            case Beside():
                yield from figures([*block.left, *block.right])


def not_run(command: str = "") -> list[Block]:
    """Say that nothing was run, and by which command it would be."""
    told: Text = ("Not run yet. The command: ", Code(command), ".") if command else "Not run yet."
    return [Long([Paragraph(told, "soft")]), Short([Paragraph("Not run yet.")])]
