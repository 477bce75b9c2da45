"""What a comparison leaves in its folder beside the rows: the table, for people and for programs, and the figure."""

import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comparisons.disk import reading, writing
from comparisons.errors import UserError, in_one_line

if TYPE_CHECKING:
    import pandas as pd

UNFINISHED = "unfinished"  # where a run's files lie until all of them are there


def report(rows: "pd.DataFrame", out: Path, mine: "pd.DataFrame") -> str:
    """Write table.md, table.csv and figure.svg of all rows; return the table of `mine` for a terminal."""
    from comparisons.reporting import csv, figures, markdown, outcomes, tables, terminal
    from comparisons.runner import baselines

    known = baselines.read(out)
    beside(
        out,
        {
            "table.md": lambda: markdown.printed(tables.blocks(outcomes.explained(rows, out), known)),
            "table.csv": lambda: csv.for_people(tables.summary(rows, known)),
            "figure.svg": lambda: figures.learning_curves(rows, tables.summary(rows, known)),
        },
    )
    return f"{terminal.plain(mine, known)}\n\n{where(out)}"


def begin(out: Path, manifest: dict[str, Any]) -> Path:
    """Return the folder that a comparison's files are written in until `complete`: those of before stand meanwhile.

    Raises StorageError.
    """
    new = out / UNFINISHED
    shutil.rmtree(new, ignore_errors=True)
    writing.write_json(new / "manifest.json", manifest)
    return new


def complete(out: Path) -> None:
    """Put the files of a run that is over in the place of those of before; the manifest tells the SHA-256 of each.

    A table or figure of before that this run has not made goes: it is of other rows. Raises StorageError.
    """
    new = out / UNFINISHED
    files = sorted(path for path in new.iterdir() if path.name != "manifest.json")
    manifest = {**reading.record(new / "manifest.json"), **reading.sums(files)}
    writing.write_json(new / "manifest.json", manifest)
    for name in reading.read_json(out / "manifest.json").get("files", {}).keys() - manifest["files"].keys():
        writing.remove(out / Path(name).name)
    for path in [*files, new / "manifest.json"]:  # last: it says that the others are whole
        path.replace(out / path.name)
    new.rmdir()


def show(out: Path, files: Mapping[str, Callable[[], str]]) -> int:
    """Write what is made of the rows of a run that `begin` began, complete it, print its table and where it lies.

    Return 0. Raises StorageError.
    """
    table = beside(out / UNFINISHED, files)
    complete(out)
    print(table)
    print(where(out))
    return 0


def beside(out: Path, files: Mapping[str, Callable[[], str]]) -> str:
    """Write files that are made of rows, each on its own: one that fails is a line on stderr, and the rows stay.

    What it would have replaced goes: it is of other rows. Return the text of table.md, empty where that failed.
    """
    texts = {}
    for name, make in files.items():
        try:
            texts[name] = make()
            writing.write(out / name, texts[name])
        except Exception as error:  # of a drawing, a table, or the disk: none of them is worth what was computed
            with suppress(UserError):
                writing.remove(out / name)
            reason = in_one_line(error, with_type=not isinstance(error, UserError))
            print(f"{out / name} was not written ({reason}); its rows are in {out}", file=sys.stderr)
    return texts.get("table.md", "")


def where(out: Path) -> str:
    """Say which results lie in a folder, and by which command they become a page."""
    names = [name for name in ("rows.csv", "table.md", "table.csv", "figure.svg") if (out / name).exists()]
    names += ["*.png"] if any(out.glob("*.png")) else []
    told = f"The results are in {out}/:\n{', '.join(names)}."
    if out.parent == Path():  # the page would be of whatever folder this is
        return told
    return f"{told}\nA page of all results: python -m comparisons.report --out {out.parent}"
