"""The report of `full_vb`: what a point theta and a q(theta) are worth on training and on test data."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from comparisons.reporting import drawing, markdown, outcomes, terminal
from comparisons.reporting.blocks import Block, Heading, Paragraph, Table
from comparisons.reporting.folder import beside, where
from comparisons.reporting.standings import CELL, EVIDENCE
from comparisons.reporting.tables import note, number, or_word, over_seeds, plus_minus, summary, values
from comparisons.runner.rows import PANEL

ABOUT = "Maximum likelihood, MAP and full variational Bayes are one model with three answers for theta."
FIGURE = "log p(x) by points seen. The distance from train, solid, to test, dashed, is the overfitting."
TITLE = "A point or a distribution over theta"
TITLES = {"ml": "ml, a point", "map": "map, a point", "vb": "vb, at the mean of q"}
KINDS = (*TITLES,)
OF_Q = ("kl_theta_nats", "theta_at_prior", "elbo_full_nats")
OF_DRAWS = {"vb, one draw of q": "log_px_expected_nats", "vb, averaged over q": "log_px_predictive_nats"}
COLOURS = {"ml": drawing.VERMILION, "map": drawing.BLUE, "vb": drawing.SKY, "vb, averaged over q": drawing.GREEN}


def report(rows: Any, out: Path, mine: Any) -> str:
    """Write table.md and figure.svg of all rows; return the table of `mine` for a terminal."""
    files = {
        "table.md": lambda: markdown.printed(blocks(outcomes.explained(rows, out)), TITLE),
        "figure.svg": lambda: figure(rows),
    }
    beside(out, files)
    return f"{terminal.plain(mine)}\n\n{where(out)}"


def by_theta(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with a column `theta`, taken out of `method`, where a default is not named."""
    theta = rows.method.str.extract(r"\btheta=(\w+)", expand=False).fillna("map")
    rest = rows.method.str.replace(r"\btheta=\w+ ?", "", regex=True).str.strip()
    return rows.assign(theta=theta, method=rest)


def blocks(rows: pd.DataFrame) -> list[Block]:
    """Return the table, a part for each model and data: five lines for ml, map and the three readings of vb."""
    rows = by_theta(rows)
    last = rows[rows.n_seen == rows.groupby("cell").n_seen.transform("max")]
    return [block for _, panel in last.groupby(PANEL, sort=True) for block in _of_panel(panel)]


def _of_panel(panel: pd.DataFrame) -> Iterator[Block]:
    p = panel.iloc[0]
    yield Heading(
        f"{p['data']}, {p['n_train']} training points, {p['n_latent']} latent variables, "
        f"{p['n_hidden']} hidden units, {p['samples']:,} points seen"
    )
    ways = ["backend", "engine", "method"]
    shown = [name for name in ways if panel[name].nunique() > 1]
    body, sentences = [], []
    for way, group in panel.groupby(ways, sort=True):
        names = [value or "defaults" for name, value in zip(ways, way, strict=True) if name in shown]
        for kind in [k for k in KINDS if group.theta.eq(k).any()]:
            fit = group[group.theta == kind]
            body.append([*names, TITLES[kind], *_line(fit)])
            if kind == "vb":
                for title, metric in OF_DRAWS.items():
                    draws = fit[fit.metric == metric].assign(metric=EVIDENCE[0])
                    if len(draws):
                        _, _, *numbers, _, _ = _line(draws)
                        body.append([*names, title, "", "", *numbers, "", ""])
                sentences.append(_sentence(fit, names))
    head = [*shown, "theta", "lower bound, train", "lower bound, test", "log p(x), train", "log p(x), test"]
    yield Table([*head, "train - test", "step size", "seconds"], body)
    yield from map(Paragraph, sentences)
    yield from outcomes.blocks(panel)
    yield Paragraph(note(summary(panel.drop(columns="theta")), p["data"]))


def figure(rows: pd.DataFrame) -> str:
    """Draw log p(x) against points seen, a panel for each model and data: train solid, test dashed. Returns SVG."""
    rows = by_theta(outcomes.drawable(rows, CELL))
    panels = list(rows.groupby(PANEL, sort=True))

    def draw(figure: Any) -> None:
        axes = figure.subplots(1, max(1, len(panels)), squeeze=False)
        for axis, (key, panel) in zip(axes[0], panels, strict=False):
            for label, shown in _curves(panel):
                for split, dash in drawing.DASHES.items():
                    look = {"linestyle": dash, "marker": "x", "markersize": 3}
                    drawing.over_seeds(axis, shown[shown.split == split], COLOURS[label], **look)
            drawing.name_panel(axis, dict(zip(PANEL, key, strict=True)), "log p(x)")
        kinds = [drawing.key(TITLES.get(name, name), color=colour) for name, colour in COLOURS.items()]
        figure.legend(handles=[*kinds, *drawing.split_keys()], loc="outside right upper", frameon=False)

    return drawing.svg((4.4 * max(1, len(panels)) + 1.8, 3.6), draw)


def _curves(panel: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return label and rows of each curve; seeds, engines and what else tells fits apart are averaged over."""
    fits = {kind: panel[panel.theta == kind] for kind in KINDS}
    found = [(kind, fit[fit.metric == _evidence(fit)]) for kind, fit in fits.items()]
    found += [(title, fits["vb"][fits["vb"].metric == OF_DRAWS[title]]) for title in COLOURS if title in OF_DRAWS]
    return [(label, shown) for label, shown in found if len(shown)]


def _evidence(fit: pd.DataFrame) -> str:
    """Return the most exact estimate of log p(x) that there is, at a point."""
    return next((name for name in EVIDENCE if fit.metric.eq(name).any()), "")


def _line(fit: pd.DataFrame) -> list[str]:
    """Return a line's cells: bound and log p(x) on train and test, how much better that is on train, and the cost."""
    (line,) = summary(fit).itertuples()
    error = float(np.hypot(line.log_px_train_stderr, line.log_px_test_stderr))
    gap = plus_minus(line.log_px_train - line.log_px_test, error)
    return [*values(line), gap, line.step_size, number(line.seconds, ".0f")]


def _sentence(fit: pd.DataFrame, names: list[str]) -> str:
    """Say what the bound on log p(X) is, what of it q(theta) costs, and whether to trust the predictive number."""
    (kl, *_), (at_prior, *_), bound = (_of_train(fit, metric) for metric in OF_Q)
    if np.isnan(kl):
        return f"{' '.join([*names, 'vb'])}: {outcomes.word(fit)}."
    doubtful = fit[fit.metric == "log_px_predictive_nats"].flagged.mean()
    text = f"{' '.join([*names, 'vb'])}: log p(X) / N is at least {or_word(*bound)}, of which "
    text += f"KL(q(theta) || p(theta)) / N takes {kl:.2f}; {at_prior:.0%} of the weights stayed at the prior."
    if doubtful > 0:
        text += f" For {doubtful:.0%} of the datapoints one draw of theta has more than half of the average over q."
    return text


def _of_train(fit: pd.DataFrame, metric: str) -> tuple[float, float, str]:
    """Return the mean over seeds of a metric on train, its error, and what became of it."""
    mine = outcomes.ran(fit[(fit.metric == metric) & (fit.split == "train")])
    return (*over_seeds(mine), outcomes.word(mine)) if len(mine) else (np.nan, np.nan, outcomes.word(fit))
