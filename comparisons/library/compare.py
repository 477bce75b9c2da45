"""One call that runs a comparison, and what it came to: rows, a table, a figure, and every fit."""

import io
import sys
from contextlib import nullcontext, redirect_stderr
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comparisons.cli import parts
from comparisons.errors import FlagError, NumericsError, unknown
from comparisons.library import given
from comparisons.library.fitted import Fitted
from comparisons.reporting import drawing, figures, html, outcomes, tables
from comparisons.reporting.folder import report
from comparisons.runner import baselines, store
from comparisons.runner.fits import restored
from comparisons.runner.grid import GRID, Looked, looked_at, run
from comparisons.runner.watching import reached

if TYPE_CHECKING:
    import pandas as pd


def compare(
    data: Any = "digits",
    *,
    out: str | Path = f"results/{given.COMMAND}",
    name: str = "data",
    quiet: bool = False,
    **settings: Any,
) -> "Comparison":
    """Run what `python -m comparisons.marginal_likelihood` runs with the same flags, and return what it came to.

    `data` is a name, a path, an array [n, d] or [n, rows, columns], a dict of such by name (x, x_test), or a
    DataFrame. Arrays are kept in `<out>/data/<name>.npz`. Each of `settings` is a flag by its name, which may be a
    plural: `backends=["aevb", "mean_field"], seeds=range(3), samples=1e5, workers=2`. Cells that are finished in `out`
    are reused, one that was interrupted goes on. `quiet` does without the status line. `model` and `backend` take
    classes and functions too: see `comparisons.library.objects`.

    A fit that diverges or breaks raises nothing: its rows say so. Raises UserError for what is wrong before.
    """
    if sys._getframe(1).f_globals.get("__name__", "").startswith(parts.LOADED):
        text = 'put it under `if __name__ == "__main__":`, or in a cell of its own'
        raise FlagError(f"compare() stands where the file or cell that it names is run again; {text}")
    kept: list[Any] = []

    def keep(rows: "pd.DataFrame", folder: Path, mine: "pd.DataFrame") -> str:
        kept.extend((mine.reset_index(drop=True), report(rows, folder, mine)))
        return ""  # it is shown by whoever asks for it

    with redirect_stderr(io.StringIO()) if quiet else nullcontext():
        with given.taken_back(Path(out)):
            (looked,) = looked_at([given.asked(settings, data, name, out)])
        run([looked], keep)
    return Comparison(looked, *kept)


@dataclass(frozen=True, repr=False)
class Comparison:
    """What a grid came to: `rows`, one number a row, and `text`, what the command prints.

    It shows itself as that; in a notebook, as its tables.
    """

    grid: Looked
    rows: "pd.DataFrame"
    text: str

    @cached_property
    def table(self) -> "pd.DataFrame":
        """One line a method: `comparisons.reporting.tables.summary`, in nats per datapoint."""
        return tables.summary(self.rows, baselines.read(self.grid.request.out))

    def figure(self) -> Any:
        """Return lower bound and log p(x) against training points seen, as a Figure of matplotlib's."""
        return figures.learning_curves(self.rows, self.table, drawing.figure)

    def fit(self, backend: str | None = None, **which: Any) -> Fitted:
        """Return the fit of a backend, engine, seed, n_latent, ...; of several the best, by log p(x) or bound on test.

        Raises FlagError where there is none such, NumericsError where it diverged or broke.
        """
        asked = {name: value for name, value in {"backend": backend, **which}.items() if value is not None}
        jobs = self.grid.jobs
        for name, value in asked.items():
            if name not in GRID:
                raise unknown("setting", name, GRID)
            told = Path(str(getattr(value, "__name__", value))).name  # a user's file is known by its own name
            jobs = [job for job in jobs if told in _known_by(getattr(job.cell.experiment, name))]
        if not jobs:
            raise FlagError(f"no fit has {asked}; there are {'; '.join(job.name for job in self.grid.jobs)}")
        done = [job for job in jobs if store.finished(job.out, job.cell.name, with_state=True)]
        if not done:
            raise NumericsError(
                f"{jobs[0].name} diverged or failed, or its state is gone; compare(fresh=True) runs it again"
            )
        best = max(done, key=lambda job: reached(job.out, job.cell.name)[1])
        fit = restored(best.cell, store.load_state(best.out, best.cell.name))
        return Fitted(fit, self.grid.data[fit.experiment.n_train])

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        out = self.grid.request.out
        return "".join(html.each(tables.blocks(outcomes.explained(self.rows, out), baselines.read(out))))


def _known_by(value: Any) -> tuple[str, ...]:
    """Return what a setting's value may be called: of a part its label, and the name in it."""
    return (str(value), value.name) if isinstance(value, parts.Part) else (str(value),)
