"""Rows to tables, as numbers, as blocks of a report and for a terminal: pure functions of the rows."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from comparisons.data import GREY
from comparisons.reporting import outcomes
from comparisons.reporting.agreement import PAIR, QUANTITIES, agreement
from comparisons.reporting.blocks import Block, Code, Heading, Paragraph, Table, Text, Typed
from comparisons.reporting.standings import BOUND, CELL, EVIDENCE, lead, mean_of, standings, told
from comparisons.runner import baselines
from comparisons.runner.baselines import Baselines
from comparisons.runner.rows import PANEL

BASELINE = "z ignored"
USED = {"kl": "kl_z_nats", "active": "active_latents"}  # what a q(z | x) uses: rows from before it was asked have none
USE = "KL is KL(q(z | x) || p(z)), a part of the bound; active are the latent variables with Cov_x(E_q[z]) > 0.01."
CAPTION = "Each method at its last stop: what it reached, the higher the better, and what that took."
FILE = re.compile(r"\s*\b(backend|model)_sha256=(\w+)")
UNUSED = 0.1  # nats above the baseline: what does not come so far has no use for z


def summary(rows: pd.DataFrame, known: Baselines | None = None) -> pd.DataFrame:
    """Return one line per (panel, backend, method, engine): mean over seeds at the last checkpoint, with its error.

    `*_stderr` is the standard error over seeds (sd / sqrt(seeds)), NaN with one seed; `*_judge` the standard error that
    the estimator itself has of that mean. `to_best` and what follows it are those of `standings`; `baseline_*` is what
    a fit is worth that ignores z, where it is `known`, and `unused` says that on test this one is not above it. What a
    q uses, `kl_*` and `active_*`, has columns where some row says it.

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
        for short, metric in (("lower_bound", BOUND), ("log_px", judged[0] if judged else None), *USED.items()):
            for split, part in ran[ran.metric == metric].groupby("split"):
                line[f"{short}_{split}"], line[f"{short}_{split}_stderr"] = over_seeds(part)
                line[f"{short}_{split}_judge"] = float(np.sqrt(np.square(part.stderr).sum()) / len(part))
                of = line["model"], line["data"], line["n_train"], split, part.n_points.iloc[0]
                line[f"baseline_{split}"] = baselines.of(known or {}, *of)
                doubted += [f"{short}_{split}"] if (part.status == "contradicted").any() else []
        lines.append(line | {"contradicted": " ".join(doubted)} | _cost(ran))
    used = [f"{short}_{split}" for short, m in USED.items() if (rows.metric == m).any() for split in ("train", "test")]
    columns += [f"{name}{error}" for name in (*QUANTITIES, *used) for error in ("", "_stderr", "_judge")]
    columns += ["baseline_train", "baseline_test", "n_seen", "decoder_evals", "seconds", "step_size"]
    table = pd.DataFrame(lines, columns=columns).merge(standings(rows), how="left", on=CELL)
    return table.assign(unused=table.log_px_test.fillna(table.lower_bound_test) <= table.baseline_test + UNUSED)


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


def blocks(rows: pd.DataFrame, known: Baselines | None = None) -> list[Block]:
    """Return the report's tables, a part for each panel, with the baselines that are `known`."""
    rows = by_name(rows)
    return [
        block
        for key, panel in summary(rows, known).groupby(PANEL, sort=True)
        for block in _of_panel(panel, rows[(rows[PANEL] == list(key)).all(axis=1)])
    ]


def by_name(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows whose `method` lacks the hashes of the user's files, and as `given` with them.

    Where nothing else tells two versions of a file apart, `method` keeps them.
    """
    named = rows.assign(given=rows.method, method=rows.method.str.replace(FILE, "", regex=True).str.strip())
    return named if len(named[CELL].drop_duplicates()) == len(rows[CELL].drop_duplicates()) else rows.assign(given="")


def _of_panel(panel: pd.DataFrame, rows: pd.DataFrame) -> Iterator[Block]:
    p = panel.iloc[0]
    yield Heading(
        f"{p['data']}, {p['n_train']} training points, {p['model']}, {p['n_latent']} latent variables, "
        f"{p['n_hidden']} hidden units, {p['samples']:,} points seen"
    )
    method = ["method"] if panel.method.nunique() > 1 else []
    if not method and p["method"]:
        yield Paragraph(Code(p["method"]))
    names = ["backend", *method, "engine"]
    head = [*names, "log p(x), test", "to the best", "log p(x), train", "lower bound, test", "lower bound, train"]
    used = used_in(panel)
    head += [{"kl_test": "KL, test", "active_test": f"active of {p['n_latent']}, test"}[name] for name in used]
    head += ["judge's error", "seconds", "to 1 nat", "decoder evaluations", "to 1 nat", "points seen"]
    head += ["step size", "seeds", "command"]
    commands = [outcomes.command(part) for _, part in rows.groupby(CELL, sort=True)]  # as in the summary
    body: list[list[Text]] = [
        [*(str(getattr(line, name)) for name in names), *_line(line, used), command and Typed(command)]
        for line, command in zip(panel.itertuples(), commands, strict=True)
    ]
    below = []
    if panel.baseline_test.notna().any():
        test, train = (f"{panel[f'baseline_{split}'].dropna().iloc[0]:.2f}" for split in ("test", "train"))
        given = [BASELINE, *["-"] * (len(names) - 1), test, "-", train]
        below = [[*given, *["-"] * (len(head) - len(given))]]
    yield from map(Paragraph, lead(panel))
    words = f"{note(panel, p['data'])} {legend(panel)}"
    yield Table(head, body, below=below, caption=CAPTION, name="summary", alone=words)
    files = sorted({f"{getattr(row, of)} {sha}" for row in rows.itertuples() for of, sha in FILE.findall(row.given)})
    yield from [Paragraph(f"SHA-256 of the files: {'; '.join(files)}.", "note")] if files else []
    yield Paragraph(words)
    yield from outcomes.blocks(rows)
    yield from _side_by_side(estimators(rows), note(panel, p["data"]))
    for (one, other), compared in agreement(panel).groupby(PAIR, sort=False):
        words = f"Do the engines agree? {one} minus {other}, in nats, and in standard errors over seeds (z)"
        yield Paragraph(f"{words}:")
        differences = []
        for c in compared.itertuples():
            off = [c.quantity.replace("_", " "), f"{c.difference:+.3f} ± {c.stderr:.3f}", f"{c.z:+.1f}"]
            differences.append([*(getattr(c, name) for name in ("backend", *method)), *off])
        words += ". ± is one standard error over seeds."
        yield Table(["backend", *method, "quantity", "difference", "z"], differences, name="agreement", alone=words)


def _line(line: Any, used: list[str]) -> list[str]:
    """Return a line of a panel's table after its names."""
    bound_train, bound_test, train, test, *use = values(line, [*QUANTITIES, *used])
    judge = line.log_px_test_judge if np.isfinite(line.log_px_test) else line.lower_bound_test_judge
    seconds = [f"{line.seconds:.1f}", number(line.near_seconds, ".1f")]
    cost = [*seconds, f"{line.decoder_evals:.3g}", number(line.near_evals, ".3g"), f"{line.n_seen:,}"]
    return [
        f"{test}{', z unused' if line.unused else ''}",
        told(line.to_best, line.to_best_stderr),
        train,
        bound_test,
        bound_train,
        *use,
        number(judge, ".1g"),
        *(["-"] * len(cost) if line.status == "failed" else cost),
        line.step_size,
        f"{line.seeds} ({line.failed} failed)" if line.failed else str(line.seeds),
    ]


def _side_by_side(table: pd.DataFrame, noted: str) -> Iterator[Block]:
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
    words = (
        "log p(x) by several estimators, on the same fits and datapoints; flagged is the share of datapoints whose "
        "number the estimator itself does not trust"
    )
    yield Paragraph(f"{words}:")
    yield Table(["backend", "method", "engine", "split", *names], body, name="estimators", alone=f"{words}. {noted}")


def legend(panel: pd.DataFrame) -> str:
    """Say what the columns of a table are."""
    text = "The judge's error is the estimator's own standard error, on test, of what these fits have."
    text += " To the best: the difference on the same seeds, where * marks more than two of its standard errors."
    text += " To 1 nat: the cost at the first stop within one nat of the best end."
    if panel.baseline_test.notna().any():
        text += f" The last line is what independent columns reach; z is unused in a fit less than {UNUSED} above it."
    if used_in(panel):
        text += f" {USE}"
    return text


def used_in(panel: pd.DataFrame) -> list[str]:
    """Return the columns of a panel that say what a q uses on test, nothing where none of its rows does."""
    return [name for name in ("kl_test", "active_test") if name in panel and panel[name].notna().any()]


def note(panel: pd.DataFrame, data: str) -> str:
    """Say what the numbers are, under a table or figure."""
    errors = "± is one standard error over seeds" if (panel.seeds > 1).any() else "1 seed, hence no ±"
    text = f"Nats per datapoint, higher is better; {errors}."
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


def over_seeds(part: pd.DataFrame) -> tuple[float, float]:
    """Return a metric's mean over seeds and its standard error, NaN with one seed."""
    if part.value.isna().any():
        return np.nan, np.nan
    return mean_of(part.groupby("seed").value.mean())  # one fit may have been judged several times


def values(line: Any, names: Sequence[str] = QUANTITIES) -> list[str]:
    """Return numbers of a line of `summary`, as a table shows them."""
    cells = []
    for name in names:
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
    """Return a number with its error, where it has one, as a table shows it."""
    if np.isnan(value) or np.isnan(error):
        return number(value, ".2f")
    return f"{value:.2f} ± {error:.2f}" if error >= 0.005 or error == 0 else f"{value:.2f} ± {error:.0e}"


def number(value: float, form: str) -> str:
    """Return a number as a table shows it, a dash where there is none."""
    return f"{value:{form}}" if np.isfinite(value) else "-"
