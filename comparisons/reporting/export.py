"""A table of a report on its own: as numbers for programs, and as the page shows it for a paper."""

import io
from collections.abc import Callable, Iterator

import pandas as pd

from comparisons.errors import FlagError, unknown
from comparisons.reporting import blocks as b
from comparisons.reporting import markdown, tables
from comparisons.reporting.agreement import agreement
from comparisons.reporting.tables import estimators, summary
from comparisons.runner.baselines import Baselines

# What LaTeX would take for a command, or print as another character, in its first font encoding.
TEX = {one: f"\\{one}" for one in "&%$#_{}"} | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
TEX |= {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "†": r"$\dagger$",
}
NUMBERS: dict[str, Callable[[pd.DataFrame, Baselines], pd.DataFrame]] = {
    "summary": summary,
    "estimators": lambda rows, known: estimators(rows),
    "agreement": lambda rows, known: agreement(summary(rows, known)),
    "rows": lambda rows, known: rows,
}


def table(rows: pd.DataFrame, known: Baselines, name: str, form: str) -> bytes:
    """Return the table called `name` as csv or parquet, every number of it, or as latex or markdown, as it is shown.

    Errors are columns of their own in the first two, and follow ± in the others, whose caption says of what they are.
    A page has several of a name where it has several panels. Raises FlagError for a name that these rows have no table
    of, listing those that there are, and where pyarrow is missing.
    """
    if form in PRINTED:
        shown = [*_shown(rows, known)]
        if not any(one.name == name for _, one in shown):
            raise unknown("table", name, dict.fromkeys(one.name for _, one in shown), f" as {form}")
        mine = [(title, one) for title, one in shown if one.name == name]
        return "\n".join(PRINTED[form](title, one, i) for i, (title, one) in enumerate(mine, 1)).encode()
    frame = NUMBERS[name](rows, known) if name in NUMBERS else rows[:0]
    if frame.empty:
        raise unknown("table", name, [each for each, work in NUMBERS.items() if len(work(rows, known))])
    if form == "csv":
        return str(frame.to_csv(index=False, lineterminator="\n")).encode()
    try:
        frame.to_parquet(file := io.BytesIO(), index=False, engine="pyarrow")
    except ImportError as error:
        raise FlagError("parquet is written by pyarrow; pip install pyarrow, or choose --to csv") from error
    return file.getvalue()


def _shown(rows: pd.DataFrame, known: Baselines) -> Iterator[tuple[str, b.Table]]:
    """Yield the page's tables that have a name, with the heading of each."""
    title = ""
    for block in tables.blocks(rows, known):
        if isinstance(block, b.Heading):
            title = str(block.text)
        elif isinstance(block, b.Table) and block.name:
            yield title, block


def _latex(title: str, table: b.Table, number: int) -> str:
    table = table.compact()
    keep = [i for i, name in enumerate(table.head) if name != "command"]
    lines = [[_tex(line[i]) for i in keep] for line in (*table.body, *table.below)]
    same = [(name, value) for name, value in table.same if name != "command"]
    told = [f"{title}.", _words(b.Table([], [], caption=table.caption, same=same).told), table.alone]
    frame = pd.DataFrame(lines, columns=[_tex(table.head[i]) for i in keep])
    flush = ["r" if frame.iloc[:, i].str.match(r"[\d$+]").any() else "l" for i in range(len(keep))]
    how = {"caption": _tex(" ".join(filter(None, told))), "label": f"tab:{table.name}{number}", "position": "t"}
    return str(frame.to_latex(index=False, escape=False, column_format="".join(flush), **how))


def _markdown(title: str, table: b.Table, number: int) -> str:
    return markdown.printed([b.Heading(title), table, b.Paragraph(table.alone)])


PRINTED = {"latex": _latex, "markdown": _markdown}


def _tex(text: b.Text) -> str:
    """Return text that means nothing to LaTeX; a minus before a number is one."""
    words = _words(text)
    sign = "$-$" if words[:1] == "-" and words[1:2].isdigit() else ""
    return sign + "".join(TEX.get(one, one) for one in words.removeprefix("-" if sign else ""))


def _words(text: b.Text) -> str:
    """Return a text without what its pieces are."""
    if isinstance(text, tuple):
        return "".join(map(_words, text))
    return text if isinstance(text, str) else text.text
