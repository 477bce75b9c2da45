"""The paper's figures with its own curves in grey behind ours: rows to SVG, the same bytes for the same rows.

Each panel is a figure of its own, narrow enough to be read on a phone. Train is solid, test is dashed; a band is the
standard error over seeds.
"""

from collections.abc import Iterable
from itertools import cycle, product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from comparisons.paper import runs
from comparisons.paper.curves import Curve
from comparisons.paper.runs import PAPERS, TRUTH, Point
from comparisons.paper.verdicts import JUDGED, NATS, TRUSTED, Verdict
from comparisons.paper.words import NAMES, panel_name, said
from comparisons.reporting import drawing
from comparisons.reporting.blocks import Figure
from comparisons.reporting.drawing import key, svg

SIZE = (4.0, 3.6)  # inches: at 96 pixels each about the width of a phone
STYLE = {
    **{"text.parse_math": False, "savefig.facecolor": "white", "legend.fontsize": 10, "font.size": 11},
    **{"axes.titlesize": 11.5, "axes.labelsize": 11, "xtick.labelsize": 10.5, "ytick.labelsize": 10.5},
    **{"axes.axisbelow": True, "axes.grid": True, "grid.color": "0.92"},
}
GREYS = {"aevb": "0.35", "wake_sleep": "0.6", "monte_carlo_em": "0.5"}  # of the paper's curves
DASHES: dict[str, Any] = {"train": "-", "test": (0, (4, 2)), TRUTH: "-", PAPERS: (0, (1, 1.4))}
COLOURS = (drawing.BLUE, drawing.VERMILION, drawing.GREEN, drawing.PURPLE, *drawing.OTHERS)
SEVERAL = ("-", (0, (5, 2)), (0, (1, 1.4)))  # dashes where there are more curves than colours
SHORT = {"monte_carlo_em": "MC EM"}  # where there is little room
AXES = {"n_seen": "training points seen", "decoder_evals": "decoder evaluations", "seconds": "seconds of training"}


class Line(NamedTuple):
    """One of our curves: x and its points, in a backend's colour."""

    x: np.ndarray
    points: list[Point]
    backend: str
    dash: str  # a key of DASHES


def lines(part: pd.DataFrame, metrics: Iterable[str], splits: Iterable[str], x: str, by: str = "split") -> list[Line]:
    """Return the main configuration's curves of every backend: `x` names the column, `by` what a dash tells apart.

    x is averaged over seeds; points where a seed has diverged are left out.
    """
    found = []
    for backend, split, metric in product(sorted(part.backend.unique()), splits, metrics):
        ours = runs.standing(part, backend, split, metric)
        kept = [point for point in runs.points(ours) if np.isfinite(point.value)]
        if kept:
            at = ours.groupby("n_seen")[x].mean()[[point.n_seen for point in kept]].to_numpy(float)
            found.append(Line(at, kept, str(backend), split if by == "split" else metric))
    return found


def plot(name: str, alt: str, svg: str) -> Figure:
    """Return a drawing as a figure of the report's own."""
    return Figure(svg.encode(), f"figures/{name}.svg", alt)


def panel(ours: list[Line], papers: list[Curve], title: str, x: str, labels: dict[str, str], quantity: str) -> str:
    """Draw one panel: our curves over the paper's. `labels` says what each dash means. Returns SVG."""
    names = {line.backend for line in ours}
    ordered = [*(name for name in NAMES if name in names), *sorted(names - {*NAMES})]  # the paper's first, in its order
    colours = {name: drawing.colours(names)[name] for name in ordered}

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        for curve in papers:
            dash = DASHES[curve.split] if curve.split in labels else "-"
            axis.plot(curve.n_seen, curve.value, linestyle=dash, color=GREYS[curve.backend], linewidth=1.0, zorder=1.5)
        for line in ours:
            _curve(axis, line, colours[line.backend], DASHES[line.dash])
            y, spread, seeds = np.array([(p.value, p.stderr, p.seeds) for p in line.points]).T
            if (seeds > 1).any() and _trusted(line):
                look = {"color": colours[line.backend], "alpha": 0.15, "lw": 0}
                axis.fill_between(line.x, y - spread, y + spread, where=seeds > 1, **look)
        _axes(axis, ours, papers, title, x, quantity)
        _name(axis, papers)
        handles = [key(_label(backend), color=colour, lw=2) for backend, colour in colours.items()]
        handles += [key(text, color="0.2", lw=1.4, linestyle=DASHES[dash]) for dash, text in labels.items()]
        handles += [key("the paper", color="0.5", lw=1.0)] if papers else []
        _legend(figure, handles, handlelength=1.5)

    return svg(SIZE, draw, STYLE)


def several(ours: list[tuple[str, Line]], papers: list[Curve], title: str, x: str) -> str:
    """Draw named curves of one backend, each in its own colour and dash, over the paper's. Returns SVG."""

    def draw(figure: Any) -> None:
        axis, handles = figure.subplots(), []
        for curve in papers:
            look: dict[str, Any] = {"color": GREYS[curve.backend], "linewidth": 1.6}
            axis.plot(curve.n_seen, curve.value, zorder=1.5, **look)
            handles.append(key("the paper", **look))
        for (label, line), (dash, colour) in zip(ours, cycle(product(SEVERAL, COLOURS)), strict=False):
            _curve(axis, line, colour, dash)
            handles.append(key(label, color=colour, linestyle=dash, lw=2))
        _axes(axis, [line for _, line in ours], papers, title, x, "log p(x)")
        figure.legend(handles=handles, loc="outside lower left", ncols=1, frameon=False, handlelength=1.5, fontsize=9)

    lines = 1 + sum(1 + label.count("\n") for label, _ in ours)
    return svg((SIZE[0], SIZE[1] + 0.18 * lines), draw, STYLE)


def overview(found: list[Verdict]) -> str:
    """Draw, for each of the paper's curves, how far ours is from it at the furthest point that both have.

    A filled mark is test, a hollow one train; a diamond is log p(x) by the paper's own estimator. Returns SVG.
    """
    groups = [
        ("Figure 2, MNIST: lower bound", "nats", [v for v in found if v.curve[:2] == ("figure2", "mnist")]),
        ("Figure 2, Frey Face: lower bound", "%", [v for v in found if v.curve[:2] == ("figure2", "frey")]),
        ("Figure 3, MNIST: log p(x)", "nats", [v for v in found if v.curve.figure == "figure3"]),
    ]
    heights = [len({_row(v) for v in group}) + 2.2 for _, _, group in groups]

    def draw(figure: Any) -> None:
        axes = figure.subplots(len(groups), gridspec_kw={"height_ratios": heights})
        for axis, (title, unit, group) in zip(axes, groups, strict=True):
            _differences(axis, title, unit, group)
        figure.get_layout_engine().set(h_pad=0.12)
        mark: dict[str, Any] = {"color": "0.25", "linestyle": "", "markersize": 6}
        handles = [key("test", marker="o", **mark), key("train", marker="o", markerfacecolor="white", **mark)]
        if any(v.metric == PAPERS for v in furthest(found)):
            handles.append(key("appendix D", marker="D", **mark))
        _legend(figure, handles, handletextpad=0.2)

    return svg((4.2, 0.28 * sum(heights)), draw, STYLE)


def _curve(axis: Any, line: Line, colour: str, dash: Any) -> None:
    y = [point.value for point in line.points]
    axis.plot(line.x, y, linestyle=dash, color=colour, linewidth=2.0, marker="o", markersize=3.5, zorder=3)


def _legend(figure: Any, handles: list[Any], **spacing: float) -> None:
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, columnspacing=1.0, **spacing)


def _differences(axis: Any, title: str, unit: str, group: list[Verdict]) -> None:
    """Draw one block of the overview: a line for each curve, its difference from the paper along x."""
    rows = list(dict.fromkeys(_row(v) for v in group))
    band = NATS["mnist"] if unit == "nats" else 5.0
    edge = 5 * band if unit == "nats" else 8 * band
    axis.axvspan(-band, band, color="0.9", lw=0)
    axis.axvline(0, color="0.55", lw=1)
    last = furthest(group)
    for v in last:
        place = len(rows) - 1 - rows.index(_row(v))
        size = v.difference if unit == "nats" else 100 * v.difference / abs(v.paper)
        size = size if np.isfinite(size) else -np.inf  # diverged
        beyond = abs(size) > edge
        colour = drawing.OF_BACKENDS[v.curve.backend]
        marker = (">" if size > 0 else "<") if beyond else "D" if v.metric == PAPERS else "o"
        look = {"color": colour, "markerfacecolor": colour if v.curve.split == "test" else "white", "markersize": 6.5}
        axis.plot(np.clip(size, -edge, edge), place, marker, zorder=3, clip_on=False, **look)
    for row in rows:
        if row not in map(_row, last):
            words = {v.word for v in group if _row(v) == row}
            word = said(next((w for w in ("not trusted", "no curve") if w in words), "not run"))
            axis.text(0, len(rows) - 1 - rows.index(row), word, color="0.4", ha="center", va="center", fontsize=9.5)
    axis.set_yticks(range(len(rows)), [f"{row[0]}, {row[1]}" for row in reversed(rows)])
    axis.set_ylim(-0.7, len(rows) - 0.3)
    axis.set_xlim(-1.05 * edge, 1.05 * edge)
    axis.set_title(title, loc="right")
    axis.set_xlabel(f"ours minus the paper's [{unit}]")
    axis.tick_params(axis="y", length=0)
    axis.grid(visible=False, axis="y")
    axis.spines["left"].set_visible(False)


def furthest(group: list[Verdict]) -> list[Verdict]:
    """Return, for each curve and estimator, the verdict at the most points seen that could be given."""
    last: dict[Any, Verdict] = {}
    for v in group:
        which = v.curve[:6], v.metric
        if v.word in JUDGED and (which not in last or v.n_seen >= last[which].n_seen):
            last[which] = v
    return list(last.values())


def _row(v: Verdict) -> tuple[str, str]:
    return panel_name(v.curve), _label(v.curve.backend)


def _axes(axis: Any, ours: list[Line], papers: list[Curve], title: str, x: str, quantity: str) -> None:
    ends = [line.x[-1] for line in ours] + [curve.n_seen[-1] for curve in papers]
    starts = [line.x[0] for line in ours] + ([1e5] if papers else [])
    left, right = min(starts, default=1e5), max(ends, default=1e6)
    drawing.logarithmic(axis)
    # Room on the right for the names of the paper's curves.
    axis.set_xlim(0.85 * left, right * (right / left) ** (0.3 if papers else 0.05))
    axis.set_ylim(*_limits(ours, papers))
    if any(not _trusted(line) and line.points[-1].value < axis.get_ylim()[0] for line in ours):
        aside = {"transform": axis.transAxes, "ha": "right", "color": "0.4", "fontsize": 9.5}
        axis.text(0.98, 0.03, "appendix D: below, flagged", **aside)
    axis.set_title(title, loc="left")
    axis.set_xlabel(AXES[x])
    axis.set_ylabel(f"{quantity} [nats]")


def _limits(ours: list[Line], papers: list[Curve]) -> tuple[float, float]:
    """Return the y axis: all of the paper's curves and of ours, but not the first steep stretch of either.

    Ours are those that their estimator trusts.
    """
    ours = [line for line in ours if _trusted(line)] or ours
    late = [v for c in papers for n, v in zip(c.n_seen, c.value, strict=True) if n >= min(7e5, c.n_seen[-1])]
    late += [p.value for line in ours for p in line.points[len(line.points) // 2 :]]
    tops = [p.value + (p.stderr if p.seeds > 1 else 0.0) for line in ours for p in line.points]
    top = max(tops + late, default=0.0)
    usual = float(np.quantile(late, 0.05)) if late else -1.0
    span = max(top - usual, 0.02 * abs(top), 0.1)
    # A run that has gone astray may leave the panel.
    return max(min(late, default=usual) - 0.05 * span, usual - 0.5 * span), top + 0.08 * span


def _trusted(line: Line) -> bool:
    return all(point.flagged <= TRUSTED for point in line.points)


def _name(axis: Any, papers: list[Curve]) -> None:
    """Write the name of each of the paper's curves at its end, clear of the others."""
    low, high = axis.get_ylim()
    right = max((curve.n_seen[-1] for curve in papers), default=1.0)
    ends: dict[str, list[float]] = {}
    for curve in papers:
        ends.setdefault(curve.backend, []).append(float(curve.value[-1]))
    placed = -np.inf
    for backend, values in sorted(ends.items(), key=lambda item: float(np.mean(item[1]))):
        place = max(float(np.mean(values)), placed + 0.075 * (high - low))
        look = {"fontsize": 9.5, "color": "0.4", "va": "center"}
        axis.annotate(_label(backend), (right, place), (4, 0), textcoords="offset points", **look)
        placed = place


def _label(backend: str) -> str:
    return SHORT.get(backend) or NAMES.get(backend, backend.lstrip("_") or "-")
