"""The closed forms' rows as blocks of a report, and the figure of how bounds rise and of what a q leaves out."""

from typing import TYPE_CHECKING, Any

import numpy as np

from comparisons.benchmarks.templates import filled
from comparisons.reporting.blocks import Block, Code, Items, Paragraph, Table

if TYPE_CHECKING:
    import pandas as pd

TITLE = "Closed forms beside what approximates them"
ABOUT = "Where updates are in closed form: do the methods that draw and follow gradients come to the same numbers?"
FIGURE = (
    "Left: how far EM's log p(x) and CAVI's bound lie below the maximum likelihood, step by step. Middle: how far the "
    "bounds of two conjugate models lie below their own end. Right: p(z | x) of one row of synthetic in the two most "
    "correlated coordinates, and the q that CAVI and SVI fit to it; lines are at two standard deviations."
)
WITHIN = 0.02  # nats
FLOOR = 1e-5  # of a distance: below it float32 rounds
COLUMNS = {
    "first, second": "{0.pair}",
    "on": "{0.data}",
    "first number": "{0.first:.5f}",
    "second": "{0.second:.5f}",
    "first - second": "{0.apart}",
    "seeds": "{0.seeds}",
}


def blocks(rows: "pd.DataFrame") -> list[Block]:
    """Return the findings in sentences, and a table of equal pairs and one of bounds."""
    equal, below = (rows[rows.relation == relation] for relation in ("equal", "below"))
    far = equal[equal.difference.abs() > WITHIN]
    worst = equal.loc[equal.difference.abs().idxmax()]
    share = (below["first"] / below.second)[below.pair.str.contains("exact variance")]
    said = [
        f"{len(equal) - len(far)} of {len(equal)} pairs that should be equal are so to {WITHIN} nat; the widest apart, "
        f"{worst.pair} on {worst.data}, differ by {worst.difference:+.4f} ± {worst.stderr:.4f}.",
        f"{(below.difference <= FLOOR * below.second.abs()).sum()} of {len(below)} bounds stay below what they bound.",
        f"CAVI's variances are {share.min():.0%} to {share.max():.0%} of the exact ones.",
    ]
    note = (
        "Nats per datapoint, and per document of the topics; variances are of z, and means and topics a largest "
        "absolute difference. ± is the standard error over seeds of what draws; the others have none. Likelihoods are "
        "worked out in float64 from the fitted theta, which is by maximum likelihood: "
    )
    errors = [f" ± {row.stderr:.5f}" if row.seeds > 1 else "" for row in rows.itertuples()]
    rows = rows.assign(
        apart=[f"{d + 0.0:+.5f}{error}" for d, error in zip(rows.difference.round(5), errors, strict=True)]
    )
    equal, below = (rows[rows.relation == relation] for relation in ("equal", "below"))
    tables = [
        Table([*COLUMNS], filled(part, COLUMNS), [*COLUMNS][2:], caption=caption)
        for caption, part in (("Pairs that should be equal", equal), ("Bounds, and what they bound", below))
    ]
    return [Items(said, lined=True), *tables, Paragraph((note, Code("--theta ml"), "."))]


def figure(curves: dict[str, np.ndarray], shown: list[dict[str, np.ndarray]]) -> str:
    """Return the figure as SVG: the objective of each step by curve, and exact, CAVI's and SVI's posterior [2]."""
    from comparisons.reporting import drawing

    colours = {"EM": drawing.BLUE, "CAVI": drawing.VERMILION}
    dashes: dict[str, str] = {}

    def draw(figure: Any) -> None:
        linear, own, plane = figure.subplots(1, 3)
        for name, values in curves.items():
            method, _, data = name.partition(", ")
            if method in colours:
                dash = dashes.setdefault(data, ("-", "--")[len(dashes) % 2])
                linear.plot(
                    *above_floor(curves[f"maximum, {data}"][0] - values), dash, color=colours[method], label=name
                )
            elif method != "maximum":
                colour = (drawing.GREEN, drawing.PURPLE)[len(own.lines) % 2]
                own.plot(*above_floor(values[-1] - values), label=name, color=colour)
        for axis, what in ((linear, "below the maximum"), (own, "below the bound's end")):
            axis.set(xscale="log", yscale="log", xlabel="step", ylabel=f"nats {what}")
            axis.legend(frameon=False)
        angle = np.linspace(0, 2 * np.pi, 200)
        looks = (("exact", "0.2", "-"), ("CAVI", drawing.VERMILION, "-"), ("SVI", drawing.BLUE, ":"))
        for (name, colour, dash), q in zip(looks, shown, strict=True):
            edge = q["mean"] + 2 * np.stack([np.cos(angle), np.sin(angle)], 1) @ np.linalg.cholesky(q["covariance"]).T
            plane.plot(*edge.T, dash, color=colour, label=name)
        plane.set(aspect="equal", xlabel="one coordinate of z", ylabel="another")
        plane.legend(frameon=False)

    return drawing.svg((10.5, 3.2), draw)


def above_floor(below: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the steps, and the distances up to the first that float32 rounds away."""
    count = int(np.argmax(np.append(below, 0.0) < FLOOR))
    return np.arange(count) + 1, below[:count]
