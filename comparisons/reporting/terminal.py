"""Results for a terminal of 80 columns: what a command prints when its runs have ended."""

import math
import textwrap

import pandas as pd

from comparisons.reporting import outcomes
from comparisons.reporting.standings import lead, told
from comparisons.reporting.tables import BASELINE, number, summary, used_in, values
from comparisons.runner.baselines import Baselines
from comparisons.runner.rows import PANEL

WIDTH = 80
ACTIVE = "AU"  # active units, as the literature has them: a longer word would not fit
HEAD = ["method", "engine", "log p(x) test", "to the best", "bound test", ACTIVE, "seconds"]


def plain(rows: pd.DataFrame, known: Baselines | None = None) -> str:
    """Return the summary of rows: a part for each panel, in it one for each method's flags, and who leads."""
    table = summary(rows, known)
    parts = []
    for _, panel in table.groupby(PANEL, sort=True):
        p = panel.iloc[0]
        what = f"{p['data']}: {p['n_train']} training points, {p['model']}, k={p['n_latent']}"
        parts += _wrapped(f"{what}, {p['samples']:,} points seen")
        for method, group in panel.groupby("method", sort=True):
            parts += [*_wrapped(str(method)), _lines(group)]
        if panel.baseline_test.notna().any():
            parts.append(f"{BASELINE}: {panel.baseline_test.dropna().iloc[0]:.2f}")
        parts += [line for text in lead(panel) for line in _wrapped(text)]
    errors = "± is a standard error over seeds" if (table.seeds > 1).any() else "1 seed, hence no ±"
    parts += _wrapped(f"Nats per datapoint; {errors}; * is more than two of them from the best, seed by seed.")
    if any(f" {ACTIVE} " in part for part in parts):
        parts.append(f"{ACTIVE}: active latent variables, whose mean under q(z | x) varies with x.")
    return "\n".join([*parts, *([outcomes.CONTRADICTED] if table.contradicted.ne("").any() else [])])


def _lines(group: pd.DataFrame) -> str:
    body = []
    for line in group.itertuples():
        _, bound, _, evidence = values(line)
        count = number(getattr(line, "active_test", math.nan), ".1f").removesuffix(".0")
        last = "z unused" if line.unused else number(line.seconds, ".1f")
        body.append([line.backend, line.engine, evidence, told(line.to_best, line.to_best_stderr), bound, count, last])
    table = pd.DataFrame(body, columns=HEAD)
    text = str(table.to_string(index=False))
    fits = used_in(group) and text.index("\n") <= WIDTH
    return text if fits else str(table.drop(columns=ACTIVE).to_string(index=False))


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH)
