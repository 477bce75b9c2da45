"""How figures are drawn: matplotlib is set up here alone, and the same drawing gives the same bytes of SVG."""

import io
import os
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd

from inference import METHODS

# Okabe & Ito's colours, safe for colour-blind readers.
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
OTHERS = SKY, ORANGE, BLACK = "#56B4E9", "#E69F00", "#000000"
OF_BACKENDS = dict(zip(METHODS, cycle((BLUE, PURPLE, GREEN, VERMILION, *OTHERS)), strict=False))
MARKERS = {"pyro": "o", "numpyro": "x"}
# Without a salt every save has other identifiers; text stays text, which is small and can be searched.
ALWAYS = {"svg.hashsalt": "comparisons", "svg.fonttype": "none", "axes.spines.top": False, "axes.spines.right": False}
SMALL: dict[str, Any] = {"font.size": 9, "axes.titlesize": 9}
DASHES = {"train": "-", "test": "--"}


def svg(size: tuple[float, float], draw: Callable[[Any], None], style: Mapping[str, Any] = SMALL) -> str:
    """Return a `figure` as SVG."""
    text = io.StringIO()

    def save(drawn: Any) -> None:
        draw(drawn)
        drawn.savefig(text, format="svg", metadata={"Date": None})

    figure(size, save, style)
    return numbered(text.getvalue())


NAMED = re.compile(r'(id="|#)([mph])([0-9a-f]{10})(?=["\)])')


def numbered(svg: str) -> str:
    """Return a drawing whose marks, clips and hatches are numbered: it is the same whatever processor drew it.

    Matplotlib names them by a hash of their coordinates, of which the last bits are the processor's.
    """
    numbers: dict[str, int] = {}
    return NAMED.sub(lambda found: f"{found[1]}{found[2]}{numbers.setdefault(found[3], len(numbers) + 1)}", svg)


def figure(size: tuple[float, float], draw: Callable[[Any], None], style: Mapping[str, Any] = SMALL) -> Any:
    """Run `draw(figure)` on an empty figure of this size [inches]; return it, a Figure of matplotlib's.

    Neither a matplotlibrc, TeX and styles in it say, nor the backend that a notebook asks for has a part in it.
    """
    asked = os.environ.pop("MPLBACKEND", None)  # one that is not installed here would stop the import
    try:
        from matplotlib import rc_context, rcdefaults, rcParams
        from matplotlib.figure import Figure
    finally:
        os.environ |= {} if asked is None else {"MPLBACKEND": asked}
    with rc_context():
        rcdefaults()
        rcParams.update({**ALWAYS, **style})
        drawn = Figure(figsize=size, layout="constrained")
        draw(drawn)
    return drawn


def colours(backends: Iterable[str]) -> dict[str, str]:
    """Return the colours of backends: a registered one has its own in every figure, those of users have the others."""
    users = [name for name in sorted({*backends}) if name not in OF_BACKENDS]
    return {**OF_BACKENDS, **dict(zip(users, cycle(OTHERS), strict=False))}


def marker(engine: str) -> str:
    """Return the mark that tells an engine."""
    return MARKERS.get(engine, "s")


def key(label: str, **look: Any) -> Any:
    """Return an entry of a legend: a line that is drawn nowhere."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **look)


def split_keys() -> list[Any]:
    """Return the entries of a legend that tell train from test."""
    return [key(split, color="0.3", linestyle=dash) for split, dash in DASHES.items()]


def over_seeds(axis: Any, rows: pd.DataFrame, colour: str, **look: Any) -> pd.Series:
    """Draw a curve's mean over seeds against points seen; a band shows one standard error. Return the mean."""
    each = rows.groupby("n_seen").value
    mean, error = each.mean(), each.std(ddof=1) / np.sqrt(each.count())
    axis.plot(mean.index, mean.to_numpy(), color=colour, **look)
    if error.notna().all():
        axis.fill_between(mean.index, mean - error, mean + error, color=colour, alpha=0.15, lw=0)
    return mean


def logarithmic(axis: Any) -> None:
    """Give an axis a logarithmic x that counts in thousands and millions: a tick a decade, or three if it has few."""
    from matplotlib import ticker

    low, high = axis.dataLim.intervalx
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1,) if high > 30 * low > 0 else (1, 2, 5)))
    axis.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    axis.xaxis.set_minor_locator(ticker.NullLocator())


def name_panel(axis: Any, panel: Mapping[str, Any], quantity: str) -> None:
    """Label the axes of a learning curve, and say of which data and sizes it is."""
    logarithmic(axis)
    axis.set_xlabel("training points seen")
    axis.set_ylabel(f"{quantity} [nats per datapoint]")
    title = f"{panel['data']}, N = {panel['n_train']}, {panel['n_latent']} latent, {panel['n_hidden']} hidden"
    axis.set_title(title)
