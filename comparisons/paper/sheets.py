"""The sections on Figures 4 and 5: what fitted decoders show, and how each sheet of images was made."""

from comparisons.paper import pictures
from comparisons.paper.found import Found
from comparisons.paper.pictures import Sheet
from comparisons.paper.words import NAMES
from comparisons.reporting import blocks as b

MANIFOLD = (
    "The decoder's mean on a grid over the two latent variables, equally spaced on the unit square and put through the "
    "inverse distribution function of the normal."
)
SAMPLES = "The decoder's mean at random draws of z from the prior, for growing numbers of latent variables."


def manifold(found: Found) -> list[b.Block]:
    """Return Figure 4."""
    return _blocks("manifold", MANIFOLD, found.sheets["manifold"])


def samples(found: Found) -> list[b.Block]:
    """Return Figure 5."""
    return _blocks("samples", SAMPLES, found.sheets["samples"])


def _blocks(folder: str, text: str, sheets: list[Sheet]) -> list[b.Block]:
    """Return the images of a folder, each with what made it; `text` says what they show."""
    if not sheets:
        return [b.Paragraph(text), *b.not_run(f"python -m comparisons.{folder}")]
    long, short, made = [], [], []
    for path, facts in sheets:
        s, title, image, file = facts["settings"], facts["title"], path.read_bytes(), f"{folder}/{path.name}"
        caption = (
            f"{title}. {NAMES.get(s['backend'], s['backend'])} on {s['engine']}, {s['n_hidden']} hidden units, "
            f"{s['samples']:,} points seen."
        )
        long.append(b.Figure(image, file, f"{title}: {facts['latents']}.", "sheet", caption=caption))
        short.append(b.Figure(image, file, title, "sheet"))
        made.append(b.Fold(title, [b.Table(["", ""], pictures.settings(facts), caption=title)]))
    data = ("Data: ", b.Link(f"{folder}/table.md", "images and settings"), ".")
    return [
        b.Long([b.Figures(long, caption=text), b.Heading("How they were made"), *made, b.Paragraph(data, "note")]),
        b.Short([b.Figures(short, caption=text), b.Paragraph(data)]),
    ]
