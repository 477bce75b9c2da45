"""The panels of Figures 2 and 3 that were run: ours over the paper's, each with words for those who do not see it."""

from collections.abc import Iterator, Sequence

import numpy as np

from comparisons.paper import reproduction_figures as figures
from comparisons.paper import runs
from comparisons.paper.curves import Curve, curves, value_at
from comparisons.paper.found import Found
from comparisons.paper.reproduction_figures import Line
from comparisons.paper.words import ESTIMATORS, NAMES, TITLES, count, number
from comparisons.reporting.blocks import Figure

Labels = dict[str, str]
SPLITS = {"train": "train", "test": "test"}
JUDGES = {runs.TRUTH: "quadrature", runs.PAPERS: "appendix D"}


def figure2(found: Found) -> list[Figure]:
    """Return a plot for each panel of Figure 2 that was run: the lower bound against points seen."""
    drawn: list[Figure] = []
    for data, k, part in runs.figure2_panels(found.rows.figure2):
        ours = figures.lines(part, ["elbo_nats"], SPLITS, "n_seen")
        papers = [c for c in curves() if c[:3] == ("figure2", data, k)]
        title = f"{TITLES[data]}, {k} latent variables"
        drawn += _drawn(f"figure2-{data}-{k}", title, "lower bound", ours, papers, SPLITS)
    return drawn


def figure3(found: Found) -> list[Figure]:
    """Return the plots of Figure 3 that were run: log p(x) against points seen, decoder evaluations and seconds."""
    drawn: list[Figure] = []
    for n in runs.SIZES:
        part = runs.figure3_panel(found.rows.figure3, n)
        for split in ("test", "train"):
            ours = figures.lines(part, ESTIMATORS, [split], "n_seen", "metric")
            papers = [c for c in curves() if (c.figure, c.n_train, c.split) == ("figure3", n, split)]
            judges = {one.dash for one in ours}
            labels = {metric: text for metric, text in JUDGES.items() if metric in judges}
            drawn += _drawn(f"figure3-{n}-{split}", f"N = {n:,}, {split}", "log p(x)", ours, papers, labels)
        for x in ("decoder_evals", "seconds"):
            ours = figures.lines(part, [runs.TRUTH], SPLITS, x)
            drawn += _drawn(f"figure3-{n}-{x}", f"N = {n:,}", "log p(x)", ours, [], SPLITS, x)
    return drawn


def _drawn(
    name: str, title: str, quantity: str, ours: list[Line], papers: list[Curve], labels: Labels, x: str = "n_seen"
) -> Iterator[Figure]:
    """Yield the plot of a panel that was run; `labels` says what each dash means. By costs there is one judge."""
    if ours:
        judge = "" if x == "n_seen" else " by quadrature"
        alt = f"{title}: {quantity}{judge} against {figures.AXES[x]}. {_ends(ours, papers)}"
        yield figures.plot(name, alt, figures.panel(ours, papers, title, x, labels, quantity))


def _ends(ours: list[Line], papers: Sequence[Curve]) -> str:
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
