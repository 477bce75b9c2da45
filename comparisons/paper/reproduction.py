"""The sections on Figures 2 and 3: the paper's curves beside ours, in plots, tables and sentences."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from comparisons.paper import answer, findings, made, plots, runs, verdicts, words
from comparisons.paper.curves import Curve, curves, value_at
from comparisons.paper.found import FIGURES, Found
from comparisons.paper.runs import PAPERS, TRUTH, Point
from comparisons.paper.verdicts import BELOW, METRICS, Verdict
from comparisons.paper.words import ENGINE_NAMES, ESTIMATORS, NAMES, TITLES, count, number, panel_name
from comparisons.reporting import blocks as b
from comparisons.reporting import outcomes, tables
from comparisons.reporting.agreement import PAIR, agreement, verdict

JUDGED_BY = {"figure2": [], "figure3": ["judged by"]}  # where there is more than one judge
LEAD = 10  # sentences that are shown before they are folded away
NUMBERS = ("ours", "ours, test", "paper", "ours - paper", "flagged", "seeds")
CAUSE = "Experiments on the cause"


FIGURE2 = "The lower bound on log p(x) against training points seen."
FIGURE3 = (
    "Estimated log p(x) on MNIST with 3 latent variables and 100 hidden units. With so few latent variables the "
    "integral over z can be done by quadrature, which is the truth here; the paper's own estimator, of its "
    "appendix D, stands beside it. Points seen flatter methods that do more work for each point, so decoder "
    "evaluations and seconds follow; the paper has no such axes."
)
CAPTIONS = {
    "figure2": "Ours in colour, the paper's in grey; train is solid, test dashed, a band a standard error over seeds.",
    "figure3": "Solid is by quadrature, dotted by the paper's estimator; the paper's curves are grey. Where there are "
    "none of these, train is solid, test dashed.",
}
VERDICTS = "What became of the paper's curves: ours beside the paper's, in nats per datapoint."
EXPERIMENTS = f"{CAUSE}: the same curves under other settings, engines or lengths, and what comes of it."


def figure2(found: Found) -> list[b.Block]:
    """Return the section on the lower bound against points seen, ours over the paper's."""
    return [*_blocks(found, "figure2", FIGURE2, plots.figure2(found), findings.FIGURE2)]


def figure3(found: Found) -> list[b.Block]:
    """Return the section on log p(x) against points seen, ours over the paper's, and against the work it took."""
    return [*_blocks(found, "figure3", FIGURE3, plots.figure3(found), findings.FIGURE3)]


def _blocks(
    found: Found, figure: str, text: str, drawn: list[b.Figure], asked: Iterable[findings.Finding]
) -> Iterator[b.Block]:
    """Yield the section on a figure: its panels, what the rows say, verdicts, experiments, engines and commands."""
    folder = FIGURES[figure]
    yield b.Long([b.Paragraph(text)])
    if drawn:
        yield b.Figures(drawn, caption=CAPTIONS[figure])
    else:
        yield from b.not_run(f"python -m comparisons.{folder} --help")
    if said := [sentence for finding in asked for sentence in finding(found.rows)]:
        yield b.Long([b.Heading("What the rows say")])
        yield b.Items(said) if len(said) <= LEAD else b.Fold(f"{len(said)} findings", [b.Items(said)])
    yield from _verdicts(found, figure)
    yield from _status(found, figure, bool(drawn))
    if others := experiments(found, figure):
        head = ["ours, test", "paper", "panel", "method", "data", *JUDGED_BY[figure], "points seen", "ours - paper"]
        head += ["flagged", "settings", "engine", "step size", "seeds", "command"]
        yield b.Long([b.Heading(CAUSE)])
        yield b.Table(head, others, NUMBERS, caption=EXPERIMENTS)
    if worse := causes(found, figure):
        yield b.Short([b.Paragraph("Where ours is below the paper's or not trusted, and what is known there:")])
        summary = f"Below the paper, or not trusted, at {len(worse)} points of its curves: what is known there"
        yield b.Fold(summary, [b.Items(worse)])
    yield from _engines(found, figure)
    yield from made.blocks(_manifests(found, figure))
    if drawn:
        rows, table = b.Link(f"{folder}/rows.csv", "every row"), b.Link(f"{folder}/table.md", "all runs as a table")
        data = ("Data: ", rows, ", ", table, ", ", b.Link("verdicts.csv", "the verdicts"), ".")
        yield b.Long([b.Paragraph(data, "note")])


def _verdicts(found: Found, figure: str) -> Iterator[b.Block]:
    head = ["verdict", "ours", "paper", "panel", "method", "data", "split", *JUDGED_BY[figure], "points seen"]
    head += ["ours - paper", "flagged", "run", "step size", "seeds", "command"]
    mine = [v for v in found.verdicts if v.curve.figure == figure]
    test, train = (verdict_rows(v for v in mine if v.curve.split == split) for split in ("test", "train"))
    if test:
        yield b.Table(head, test, NUMBERS, caption=VERDICTS)
    if train:
        yield b.Long([b.Fold("The same on the training set", [b.Table(head, train, NUMBERS, caption=VERDICTS)])])
    if test:
        folder = FIGURES[figure]
        yield b.Paragraph(f"Nats per datapoint, higher is better. {answer.ERRORS} {answer.GREY_NOTE}", "note")
        links = b.Link(f"{folder}/rows.csv", "Every row"), ", ", b.Link(f"{folder}/table.md", "all runs"), "."
        yield b.Short([b.Paragraph(links)])


def _status(found: Found, figure: str, drawn: bool) -> Iterator[b.Block]:
    """Yield what became of runs: those that a bound contradicts, those that failed, and those that were not made."""
    rows = getattr(found.rows, figure)
    if (rows.status == "contradicted").any():
        yield b.Paragraph(outcomes.CONTRADICTED, "note")
    lost = outcomes.failures(rows)
    if lost:
        yield b.Fold(f"{len(lost)} runs failed", [b.Paragraph(outcomes.FAILED), b.Items(lost)])
    missing = gaps(v for v in found.verdicts if v.curve.figure == figure)
    if missing and drawn:
        yield b.Long([b.Fold(f"Not run: {len(missing)} panels have gaps", [b.Items(missing)])])


def _engines(found: Found, figure: str) -> Iterator[b.Block]:
    """Yield for each two engines how far they are apart, wherever several seeds of both were run."""
    differences = agreement(tables.summary(getattr(found.rows, figure)))
    for pair, compared in differences.groupby(PAIR, sort=False):
        one, other = (ENGINE_NAMES.get(name, name) for name in pair)
        text = (
            f"One program and one backend run on {one} and on {other}, from the same initial values, by other random "
            "numbers. Do they end at the same value, as far as seeds can tell? Nats per datapoint, ± is the standard "
            f"error over seeds. {verdict(compared)}"
        )
        yield b.Long([b.Heading("The two engines"), b.Paragraph(text)])
        yield b.Short([b.Paragraph(f"The two engines. {text}")])
        body = []
        for c in compared.itertuples():
            panel = [TITLES.get(c.data, c.data), f"{c.n_train:,}", count(c.samples), NAMES.get(c.backend, c.backend)]
            quantity = c.quantity.replace("log_px_", "log p(x), ").replace("lower_bound_", "lower bound, ")
            off = [f"{c.difference:+.2f} ± {c.stderr:.2f}", f"{c.z:+.1f}", str(c.seeds)]
            body.append([*panel, c.method or "defaults", quantity, *off])
        numbers = ["training points", f"{one} - {other}", "in standard errors", "runs"]
        head = ["data", numbers[0], "points seen", "method", "settings", "quantity", *numbers[1:]]
        yield b.Fold("Each difference", [b.Table(head, body, numbers, caption=f"{one} minus {other}, nats.")])


def verdict_rows(found: Iterable[Verdict]) -> list[list[b.Text]]:
    """Return the lines of a table of verdicts, of those points that were run."""
    body: list[list[b.Text]] = []
    for v in found:
        if v.point is None or v.configuration is None:
            continue
        error = v.point.stderr if v.point.seeds > 1 else np.nan
        ours = "diverged" if np.isnan(v.point.value) else tables.plus_minus(v.point.value, error)
        ours += outcomes.mark(v.point.contradicted)
        paper = "-" if np.isnan(v.paper) else f"{v.paper:.1f}"
        word = answer.word(words.said(v.word))
        run = f"{words.settings(v.configuration)}, {count(v.configuration.samples)} points"
        place = [panel_name(v.curve), NAMES[v.curve.backend], TITLES[v.curve.data], v.curve.split]
        place += [*_judge(v.curve, v.metric), count(v.n_seen)]
        made = [words.steps(v.point), str(v.point.seeds), v.point.command and b.Typed(v.point.command)]
        body.append([word, ours, paper, *place, difference(v), doubt(v.point), run, *made])
    return body


def _judge(curve: Curve, metric: str) -> list[str]:
    return [ESTIMATORS[metric]] if curve.figure == "figure3" else []


def doubt(point: Point) -> str:
    """Return what share of the datapoints the estimator itself does not trust, and nothing where it trusts all."""
    return f"{point.flagged:.0%}" if point.flagged >= 0.005 else ""


def difference(v: Verdict) -> str:
    """Return ours minus the paper's in nats, and for Frey Face as a share too."""
    if np.isnan(v.difference):
        return "-"
    share = f" ({v.difference / abs(v.paper):+.0%})" if v.curve.data == "frey" else ""
    return f"{v.difference:+.1f}{share}"


def gaps(found: Iterable[Verdict]) -> list[str]:
    """Return which points of which curves were not run, a line for each panel."""
    missing: dict[str, dict[str, list[str]]] = {}
    for v in found:
        if v.point is None and v.curve.split == "test":
            data = [TITLES[v.curve.data]] if v.curve.figure == "figure2" else []
            where = ", ".join([*data, panel_name(v.curve, "latent variables")])
            name = " by ".join([NAMES[v.curve.backend], *_judge(v.curve, v.metric)])
            missing.setdefault(where, {}).setdefault(name, []).append(count(v.n_seen))
    return [
        f"{where}: " + "; ".join(f"{name} at {' and '.join(stops)} points" for name, stops in names.items())
        for where, names in missing.items()
    ]


def experiments(found: Found, figure: str) -> list[list[b.Text]]:
    """Return a line for each run of a curve of the paper, on test, that does not stand for it: what it changes."""
    rows = getattr(found.rows, figure)
    body: list[list[b.Text]] = []
    for curve in verdicts.in_order(c for c in curves() if c.figure == figure and c.split == "test"):
        for metric in METRICS[figure]:
            ours = runs.line(rows, curve, metric)
            chosen = runs.stands(ours)
            for other, along in runs.each(ours):
                if other == chosen or not along:
                    continue
                end = along[-1]
                paper = value_at(curve, end.n_seen)
                off = "-" if np.isnan(end.value - paper) else f"{end.value - paper:+.1f}"
                there = "-" if np.isnan(paper) else f"{paper:.1f}"
                place = [panel_name(curve), NAMES[curve.backend], TITLES[curve.data], *_judge(curve, metric)]
                run = [other.method or "defaults", other.engine, words.steps(end), str(end.seeds)]
                made = end.command and b.Typed(end.command)
                body.append([number(end), there, *place, count(end.n_seen), off, doubt(end), *run, made])
    return body


def causes(found: Found, figure: str) -> list[str]:
    """Return a line for each point that is below the paper's or not trusted: what experiments say, best first.

    Compared are runs of the same panel, backend, split and estimator, judged after the same number of points; and
    for the paper's estimator what quadrature says of the same runs.
    """
    rows = getattr(found.rows, figure)
    lines = []
    for v in found.verdicts:
        if v.word not in (BELOW, "not trusted") or v.point is None or v.curve.figure != figure:
            continue
        tried = []
        for other, along in runs.each(runs.line(rows, v.curve, v.metric)):
            near = runs.near(along, v.n_seen)
            if other != v.configuration and near and not np.isnan(near.value):
                tried.append((near, other))
        tried.sort(key=lambda one: (-one[0].value, one[1]))
        each = "; ".join(
            f"{number(point)} ({_judged(v, point)}) with {words.settings(other)}, step size {words.steps(point)}"
            for point, other in tried
        )
        c, by = v.curve, [f" by {judge}" for judge in _judge(v.curve, v.metric)]
        lines.append(
            f"{TITLES[c.data]}, {panel_name(c, 'latent variables')}, {NAMES[c.backend]} on {c.split}{''.join(by)} at "
            f"{count(v.n_seen)} points: {difference(v)} with step size {words.steps(v.point)}. "
            + _by_quadrature(rows, v)
            + (f"At the same points seen: {each}." if tried else "No other run was judged there.")
        )
    return lines


def _judged(v: Verdict, point: Point) -> str:
    return verdicts.judged(v.curve.data, point.value - v.paper, v.paper)


def _by_quadrature(rows: pd.DataFrame, v: Verdict) -> str:
    """Say how far the paper's estimator is from the truth for the runs of a verdict; nothing of another metric."""
    if v.metric != PAPERS or v.configuration is None or v.point is None:
        return ""
    for truth in runs.points(runs.of(runs.line(rows, v.curve, TRUTH), v.configuration)):
        if truth.n_seen == v.point.n_seen and not np.isnan(truth.value):
            trust = f", and flags {v.point.flagged:.0%} of the datapoints" if doubt(v.point) else ""
            return (
                f"By quadrature the same runs are at {number(truth)} ({_judged(v, truth)}): "
                f"the estimator is {v.point.value - truth.value:+.1f} off{trust}. "
            )
    return ""


def _manifests(found: Found, figure: str) -> list[dict[str, Any]]:
    """Return the manifests of a figure's cells."""
    if figure == "figure2":
        panels = [part for _, _, part in runs.figure2_panels(found.rows.figure2)]
    else:
        panels = [runs.figure3_panel(found.rows.figure3, n_train) for n_train in runs.SIZES]
    manifests = found.manifests[figure]
    return [manifests[cell] for cell in {cell for part in panels for cell in part.cell} if cell in manifests]
