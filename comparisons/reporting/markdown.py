"""Blocks as Markdown, for those who read on a code host."""

import html
import re
from collections.abc import Iterable, Iterator, Sequence

from comparisons.reporting import blocks as b

# What Markdown would read as a mark: emphasis next to a word but for _ within one, code, mathematics, the middle of a
# link or of its definition, an address, and a backslash before any of these. Brackets and bars alone mean nothing.
MARK = re.compile(
    r"[`$]|[*~](?=\S)|(?<=\S)[*~]|(?<!\w)_|_(?!\w)|\](?=[(\[:])|:(?=//)|(?<=\bwww)\.|\\(?=[^\w\s]|$)",
    re.IGNORECASE,
)
# And at the beginning of a line: a heading, an item of a list, a rule.
START = re.compile(r"#{1,6}(?=\s|$)|[-+*=](?=\s|$)|(?<=\d)[.)](?=\s|$)|[-=]+$")
BREAKS = re.compile(r"[\t\n\r\x0b\x0c\x85\u2028\u2029]")
UNSEEN = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)  # they steer terminals and reading order
UNSAFE = re.compile(r"[\s()<>\\`\"|]")  # what would end an address


def printed(blocks: Iterable[b.Block], title: str = "") -> str:
    """Return a file of its own: its title is the first heading, and headings within a section are the second."""
    top = [b.Heading(title, 2)] if title else []
    return page([*top, *blocks], up=1)


def page(blocks: Iterable[b.Block], up: int = 0) -> str:
    """Return a page that has sections: headings keep their level, or are `up` levels higher."""
    return "\n".join(_each(blocks, up))


def escape(text: str) -> str:
    """Return text in one line that means nothing to HTML, nor to Markdown."""
    return MARK.sub(r"\\\g<0>", _plain(text))


def code(text: str) -> str:
    """Return a span of code: its fence is longer than any run of backticks within."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if "`" in (text[:1], text[-1:]) else ""
    return f"{fence}{pad}{_plain(text)}{pad}{fence}"


def address(target: str) -> str:
    """Return where a link leads, with what would end it spelt out in percent."""
    return UNSAFE.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), target)


def _plain(text: str) -> str:
    shown = UNSEEN.sub(lambda found: f"\\x{ord(found[0]):02x}", BREAKS.sub(" ", text))
    return html.escape(shown, quote=False)


def _line(text: b.Text) -> str:
    """Return a text that begins a line: what would make a heading or a list of it stands behind a backslash."""
    line = inline(text).lstrip(" ")
    number = re.match(r"\d{1,9}(?=[.)](\s|$))", line)
    begin = number.end() if number else 0
    found = START.match(line, begin)
    return f"{line[:begin]}\\{line[begin:]}" if found else line


def _each(blocks: Iterable[b.Block], up: int) -> Iterator[str]:
    """Yield what each block is, its last line ended: joined by line ends, an empty line stands between two."""
    for block in blocks:
        match block:
            case b.Heading():
                yield f"{'#' * (block.level - up)} {inline(block.text)}\n"
            case b.Paragraph():
                yield f"{_line(block.text)}\n"
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
        lines += [f"- {_line(text)}", *(f"  {line}" for line in page(below, up).splitlines())]
    return "\n".join(lines) + "\n"


def _table(table: b.Table) -> str:
    lines = [[inline(cell).replace("|", "\\|") for cell in line] for line in (table.head, *table.body, *table.below)]
    lines.insert(1, ["---"] * len(table.head))
    told = f"{inline(table.told)}\n\n" if table.told else ""
    return told + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def image(figure: b.Figure) -> str:
    """Return an image in a line; brackets would end its words."""
    alt = escape(figure.alt).replace("[", "(").replace("]", ")")
    return f"![{alt}]({address(figure.file)})"


def inline(text: b.Text) -> str:
    """Return a text in one line."""
    match text:
        case tuple():
            return "".join(map(inline, text))
        case b.Code():
            return code(text.text)
        case b.Strong() | b.Word(strong=True):
            return f"**{escape(text.text)}**"
        case b.Word():
            return escape(text.text)
        case b.Link():
            return f"[{escape(text.text)}]({address(text.target)})"
        case str():
            return escape(text)
