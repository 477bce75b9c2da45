"""The sections on Figures 4 and 5: what fitted decoders show, and how each sheet of images was made."""

from typing import Any

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
    images = [(path.read_bytes(), f"{folder}/{path.name}", facts) for path, facts in sheets]
    shown = [
        b.Figure(image, file, f"{facts['title']}: {facts['latents']}.", "sheet", caption=_caption(facts))
        for image, file, facts in images
    ]
    short = [b.Figure(image, file, facts["title"], kind="sheet") for image, file, facts in images]
    facts_of = [
        b.Fold(facts["title"], [b.Table(["", ""], pictures.settings(facts), caption=facts["title"])])
        for _, facts in sheets
    ]
    data = ("Data: ", b.Link(f"{folder}/table.md", "images and settings"), ".")
    return [
        b.Long([b.Figures(shown, caption=text), b.Heading("How they were made"), *facts_of, b.Paragraph(data, "note")]),
        b.Short([b.Figures(short, caption=text), b.Paragraph(data)]),
    ]


def _caption(facts: dict[str, Any]) -> str:
    """Return what stands under a sheet."""
    s = facts["settings"]
    return (
        f"{facts['title']}. {NAMES.get(s['backend'], s['backend'])} on {s['engine']}, {s['n_hidden']} hidden units, "
        f"{s['samples']:,} points seen."
    )
