"""What the sections on Figures 2 and 3 have in common: the paper's curves beside ours, in tables and sentences."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from comparisons.paper import findings, made
from comparisons.paper import reproduction_figures as figures
from comparisons.paper.answer import word
from comparisons.paper.curves import WHOLE, curves, value_at
from comparisons.paper.found import FIGURES, Found
from comparisons.paper.reading import ERRORS, GREY_NOTE
from comparisons.paper.verdicts import (
    ENGINE_NAMES,
    ESTIMATORS,
    METRICS,
    MODEL_OF,
    NAMES,
    PAPERS,
    SIZES,
    TITLES,
    TRUTH,
    Configuration,
    Point,
    Verdict,
    configurations,
    count,
    in_order,
    judged,
    line,
    number,
    of,
    panel,
    panel_name,
    points,
    said,
    stands,
)
from comparisons.reporting import outcomes, tables
from comparisons.reporting.agreement import PAIR, agreement, verdict
from comparisons.reporting.blocks import (
    Block,
    Figure,
    Figures,
    Fold,
    Heading,
    Items,
    Link,
    Long,
    Paragraph,
    Short,
    Table,
    Text,
    not_run,
)

SPLITS = {"train": "train", "test": "test"}
LEAD = 10  # sentences that are shown before they are folded away
NUMBERS = ("ours", "ours, test", "paper", "ours - paper", "seeds")
CAUSE = "Experiments on the cause"


def blocks(found: Found, figure: str, text: str, drawn: list[Figure]) -> list[Block]:
    """Return the section on a figure: its panels, what the rows say, verdicts, experiments, engines and commands."""
    folder = FIGURES[figure]
    shown = [Figures(drawn)] if drawn else not_run(f"python -m comparisons.{folder} --help")
    data = "Data: ", Link(f"{folder}/rows.csv", "every row"), ", ", Link(f"{folder}/table.md", "all runs as a table")
    return [
        Long([Paragraph(text)]),
        *shown,
        *_said(found, figure),
        *_verdicts(found, figure),
        *_status(found, figure, bool(drawn)),
        *_experiments(found, figure),
        *_causes(found, figure),
        *_engines(found, figure),
        *made.blocks(_manifests(found, figure)),
        *([Long([Paragraph((*data, ", ", Link("verdicts.csv", "the verdicts"), "."), "note")])] if drawn else []),
    ]


def plot(name: str, alt: str, svg: str) -> Figure:
    """Return a panel as a figure of the report's own."""
    return Figure(svg.encode(), f"figures/{name}.svg", alt)


def ends(ours: list[figures.Line], papers: Sequence[Any]) -> str:
    """Return where each curve of a panel ends, in words: ours, and the paper's there."""
    return f"{_ours(ours)} {_papers(papers, ours)}".strip()


def _ours(ours: list[figures.Line]) -> str:
    """Return the last value of each of our curves, in words: those that end after as many points together."""
    ends: dict[int, list[str]] = {}
    for one in ours:
        last = one.points[-1]
        name = f"{NAMES.get(one.backend, one.backend)} {ESTIMATORS.get(one.dash, one.dash)}"
        ends.setdefault(last.n_seen, []).append(f"{name} {number(last)}")
    each = [f"at {count(n_seen)} points: {', '.join(ends[n_seen])}" for n_seen in sorted(ends, reverse=True)]
    return f"Ours {'; '.join(each)} nats."


def _papers(papers: Sequence[Any], ours: list[figures.Line]) -> str:
    """Return the paper's values, each where our curve of the same backend ends."""
    ends = {one.backend: one.points[-1].n_seen for one in ours}
    there = [(c, value_at(c, ends.get(c.backend, max(ends.values())))) for c in papers]
    each = [f"{NAMES[c.backend]} {c.split} {value:.1f}" for c, value in there if np.isfinite(value)]
    return f"The paper's there: {', '.join(each)} nats." if each else ""


def _said(found: Found, figure: str) -> Iterator[Block]:
    said = findings.said(findings.FIGURE2 if figure == "figure2" else findings.FIGURE3, found.rows)
    if said:
        yield Long([Heading("What the rows say")])
        yield Items(said) if len(said) <= LEAD else Fold(f"{len(said)} findings", [Items(said)])


def _verdicts(found: Found, figure: str) -> Iterator[Block]:
    by = [] if figure == "figure2" else ["judged by"]
    head = ["data", "panel", "method", "split", *by, "points seen", "ours", "paper", "ours - paper", "verdict", "run"]
    mine = [v for v in found.verdicts if v.curve.figure == figure]
    test, train = (
        Table([*head, "step size", "seeds"], body, f"Verdicts on {split}", NUMBERS)
        if (body := verdict_rows(v for v in mine if v.curve.split == split))
        else None
        for split in ("test", "train")
    )
    folder = FIGURES[figure]
    if test:
        yield test
    if train:
        yield Long([Fold("The same on the training set", [train])])
    if test:
        yield Paragraph(f"Nats per datapoint, higher is better. {ERRORS} {GREY_NOTE}", "note")
        links = Link(f"{folder}/rows.csv", "Every row"), ", ", Link(f"{folder}/table.md", "all runs"), "."
        yield Short([Paragraph(links)])


def _status(found: Found, figure: str, drawn: bool) -> Iterator[Block]:
    """Yield what became of runs: those that a bound contradicts, those that failed, and those that were not made."""
    rows = getattr(found, figure)
    if (rows.status == "contradicted").any():
        yield Paragraph(outcomes.CONTRADICTED, "note")
    lost = outcomes.failures(rows)
    if lost:
        yield Fold(f"{len(lost)} runs failed", [Paragraph(outcomes.FAILED), Items(lost)])
    missing = gaps(v for v in found.verdicts if v.curve.figure == figure)
    if missing and drawn:
        yield Long([Fold(f"Not run: {len(missing)} panels have gaps", [Items(missing)])])


def _experiments(found: Found, figure: str) -> Iterator[Block]:
    others = experiments(found, figure)
    if others:
        same = "The same curves under other settings, engines or lengths"
        yield Long([Heading(CAUSE), Paragraph(f"{same}: what a difference from the paper hangs on.")])
        yield Short([Paragraph(f"{CAUSE}: {same[0].lower()}{same[1:]}.")])
        by = [] if figure == "figure2" else ["judged by"]
        head = ["data", "panel", "method", *by, "settings", "engine", "points seen", "ours, test", "paper"]
        yield Table([*head, "ours - paper", "step size", "seeds"], others, CAUSE, NUMBERS)


def _causes(found: Found, figure: str) -> Iterator[Block]:
    worse = causes(found, figure)
    if worse:
        yield Short([Paragraph("Where ours is worse than the paper's or not trusted, and what is known there:")])
        summary = f"Worse than the paper, or not trusted, at {len(worse)} points of its curves: what is known there"
        yield Fold(summary, [Items(worse)])


def _engines(found: Found, figure: str) -> Iterator[Block]:
    """Yield for each two engines how far they are apart, wherever several seeds of both were run."""
    differences = agreement(tables.summary(getattr(found, figure)))
    for pair, compared in differences.groupby(PAIR, sort=False):
        one, other = (ENGINE_NAMES.get(name, name) for name in pair)
        text = (
            f"One program and one backend run on {one} and on {other}, from the same initial values, by other random "
            "numbers. Do they end at the same value, as far as seeds can tell? Nats per datapoint, ± is the standard "
            f"error over seeds. {verdict(compared)}"
        )
        yield Long([Heading("The two engines"), Paragraph(text)])
        yield Short([Paragraph(f"The two engines. {text}")])
        body = []
        for c in compared.itertuples():
            panel = [TITLES.get(c.data, c.data), f"{c.n_train:,}", count(c.samples), NAMES.get(c.backend, c.backend)]
            off = [f"{c.difference:+.2f} ± {c.stderr:.2f}", f"{c.z:+.1f}", str(c.seeds)]
            body.append([*panel, c.method or "defaults", _quantity(c.quantity), *off])
        numbers = ["training points", f"{one} - {other}", "in standard errors", "runs"]
        head = ["data", numbers[0], "points seen", "method", "settings", "quantity", *numbers[1:]]
        yield Fold("Each difference", [Table(head, body, f"{one} minus {other}", numbers)])


def verdict_rows(found: Iterable[Verdict]) -> list[list[Text]]:
    """Return the lines of a table of verdicts, of those points that were run."""
    body: list[list[Text]] = []
    for v in found:
        if v.point is None or v.configuration is None:
            continue
        c = v.curve
        by = [] if c.figure == "figure2" else [ESTIMATORS[v.metric]]
        ours = "diverged" if np.isnan(v.point.value) else f"{v.point.value:.2f} ± {_error(v.point.error)}"
        ours += outcomes.mark(v.point.contradicted) + doubt(v.point)
        paper = "-" if np.isnan(v.paper) else f"{v.paper:.1f}"
        place = [TITLES[c.data], panel_name(c), NAMES[c.backend], c.split, *by, count(v.n_seen)]
        run = [run_of(v.configuration), steps(v.point), str(v.point.seeds)]
        body.append([*place, ours, paper, difference(v), word(said(v.word)), *run])
    return body


def steps(point: Point) -> str:
    """Return the step sizes of the runs behind a point."""
    return " ".join(f"{size:g}" for size in point.step_sizes) or "-"


def doubt(point: Point) -> str:
    """Return what share of the datapoints the estimator itself does not trust, and nothing where it trusts all."""
    return f" ({point.flagged:.0%} flagged)" if point.flagged >= 0.005 else ""


def difference(v: Verdict) -> str:
    """Return ours minus the paper's in nats, and for Frey Face as a share too."""
    if np.isnan(v.difference):
        return "-"
    share = f" ({v.difference / abs(v.paper):+.0%})" if v.curve.data == "frey" else ""
    return f"{v.difference:+.1f}{share}"


def run_of(configuration: Configuration) -> str:
    """Return which run stands for a curve."""
    return f"{configuration.method or 'defaults'}, {configuration.engine}, {count(configuration.samples)} points"


def gaps(found: Iterable[Verdict]) -> list[str]:
    """Return which points of which curves were not run, a line for each panel."""
    missing: dict[str, dict[str, list[str]]] = {}
    for v in found:
        if v.point is None and v.curve.split == "test":
            c = v.curve
            where = panel_name(c, "latent variables")
            where = f"{TITLES[c.data]}, {where}" if c.figure == "figure2" else where
            by = f" by {ESTIMATORS[v.metric]}" if c.figure == "figure3" else ""
            missing.setdefault(where, {}).setdefault(NAMES[c.backend] + by, []).append(count(v.n_seen))
    return [
        f"{where}: " + "; ".join(f"{name} at {' and '.join(stops)} points" for name, stops in names.items())
        for where, names in missing.items()
    ]


def experiments(found: Found, figure: str) -> list[list[str]]:
    """Return a line for each run of a curve of the paper, on test, that does not stand for it: what it changes."""
    rows = getattr(found, figure)
    body = []
    for curve in in_order(c for c in curves() if c.figure == figure and c.split == "test"):
        for metric in METRICS[figure]:
            ours = line(rows, curve, metric)
            chosen = stands(ours)
            for other in configurations(ours):
                along = points(of(ours, other))
                if other == chosen or not along:
                    continue
                end = along[-1]
                paper = value_at(curve, end.n_seen)
                off = "-" if np.isnan(end.value - paper) else f"{end.value - paper:+.1f}"
                by = [] if figure == "figure2" else [ESTIMATORS[metric]]
                place = [TITLES[curve.data], panel_name(curve), NAMES[curve.backend], *by]
                run = [other.method or "defaults", other.engine, count(end.n_seen), number(end) + doubt(end)]
                there = "-" if np.isnan(paper) else f"{paper:.1f}"
                body.append([*place, *run, there, off, steps(end), str(end.seeds)])
    return body


def _quantity(column: str) -> str:
    """Return what a column of a summary holds, as people read it."""
    name, _, split = column.rpartition("_")
    return f"{'log p(x)' if name == 'log_px' else 'lower bound'}, {split}"


def causes(found: Found, figure: str) -> list[str]:
    """Return a line for each point that is worse than the paper's or not trusted: what experiments say, best first.

    Compared are runs of the same panel, backend, split and estimator, judged after the same number of points; and
    for the paper's estimator what quadrature says of the same runs.
    """
    rows = getattr(found, figure)
    lines = []
    for v in found.verdicts:
        if v.word not in ("worse", "not trusted") or v.point is None or v.curve.figure != figure:
            continue
        ours, tried = line(rows, v.curve, v.metric), []
        for other in configurations(ours):
            near = [point for point in points(of(ours, other)) if abs(point.n_seen - v.n_seen) <= 0.01 * v.n_seen]
            if other != v.configuration and near and not np.isnan(near[0].value):
                tried.append((near[0].value, other, near[0]))
        tried.sort(key=lambda one: (-one[0], one[1]))
        c = v.curve
        by = f" by {ESTIMATORS[v.metric]}" if figure == "figure3" else ""
        each = "; ".join(
            f"{number(point)} ({judged(c.data, value - v.paper, v.paper)}) with {other.method or 'defaults'}, "
            f"{other.engine}, step size {steps(point)}"
            for value, other, point in tried
        )
        where = panel_name(c, "latent variables")
        lines.append(
            f"{TITLES[c.data]}, {where}, {NAMES[c.backend]} on {c.split}{by} at {count(v.n_seen)} points: "
            f"{difference(v)} with step size {steps(v.point)}. "
            + _by_quadrature(rows, v)
            + (f"At the same points seen: {each}." if tried else "No other run was judged there.")
        )
    return lines


def _by_quadrature(rows: pd.DataFrame, v: Verdict) -> str:
    """Say how far the paper's estimator is from the truth for the runs of a verdict; nothing of another metric."""
    if v.metric != PAPERS or v.configuration is None or v.point is None:
        return ""
    for truth in points(of(line(rows, v.curve, TRUTH), v.configuration)):
        if truth.n_seen == v.point.n_seen and not np.isnan(truth.value):
            trust = f", and flags {v.point.flagged:.0%} of the datapoints" if doubt(v.point) else ""
            said = judged(v.curve.data, truth.value - v.paper, v.paper)
            return (
                f"By quadrature the same runs are at {number(truth)} ({said}): "
                f"the estimator is {v.point.value - truth.value:+.1f} off{trust}. "
            )
    return ""


def _error(error: float) -> str:
    return f"{error:.2f}" if error >= 0.005 else f"{error:.0e}"


def _manifests(found: Found, figure: str) -> list[dict[str, Any]]:
    """Return the manifests of a figure's cells."""
    rows, manifests = getattr(found, figure), found.manifests[figure]
    panels = [("mnist", 3, n) for n in SIZES]
    if figure == "figure2":
        panels = [(data, int(k), WHOLE[data]) for data in MODEL_OF for k in sorted(rows.n_latent.unique())]
    cells = {cell for place in panels for cell in panel(rows, figure, *place).cell.unique()}
    return [manifests[cell] for cell in cells if cell in manifests]
