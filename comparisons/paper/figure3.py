"""The section on Figure 3: log p(x) against points seen, ours over the paper's, and against the work it took."""

from comparisons.paper import reproduction
from comparisons.paper import reproduction_figures as figures
from comparisons.paper.curves import curves
from comparisons.paper.found import Found
from comparisons.paper.reproduction import SPLITS, ends, plot
from comparisons.paper.verdicts import ESTIMATORS, PAPERS, SIZES, TRUTH, panel
from comparisons.reporting.blocks import Block, Figure

TEXT = (
    "Estimated log p(x) on MNIST with 3 latent variables and 100 hidden units. With so few latent variables the "
    "integral over z can be done by quadrature, which is the truth here (solid); the paper's own estimator, of its "
    "appendix D, stands beside it (dotted). Points seen flatter methods that do more work for each point, so "
    "decoder evaluations and seconds follow; the paper has no such axes, and there train is solid and test dashed."
)


def blocks(found: Found) -> list[Block]:
    """Return the panels, and what the paper's curves say of ours."""
    return reproduction.blocks(found, "figure3", TEXT, plots(found))


def plots(found: Found) -> list[Figure]:
    """Return the plots of Figure 3 that were run: log p(x) against points seen, decoder evaluations and seconds."""
    drawn = []
    for n in SIZES:
        part = panel(found.figure3, "figure3", "mnist", 3, n)
        for split in ("test", "train"):
            ours = figures.lines(part, ESTIMATORS, [split], "n_seen", "metric")
            papers = [c for c in curves() if c.figure == "figure3" and (c.n_train, c.split) == (n, split)]
            if ours:
                title = f"N = {n:,}, {split}"
                alt = f"{title}: log p(x) against training points seen. {ends(ours, papers)}"
                labels = {TRUTH: "quadrature", PAPERS: "appendix D"}
                labels = {metric: text for metric, text in labels.items() if metric in {one.dash for one in ours}}
                svg = figures.panel(ours, papers, title, "n_seen", labels, "log p(x)")
                drawn.append(plot(f"figure3-{n}-{split}", alt, svg))
        for x in ("decoder_evals", "seconds"):
            ours = figures.lines(part, [TRUTH], SPLITS, x)
            if ours:
                title = f"N = {n:,}"
                alt = f"{title}: log p(x) by quadrature against {figures.AXES[x]}. {ends(ours, [])}"
                drawn.append(plot(f"figure3-{n}-{x}", alt, figures.panel(ours, [], title, x, SPLITS, "log p(x)")))
    return drawn
