"""What a comparison leaves in its folder beside the rows: the table, for people and for programs, and the figure."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comparisons.disk import reading, writing

if TYPE_CHECKING:
    import pandas as pd


def report(rows: "pd.DataFrame", out: Path, mine: "pd.DataFrame") -> str:
    """Write table.md, table.csv and figure.svg of all rows; return the table of `mine` for a terminal."""
    from comparisons.reporting import figures, markdown, outcomes, tables, terminal
    from comparisons.runner import baselines

    known = baselines.read(out)
    table = tables.summary(rows, known)
    writing.write(out / "table.md", markdown.printed(tables.blocks(outcomes.explained(rows, out), known)))
    writing.write(out / "table.csv", table.to_csv(index=False, lineterminator="\n"))
    writing.write(out / "figure.svg", figures.learning_curves(rows, table))
    return f"{terminal.plain(mine, known)}\n\n{where(out)}"


def begin(out: Path, manifest: dict[str, Any]) -> Path:
    """Return the folder that a comparison's files are written in until `complete`: those of before stand meanwhile.

    Raises StorageError.
    """
    new = out / "unfinished"
    shutil.rmtree(new, ignore_errors=True)
    writing.write_json(new / "manifest.json", manifest)
    return new


def complete(out: Path) -> None:
    """Put the files of a run that is over in the place of those of before; the manifest tells the SHA-256 of each.

    Raises StorageError.
    """
    new = out / "unfinished"
    files = sorted(path for path in new.iterdir() if path.name != "manifest.json")
    manifest = {**reading.record(new / "manifest.json"), **reading.sums(files)}
    writing.write_json(new / "manifest.json", manifest)
    for path in [*files, new / "manifest.json"]:  # last: it says that the others are whole
        path.replace(out / path.name)
    new.rmdir()


def where(out: Path) -> str:
    """Say which results lie in a folder, and by which command they become a page."""
    names = [name for name in ("rows.csv", "table.md", "table.csv", "figure.svg") if (out / name).exists()]
    names += ["*.png"] if any(out.glob("*.png")) else []
    told = f"The results are in {out}/:\n{', '.join(names)}."
    if out.parent == Path():  # the page would be of whatever folder this is
        return told
    return f"{told}\nA page of all results: python -m comparisons.report --out {out.parent}"
