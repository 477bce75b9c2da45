"""What README.md says of results: written there, between marks, from the rows. Nothing else of it is touched.

`<!-- result -->` ... `<!-- /result -->`, and the same for every other name of `parts`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from comparisons.disk import writing
from comparisons.errors import FlagError, StorageError
from comparisons.paper import runs
from comparisons.paper.curves import papers
from comparisons.paper.found import Rows
from comparisons.paper.runs import FULL, SIZES, TRUTH, Point
from comparisons.paper.verdicts import Claim
from comparisons.paper.words import NAMES, compared, count, number
from comparisons.reporting import markdown, outcomes, tables, terminal
from comparisons.reporting.agreement import WITHIN, agreement
from comparisons.reporting.blocks import Code, Items, Paragraph, Strong, Table, Text
from comparisons.runner.baselines import Baselines

NOT_RUN = "Not run yet."
# By the name in the table: the backend, and the settings that are not the defaults.
METHODS: dict[str, tuple[str, tuple[str, ...]]] = {
    **{name: (backend, ()) for backend, name in NAMES.items()},
    f"{NAMES['monte_carlo_em']}, --e-step full": ("monte_carlo_em", FULL),
}


def parts(rows: Rows, claims: Sequence[Claim], known: Baselines | None = None) -> dict[str, str]:
    """Return what stands between the marks, by name."""
    return {"output": _output(rows.figure3, known), "result": _result(rows.figure3, claims)}


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
        if Path(given).is_symlink() or (Path(given).exists() and not Path(given).is_file()):
            raise ValueError("it is a link, or no regular file")
        return renewed(Path(given).read_text(), written)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        told = f"--readme {given[:100]!r} cannot be renewed ({reason}); name the checkout's README.md"
        raise FlagError(told) from error


def write(given: str, text: str) -> None:
    """Write the file whole or not at all. Raises StorageError."""
    path = Path(given)
    if not path.parent.is_dir():
        raise StorageError(f"cannot write {path}: its folder is gone")
    writing.write(path, text)


def _output(rows: pd.DataFrame, known: Baselines | None) -> str:
    """Return what `make compare` prints, as a block: the table of its three seeds on digits."""
    mine = rows[(rows.data == "digits") & rows.seed.isin([0, 1, 2]) & (rows.samples == 50_000)]
    mine = mine[mine.method.str.contains("optimizer=adam")]
    return f"```\n{terminal.plain(mine, known)}\n```" if len(mine) else NOT_RUN


def _result(rows: pd.DataFrame, claims: Sequence[Claim]) -> str:
    """Return the one table, what follows from it, and what became of the paper's conclusions, as Markdown."""
    rows = rows[rows.data == "mnist"]
    ends = {n_train: _ends(rows, n_train) for n_train in SIZES}
    stops = sorted({point.n_seen for found in ends.values() for point in found.values()})
    if not stops:
        return NOT_RUN
    points = rows[rows.metric == TRUTH].n_points.max()
    note = (
        f"log p(x) of {points:,} test images of MNIST, with 3 latent variables, N training points and "
        f"{' and '.join(map(count, stops))} points seen: nats by quadrature. Bold is within two standard errors of the "
        "best. ± is a standard error over seeds; without it there is one seed. The paper's values are by its own "
        "estimator."
    )
    head = ["method", *(name for n in SIZES for name in (f"N = {n:,}", "the paper's"))]
    head.append(f"decoder evaluations, N = {SIZES[0]:,}")
    body = [
        [_named(name), *(cell for n, found in ends.items() for cell in _cells(n, found, name)), _cost(rows, name, ends)]
        for name in METHODS
    ]
    marked = any(point.contradicted for found in ends.values() for point in found.values())
    notes = [*([outcomes.CONTRADICTED] if marked else []), *_engines(rows)]
    concluded = Items([(f"{claim.sentence}: ", Strong(claim.word), ".") for claim in claims])
    follows = [*notes, "What the paper concluded, and what became of it here:"]
    return markdown.page([Paragraph(note), Table(head, body), *map(Paragraph, follows), concluded]).rstrip("\n")


def _named(name: str) -> Text:
    method, _, flag = name.partition(", ")
    return (f"{method}, ", Code(flag)) if flag else method


def _ends(rows: pd.DataFrame, n_train: int) -> dict[str, Point]:
    """Return by method its log p(x) on test at the last stop that all of them have."""
    part = runs.figure3_panel(rows, n_train)
    return runs.ends(
        {
            name: runs.curve_of(part, backend, "test", TRUTH, told, marked=True)
            for name, (backend, told) in METHODS.items()
        }
    )


def _cells(n_train: int, ends: dict[str, Point], name: str) -> tuple[Text, Text]:
    """Return a method's value, bold where it cannot be told from the best, and the paper's after as many points."""
    if name not in ends:
        return "-", "-"
    point = ends[name]
    # What a bound contradicts is nobody's best.
    sound = [one for one in ends.values() if np.isfinite(one.value) and not one.contradicted]
    top = max(sound, key=lambda one: one.value, default=point)
    bold = point in sound and not compared(point, top)
    there = papers({"figure": "figure3", "n_train": n_train, "backend": METHODS[name][0]}, "test", point.n_seen)
    return Strong(number(point)) if bold else number(point), f"{there:.1f}" if np.isfinite(there) else "-"


def _cost(rows: pd.DataFrame, name: str, ends: Mapping[int, Mapping[str, Point]]) -> str:
    """Return the decoder evaluations of a method's runs with the fewest training points, up to the same stop."""
    if name not in ends[SIZES[0]]:
        return "-"
    backend, told = METHODS[name]
    mine = runs.standing(runs.figure3_panel(rows, SIZES[0]), backend, "test", TRUTH, told)
    evaluations = mine[mine.n_seen == ends[SIZES[0]][name].n_seen].decoder_evals.mean()
    return count(int(float(f"{evaluations:.2g}")))


def _engines(rows: pd.DataFrame) -> list[str]:
    """Say how often the two engines end within two standard errors of each other, over seeds."""
    found = agreement(tables.summary(rows))
    if not len(found):
        return []
    within = int((found.z.abs() <= WITHIN).sum())
    return [f"The two engines end within two standard errors of each other in {within} of {len(found)} comparisons."]
