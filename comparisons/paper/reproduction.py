"""What the report says of the paper: rows, verdicts and files to plots, tables and sentences, for any page."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from comparisons.data import GREY
from comparisons.paper import reproduction_figures as figures
from comparisons.paper.curves import WHOLE, curves, value_at
from comparisons.paper.findings import Rows
from comparisons.paper.verdicts import (
    ESTIMATORS,
    JUDGED,
    METRICS,
    MODEL_OF,
    NAMES,
    PAPERS,
    TITLES,
    TRUSTED,
    TRUTH,
    Claim,
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
)  # fmt: skip
from comparisons.reporting import outcomes, tables
from comparisons.reporting.agreement import agreement, verdict

SIZES = (1000, 50_000)  # training points of Figure 3
SPLITS = {"train": "train", "test": "test"}
VERSIONS = ("numpyro", "jax", "pyro-ppl", "torch", "numpy")


class Plot(NamedTuple):
    """A figure: its file's name without suffix, what it shows in words, and its SVG."""

    name: str
    alt: str
    svg: str


class Extra(NamedTuple):
    """What another comparison left: its table.md, its figure.svg where it has one, and its manifests."""

    markdown: str
    figure: bytes
    manifests: list[dict[str, Any]]


class Found(NamedTuple):
    """Everything that the reports' folder holds, and what follows from it."""

    figure2: pd.DataFrame
    figure3: pd.DataFrame
    manifests: dict[str, dict[str, dict[str, Any]]]  # figure -> cell -> manifest
    verdicts: list[Verdict]
    claims: list[Claim]
    sheets: dict[str, list[tuple[Path, dict[str, Any]]]]  # manifold, samples
    extras: dict[str, Extra]
    rows: Rows  # those of every comparison: what findings are worked out from


class Made(NamedTuple):
    """How numbers came about: the exact command, and where it ran."""

    command: str
    commit: str
    where: str


# Plots


def answer(found: Found) -> Plot:
    """Return the one figure: ours minus the paper's for each of its curves."""
    words = {word: sum(v.word == word for v in furthest(found.verdicts)) for word in JUDGED}
    alt = (
        "The difference between ours and the paper's value for each curve of Figures 2 and 3, at the most points seen "
        f"that both have: {words['reproduced']} reproduced, {words['better']} better, {words['worse']} worse."
    )
    return Plot("overview", alt, figures.overview(found.verdicts))


def figure2(found: Found) -> list[Plot]:
    """Return a plot for each panel of Figure 2 that was run: the lower bound against points seen."""
    plots = []
    for data in MODEL_OF:
        for k in sorted(int(k) for k in found.figure2[found.figure2.data == data].n_latent.unique()):
            part = panel(found.figure2, "figure2", data, k, WHOLE[data])
            ours = figures.lines(part, ["elbo_nats"], SPLITS, "n_seen")
            papers = [c for c in curves() if c[:3] == ("figure2", data, k)]
            if not ours:
                continue
            title = f"{TITLES[data]}, {k} latent variables"
            alt = f"{title}: lower bound against training points seen. {_told(ours)} {_papers(papers, ours)}".strip()
            svg = figures.panel(ours, papers, title, "n_seen", SPLITS, "lower bound")
            plots.append(Plot(f"figure2-{data}-{k}", alt, svg))
    return plots


def figure3(found: Found) -> list[Plot]:
    """Return the plots of Figure 3 that were run: log p(x) against points seen, decoder evaluations and seconds."""
    plots = []
    for n in SIZES:
        part = panel(found.figure3, "figure3", "mnist", 3, n)
        for split in ("test", "train"):
            ours = figures.lines(part, ESTIMATORS, [split], "n_seen", "metric")
            papers = [c for c in curves() if c.figure == "figure3" and (c.n_train, c.split) == (n, split)]
            if ours:
                title = f"N = {n:,}, {split}"
                alt = f"{title}: log p(x) against training points seen. {_told(ours)} {_papers(papers, ours)}".strip()
                labels = {TRUTH: "quadrature", PAPERS: "appendix D"}
                labels = {metric: text for metric, text in labels.items() if metric in {one.dash for one in ours}}
                svg = figures.panel(ours, papers, title, "n_seen", labels, "log p(x)")
                plots.append(Plot(f"figure3-{n}-{split}", alt, svg))
        for x in ("decoder_evals", "seconds"):
            ours = figures.lines(part, [TRUTH], SPLITS, x)
            if ours:
                title = f"N = {n:,}"
                alt = f"{title}: log p(x) by quadrature against {figures.AXES[x]}. {_told(ours)}"
                plots.append(
                    Plot(f"figure3-{n}-{x}", alt, figures.panel(ours, [], title, x, SPLITS, "log p(x)"))
                )  # fmt: skip
    return plots


def _told(ours: list[figures.Line]) -> str:
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


# Tables


def furthest(found: Iterable[Verdict]) -> list[Verdict]:
    """Return the last judged verdict of each curve and estimator."""
    return figures.furthest(list(found))


def verdict_rows(found: Iterable[Verdict]) -> list[list[str]]:
    """Return the lines of a table of verdicts, of those points that were run."""
    body = []
    for v in found:
        if v.point is None or v.configuration is None:
            continue
        c = v.curve
        by = [] if c.figure == "figure2" else [ESTIMATORS[v.metric]]
        ours = "diverged" if np.isnan(v.point.value) else f"{v.point.value:.2f} ± {_error(v.point.error)}"
        ours += outcomes.mark(v.point.contradicted) + doubt(v.point)
        paper = "-" if np.isnan(v.paper) else f"{v.paper:.1f}"
        body.append(
            [TITLES[c.data], panel_name(c), NAMES[c.backend], c.split, *by, count(v.n_seen), ours, paper, difference(v),
             said(v.word), run_of(v.configuration), steps(v.point), str(v.point.seeds)]
        )  # fmt: skip
    return body


def verdict_head(figure: str) -> list[str]:
    """Return the head of that table."""
    by = [] if figure == "figure2" else ["judged by"]
    return ["data", "panel", "method", "split", *by, "points seen", "ours", "paper", "ours - paper", "verdict", "run",
            "step size", "seeds"]  # fmt: skip


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


def not_run(found: Iterable[Verdict]) -> list[str]:
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
    rows = found.figure2 if figure == "figure2" else found.figure3
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
                body.append(
                    [TITLES[curve.data], panel_name(curve), NAMES[curve.backend], *by, other.method or "defaults",
                     other.engine, count(end.n_seen), number(end) + doubt(end),
                     "-" if np.isnan(paper) else f"{paper:.1f}", off, steps(end), str(end.seeds)]
                )  # fmt: skip
    return body


def failed(found: Found, figure: str) -> list[str]:
    """Return a line for each run of a figure's data that failed, with the reason where its manifest has one."""
    rows = found.figure2 if figure == "figure2" else found.figure3
    manifests = found.manifests.get(figure, {})
    return outcomes.failures(rows, {cell: str(facts.get("reason", "")) for cell, facts in manifests.items()})


def contradicted(found: Found, figure: str) -> bool:
    """Say whether a bound contradicts any number of a figure, so that its page owes the mark's meaning."""
    rows = found.figure2 if figure == "figure2" else found.figure3
    return bool((rows.status == "contradicted").any())


def experiment_head(figure: str) -> list[str]:
    """Return the head of that table."""
    by = [] if figure == "figure2" else ["judged by"]
    return ["data", "panel", "method", *by, "settings", "engine", "points seen", "ours, test", "paper", "ours - paper",
            "step size", "seeds"]  # fmt: skip


def engines(found: Found, figure: str) -> tuple[str, list[list[str]]]:
    """Return a sentence and the lines of a table: numpyro minus pyro, wherever several seeds of both were run."""
    rows = found.figure2 if figure == "figure2" else found.figure3
    compared = agreement(tables.summary(rows))
    body = [
        [TITLES.get(c.data, c.data), f"{c.n_train:,}", count(c.samples), NAMES.get(c.backend, c.backend),
         c.method or "defaults", _quantity(c.quantity), f"{c.difference:+.2f} ± {c.stderr:.2f}", f"{c.z:+.1f}",
         str(c.seeds)]
        for c in compared.itertuples()
    ]  # fmt: skip
    return verdict(compared) if body else "", body


ENGINES_HEAD = ["data", "training points", "points seen", "method", "settings", "quantity", "NumPyro - Pyro",
                "in standard errors", "runs"]  # fmt: skip


def _quantity(column: str) -> str:
    """Return what a column of a summary holds, as people read it."""
    name, _, split = column.rpartition("_")
    return f"{'log p(x)' if name == 'log_px' else 'lower bound'}, {split}"


def causes(found: Found, figure: str) -> list[str]:
    """Return a line for each point that is worse than the paper's or not trusted: what experiments say, best first.

    Compared are runs of the same panel, backend, split and estimator, judged after the same number of points; and
    for the paper's estimator what quadrature says of the same runs.
    """
    rows = found.figure2 if figure == "figure2" else found.figure3
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


def summary(found: Found) -> str:
    """Return in a sentence how many of the paper's curves are reproduced."""
    last = furthest(found.verdicts)
    curves_of = {(v.curve[:6], v.metric) for v in found.verdicts}
    if not last:
        return "None of the paper's curves has been run yet."
    counts = ", ".join(f"{sum(v.word == w for v in last)} {w}" for w in JUDGED)
    doubted = {(v.curve[:6], v.metric) for v in found.verdicts if v.word == "not trusted"}
    doubted -= {(v.curve[:6], v.metric) for v in last}
    rest = len(curves_of) - len(last) - len(doubted)
    against = any(v.point and v.point.contradicted for v in found.verdicts)
    why = "flags its own result, or a bound contradicts it" if against else "flags its own result"
    others = f" In {len(doubted)} more the estimator {why}." if doubted else ""
    others += f" {rest} more have not been run, or not as far as the paper's axes begin." if rest else ""
    return (
        f"Of {len(curves_of)} comparisons, one for each curve of Figures 2 and 3 and each estimator, {len(last)} "
        f"can be made: {counts}.{others}"
    )


ENGINES = (
    "One program and one backend run on NumPyro and on Pyro, from the same initial values, by other random numbers. Do "
    "they end at the same value, as far as seeds can tell? Nats per datapoint, ± is the standard error over seeds."
)
TOLERANCE = (
    "Reproduced means within 2 nats on MNIST and within 5 % on Frey Face, of the paper's curve at the same number of "
    f"training points seen. Where an estimator flags over {TRUSTED:.0%} of its datapoints no verdict rests on it."
)
ERRORS = (
    "± is the standard deviation over seeds: what a single run, such as the paper's, scatters by. For one seed it is "
    "the estimator's own standard error."
)
GREY_NOTE = f"Every number on MNIST is a {GREY}, as in the paper."


# Where numbers come from


def made(manifests: Iterable[dict[str, Any]]) -> list[Made]:
    """Return each command that made some numbers once, with the commit, the versions and the machine."""
    found: dict[Made, None] = {}
    for manifest in manifests:
        versions = manifest.get("versions") or {}
        settings = manifest.get("settings") or {}
        shown = ", ".join(f"{name} {versions[name]}" for name in VERSIONS if name in versions)
        device = f", {settings['device']}" if "device" in settings else ""
        where = f"Python {manifest.get('python', '?')}, {shown}; {manifest.get('processor', '?')}{device}"
        one = Made(str(manifest.get("command", "?")), str(manifest.get("commit", "?"))[:12], where)
        found[one] = None
    return sorted(found)


def made_by(found: Found, figure: str) -> list[Made]:
    """Return the commands behind a figure's cells."""
    rows = found.figure2 if figure == "figure2" else found.figure3
    parts = (
        [panel(rows, figure, data, int(k), WHOLE[data]) for data in MODEL_OF for k in sorted(rows.n_latent.unique())]
        if figure == "figure2"
        else [panel(rows, figure, "mnist", 3, n) for n in SIZES]
    )
    cells = sorted({cell for part in parts for cell in part.cell.unique()})
    manifests = found.manifests.get(figure, {})
    return made(manifests[cell] for cell in cells if cell in manifests)


def _error(error: float) -> str:
    return f"{error:.2f}" if error >= 0.005 else f"{error:.0e}"
