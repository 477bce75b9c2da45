"""The report as index.html, which opens offline, and as README.md: from the rows and files in reports/ alone.

Nothing is run. The same files give the same bytes. With --readme the results in the checkout's README.md are renewed
too.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comparisons import cli
from comparisons.errors import FlagError, StorageError
from comparisons.runner import store

if TYPE_CHECKING:
    import pandas as pd

    from comparisons.paper.reproduction import Extra, Found

ROWS = {"figure2": "lower_bound", "figure3": "marginal_likelihood"}
SHEETS = ("manifold", "samples")
EXTRAS = ("attempts", "judge_again", "full_vb", "calibration", "inference_gap", "reliability", "speed")


def main(arguments: list[str] | None = None) -> int:
    """Read the folder, write index.html, README.md, verdicts.csv and figures/ into it; return 0. Raises UserError."""
    parser = cli.Parser(prog="python -m comparisons.report", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--out", default="reports", metavar="DIR", help="folder of the reports, read and written (default: reports)"
    )
    parser.add_argument(
        "--readme", metavar="FILE", help="a README whose results, between its marks, are written anew (default: none)"
    )
    flags = parser.parse_args(arguments)
    given = flags.out
    out = Path(given)
    if not given or "\0" in given or not out.is_dir():
        raise FlagError(f"there is no folder {given[:100]!r}; name the one that comparisons wrote to with --out")
    from comparisons.paper import readme, report_html, report_markdown, sections

    found = read(out)
    readmes = readme.read(flags.readme, readme.parts(found.rows, found.claims)) if flags.readme is not None else ""
    told = sections.told(found)
    plots = report_html.plots(found, told)
    drawn = {f"{plot.name}.svg": plot.svg for group in plots.values() for plot in group}
    for name, svg in drawn.items():
        store.write(out / "figures" / name, svg)
    for path in (out / "figures").glob("*.svg"):  # of rows that are there no longer
        if path.name not in drawn:
            path.unlink()
    store.write(out / "verdicts.csv", report_markdown.verdicts_csv(found))
    store.write(out / "index.html", report_html.whole(found, plots, told))
    store.write(out / "README.md", report_markdown.readme(found, plots, told))
    if flags.readme is not None:
        readme.write(flags.readme, readmes)
    print(f"written: {out / 'index.html'}")
    return 0


def read(out: Path) -> "Found":
    """Return what the folder holds, and the verdicts on it. Raises StorageError for a file that cannot be read."""
    import pandas as pd

    from comparisons.paper import curves, pictures, verdicts
    from comparisons.paper.findings import Rows
    from comparisons.paper.reproduction import Found
    from comparisons.runner.rows import COLUMNS

    rows = {}
    for figure, name in ROWS.items():
        path = out / name / "rows.csv"
        rows[figure] = store.read_rows(path) if path.exists() else pd.DataFrame(columns=list(COLUMNS))
    manifests = {
        figure: {path.parent.name: _json(path) for path in sorted((out / name).glob("cells/*/manifest.json"))}
        for figure, name in ROWS.items()
    }
    extras = {name: extra for name in EXTRAS if (extra := _extra(out / name))}
    both = rows["figure2"], rows["figure3"]
    judged, claims = verdicts.verdicts(*both, curves.curves()), verdicts.claims(*both)
    sheets = {name: pictures.read(out / name) for name in SHEETS}
    others = Rows(*both, *(_others(out / name / "rows.csv") for name in Rows._fields[2:]))
    return Found(*both, manifests, judged, claims, sheets, extras, others)


def _others(path: Path) -> "pd.DataFrame":
    """Return the rows of a comparison of its own columns, empty where it was not run. Raises StorageError."""
    import pandas as pd

    if not path.exists():
        return pd.DataFrame()
    try:
        if path.parent.name == "full_vb":  # of the long format
            return store.read_rows(path)
        return pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise StorageError(f"cannot read {path} ({error}); run its comparison again") from error


def _extra(folder: Path) -> "Extra | None":
    """Return what another comparison left in its folder, None where there is no table."""
    from comparisons.paper.reproduction import Extra

    table, figure = folder / "table.md", folder / "figure.svg"
    if not table.exists():
        return None
    manifests = [folder / "manifest.json", *sorted(folder.glob("parts/*.json"))]
    manifests += sorted(folder.glob("cells/*/manifest.json"))
    try:
        drawn = figure.read_bytes() if figure.exists() else b""
        return Extra(table.read_text(), drawn, [_json(path) for path in manifests if path.exists()])
    except (OSError, ValueError) as error:
        raise StorageError(f"cannot read {folder} ({error}); run its comparison again") from error


def _json(path: Path) -> dict[str, Any]:
    """Return a manifest. Raises StorageError."""
    import json

    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise StorageError(f"cannot read {path} ({error}); remove it and run its command again") from error
    return content if isinstance(content, dict) else {}


if __name__ == "__main__":
    cli.main(lambda: main(sys.argv[1:]))
