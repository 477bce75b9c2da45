"""Rows to figures: learning curves as SVG, the same bytes for the same rows."""

import textwrap
from typing import Any

import pandas as pd

from comparisons.reporting import drawing, outcomes
from comparisons.reporting.standings import BOUND, CELL, EVIDENCE
from comparisons.reporting.tables import note, summary
from comparisons.runner.rows import PANEL

QUANTITIES = ("lower bound", "log p(x)")


def learning_curves(rows: pd.DataFrame) -> str:
    """Draw lower bound and log p(x) against points seen: train solid, test dashed, one colour a backend.

    A marker tells the engine; with several seeds a band shows one standard error over them. Returns SVG.
    """
    rows = outcomes.drawable(rows, CELL)
    rows = rows.assign(quantity=_quantity(rows))
    panels = list(rows.groupby(PANEL, sort=True))
    quantities = [name for name in QUANTITIES if rows.quantity.eq(name).any()]
    size = (4.6 * max(1, len(quantities)) + 1.6, 3.3 * max(1, len(panels)) + 0.5)

    def draw(figure: Any) -> None:
        axes = figure.subplots(max(1, len(panels)), max(1, len(quantities)), squeeze=False)
        for line_of_axes, (key, panel) in zip(axes, panels, strict=False):
            for axis, quantity in zip(line_of_axes, quantities, strict=True):
                shown = panel[panel.quantity == quantity]
                if shown.empty:  # a quantity that other panels have
                    axis.set_visible(False)
                    continue
                _draw(axis, shown)
                drawing.name_panel(axis, dict(zip(PANEL, key, strict=True)), quantity)
                _limit(axis, shown)
        figure.legend(handles=_keys(rows), loc="outside right upper", frameon=False)
        if len(rows):
            notes = {note(group, key[0]) for key, group in summary(rows).groupby(PANEL)}
            lines = [line for n in sorted(notes) for line in textwrap.wrap(n.strip(), int(17 * size[0]))]
            figure.supxlabel("\n".join(lines), fontsize=7, color="0.35")

    return drawing.svg(size, draw)


def _draw(axis: Any, shown: pd.DataFrame) -> None:
    """Draw the curves of one quantity of one panel, and mark the stops that a bound contradicts."""
    several = shown.groupby("backend").method.nunique() > 1
    colours = drawing.colours(shown.backend)
    for (backend, method, engine, split), part in shown.groupby(["backend", "method", "engine", "split"]):
        look = {"linestyle": drawing.DASHES[split], "marker": drawing.marker(engine), "markersize": 4}
        mean = drawing.over_seeds(axis, part, colours[backend], linewidth=1.3, alpha=0.9, **look)
        doubted = mean[part[part.status == "contradicted"].n_seen.unique()]
        axis.plot(doubted.index, doubted.to_numpy(), "D", color="#b00020", markersize=9, fillstyle="none")
        if several[backend] and split == "test":  # one colour for all: say which is which
            end, look = (mean.index[-1], mean.iloc[-1]), {"color": colours[backend], "annotation_clip": True}
            text = axis.annotate(method or "defaults", end, (4, -2), fontsize=6, textcoords="offset points", **look)
            text.set_in_layout(False)  # a long one would leave no room for the curves


def _keys(rows: pd.DataFrame) -> list[Any]:
    colours = drawing.colours(rows.backend)
    engine = {"color": "0.3", "linestyle": "", "markersize": 4}
    return [
        *(drawing.key(name, color=colours[name]) for name in sorted(rows.backend.unique())),
        *drawing.split_keys(),
        *(drawing.key(name, marker=drawing.marker(name), **engine) for name in sorted(rows.engine.unique())),
    ]


def _quantity(rows: pd.DataFrame) -> pd.Series:
    """Say what each row is drawn as; of several estimators of one fit, the most exact alone is drawn."""
    rank = {metric: place for place, metric in enumerate(EVIDENCE)}
    places = rows.metric.map(rank)
    best = places.groupby([rows.cell, rows.n_seen, rows.split]).transform("min")
    return (
        rows.metric.eq(BOUND).map({True: "lower bound", False: ""}).where(places.isna() | (places != best), "log p(x)")
    )


def _limit(axis: Any, shown: pd.DataFrame) -> None:
    """Keep the axis to where most runs end, off the first steep stretch and off a run that has gone astray."""
    ends = shown[shown.n_seen == shown.groupby("cell").n_seen.transform("max")].value
    top, usual = shown.value.max(), ends.quantile(0.25)
    span = max(top - usual, 0.02 * abs(top), 0.1)
    axis.set_ylim(max(shown.value.min() - 0.1 * span, usual - 3 * span), top + 0.2 * span)
