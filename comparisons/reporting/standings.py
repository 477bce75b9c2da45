"""Who leads, by how much, and at what cost: every method against the best of its panel, seed by seed."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from comparisons.reporting import outcomes
from comparisons.reporting.agreement import WITHIN
from comparisons.runner.rows import METRICS, PANEL

CELL = [*PANEL, "backend", "method", "engine"]  # one line of a table; seeds are averaged over
BOUND = "elbo_nats"
EVIDENCE = [name for name, what in METRICS.items() if what == "log p(x)"]  # the most exact first: that one is shown
NEAR = 1.0  # nats: what a method costs is counted up to here from the best
STANDING = ["to_best", "to_best_stderr", "shared_seeds", "near_seconds", "near_evals"]


def standings(rows: pd.DataFrame) -> pd.DataFrame:
    """Hold each (backend, method, engine) of rows that can be compared against the best of its panel, on test.

    `to_best` is the mean over the `shared_seeds` of the difference on the same seed, in nats per datapoint, with the
    standard error of that mean, NaN for one seed: runs of one seed see the same minibatches from the same start, and
    share much of their scatter. `near_seconds` and `near_evals` (of the decoder) are the means at the first stop within
    one nat of the best end, NaN where there is none.
    """
    lines = [line for _, panel in rows.groupby(PANEL) for line in _of_panel(panel)]
    return pd.DataFrame(lines, columns=[*CELL, *STANDING])


def _of_panel(panel: pd.DataFrame) -> Iterator[list[object]]:
    ran = outcomes.ran(panel)
    # Methods are held against one another by log p(x), else by the bound.
    metric = next((name for name in EVIDENCE if ran.metric.eq(name).any()), BOUND)
    rows = ran[(ran.split == "test") & (ran.metric == metric)]
    sound = rows.groupby(CELL).filter(lambda part: part.status.eq("ok").all() and part.value.notna().all())
    last = sound[sound.n_seen == sound.groupby("cell").n_seen.transform("max")]
    ends = {name: part.groupby("seed").value.mean() for name, part in last.groupby(CELL)}
    best: pd.Series = max(ends.values(), key=lambda values: values.mean(), default=pd.Series(dtype=float))
    for name, values in ends.items():
        difference = (values - best).dropna()
        stops = sound[(sound[CELL] == list(name)).all(axis=1)].groupby("n_seen")[["value", "seconds", "decoder_evals"]]
        near = stops.mean()[lambda stop: stop.value >= best.mean() - NEAR]
        cost = near.iloc[0][["seconds", "decoder_evals"]] if len(near) else (np.nan, np.nan)
        yield [*name, *mean_of(difference), len(difference), *cost]


def mean_of(seeds: pd.Series) -> tuple[float, float]:
    """Return the mean of one value a seed and its standard error, sd / sqrt(seeds), NaN with one seed."""
    return float(seeds.mean()), float(seeds.sem())


def apart(to_best: float, stderr: float) -> bool:
    """Say whether a line is told from the best: more than two standard errors below, and not by 0.00 as it is shown."""
    return bool(to_best < -WITHIN * stderr and round(to_best, 2) < 0)


def told(to_best: float, stderr: float) -> str:
    """Return a difference to the best as a table shows it; `*` marks what is told from it."""
    if np.isnan(to_best) or (to_best == 0 and not stderr > 0):
        return "-" if np.isnan(to_best) else "best"
    error = f" ± {stderr:.2f}" if np.isfinite(stderr) else ""
    return f"{to_best:+.2f}{error}{' *' if apart(to_best, stderr) else ''}"


def lead(panel: pd.DataFrame) -> list[str]:
    """Say who leads a panel of `tables.summary`, by how much, and at what cost; nothing where one stands alone."""
    if panel.method.nunique() == 1:  # it is said over the table
        panel = panel.assign(method="")
    compared = panel[panel.to_best.notna()].sort_values("to_best", ascending=False, kind="stable")
    if len(compared) < 2:
        return []
    best, second = compared.iloc[0], compared.iloc[1]
    told_by = "log p(x)" if np.isfinite(best.log_px_test) else "the lower bound"
    level = [_name(line) for _, line in compared.iloc[1:].iterrows() if not apart(line.to_best, line.to_best_stderr)]
    text = f"{_name(best)} leads by {told_by} on test"
    if best.shared_seeds < 2:
        distance = f"{-second.to_best:.2f}"
        above = f"{distance} nats above" if float(distance) else "less than 0.01 nats above"
        text += f", {above} {_name(second)}, with 1 seed"
    elif level:
        text += f", and cannot be told from {' and '.join(level)}"
    else:
        text += f", {-second.to_best:.2f} ± {second.to_best_stderr:.2f} nats above {_name(second)}"
    known = compared[compared.near_seconds.notna()]  # cells that were only judged again tell no cost
    if known.empty:
        return [f"{text}."]
    first = known.loc[known.near_seconds.idxmin()]
    costs = [f"it is after {_cost(best)}"] if np.isfinite(best.near_seconds) else []
    if first.name != best.name:
        costs.append(f"{_name(first)} {'' if costs else 'is '}after {_cost(first)}")
    return [f"{text}. Within one nat of its end {', '.join(costs)}."]


def _name(line: pd.Series) -> str:
    return " ".join(filter(None, (line.backend, line.method and f"({line.method})", f"on {line.engine}")))


def _cost(line: pd.Series) -> str:
    return f"{line.near_seconds:.1f} s and {line.near_evals:.3g} decoder evaluations"
