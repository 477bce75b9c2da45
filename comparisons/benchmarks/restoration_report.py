"""The restoration's rows as blocks of a report, and its pictures as a figure."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from comparisons.benchmarks.templates import filled
from comparisons.reporting.blocks import Block, Heading, Items, Paragraph, Table

if TYPE_CHECKING:
    import pandas as pd

POSTERIOR, ENCODER, COLUMNS, NEAREST = "posterior", "encoder", "independent pixels", "nearest images"
NEIGHBOURS = 10  # training images that the nearest are
MIXED = 1.05  # R-hat
UNSEEN = (0.55, 0.7, 0.9)  # blue
Row = dict[str, Any]
Pictures = dict[str, np.ndarray]  # images [m, d] by what they are

ABOUT = "Images restored from what is seen of them: noise taken off, unseen pixels filled in, blocks taken apart."
FIGURE = (
    "Test images, what is seen of them, and what each method restores: the posterior mean, E[x | z, y] at two draws of "
    "z, and what a recognition network and the training images say alone."
)
TITLE = "Images restored from what is seen of them"
NOTE = (
    "log score: log p(x | y) of a pixel, the log of the mean over draws, in nats per scored pixel; squared error: that "
    "of E[x | y]; ± is one standard error over images. Scored are the unseen pixels, or all where each is seen through "
    "noise or in a sum. less than posterior: of the same images. Monte-Carlo error: of the log score, by leaving out "
    f"chains. unmixed: share of images with an R-hat above {MIXED}. Grey images of Bernoulli decoders are binarised "
    f"by a draw first. {ENCODER}: draws from q(z | x) of what is seen, completed by the training mean. nearest "
    f"images: the {NEIGHBOURS} training images nearest to what is seen, and the mean of all."
)
CELLS = {
    "method": "{0.backend}",
    "restored by": "{0.way}",
    "log score": "{0.log_score:.4f} ± {0.log_score_stderr:.4f}",
    "squared error": "{0.squared_error:.4f} ± {0.squared_error_stderr:.4f}",
    "less than posterior": "{0.to_posterior:+.4f} ± {0.to_posterior_stderr:.4f}",
    "Monte-Carlo error": "{0.mc_error:.4f}",
    "unmixed": "{0.unmixed:.0%}",
}


def blocks(rows: "pd.DataFrame") -> list[Block]:
    """Return the findings in sentences, and a table for each data set and task."""
    if rows.empty:
        return []
    rows = rows.assign(backend=rows.backend.fillna("").replace("", "-"))
    groups = list(rows.groupby(["data", "task"], sort=False))
    tables: list[Block] = []
    for (data, task), part in groups:
        one = part.iloc[0]
        tables += [
            Heading(f"{task.replace('_', ' ').capitalize()}, {data}"),
            Table(
                [*CELLS],
                [
                    [cell.replace("+nan ± nan", "-").replace("nan", "-") for cell in line]
                    for line in filled(part, CELLS)
                ],
                caption=f"{one.model}, {one.n_latent} latent variables, {one.n_images} images of {one.n_pixels} pixels",
            ),
        ]
    return [Items([_said(part) for _, part in groups], lined=True), *tables, Paragraph(NOTE)]


def _said(part: "pd.DataFrame") -> str:
    best = part[part.way == POSTERIOR].sort_values("log_score").iloc[-1]
    others = part[part.way.ne(POSTERIOR) & (part.backend.isin(["-", best.backend]))]
    told = ", ".join(
        f"{row.way} {row.to_posterior:+.3f} ± {row.to_posterior_stderr:.3f}" for row in others.itertuples()
    )
    return (
        f"{best.data}, {best.task.replace('_', ' ')}: {best.log_score:.3f} nats per pixel by posterior draws under "
        f"{best.backend}; on the same images, less the posterior: {told}."
    )


def line(row: Row) -> str:
    """Return a row as a line of a terminal."""
    who = f"{row['backend']} {row['way']}".strip()
    return f"{row['data']} {row['task']}, {who}: {row['log_score']:.4f} ± {row['log_score_stderr']:.4f} nats per pixel"


def figure(pictures: Mapping[tuple[str, str], tuple[tuple[int, int], Pictures]]) -> str:
    """Draw the pictures [m, d] of each data set and task, a row a way to restore, as SVG; blue is unseen."""
    from comparisons.reporting import drawing

    down = len({data for data, _ in pictures})
    across, rows = -(-len(pictures) // down), max(len(images) for _, images in pictures.values())

    def draw(figure: Any) -> None:
        axes = figure.subplots(down, across, squeeze=False).flat
        for axis, ((data, task), (shape, images)) in zip(axes, pictures.items(), strict=False):
            height = shape[0]
            tiles = np.stack([*images.values()]).reshape(len(images), -1, *shape)
            tiles = np.pad(tiles, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=1.0)
            sheet = tiles.swapaxes(1, 2).reshape(len(images) * (height + 1), -1)
            grey = np.repeat(np.clip(sheet, 0.0, 1.0)[..., None], 3, -1)
            grey[np.isnan(sheet)] = UNSEEN
            axis.imshow(grey, interpolation="none")
            axis.set_yticks((np.arange(len(images)) + 0.5) * (height + 1), [*images])
            axis.set_xticks([])
            axis.tick_params(length=0)
            axis.spines[:].set_visible(False)
            axis.set_title(f"{data}: {task.replace('_', ' ')}")

    return drawing.svg((4.8 * across, (0.36 * rows + 0.4) * down), draw)
