"""Blocks as Markdown, for those who read on a code host."""

import html
from collections.abc import Iterable, Iterator, Sequence

from comparisons.reporting.blocks import (
    Beside,
    Block,
    Code,
    Command,
    Figure,
    Figures,
    Fold,
    Gap,
    Heading,
    Item,
    Items,
    Link,
    MarkdownOnly,
    Paragraph,
    Strong,
    Table,
    Text,
    Word,
)


def printed(blocks: Iterable[Block], title: str = "") -> str:
    """Return a file of its own: its title is the first heading, and headings within a section are the second."""
    top = [Heading(title, 2)] if title else []
    return _joined([*top, *blocks], 1)


def page(blocks: Iterable[Block]) -> str:
    """Return a page that has sections: headings keep their level."""
    return _joined(blocks, 0)


def escape(text: str) -> str:
    """Return text in one line that means nothing to HTML."""
    return html.escape(text, quote=False).replace("\n", " ")


def _joined(blocks: Iterable[Block], up: int) -> str:
    return "\n".join(_each(blocks, up))


def _each(blocks: Iterable[Block], up: int) -> Iterator[str]:
    """Yield what each block is, its last line ended: joined by line ends, an empty line stands between two."""
    for block in blocks:
        match block:
            case Heading():
                yield f"{'#' * (block.level - up)} {inline(block.text)}\n"
            case Paragraph():
                yield f"{inline(block.text)}\n"
            case Items() if block.items:
                yield _list(block.items, up)
            case Table():
                yield _table(block.head, block.body)
            case Figure():
                yield f"{image(block)}\n"
            case Figures(figures=[Figure(kind="sheet"), *_]):
                yield "\n".join(map(image, block.figures)) + "\n"
            case Figures():
                yield from _each(block.figures, up)
            case Command():
                yield f"```sh\n{block.text}\n```\n"
            case Fold() | MarkdownOnly():
                yield from _each(block.blocks, up)
            case Beside():
                yield from _each([*block.left, *block.right], up)
            case Gap():
                yield ""


def _list(items: Sequence[Item | Text], up: int) -> str:
    """Return a list; what stands below an item is indented."""
    lines = []
    for item in items:
        text, below = (item.text, item.below) if isinstance(item, Item) else (item, ())
        lines += [f"- {inline(text)}", *(f"  {line}" for line in _joined(below, up).splitlines())]
    return "\n".join(lines) + "\n"


def _table(head: Sequence[str], body: Sequence[Sequence[Text]]) -> str:
    lines = [[inline(cell).replace("|", "\\|") for cell in line] for line in (head, *body)]
    lines.insert(1, ["---"] * len(head))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def image(figure: Figure) -> str:
    """Return an image in a line; brackets would end its words."""
    alt = escape(figure.alt).replace("[", "(").replace("]", ")")
    return f"![{alt}]({figure.file})"


def inline(text: Text) -> str:
    """Return a text in one line."""
    match text:
        case tuple():
            return "".join(map(inline, text))
        case Code():
            return f"`{escape(text.text)}`"
        case Strong() | Word(strong=True):
            return f"**{escape(text.text)}**"
        case Word():
            return escape(text.text)
        case Link():
            return f"[{escape(text.text)}]({text.target})"
        case str():
            return escape(text)
