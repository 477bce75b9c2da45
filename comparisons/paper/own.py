"""The runs in the folder, whatever they are runs of, beside one another."""

from comparisons.paper import made
from comparisons.paper.found import FIGURES, Found
from comparisons.reporting import figures, tables
from comparisons.reporting.blocks import Block, Figure, Fold, Heading, Link, Long, Paragraph
from comparisons.runner.rows import PANEL

CAPTION = "Higher is better; train is solid, test dashed, and a band is a standard error over seeds."
MOST = 4  # panels that the page itself holds
TITLES = {"figure3": "log p(x) and lower bounds", "figure2": "Lower bounds"}


def blocks(found: Found) -> list[Block]:
    """Return each comparison's learning curves and tables, or where these lie if they are many."""
    shown: list[Block] = []
    for figure, title in TITLES.items():
        name, rows = FIGURES[figure], getattr(found.rows, figure)
        if rows.empty:
            continue
        panels, file = len(rows[PANEL].drop_duplicates()), f"{name}/table.md"
        link = Link(file, f"Tables of {panels} panels")
        shown.append(Heading(title))
        if panels > MOST:
            shown.append(Paragraph((link, ": the baseline, the difference to the best and the costs of every run.")))
            continue
        alt = f"{title} against training points seen, a curve for each method and engine; the tables hold the numbers."
        svg = figures.learning_curves(tables.by_name(rows)).encode()
        curves = Figure(svg, f"figures/{name}.svg", alt, caption=CAPTION)
        manifests = found.manifests[figure].values()
        shown += [curves, *tables.blocks(rows, found.known[figure]), Long([Fold("Commands", made.blocks(manifests))])]
    return shown or [Paragraph("No comparison has been run into this folder yet.")]
