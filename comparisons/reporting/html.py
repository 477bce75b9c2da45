"""Blocks as one page of HTML that opens offline: every text is escaped, images lie in it, wide tables scroll alone."""

import base64
import html
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from comparisons.reporting.blocks import Block, Figure, Gap, Heading, Item, Long, Paragraph, Section, Short, Table, Text

KINDS = {".svg": "image/svg+xml", ".png": "image/png"}


def page(
    title: str, description: str, sections: Sequence[Section], navigation: Sequence[tuple[str, str]], footer: Paragraph
) -> str:
    """Return the whole page; `navigation` are names of sections, each with a word for it."""
    return str(MACROS.page(title, description, sections, navigation, footer))


def show(one: Block | Item | Text) -> Markup:
    """Return a block or a text as HTML: its class has a macro of its name."""
    if isinstance(one, tuple):
        return Markup("").join(map(show, one))
    return escape(one) if isinstance(one, str) else getattr(MACROS, type(one).__name__.lower())(one)


def escape(value: object) -> Markup:
    """Return a value as text that means nothing to HTML, as the standard library spells it; `Markup` stays."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value)))


def each(blocks: Iterable[Block]) -> list[Markup]:
    """Return each block of a run as HTML."""
    return [show(block) for block in _of_page(blocks)]


def source(figure: Figure) -> str:
    """Return an image's bytes as the address of itself."""
    return f"data:{KINDS[Path(figure.file).suffix]};base64,{base64.b64encode(figure.content).decode()}"


def _of_page(blocks: Iterable[Block], heading: str = "") -> Iterator[Block]:
    """Yield what the page shows; a table without a label has the heading above it."""
    for block in blocks:
        match block:
            case Long():
                yield from _of_page(block.blocks, heading)
            case Short() | Gap():
                pass
            case Table():
                yield replace(block, caption=block.caption or heading).compact()
            case _:
                yield block
        if isinstance(block, Heading):
            heading = str(block.text)


def _macros() -> Any:
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, finalize=escape, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = environment.keep_trailing_newline = True
    environment.filters |= {"show": show, "each": each, "source": source}
    return environment.get_template("page.html.jinja").module


MACROS = _macros()
