"""Rows to tables, as numbers, as blocks of a report and for a terminal: pure functions of the rows."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from comparisons.data import GREY
from comparisons.reporting import outcomes
from comparisons.reporting.agreement import PAIR, QUANTITIES, agreement
from comparisons.reporting.blocks import Block, Heading, Paragraph, Table
from comparisons.runner.rows import METRICS, PANEL

CELL = [*PANEL, "backend", "method", "engine"]  # one line of a table; seeds are averaged over
BOUND = "elbo_nats"
EVIDENCE = [name for name, what in METRICS.items() if what == "log p(x)"]  # the most exact first: that one is shown


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one line per (panel, backend, method, engine): mean over seeds at the last checkpoint, with its error.

    With several seeds the error is the standard error over seeds (sd / sqrt(seeds)); with one, the estimator's own.
    `status` is that of `outcomes.word`; `seeds` counts those that did not fail, `failed` the others, which no mean
    knows of; `contradicted` names the columns whose number a bound contradicts.
    """
    last = rows[rows.n_seen == rows.groupby("cell").n_seen.transform("max")]
    columns = [*CELL, "seeds", "failed", "status", "contradicted"]
    lines = []
    for key, group in last.groupby(CELL, sort=True):
        ran = outcomes.ran(group)
        counts = {"seeds": ran.seed.nunique(), "failed": group[group.status == "failed"].seed.nunique()}
        line = dict(zip(CELL, key, strict=True)) | counts | {"status": outcomes.word(group)}
        judged = [name for name in EVIDENCE if ran.metric.eq(name).any()]
        doubted = []
        for short, metric in (("lower_bound", BOUND), ("log_px", judged[0] if judged else None)):
            for split, part in ran[ran.metric == metric].groupby("split"):
                line[f"{short}_{split}"], line[f"{short}_{split}_stderr"] = over_seeds(part)
                doubted += [f"{short}_{split}"] if (part.status == "contradicted").any() else []
        lines.append(line | {"contradicted": " ".join(doubted)} | _cost(ran))
    columns += [f"{quantity}{end}" for quantity in QUANTITIES for end in ("", "_stderr")]
    return pd.DataFrame(lines).reindex(columns=[*columns, "n_seen", "decoder_evals", "seconds", "step_size"])


def _cost(ran: pd.DataFrame) -> dict[str, object]:
    """Return what the runs took, a mean over seeds; of runs that all failed, nothing."""
    if ran.empty:
        return {"n_seen": 0, "decoder_evals": np.nan, "seconds": np.nan, "step_size": ""}
    per_cell = ran.groupby("cell").first()
    return {
        "n_seen": int(per_cell.n_seen.max()),
        "decoder_evals": float(per_cell.decoder_evals.mean()),
        "seconds": float(per_cell.seconds.mean()),
        "step_size": " ".join(f"{s:g}" for s in sorted(per_cell.step_size.dropna().unique())),
    }


def estimators(rows: pd.DataFrame) -> pd.DataFrame:
    """Return every estimate of log p(x) of the fits that several estimators judged, one line for each fit and split.

    Columns: those of a cell, `split`, and for each estimator its mean over seeds, standard error, flagged
    share and status.
    """
    rows = outcomes.ran(rows)
    last = rows[rows.n_seen == rows.groupby("cell").n_seen.transform("max")]
    lines = []
    for key, group in last[last.metric.isin(EVIDENCE)].groupby([*CELL, "split"], sort=True):
        if group.metric.nunique() > 1:
            line = dict(zip([*CELL, "split"], key, strict=True))
            for metric, part in group.groupby("metric"):
                name = metric.removeprefix("log_px_").removesuffix("_nats")
                line[name], line[f"{name}_stderr"] = over_seeds(part)
                line[f"{name}_flagged"] = part.flagged.mean()
                line[f"{name}_status"] = outcomes.word(part)
            lines.append(line)
    return pd.DataFrame(lines)


def blocks(rows: pd.DataFrame) -> list[Block]:
    """Return the report's tables, a part for each panel."""
    return [
        block
        for key, panel in summary(rows).groupby(PANEL, sort=True)
        for block in _of_panel(panel, rows[(rows[PANEL] == list(key)).all(axis=1)])
    ]


def _of_panel(panel: pd.DataFrame, rows: pd.DataFrame) -> Iterator[Block]:
    p = panel.iloc[0]
    yield Heading(
        f"{p['data']}, {p['n_train']} training points, {p['model']}, {p['n_latent']} latent variables, "
        f"{p['n_hidden']} hidden units, {p['samples']:,} points seen"
    )
    method = ["method"] if panel.method.ne("").any() else []
    head = ["backend", *method, "engine", "lower bound, train", "lower bound, test", "log p(x), train"]
    head += ["log p(x), test", "points seen", "decoder evaluations", "seconds", "step size", "seeds"]
    body = []
    for line in panel.itertuples():
        cost = [f"{line.n_seen:,}", f"{line.decoder_evals:.3g}", f"{line.seconds:.1f}"]
        cost = ["-"] * 3 if line.status == "failed" else cost
        seeds = f"{line.seeds} ({line.failed} failed)" if line.failed else str(line.seeds)
        names = [str(getattr(line, name)) for name in ("backend", *method, "engine")]
        body.append([*names, *_values(line), *cost, line.step_size, seeds])
    yield Table(head, body)
    yield Paragraph(note(panel, p["data"]))
    yield from outcomes.blocks(rows)
    yield from _side_by_side(estimators(rows))
    for (one, other), compared in agreement(panel).groupby(PAIR, sort=False):
        yield Paragraph(f"Do the engines agree? {one} minus {other}, in nats, and in standard errors over seeds (z):")
        differences = []
        for c in compared.itertuples():
            off = [c.quantity.replace("_", " "), f"{c.difference:+.3f} ± {c.stderr:.3f}", f"{c.z:+.1f}"]
            differences.append([*(getattr(c, name) for name in ("backend", *method)), *off])
        yield Table(["backend", *method, "quantity", "difference", "z"], differences)


def _side_by_side(table: pd.DataFrame) -> Iterator[Block]:
    if table.empty:
        return
    names = [short for short in (m.removeprefix("log_px_").removesuffix("_nats") for m in EVIDENCE) if short in table]
    body = []
    for _, line in table.iterrows():
        cells = [line.backend, line.method, line.engine, line.split]
        for name in names:
            flagged = line[f"{name}_flagged"]
            doubt = f" ({flagged:.0%} flagged)" if flagged > 0 else ""
            cells.append(or_word(line[name], line[f"{name}_stderr"], line[f"{name}_status"]) + doubt)
        body.append(cells)
    yield Paragraph(
        "log p(x) by several estimators, on the same fits and datapoints; flagged is the share of datapoints whose "
        "number the estimator itself does not trust:"
    )
    yield Table(["backend", "method", "engine", "split", *names], body)


def note(panel: pd.DataFrame, data: str) -> str:
    """Say what the numbers are, under a table or figure."""
    error = "over seeds" if (panel.seeds > 1).any() else "of the estimator (one seed)"
    text = f"Nats per datapoint, higher is better; ± is one standard error {error}."
    if data in ("digits", "mnist"):
        own = panel.model.str.contains(":").any()  # from a user's file: who knows what its decoder is
        text += f"{' Under a decoder for 0 and 1 every' if own else ' Every'} number on {data} is a {GREY}."
    if panel.method.str.contains("theta=vb").any():
        text += " With theta=vb the bound and log p(x) are at the mean of q(theta)."
    if panel.contradicted.ne("").any():
        text += f" {outcomes.CONTRADICTED}"
    went_well = panel.status.isin(["ok", "contradicted"])
    without = sorted(panel.backend[panel.lower_bound_train.isna() & went_well].unique())
    if without:
        text += f" {' and '.join(without)} {'has' if len(without) == 1 else 'have'} no q, hence no bound."
    return text


def plain(rows: pd.DataFrame) -> str:
    """Return the summary for a terminal."""
    table = summary(rows)
    lines = []
    for line in table.itertuples():
        names = [f"{line.data} {line.n_train} k={line.n_latent}", line.backend, line.method, line.engine]
        lines.append([*names, *_values(line), f"{line.n_seen:,}", f"{line.seconds:.1f}"])
    head = ["data", "backend", "method", "engine", "bound train", "bound test", "log p(x) train", "log p(x) test"]
    frame = pd.DataFrame(lines, columns=[*head, "points seen", "seconds"])
    shared = [name for name in ("data", "method") if frame[name].nunique() == 1]  # once, over the table
    text = " ".join(str(frame[name].iloc[0]) for name in shared).strip()
    text += ("\n" if text else "") + frame.drop(columns=shared).to_string(index=False)
    return f"{text}\n{outcomes.CONTRADICTED}" if table.contradicted.ne("").any() else text


def over_seeds(part: pd.DataFrame) -> tuple[float, float]:
    """Return a metric's mean over seeds and its standard error: with one seed, the estimator's own."""
    if part.value.isna().any():
        return np.nan, np.nan
    each = part.groupby("seed").value.mean()  # one fit may have been judged several times
    if len(each) == 1:
        return float(each.iloc[0]), float(part.stderr.iloc[0])
    return float(each.mean()), float(each.std(ddof=1) / np.sqrt(len(each)))


def _values(line: Any) -> list[str]:
    """Return the four numbers of a line of `summary`, as a table shows them."""
    cells = []
    for name in QUANTITIES:
        doubted = name in line.contradicted.split()
        status = "contradicted" if doubted else "ok" if line.status == "contradicted" else line.status
        cells.append(or_word(getattr(line, name), getattr(line, f"{name}_stderr"), status))
    return cells


def or_word(value: float, error: float, status: str) -> str:
    """Return a number as a table shows it, with its mark, or in its place what became of the run."""
    if not isinstance(status, str):  # no row of this estimator
        return "-"
    if np.isnan(value):
        return status if status in ("diverged", "failed") else "-"
    return plus_minus(value, error) + outcomes.mark(status == "contradicted")


def plus_minus(value: float, error: float) -> str:
    """Return a number with its error as a table shows it."""
    if np.isnan(value):
        return "-"
    return f"{value:.2f} ± {error:.2f}" if error >= 0.005 else f"{value:.2f} ± {error:.0e}"
