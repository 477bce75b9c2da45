"""The bound, the divergences and the draws as tables and a figure."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from comparisons.benchmarks.bounds import NEEDED, STARTS, X_TWO_MODES, Normal, Row
from comparisons.benchmarks.planes import Plane
from comparisons.benchmarks.templates import filled, with_error
from comparisons.reporting import markdown
from comparisons.reporting.blocks import Block, Items, Paragraph, Table
from comparisons.reporting.folder import beside

if TYPE_CHECKING:
    import pandas as pd

ABOUT = "log p(x) = KL(q || posterior) + bound, term by term on grids, and what either divergence and few draws do."
TITLE = "What the bound leaves open"
FIGURE = (
    "Left: along AEVB's training the bound and KL(q ‖ posterior), worked out on grids of their own, add up to "
    "log p(x) by a third. Right: the error of log p(x) by draws from the prior and from q, and what is expected. "
    "Below: one normal for a posterior of two modes, at one and two standard deviations; dashed: other optima of the "
    "reverse fit."
)
OF_IDENTITY = {
    "points seen": "{0.n_seen:,.0f}",
    "log p(x)": "{0.log_px:.4f}",
    "bound": "{0.bound:.4f}",
    "KL(q ‖ posterior)": "{0.kl:.4f}",
    "largest discrepancy": "{0.worst:.1e}",
    "grids off by, at most": "{0.off:.1e}",
    "bound by draws": "{0.monte_carlo:.3f} ± {0.monte_carlo_stderr:.3f}",
    "furthest from the grid's": "{0.away:.1f} standard errors",
}
OF_FITS = {
    "fit": "{0.direction} {0.covariance}",
    "KL(q ‖ p)": "{0.kl_reverse:.3f}",
    "KL(p ‖ q)": "{0.kl_forward:.3f}",
    "q right of z1 = -1/4": "{0.right_q:.1%}",
    "starts that lead there": "{0.starts:.0f}",
}
OF_DRAWS = {
    "drawn from": "{0.proposal}",
    "draws S": "{0.draws:,.0f}",
    "error": with_error("rmse"),
    "expected": "{0.expected:.2f}",
    "median datapoint's": "{0.median:.2f} ± {0.median_stderr:.2f}",
    "expected of it": "{0.expected_median:.2f}",
}
OF_NEED = (
    *("drawn from", f"draws for {NEEDED} nat", "expected", "of the median datapoint", "expected of it"),
    *("Var(w) / E(w)²", "KL(posterior ‖ it)"),
)


def report(rows: list[Row], plane: Plane, out: Path) -> str:
    """Write figure.svg and table.md of rows and of the posterior with two modes; return the table."""
    import pandas as pd

    frame = pd.DataFrame(rows)
    files = {"table.md": lambda: markdown.printed(blocks(frame), TITLE), "figure.svg": lambda: figure(frame, plane)}
    return beside(out, files)


def blocks(rows: "pd.DataFrame") -> list[Block]:
    """Return the findings in sentences, and a table for each part."""
    if rows.empty:
        return []
    stops, fits, draws = by_stop(rows), rows[rows.part == "fits"], rows[rows.part == "draws"]
    own = rows[rows.part == "identity"]
    return [
        Items([*_of_identity(own), *_of_fits(fits), *_of_draws(draws)], lined=True),
        Table([*OF_IDENTITY], filled(stops, OF_IDENTITY), caption="Equation 1 along AEVB's training"),
        Paragraph(
            f"Nats per datapoint, means over the first {own.point.nunique()} of test; the largest discrepancy is a "
            "datapoint's own, of log p(x) - KL - bound. ± is the standard error of the draws."
        ),
        Table([*OF_FITS], filled(fits, OF_FITS), caption="One normal for a posterior of two modes"),
        Paragraph(
            "Nats. z ~ N(0, I), x ~ N(((z1 + 1/4)², z2 + 3/2 z1), I / 4), at x = "
            f"({X_TWO_MODES[0]:g}, {X_TWO_MODES[1]:g}): {fits.right_p.iloc[0]:.1%} of the posterior lie right of "
            f"z1 = -1/4. The forward fit has the posterior's moments; the reverse one is descended to, from {STARTS} "
            "starts."
        ),
        Table(
            OF_NEED, [_needs(part) for _, part in draws.groupby("proposal")], caption="How many draws log p(x) takes"
        ),
        Table([*OF_DRAWS], filled(draws, OF_DRAWS), caption="The error of log p(x) by S draws"),
        Paragraph(
            "Root mean square against quadrature, in nats, over datapoints and repeats, or of the median one over "
            "repeats; ± is its standard error by repeats. Expected: by quadrature, from the variance of the weights "
            "without those above S p(x), which S draws meet less than once, and from the share of the posterior that "
            "is lost with them. It is an expansion in small errors, and holds where these are well below a nat."
        ),
    ]


def by_stop(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Return means over datapoints of the terms of equation 1 at each stop, and the worst of what should be none."""
    own = rows[rows.part == "identity"].copy()
    own["worst"], own["away"] = own.discrepancy.abs(), _away(own)
    found = own.groupby("n_seen")[["log_px", "kl", "bound", "monte_carlo"]].mean()
    each = own.groupby("n_seen")
    found["monte_carlo_stderr"] = each.monte_carlo_stderr.apply(
        lambda error: np.sqrt(np.square(error).sum()) / len(error)
    )
    found = found.join(each[["worst", "off", "away"]].max())
    return found.reset_index()


def _away(own: "pd.DataFrame") -> "pd.Series":
    return (own.monte_carlo - own.bound).abs() / own.monte_carlo_stderr


def _of_identity(own: "pd.DataFrame") -> list[str]:
    last = own[own.n_seen == own.n_seen.max()]
    return [
        f"log p(x) - KL - bound is at most {own.discrepancy.abs().max():.1e} nat, over {own.n_seen.nunique()} stops "
        f"and {own.point.nunique()} datapoints.",
        f"At the end the bound lies {last.kl.mean():.2f} nats below log p(x), "
        f"from {last.kl.min():.2f} to {last.kl.max():.2f} by datapoint.",
        f"The bound by draws is within {_away(own).max():.1f} of its standard errors of the grid's, everywhere.",
    ]


def _of_fits(fits: "pd.DataFrame") -> list[str]:
    found = []
    for covariance, part in fits.groupby("covariance", sort=False):
        forward, best = part[part.direction == "forward"].iloc[0], part[part.direction == "reverse"].iloc[0]
        share = best.right_p if best.right_q > 0.5 else 1 - best.right_p
        found.append(
            f"With a {covariance} covariance the reverse fit has {max(best.right_q, 1 - best.right_q):.1%} of its mass "
            f"on one mode, at KL(q ‖ p) {best.kl_reverse:.2f}, of which {-np.log(share):.2f} are the log of that "
            f"mode's share; the forward fit has {max(forward.right_q, 1 - forward.right_q):.1%} there, at KL(p ‖ q) "
            f"{forward.kl_forward:.2f}."
        )
    return found


def _of_draws(draws: "pd.DataFrame") -> list[str]:
    each = {name: _needs(part) for name, part in draws.groupby("proposal")}
    return [
        f"For an error of {NEEDED} nat of the median datapoint draws from the prior take {each['prior'][3]}, draws "
        f"from q {each['q'][3]}; {each['prior'][4]} and {each['q'][4]} are expected.",
        f"Over all datapoints they take {each['prior'][1]} and {each['q'][1]}, by those furthest from what is drawn "
        f"from; {each['prior'][2]} and {each['q'][2]} are expected.",
    ]


def _needs(part: "pd.DataFrame") -> list[str]:
    """Return a line: how many draws a proposal takes, as measured and as expected."""
    first, found = part.iloc[0], []
    for name, by_theory in (("rmse", first.draws_expected), ("median", first.draws_expected_median)):
        size, error = needed(part, name)
        measured = f"{size:,.0f} ± {error:,.0f}" if np.isfinite(size) else f"more than {part.draws.max():,.0f}"
        found += [measured, f"{by_theory:,.0f}"]
    variance = f"{first.variance:,.1f}" if np.isfinite(first.variance) else "not finite"
    return [str(first.proposal), *found, variance, f"{first.kl_forward:.2f}"]


def needed(part: "pd.DataFrame", of: str = "rmse") -> tuple[float, float]:
    """Return the S at which the error falls below `NEEDED` for good, between two sizes on log axes, and its own error.

    That is by the standard error of the nearer size's, which falls as one over the root of S. NaN where none is below.
    """
    above = np.flatnonzero(part[of].to_numpy() > NEEDED)
    i = above[-1] if len(above) else -1
    if i + 1 >= len(part):
        return float("nan"), float("nan")
    if i < 0:
        return float(part.draws.iloc[0]), 0.0
    sizes, errors = (np.log(part[name].to_numpy()[i : i + 2]) for name in ("draws", of))
    size = float(np.exp(np.interp(-np.log(NEEDED), -errors, sizes)))
    near = part.iloc[i + int(abs(errors[1] - np.log(NEEDED)) < abs(errors[0] - np.log(NEEDED)))]
    return size, float(2 * size * near[f"{of}_stderr"] / near[of])


def figure(rows: "pd.DataFrame", plane: Plane) -> str:
    """Draw the three parts; return SVG. `plane` is that of the posterior with two modes."""
    from comparisons.reporting import drawing

    names = [f"{direction} {covariance}" for covariance in ("full", "diagonal") for direction in ("forward", "reverse")]

    def draw(drawn: Any) -> None:
        layout = [["stack"] * 2 + ["draws"] * 2, ["kl"] * 2 + ["draws"] * 2, names]
        axes = drawn.subplot_mosaic(layout, height_ratios=[1.3, 1.0, 1.8])
        _stack(axes["stack"], axes["kl"], by_stop(rows))
        _errors(axes["draws"], rows[rows.part == "draws"])
        for name in names:
            direction, covariance = name.split()
            fits = rows[(rows.part == "fits") & (rows.direction == direction) & (rows.covariance == covariance)]
            _contours(axes[name], plane, fits)

    return drawing.svg((10.0, 7.0), draw)


def _stack(axis: Any, below: Any, stops: "pd.DataFrame") -> None:
    """Draw the bound and the divergence, one on the other, and below the divergence alone."""
    from comparisons.reporting import drawing

    x, top = stops.n_seen, stops.bound + stops.kl
    start = stops.bound.iloc[1:].min()  # the first stop is that of the initial values, far below
    floor = start - 0.3 * (top.max() - start)
    axis.fill_between(x, floor, stops.bound, color=drawing.SKY, alpha=0.5, lw=0, label="bound")
    axis.fill_between(x, stops.bound, top, color=drawing.VERMILION, lw=0, label="KL(q ‖ posterior)")
    axis.plot(x, stops.log_px, "o-", color=drawing.BLACK, ms=3, lw=0.8, label="log p(x), by itself")
    axis.set(
        ylabel="nats per datapoint", ylim=(floor, top.max() + 0.05 * (top.max() - floor)), title="bound + KL = log p(x)"
    )
    below.fill_between(x, 0.0, stops.kl, color=drawing.VERMILION, alpha=0.6, lw=0, label="KL(q ‖ posterior)")
    gap, error = stops.log_px - stops.monte_carlo, stops.monte_carlo_stderr
    look = {"color": drawing.BLACK, "ms": 3, "lw": 0.8, "label": "log p(x) - bound by draws"}
    below.errorbar(x, gap, error, fmt="o", **look)
    below.set(xlabel="training points seen", ylabel="nats per datapoint", ylim=(0.0, None))
    for each in (axis, below):
        drawing.logarithmic(each)
        each.legend(frameon=False, loc="best")


def _errors(axis: Any, draws: "pd.DataFrame") -> None:
    """Draw the error of log p(x) against the number of draws, as measured and as expected."""
    from comparisons.reporting import drawing

    for (name, part), colour in zip(draws.groupby("proposal"), (drawing.VERMILION, drawing.BLUE), strict=False):
        look: dict[str, Any] = {"color": colour, "ms": 3}
        axis.errorbar(part.draws, part.rmse, part.rmse_stderr, fmt="o", label=f"draws from {name}", **look)
        axis.errorbar(part.draws, part["median"], part.median_stderr, fmt="s", fillstyle="none", **look)
        for column in ("expected", "expected_median"):
            axis.plot(part.draws, part[column], "--", color=colour, lw=1)
    axis.plot([], [], "s", color="0.3", ms=3, fillstyle="none", label="of the median datapoint")
    axis.plot([], [], "--", color="0.3", lw=1, label="expected")
    axis.axhline(NEEDED, color="0.6", lw=0.8)
    drawing.logarithmic(axis)
    axis.set(yscale="log", xlabel="draws S", ylabel="error of log p(x) [nats]", title="log p(x) by draws")
    axis.legend(frameon=False)


def _contours(axis: Any, plane: Plane, fits: "pd.DataFrame") -> None:
    """Draw the posterior, and the normals fitted to it at one and two standard deviations."""
    from comparisons.reporting import drawing

    side = round(len(plane.z) ** 0.5)
    z1, z2, height = (each.reshape(side, side) for each in (*plane.z[:, 0].T, plane.log_p[:, 0]))
    levels = height.max() + np.log([0.01, 0.05, 0.2, 0.5, 0.8, 1.001])
    axis.contourf(z1, z2, height, levels, cmap="Greys", alpha=0.7)
    angle = np.linspace(0.0, 2 * np.pi, 100)
    for i, fit in enumerate(fits.itertuples()):
        one = normal(fit)
        for radius in (1.0, 2.0):
            ellipse = (
                one.mean + radius * np.stack([np.cos(angle), np.sin(angle)], 1) @ np.linalg.cholesky(one.covariance).T
            )
            colour = drawing.BLUE if fit.direction == "forward" else drawing.VERMILION
            axis.plot(*ellipse.T, color=colour, ls="--" if i else "-", lw=1.2)
    kind = "KL(p ‖ q)" if fits.direction.iloc[0] == "forward" else "KL(q ‖ p)"
    axis.set(xlim=(-4, 4), ylim=(-4, 4), aspect="equal", xlabel="z1", ylabel="z2")
    axis.set_title(f"least {kind}, {fits.covariance.iloc[0]}")


def normal(fit: Any) -> Normal:
    """Return the normal that a row tells of."""
    off = fit.covariance12
    return Normal(np.array([fit.mean1, fit.mean2]), np.array([[fit.variance1, off], [off, fit.variance2]]))
