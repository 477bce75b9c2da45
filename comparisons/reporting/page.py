"""One page of HTML that opens offline: every text is escaped, images lie in it, and wide tables scroll alone."""

import base64
import html
import re
from collections.abc import Iterable, Sequence

CSS = """
:root { color-scheme: light dark; --ink: #1d1d1b; --page: #fcfcfa; --soft: #5b5b57; --line: #d9d9d3;
  --code: #f1f1ec; --link: #00568a; --good: #00654a; --bad: #9a3b00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e4df; --page: #17191b; --soft: #a8a6a0; --line: #3b3e41;
  --code: #222528; --link: #7cc4f5; --good: #54cfa6; --bad: #ffa066; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--ink); overflow-wrap: break-word;
  font: 1.0625rem/1.6 Charter, "Bitstream Charter", "Sitka Text", Cambria, Georgia, serif; }
header, main, footer { max-width: 74rem; margin: 0 auto; padding: 0 1rem; }
header { padding-top: 2rem; }
footer { padding: 2rem 1rem 3rem; color: var(--soft); font-size: .9375rem; }
h1, h2, h3 { line-height: 1.25; text-wrap: balance; }
h1 { font-size: 1.9rem; margin: 0 0 1rem; max-width: 42rem; }
h2 { font-size: 1.4rem; margin: 3rem 0 .75rem; padding-top: 1rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.1rem; margin: 1.75rem 0 .5rem; }
p, ul, ol, dl { max-width: 44rem; margin: .6rem 0; }
ul, ol { padding-left: 1.25rem; }
li { margin: .3rem 0; }
a { color: var(--link); }
a:focus-visible, summary:focus-visible, .scroll:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
nav ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; max-width: none; }
nav, table, figcaption, summary, .note { font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
nav, figcaption, summary, .note { font-size: .9rem; line-height: 1.5; }
.note, figcaption { color: var(--soft); max-width: 44rem; }
.scroll { overflow-x: auto; margin: .75rem 0; max-width: 100%; }
table { border-collapse: collapse; font-size: .875rem; line-height: 1.4; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .75rem .3rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { font-weight: 600; border-bottom-color: var(--soft); }
.narrow td, .narrow th { white-space: nowrap; }
.narrow .long { white-space: normal; min-width: 15rem; }
.number { text-align: right; }
.good { color: var(--good); font-weight: 600; }
.bad { color: var(--bad); font-weight: 600; }
.soft { color: var(--soft); }
figure { margin: 0; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); gap: 1rem;
  margin: 1rem 0; align-items: start; }
.plots figure { max-width: 30rem; }
.beside { display: grid; gap: 0 2.5rem; margin: 1rem 0; align-items: start; }
.beside figure { max-width: 32rem; }
@media (min-width: 62rem) { .beside { grid-template-columns: minmax(0, 30rem) minmax(0, 1fr); }
  .beside h3 { margin-top: 0; } }
figure img { display: block; width: 100%; height: auto; background: #fff; border: 1px solid var(--line);
  border-radius: 6px; }
.wide { overflow-x: auto; margin: 1rem 0; }
.wide figure { min-width: 56rem; max-width: 64rem; }
.plot img { padding: .35rem; }
.sheet img { image-rendering: auto; }
figcaption { margin-top: .4rem; }
pre, code { font: .8125rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
code { background: var(--code); padding: .1em .3em; border-radius: 3px; }
pre { background: var(--code); padding: .6rem .75rem; border-radius: 6px; overflow-x: auto; margin: .4rem 0; }
pre code { background: none; padding: 0; }
details { margin: .75rem 0; }
summary { cursor: pointer; color: var(--link); }
"""


LONG = 45  # characters of a cell that is broken into lines


class Markup(str):
    """Text that is HTML already: made by the functions here alone."""


def text(value: object) -> Markup:
    """Escape a value; what is `Markup` stays."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value), quote=True))


def join(parts: Iterable[object], between: str = "\n") -> Markup:
    """Put pieces one after the other, each escaped unless it is `Markup`."""
    return Markup(between.join(text(part) for part in parts))


def tag(name: str, *content: object, **attributes: object) -> Markup:
    """Return an element; `class_` is the attribute class, and an underscore in a name stands for a hyphen."""
    given = "".join(f' {k.rstrip("_").replace("_", "-")}="{text(v)}"' for k, v in attributes.items() if v is not None)
    return Markup(f"<{name}{given}>{join(content, '')}</{name}>")


def link(target: str, words: object) -> Markup:
    """Return a link to a place in this page or a file beside it. Raises ValueError for any other address."""
    if re.match(r"[a-z][a-z0-9+.-]*:|//", target, re.IGNORECASE) and not target.startswith("https://"):
        raise ValueError(f"{target!r} leads out of the report")
    return tag("a", words, href=target)


def table(label: str, head: Sequence[str], body: Iterable[Sequence[object]], numbers: Iterable[int] = ()) -> Markup:
    """Return a table in a box of its own that scrolls sideways; `numbers` are the columns set flush right.

    `label` says what is in it to those who do not see it.
    """
    right = {*numbers}

    def cells(name: str, values: Sequence[object]) -> Markup:
        kind = {"scope": "col"} if name == "th" else {}
        classes = (
            "number" if i in right else "long" if len(re.sub("<[^>]*>", "", text(v))) > LONG else None
            for i, v in enumerate(values)
        )
        each = (tag(name, v, class_=shown, **kind) for v, shown in zip(values, classes, strict=True))
        return tag("tr", *each)

    lines = [cells("td", values) for values in body]
    inner = tag("table", tag("thead", cells("th", head)), tag("tbody", *lines))
    return tag("div", inner, class_="scroll narrow", role="region", tabindex=0, aria_label=label)


def image(content: bytes, kind: str, alt: str, caption: object = "", class_: str = "plot") -> Markup:
    """Return a figure with an image in it; `kind` is its media type, `image/png` say. Raises ValueError without alt."""
    if not alt.strip():
        raise ValueError("an image needs words for those who do not see it")
    source = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    shown = Markup(f'<img src="{source}" alt="{text(alt)}">')
    return tag("figure", shown, tag("figcaption", caption) if caption else "", class_=class_)


def details(summary: str, *content: object) -> Markup:
    """Return what is folded away under a line."""
    return tag("details", tag("summary", summary), *content)


def section(name: str, title: str, *content: object) -> Markup:
    """Return a section with a heading, to which `#name` leads."""
    return Markup(f'<section id="{text(name)}">\n{tag("h2", title)}\n{join(content)}\n</section>')


def document(title: str, description: str, header: object, sections: Iterable[Markup], footer: object) -> str:
    """Return the whole page."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f'{tag("title", title)}\n<meta name="description" content="{text(description)}">\n'
        f'<link rel="icon" href="data:,">\n<style>{CSS}</style>\n</head>\n<body>\n{tag("header", header)}\n'
        f"<main>\n{join(sections)}\n</main>\n{tag('footer', footer)}\n</body>\n</html>\n"
    )


# Markdown, as the comparisons write it


def from_markdown(source: str, level: int = 3) -> list[Markup]:
    """Return the blocks of a report's Markdown: headings (the first of them at `level`), lists, tables, paragraphs.

    Emphasis, code and headings mean what they do there; anything else is text. Links and images stay text too.
    """
    lines = source.splitlines()
    tops = [len(line) - len(line.lstrip("#")) for line in lines if re.match(r"#+ ", line)]
    shift = level - min(tops, default=1)
    blocks: list[Markup] = []
    heading = "table"
    while lines:
        line = lines[0]
        kind = "#" if re.match(r"#+ ", line) else "-" if line.startswith("- ") else "|" if line.startswith("|") else ""
        taken = 1 if kind == "#" else next((i for i, one in enumerate(lines) if not _continues(kind, one)), len(lines))
        block, lines = lines[: max(1, taken)], lines[max(1, taken) :]
        if kind == "#":
            marks, _, heading = line.partition(" ")
            blocks.append(tag(f"h{min(6, len(marks) + shift)}", _inline(heading)))
        elif kind == "-":
            items = re.split(r"^- ", "\n".join(block), flags=re.MULTILINE)[1:]
            blocks.append(tag("ul", *(tag("li", _inline(item)) for item in items)))
        elif kind == "|":
            rows = [[_inline(cell.strip()) for cell in re.split(r"(?<!\\)\|", one.strip()[1:-1])] for one in block]
            blocks.append(table(html.unescape(heading), rows[0], rows[2:]))
        elif line.strip():
            blocks.append(tag("p", _inline(" ".join(block))))
    return blocks


def _continues(kind: str, line: str) -> bool:
    """Say whether a line belongs to the block of this kind that is open."""
    if not line.strip():
        return False
    return line.startswith("|") if kind == "|" else not re.match(r"#+ |\|", line) and (kind == "-" or line[:2] != "- ")


def _inline(source: str) -> Markup:
    plain = text(html.unescape(source.replace("\\|", "|")))
    coded = re.sub(r"`([^`]+)`", r"<code>\1</code>", plain)
    return Markup(re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", coded))
