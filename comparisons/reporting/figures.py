"""Rows to figures: learning curves as SVG, the same bytes for the same rows."""

import textwrap
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from comparisons.reporting import drawing, outcomes
from comparisons.reporting.standings import BOUND, CELL, EVIDENCE
from comparisons.reporting.tables import note, summary
from comparisons.runner.rows import PANEL

QUANTITIES = ("lower bound", "log p(x)")
ACROSS = 6  # panels beside one another, where there are many
WIDE, HIGH = 3.6, 2.8  # inches of a panel
OVER, ASIDE = 54, 30  # characters of a line over a panel, and of one in the legend
FURTHER = {"model": "{}", "samples": "{:,} points"}  # what a panel's name says where panels differ in it
NAMED = 3  # curves that leave a panel, by name
STYLE = {"font.size": 8, "axes.titlesize": 8, "legend.fontsize": 8}
Curves = dict[tuple[str, ...], pd.Series]  # (backend, method, engine, split) -> the mean over seeds by points seen


def learning_curves(
    rows: pd.DataFrame, table: pd.DataFrame | None = None, finish: Callable[..., Any] | None = None
) -> Any:
    """Draw lower bound and log p(x) against points seen: train solid, test dashed, one colour a backend.

    A marker tells the engine, a number at a curve's end its settings; with several seeds a band shows one standard
    error over them. A curve that ends far from the others leaves its panel, and is named over it. `table` is
    `tables.summary` of the rows, if it is known already. Returns SVG, or what else of `drawing` is to `finish` it.
    """
    lost = rows[rows.status == "diverged"]
    notes = {note(group, key[0]) for key, group in (summary(rows) if table is None else table).groupby(PANEL)}
    rows = outcomes.drawable(rows, CELL)
    rows = rows.assign(quantity=_quantity(rows))
    panels = list(rows.groupby(PANEL, sort=True))
    quantities = [name for name in QUANTITIES if rows.quantity.eq(name).any()] or [""]
    several = [(name, form) for name, form in FURTHER.items() if rows[name].nunique() > 1]
    numbers = {name: str(i) for i, name in enumerate(sorted({*rows.method}), 1)} if rows.method.nunique() > 1 else {}
    keys, places = _keys(rows, numbers), [(*panel, name) for panel in panels for name in quantities]
    across = len(quantities) * max(1, min(ACROSS // len(quantities), round(len(panels) ** 0.5)))
    down = max(1, -(-len(places) // across))
    width = WIDE * across + 2.4
    lines = [line for one in sorted(notes) for line in textwrap.wrap(one.strip(), int(17 * width))]
    legend = sum(0.22 + 0.14 * key.get_label().count("\n") for key in keys)
    size = (width, 0.4 + 0.13 * len(lines) + max(HIGH * down, legend))

    def draw(figure: Any) -> None:
        axes = figure.subplots(down, across, squeeze=False).flat
        for axis, (key, panel, quantity) in zip(axes, places, strict=False):
            shown = panel[panel.quantity == quantity]
            if shown.empty:  # a quantity that other panels have
                continue
            curves = _draw(axis, shown)
            drawing.name_panel(axis, dict(zip(PANEL, key, strict=True)), quantity)
            gone = {*zip(*(lost[(lost[PANEL] == list(key)).all(axis=1)][name] for name in CELL[-3:-1]), strict=True)}
            words = [", ".join([axis.get_title(), *(form.format(panel[name].iloc[0]) for name, form in several)])]
            words += _limit(axis, curves, numbers)
            words += _listed("diverged", (_name(backend, method, numbers) for backend, method in gone))
            axis.set_title("\n".join(line for one in words for line in textwrap.wrap(one, OVER)))
            _number(axis, curves, numbers)
        for axis in figure.axes:
            axis.set_visible(axis.has_data())
        figure.legend(handles=keys, loc="outside right upper", frameon=False)
        figure.supxlabel("\n".join(lines), fontsize=7, color="0.35")

    return (finish or drawing.svg)(size, draw, STYLE)


def _draw(axis: Any, shown: pd.DataFrame) -> Curves:
    """Draw the curves of one quantity of one panel, and mark the stops that a bound contradicts. Return the curves."""
    colours = drawing.colours(shown.backend)
    curves: Curves = {}
    for (backend, method, engine, split), part in shown.groupby(["backend", "method", "engine", "split"]):
        look = {"linestyle": drawing.DASHES[split], "marker": drawing.marker(engine), "markersize": 4}
        mean = drawing.over_seeds(axis, part, colours[backend], linewidth=1.3, alpha=0.9, **look)
        doubted = mean[part[part.status == "contradicted"].n_seen.unique()]
        axis.plot(doubted.index, doubted.to_numpy(), "D", color="#b00020", markersize=9, fillstyle="none")
        curves[backend, method, engine, split] = mean
    return curves


def _limit(axis: Any, curves: Curves, numbers: dict[str, str]) -> Iterator[str]:
    """Fit the axis to the curves that end near one another, off their first steep stretch; yield who ends elsewhere.

    Near is within three median deviations, or within the magnitude, of the middle end: a method that learns nothing is
    near one that does, a fit that went astray is not. Of two middles it is that nearer to 0.
    """
    ends = np.array([curve.iloc[-1] for curve in curves.values()])
    middle = min(np.quantile(ends, 0.5, method="lower"), np.quantile(ends, 0.5, method="higher"), key=abs)
    reach = max(3 * np.quantile(abs(ends - middle), 0.5, method="lower"), abs(middle), 0.1)
    near = [curve for curve in curves.values() if abs(curve.iloc[-1] - middle) <= reach]
    stops = sorted({stop for curve in near for stop in curve.index})
    late = [value for curve in near for value in curve[curve.index >= stops[len(stops) // 2]]]
    top = max(value for curve in near for value in curve if value <= middle + reach)
    span = max(top - min(late), 0.01 * abs(top), 0.1)
    low, high = min(late) - 0.08 * span, top + 0.08 * span
    axis.set_ylim(low, high)
    away: dict[str, float] = {}
    for (backend, method, _, _), curve in curves.items():
        end, colour = curve.iloc[-1], drawing.colours(name for name, *_ in curves)[backend]
        if abs(end - middle) > reach:
            place, mark = (high, "^") if end > middle else (low, "v")
            axis.plot(curve.index[-1], place, mark, color=colour, markersize=7, clip_on=False, zorder=4)
            away.setdefault(_name(backend, method, numbers), end)
    return _listed("outside", (f"{name} at {end:.3g}" for name, end in away.items()))


def _number(axis: Any, curves: Curves, numbers: dict[str, str]) -> None:
    """Write at the ends of curves, on test where there is one, the numbers of their settings, clear of one another."""
    low, high = axis.get_ylim()
    ends = {(backend, method): curve.iloc[-1] for (backend, method, _, _), curve in sorted(curves.items())[::-1]}
    ends = {name: (end - low) / (high - low) for name, end in ends.items() if low <= end <= high} if numbers else {}
    columns = -(-len(ends) // 14)  # as many as one above the other have room
    apart, placed = 0.07 / max(1, columns), -1.0
    colours = drawing.colours(name for name, *_ in curves)
    for i, (name, end) in enumerate(sorted(ends.items(), key=lambda item: (item[1], item[0]))):
        placed = min(max(end, placed + apart), 1.0 - apart * (len(ends) - 1 - i))
        look = {"color": colours[name[0]], "fontsize": 6.5, "va": "center", "transform": axis.transAxes}
        axis.text(1.02 + 0.07 * (i % columns), placed, numbers[name[1]], **look)


def _name(backend: str, method: str, numbers: dict[str, str]) -> str:
    return f"{backend} ({numbers[method]})" if method in numbers else backend


def _listed(what: str, names: Iterable[str]) -> Iterator[str]:
    """Yield a line that names a few, and counts the others; nothing of none."""
    each = sorted(names)
    if each:
        others = f" and {len(each) - NAMED} more" if len(each) > NAMED else ""
        yield f"{what}: {', '.join(each[:NAMED])}{others}"


def _keys(rows: pd.DataFrame, numbers: dict[str, str]) -> list[Any]:
    """Return the entries of the legend, long ones in several lines."""
    colours = drawing.colours(rows.backend)
    engine = {"color": "0.3", "linestyle": "", "markersize": 4}
    keys = [
        *(drawing.key(name, color=colours[name]) for name in sorted(rows.backend.unique())),
        *drawing.split_keys(),
        *(drawing.key(name, marker=drawing.marker(name), **engine) for name in sorted(rows.engine.unique())),
        *(drawing.key(f"{number}: {name or 'defaults'}", linestyle="") for name, number in numbers.items()),
    ]
    for key in keys:
        key.set_label("\n".join(textwrap.wrap(key.get_label(), ASIDE)))
    return keys


def _quantity(rows: pd.DataFrame) -> np.ndarray:
    """Say what each row is drawn as; of several estimators of one fit, the most exact alone is drawn."""
    places = rows.metric.map({metric: place for place, metric in enumerate(EVIDENCE)})
    best = places.groupby([rows.cell, rows.n_seen, rows.split]).transform("min")
    return np.select([rows.metric.eq(BOUND), places.eq(best)], QUANTITIES, "")
