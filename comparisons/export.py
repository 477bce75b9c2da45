"""A table of a folder of results for a paper or a program, or the fit of a cell for torch, jax and NumPy.

FOLDER is one that a comparison wrote to, or one of its cells. Tables are --table summary, estimators, agreement or
rows. Fits are written beside you, under the name of their cell, unless --out says where.

Examples:

    python -m comparisons.export reports/marginal_likelihood --to latex
    python -m comparisons.export results/marginal_likelihood --to parquet --table rows --out rows.parquet
    python -m comparisons.export results/marginal_likelihood/cells/CELL --to safetensors
"""

import sys
from pathlib import Path

from comparisons import cli
from comparisons.disk import writing
from comparisons.errors import FlagError, unknown
from comparisons.runner import baselines, published, store

ENDINGS = {"latex": ".tex", "csv": ".csv", "markdown": ".md", "parquet": ".parquet"}
ENDINGS |= {form: f".{form}" for form in published.READ}


def main(arguments: list[str] | None = None) -> int:
    """Write or print what the flags ask for; return 0. Raises UserError."""
    parser = cli.Parser("export", __doc__ or "")
    parser.add_argument("folder", metavar="FOLDER", help="a folder of results, or of a cell in it")
    shown = "what is written"
    parser.add(shown, "--to", required=True, metavar="X", help=f"{{{', '.join(ENDINGS)}}}")
    parser.add(shown, "--table", default="summary", metavar="X", help="of a table: its name (default: summary)")
    parser.add(shown, "--out", metavar="FILE", help="where (default: tables are printed)")
    flags = parser.parse_args(arguments)
    if flags.to not in ENDINGS:
        raise unknown("form", flags.to, ENDINGS)
    folder = Path(flags.folder).absolute()
    is_cell = (folder / "manifest.json").is_file()
    if not is_cell and not (folder / "cells").is_dir():
        raise FlagError(f"{flags.folder!r} is neither a folder that a comparison wrote to nor one of its cells")
    if flags.to in published.READ:
        if not is_cell:
            names = ", ".join(sorted(path.name for path in (folder / "cells").iterdir())[:3])
            raise FlagError(f"a fit is of one cell; name a folder in {flags.folder}/cells, such as {names}")
        file = placed(flags.out or f"{folder.name}{ENDINGS[flags.to]}", flags.to)
        writing.write(file, published.packed(*published.fit(folder), flags.to))
        print(f"written: {file}", *map("\n".join, published.lines(file, flags.to)), sep="\n\n")
        return 0
    from comparisons.reporting import export, outcomes  # and with them pandas

    path = placed(flags.out, flags.to) if flags.out else None
    out = folder.parents[1] if is_cell else folder
    rows = store.read_rows(folder / "rows.csv")
    named = outcomes.explained(rows, out) if flags.to == "markdown" else rows
    content = export.table(named, baselines.read(out), flags.table, flags.to)
    if path:
        writing.write(path, content)
        print(f"written: {path}")
    elif flags.to == "parquet":
        raise FlagError("parquet is for programs, not for a screen; name a file with --out")
    else:
        print(content.decode(), end="")
    return 0


def placed(file: str, form: str) -> Path:
    """Return where a file goes. Raises FlagError for one of another kind, or among a comparison's own files."""
    path = Path(file)
    if path.suffix != ENDINGS[form] or path.is_dir():
        raise FlagError(f"out {file!r} does not end in {ENDINGS[form]}; a file of another kind is not overwritten")
    if (path.parent / "cells").exists() or (path.parent / "manifest.json").exists():
        raise FlagError(f"out {file!r} lies among the files of a comparison; choose another folder")
    return path


if __name__ == "__main__":
    cli.main(lambda: main(sys.argv[1:]))
