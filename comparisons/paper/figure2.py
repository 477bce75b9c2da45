"""The section on Figure 2: the lower bound against points seen, ours over the paper's."""

from comparisons.paper import reproduction
from comparisons.paper import reproduction_figures as figures
from comparisons.paper.curves import WHOLE, curves
from comparisons.paper.found import Found
from comparisons.paper.reproduction import SPLITS, ends, plot
from comparisons.paper.verdicts import MODEL_OF, TITLES, panel
from comparisons.reporting.blocks import Block, Figure

TEXT = (
    "The lower bound on log p(x) against training points seen. Our curves are in colour, the paper's in grey; "
    "train is solid, test dashed, and a band is the standard deviation over seeds."
)


def blocks(found: Found) -> list[Block]:
    """Return the panels, and what the paper's curves say of ours."""
    return reproduction.blocks(found, "figure2", TEXT, plots(found))


def plots(found: Found) -> list[Figure]:
    """Return a plot for each panel of Figure 2 that was run: the lower bound against points seen."""
    drawn = []
    for data in MODEL_OF:
        for k in sorted(int(k) for k in found.figure2[found.figure2.data == data].n_latent.unique()):
            part = panel(found.figure2, "figure2", data, k, WHOLE[data])
            ours = figures.lines(part, ["elbo_nats"], SPLITS, "n_seen")
            papers = [c for c in curves() if c[:3] == ("figure2", data, k)]
            if not ours:
                continue
            title = f"{TITLES[data]}, {k} latent variables"
            alt = f"{title}: lower bound against training points seen. {ends(ours, papers)}"
            svg = figures.panel(ours, papers, title, "n_seen", SPLITS, "lower bound")
            drawn.append(plot(f"figure2-{data}-{k}", alt, svg))
    return drawn
