"""The sections on Figures 4 and 5: what fitted decoders show, and how each sheet of images was made."""

from typing import Any

from comparisons.paper import pictures
from comparisons.paper.found import Found
from comparisons.paper.pictures import Sheet
from comparisons.paper.verdicts import NAMES
from comparisons.reporting.blocks import (
    Block,
    Figure,
    Figures,
    Fold,
    Heading,
    Link,
    Long,
    Paragraph,
    Short,
    Table,
    not_run,
)

MANIFOLD = (
    "The decoder's mean on a grid over the two latent variables, equally spaced on the unit square and put through the "
    "inverse distribution function of the normal."
)
SAMPLES = "The decoder's mean at random draws of z from the prior, for growing numbers of latent variables."


def manifold(found: Found) -> list[Block]:
    """Return Figure 4."""
    return _blocks("manifold", MANIFOLD, found.sheets["manifold"])


def samples(found: Found) -> list[Block]:
    """Return Figure 5."""
    return _blocks("samples", SAMPLES, found.sheets["samples"])


def _blocks(folder: str, text: str, sheets: list[Sheet]) -> list[Block]:
    """Return the images of a folder, each with what made it; `text` says what they show."""
    if not sheets:
        return [Paragraph(text), *not_run(f"python -m comparisons.{folder}")]
    images = [(path.read_bytes(), f"{folder}/{path.name}", facts) for path, facts in sheets]
    shown = [
        Figure(image, file, f"{facts['title']}: {facts['latents']}.", _caption(facts), "sheet")
        for image, file, facts in images
    ]
    short = [Figure(image, file, facts["title"], kind="sheet") for image, file, facts in images]
    facts_of = [
        Fold(facts["title"], [Table(["", ""], pictures.settings(facts), facts["title"])]) for _, facts in sheets
    ]
    data = ("Data: ", Link(f"{folder}/table.md", "images and settings"), ".")
    return [
        Paragraph(text),
        Long([Figures(shown), Heading("How they were made"), *facts_of, Paragraph(data, "note")]),
        Short([Figures(short), Paragraph((Link(f"{folder}/table.md", "How they were made"), "."))]),
    ]


def _caption(facts: dict[str, Any]) -> str:
    """Return what stands under a sheet."""
    s = facts["settings"]
    return (
        f"{facts['title']}. {NAMES.get(s['backend'], s['backend'])} on {s['engine']}, {s['n_hidden']} hidden units, "
        f"{s['samples']:,} points seen."
    )
