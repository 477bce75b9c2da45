"""What README.md says of results: written there, between marks, from the rows. Nothing else of it is touched.

`<!-- findings -->` ... `<!-- /findings -->`, and the same for every other name of `parts`.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from comparisons.errors import FlagError, StorageError
from comparisons.runner import store

if TYPE_CHECKING:
    import pandas as pd

    from comparisons.paper.found import Rows
    from comparisons.reporting.blocks import Figure


def parts(rows: "Rows", overview: "Figure") -> dict[str, str]:
    """Return what stands between the marks, by name."""
    return {"output": _output(rows.figure3), "findings": _findings(rows, overview)}


def renewed(text: str, written: Mapping[str, str]) -> str:
    """Return the text with each part between its marks. Raises ValueError where they are not there once, in order."""
    for name, content in written.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
            raise ValueError(f"it needs {begin} and, after it, {end}, each once")
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{content}\n{end}{rest.partition(end)[2]}"
    return text


def read(given: str, written: Mapping[str, str]) -> str:
    """Return the file's new text, without writing it. Raises FlagError where it has no place for a part."""
    try:
        return renewed(Path(given).read_text(), written)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FlagError(
            f"--readme {given[:100]!r} cannot be renewed ({reason}); name the checkout's README.md"
        ) from error


def write(given: str, text: str) -> None:
    """Write the file whole or not at all. Raises StorageError."""
    path = Path(given)
    if not path.parent.is_dir():
        raise StorageError(f"cannot write {path}: its folder is gone")
    store.write(path, text)


def _output(rows: "pd.DataFrame") -> str:
    """Return what `make compare` prints, as a block: the table of its three seeds on digits."""
    from comparisons.reporting import tables

    mine = rows[(rows.data == "digits") & rows.seed.isin([0, 1, 2]) & (rows.samples == 30_000)]
    return f"```\n{tables.plain(mine)}\n```" if len(mine) else "Not run yet."


def _findings(rows: "Rows", overview: "Figure") -> str:
    """Return the one figure, the one table and the sentences, as Markdown."""
    from comparisons.paper import findings
    from comparisons.reporting import markdown
    from comparisons.reporting.blocks import Items, Paragraph

    note = (
        "log p(x) by quadrature on MNIST, 3 latent variables, as in the paper's Figure 3: nats per datapoint, first "
        "1000 points of each split; ± is the standard deviation over seeds."
    )
    shown = replace(overview, file=f"reports/{overview.file}")
    said = Items(findings.said(findings.RESULTS, rows))
    return markdown.page([shown, Paragraph(note), *findings.result_table(rows), said]).rstrip("\n")
