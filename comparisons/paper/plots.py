"""The panels of Figures 2 and 3 that were run: ours over the paper's, each with words for those who do not see it."""

from collections.abc import Sequence

import numpy as np

from comparisons.paper import reproduction_figures as figures
from comparisons.paper import runs
from comparisons.paper.curves import Curve, curves, value_at
from comparisons.paper.found import Found
from comparisons.paper.words import ESTIMATORS, NAMES, TITLES, count, number
from comparisons.reporting.blocks import Figure

SPLITS = {"train": "train", "test": "test"}


def figure2(found: Found) -> list[Figure]:
    """Return a plot for each panel of Figure 2 that was run: the lower bound against points seen."""
    drawn = []
    for data, k, part in runs.figure2_panels(found.rows.figure2):
        ours = figures.lines(part, ["elbo_nats"], SPLITS, "n_seen")
        if ours:
            papers = [c for c in curves() if c[:3] == ("figure2", data, k)]
            title = f"{TITLES[data]}, {k} latent variables"
            alt = f"{title}: lower bound against training points seen. {_ends(ours, papers)}"
            svg = figures.panel(ours, papers, title, "n_seen", SPLITS, "lower bound")
            drawn.append(figures.plot(f"figure2-{data}-{k}", alt, svg))
    return drawn


def figure3(found: Found) -> list[Figure]:
    """Return the plots of Figure 3 that were run: log p(x) against points seen, decoder evaluations and seconds."""
    drawn = []
    for n in runs.SIZES:
        part = runs.figure3_panel(found.rows.figure3, n)
        for split in ("test", "train"):
            ours = figures.lines(part, ESTIMATORS, [split], "n_seen", "metric")
            if ours:
                papers = [c for c in curves() if (c.figure, c.n_train, c.split) == ("figure3", n, split)]
                title = f"N = {n:,}, {split}"
                alt = f"{title}: log p(x) against training points seen. {_ends(ours, papers)}"
                labels = {runs.TRUTH: "quadrature", runs.PAPERS: "appendix D"}
                labels = {metric: text for metric, text in labels.items() if metric in {one.dash for one in ours}}
                svg = figures.panel(ours, papers, title, "n_seen", labels, "log p(x)")
                drawn.append(figures.plot(f"figure3-{n}-{split}", alt, svg))
        for x in ("decoder_evals", "seconds"):
            ours = figures.lines(part, [runs.TRUTH], SPLITS, x)
            if ours:
                title = f"N = {n:,}"
                alt = f"{title}: log p(x) by quadrature against {figures.AXES[x]}. {_ends(ours, [])}"
                svg = figures.panel(ours, [], title, x, SPLITS, "log p(x)")
                drawn.append(figures.plot(f"figure3-{n}-{x}", alt, svg))
    return drawn


def _ends(ours: list[figures.Line], papers: Sequence[Curve]) -> str:
    """Return where each curve of a panel ends: ours, those after as many points together, and the paper's there."""
    together: dict[int, list[str]] = {}
    for one in ours:
        last = one.points[-1]
        name = f"{NAMES.get(one.backend, one.backend)} {ESTIMATORS.get(one.dash, one.dash)}"
        together.setdefault(last.n_seen, []).append(f"{name} {number(last)}")
    each = [f"at {count(n)} points: {', '.join(together[n])}" for n in sorted(together, reverse=True)]
    text = f"Ours {'; '.join(each)} nats."
    ends = {one.backend: one.points[-1].n_seen for one in ours}
    there = [(c, value_at(c, ends.get(c.backend, max(ends.values())))) for c in papers]
    each = [f"{NAMES[c.backend]} {c.split} {value:.1f}" for c, value in there if np.isfinite(value)]
    return f"{text} The paper's there: {', '.join(each)} nats." if each else text
