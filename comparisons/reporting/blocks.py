"""What a report is made of: blocks of text, tables and figures. `html` and `markdown` print them; none is ever parsed.

A text is a str, which is shown as it is whatever it holds, or a tuple of texts and of the pieces `Code`, `Strong`,
`Typed`, `Word` and `Link`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple


@dataclass(frozen=True)
class Code:
    """Words of a program."""

    text: str


@dataclass(frozen=True)
class Typed(Code):
    """The command that made a line of a table: folded away beside it, where a page can fold."""


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


@dataclass(frozen=True, kw_only=True)
class Numbered:
    """What a page gives a `number`: tables and figures; `same` is what all lines of a table have in common, by name."""

    caption: str = ""
    number: str = ""
    same: Sequence[tuple[str, Text]] = ()

    @property
    def told(self) -> Text:
        """Return the number, the caption and what all lines have in common; nothing of none."""
        words: list[Text] = [Strong(f"{self.number}.")] if self.number else []
        words += [f"{self.caption.rstrip('.')}."] if self.caption else []
        for i, (name, value) in enumerate(self.same, 1):
            shown = Code(value.text) if isinstance(value, Typed) else value
            words.append((f"{'In every line: ' if i == 1 else ''}{name} ", shown, ";" if i < len(self.same) else "."))
        return tuple(piece for word in words for piece in (" ", word))[1:]


@dataclass(frozen=True)
class Table(Numbered):
    """A table. `caption` says what to see in it (default: the heading above); the page may give it a `number`.

    `numbers` names the columns that are set flush right; `below` are lines that are compared with the others. One with
    a `name` can be had on its own, where `alone` says what the page says around it.
    """

    head: Sequence[str]
    body: Sequence[Sequence[Text]]
    numbers: Sequence[str] = ()
    below: Sequence[Sequence[Text]] = ()
    name: str = ""
    alone: str = ""

    def compact(self) -> "Table":
        """Return it without empty columns and those with one value, none missing, in all of several lines."""
        columns, several = list(zip(*self.body, strict=True)), len(self.body) > 1
        alike = [(i, one[0]) for i, one in enumerate(columns) if len({*one}) == 1]
        same = {i: value for i, value in alike if value == "" or (several and value != "-")}
        keep = [i for i in range(len(self.head)) if i not in same] or [0]
        body, below = ([[line[i] for i in keep] for line in lines] for lines in (self.body, self.below))
        named = [(self.head[i], value) for i, value in same.items() if value]
        return replace(self, head=[self.head[i] for i in keep], body=body, below=below, same=named)


@dataclass(frozen=True)
class Figure(Numbered):
    """An image: its bytes, and the file, from the report's folder, that holds the same. Raises ValueError without alt.

    `alt` is for those who do not see it, `kind` plot or sheet.
    """

    content: bytes
    file: str
    alt: str
    kind: str = "plot"

    def __post_init__(self) -> None:
        if not self.alt.strip():
            raise ValueError("an image needs words for those who do not see it")

    @property
    def ours(self) -> bool:
        """Whether the report itself draws it, and keeps it in its own folder."""
        return self.file.startswith("figures/")


@dataclass(frozen=True)
class Figures(Numbered):
    """Figures beside each other, as one with a caption; `kind` is plots or wide."""

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


def numbered(sections: Iterable[Section], unseen: type, prefix: str = "") -> list[Section]:
    """Return sections with figures and tables numbered as they are read; `unseen` is what their printer leaves out."""
    counts: Counter[str] = Counter()

    def number(block: Block) -> Block:
        match block:
            case Figures(figures=[]):
                pass
            case Table() | Figure() | Figures():
                kind = "Table" if isinstance(block, Table) else "Figure"
                counts[kind] += 1
                return replace(block, number=f"{kind} {prefix}{counts[kind]}")
            case Fold() | Long() | Short() if not isinstance(block, unseen):
                return replace(block, blocks=[*map(number, block.blocks)])
            case Beside():
                return Beside([*map(number, block.left)], [*map(number, block.right)])
        return block

    return [section._replace(blocks=[*map(number, section.blocks)]) for section in sections]


def not_run(command: str = "") -> list[Block]:
    """Say that nothing was run, and by which command it would be."""
    told: Text = ("Not run yet. The command: ", Code(command), ".") if command else "Not run yet."
    return [Long([Paragraph(told, "soft")]), Short([Paragraph("Not run yet.")])]
