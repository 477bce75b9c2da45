"""Blocks as Markdown, for those who read on a code host."""

import html
from collections.abc import Iterable, Iterator, Sequence

from comparisons.reporting import blocks as b


def printed(blocks: Iterable[b.Block], title: str = "") -> str:
    """Return a file of its own: its title is the first heading, and headings within a section are the second."""
    top = [b.Heading(title, 2)] if title else []
    return page([*top, *blocks], up=1)


def page(blocks: Iterable[b.Block], up: int = 0) -> str:
    """Return a page that has sections: headings keep their level, or are `up` levels higher."""
    return "\n".join(_each(blocks, up))


def escape(text: str) -> str:
    """Return text in one line that means nothing to HTML."""
    return html.escape(text, quote=False).replace("\n", " ")


def _each(blocks: Iterable[b.Block], up: int) -> Iterator[str]:
    """Yield what each block is, its last line ended: joined by line ends, an empty line stands between two."""
    for block in blocks:
        match block:
            case b.Heading():
                yield f"{'#' * (block.level - up)} {inline(block.text)}\n"
            case b.Paragraph():
                yield f"{inline(block.text)}\n"
            case b.Items() if block.items:
                yield _list(block.items, up)
            case b.Table():
                yield _table(block.compact())
            case b.Figure():
                yield f"{image(block)}\n"
            case b.Figures(figures=[b.Figure(kind="sheet"), *_]):
                yield "\n".join(map(image, block.figures)) + "\n"
            case b.Figures():
                yield from _each(block.figures, up)
            case b.Command():
                yield f"{inline(b.Code(block.text))}\n"
            case b.Fold() | b.Short():
                yield from _each(block.blocks, up)
            case b.Beside():
                yield from _each([*block.left, *block.right], up)
            case b.Gap():
                yield ""
        if isinstance(block, b.Figure | b.Figures) and block.told:
            yield f"{inline(block.told)}\n"


def _list(items: Sequence[b.Item | b.Text], up: int) -> str:
    """Return a list; what stands below an item is indented."""
    lines = []
    for item in items:
        text, below = (item.text, item.below) if isinstance(item, b.Item) else (item, ())
        lines += [f"- {inline(text)}", *(f"  {line}" for line in page(below, up).splitlines())]
    return "\n".join(lines) + "\n"


def _table(table: b.Table) -> str:
    lines = [[inline(cell).replace("|", "\\|") for cell in line] for line in (table.head, *table.body, *table.below)]
    lines.insert(1, ["---"] * len(table.head))
    told = f"{inline(table.told)}\n\n" if table.told else ""
    return told + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def image(figure: b.Figure) -> str:
    """Return an image in a line; brackets would end its words."""
    alt = escape(figure.alt).replace("[", "(").replace("]", ")")
    return f"![{alt}]({figure.file})"


def inline(text: b.Text) -> str:
    """Return a text in one line."""
    match text:
        case tuple():
            return "".join(map(inline, text))
        case b.Code():
            return f"`{escape(text.text)}`"
        case b.Strong() | b.Word(strong=True):
            return f"**{escape(text.text)}**"
        case b.Word():
            return escape(text.text)
        case b.Link():
            return f"[{escape(text.text)}]({text.target})"
        case str():
            return escape(text)
