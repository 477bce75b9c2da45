"""Rows to figures: learning curves as SVG, the same bytes for the same rows."""

import io
import textwrap
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd

from comparisons.reporting import outcomes
from comparisons.reporting.tables import BOUND, CELL, EVIDENCE, note, summary
from comparisons.runner.rows import PANEL

# Okabe & Ito's colours, safe for colour-blind readers; a backend keeps its colour in every figure.
COLOURS = {"aevb": "#0072B2", "wake_sleep": "#D55E00", "monte_carlo_em": "#009E73", "mean_field": "#CC79A7"}
OTHERS = ("#56B4E9", "#E69F00", "#000000")
MARKERS = {"pyro": "o", "numpyro": "x"}
QUANTITIES = ("lower bound", "log p(x)")


def learning_curves(rows: pd.DataFrame) -> str:
    """Draw lower bound and log p(x) against points seen: train solid, test dashed, one colour a backend.

    A marker tells the engine; with several seeds a band shows one standard error over them. Returns SVG.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib import ticker
    from matplotlib.lines import Line2D

    rows = outcomes.drawable(rows, CELL)
    rows = rows.assign(quantity=_quantity(rows))
    panels = list(rows.groupby(PANEL, sort=True))
    quantities = [name for name in QUANTITIES if rows.quantity.eq(name).any()]
    style = {"svg.hashsalt": "comparisons", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False}
    with plt.rc_context({**style, "axes.spines.right": False}):
        size = (4.6 * max(1, len(quantities)) + 1.6, 3.3 * max(1, len(panels)) + 0.5)
        figure, axes = plt.subplots(
            max(1, len(panels)), max(1, len(quantities)), figsize=size, squeeze=False, layout="constrained"
        )
        backends = sorted(rows.backend.unique())
        colour = {**dict(zip([b for b in backends if b not in COLOURS], cycle(OTHERS), strict=False)), **COLOURS}
        for line_of_axes, (key, panel) in zip(axes, panels, strict=False):
            p = dict(zip(PANEL, key, strict=True))
            for axis, quantity in zip(line_of_axes, quantities, strict=True):
                shown = panel[panel.quantity == quantity]
                if shown.empty:  # a quantity that other panels have
                    axis.set_visible(False)
                    continue
                several = shown.groupby("backend").method.nunique() > 1
                for (backend, method, engine, split), part in shown.groupby(["backend", "method", "engine", "split"]):
                    by_points = part.groupby("n_seen").value
                    mean, error = by_points.mean(), by_points.std(ddof=1) / np.sqrt(by_points.count())
                    line = "-" if split == "train" else "--"
                    axis.plot(
                        mean.index, mean.to_numpy(), line, color=colour[backend], marker=MARKERS.get(engine, "s"),
                        markersize=4, linewidth=1.3, alpha=0.9,
                    )  # fmt: skip
                    doubted = mean[part[part.status == "contradicted"].n_seen.unique()]
                    axis.plot(doubted.index, doubted.to_numpy(), "D", color="#b00020", markersize=9, fillstyle="none")
                    if several[backend] and split == "test":  # one colour for all: say which is which
                        axis.annotate(
                            method or "defaults", (mean.index[-1], mean.iloc[-1]), (4, -2), fontsize=6,
                            textcoords="offset points", color=colour[backend], annotation_clip=True,
                        )  # fmt: skip
                    if error.notna().all():
                        axis.fill_between(
                            mean.index, mean - error, mean + error, color=colour[backend], alpha=0.15, lw=0
                        )
                axis.set_xscale("log")
                axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
                axis.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
                axis.xaxis.set_minor_locator(ticker.NullLocator())
                axis.set_xlabel("training points seen")
                axis.set_ylabel(f"{quantity} [nats per datapoint]")
                axis.set_title(
                    f"{p['data']}, N = {p['n_train']}, {p['n_latent']} latent, {p['n_hidden']} hidden", fontsize=9
                )
                _limit(axis, shown)
        handles = [Line2D([], [], color=colour[b], label=b) for b in backends]
        handles += [
            Line2D([], [], color="0.3", linestyle="-", label="train"),
            Line2D([], [], color="0.3", linestyle="--", label="test"),
        ]
        handles += [
            Line2D([], [], color="0.3", linestyle="", marker=MARKERS.get(e, "s"), markersize=4, label=e)
            for e in sorted(rows.engine.unique())
        ]
        figure.legend(handles=handles, loc="outside right upper", frameon=False)
        if len(rows):
            notes = {note(group, key[0]) for key, group in summary(rows).groupby(PANEL)}
            lines = [line for n in sorted(notes) for line in textwrap.wrap(n.strip(), int(17 * size[0]))]
            figure.supxlabel("\n".join(lines), fontsize=7, color="0.35")
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
        plt.close(figure)
    return text.getvalue()


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
