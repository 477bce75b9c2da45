"""What a fitted decoder shows: its means as a sheet of images, kept as a PNG with all that made it."""

import hashlib
import re
import struct
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from comparisons.data import Data, digest
from comparisons.disk import reading, writing
from comparisons.errors import UnfitError
from comparisons.paper.panels import FIGURE2
from comparisons.reporting import markdown
from comparisons.reporting.blocks import Block, Figure, Heading, Table
from comparisons.runner import store
from comparisons.runner.experiment import Experiment, built, numbers_version
from comparisons.runner.fits import Fit, decoded, earlier, fitted
from comparisons.runner.grid import started
from inference.latents import latents

FOLDERS = earlier("lower_bound", "manifold", "samples")
Sheet = tuple[Path, dict[str, Any]]  # a PNG, and the facts beside it


class Fitted(TypedDict):
    """Of the settings of a fit, what is shown of it."""

    backend: str
    engine: str
    n_latent: int
    n_hidden: int
    samples: int
    seed: int
    theta: str


class Facts(TypedDict):
    """What is shown of how a sheet was made."""

    title: str
    latents: str
    settings: Fitted
    command: str
    commit: str
    python: str
    cell: str
    shape: tuple[int, int]
    pixels_sha256: str


VERSIONS = ("numpyro", "jax", "pyro-ppl", "torch", "numpy")  # of the libraries that people ask about
HIDDEN = {"mnist": 500, "frey": 200}  # the paper's section 5


def experiment(plan: Any, data: str, n_latent: int, n_hidden: int) -> Experiment:
    """Return the fit to draw, as `comparisons.lower_bound --preset` trains and judges it for Figure 2.

    So each takes up the fits of the other. `plan` has the model, backend, engine, seed, threads and samples.
    """
    planned = {name: getattr(plan, name) for name in ("model", "backend", "engine", "seed", "samples", "threads")}
    judged: dict[str, Any] = {"eval_points": 10_000, "evidence": ("none",), **FIGURE2}
    return Experiment(data=data, n_latent=n_latent, n_hidden=n_hidden, **planned, **judged)


def drawn(experiment: Experiment, data: Data, out: Path) -> Fit:
    """Return the fit to draw, from where an earlier command left it or trained here. Raises UserError.

    A picture is laid over z ~ N(0, I): what has other latent sites is refused before it is trained.
    """
    engine: Any = started(experiment.engine, experiment.device, experiment.threads)
    if not latents(engine, built(experiment, data.train.shape[1])).plain:
        raise UnfitError(
            f"model {str(experiment.model)!r} has other latent sites than one z ~ N(0, I), over which these pictures "
            "are laid; comparisons.compare has fit.sample(16, mean=True)"
        )
    return fitted(experiment, data, out, FOLDERS)


def decoder_means(fit: Fit, z: np.ndarray) -> np.ndarray:
    """Return E[x | z] [n, n_x] for z [n, n_latent], clipped to [0, 1] as pixels are."""
    return np.clip(decoded(fit, z), 0.0, 1.0)


def sheet(images: np.ndarray, shape: tuple[int, int], columns: int) -> np.ndarray:
    """Lay images [n, rows * columns] of this shape out row by row, `columns` beside each other; white is 1.

    Returns uint8 [height, width]. Raises ValueError unless n is a multiple of `columns`.
    """
    rows = images.reshape(-1, columns, *shape).swapaxes(1, 2)
    return np.round(255.0 * rows.reshape(rows.shape[0] * shape[0], columns * shape[1])).astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    """Return grey pixels [height, width] uint8 as a PNG file, the same bytes for the same pixels and zlib."""
    height, width = pixels.shape
    lines = np.pad(pixels, ((0, 0), (1, 0)))  # each line starts with its filter: 0, none
    header = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)  # 8 bits, grey
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    )


def keep(out: Path, name: str, title: str, pixels: np.ndarray, latents: str, fit: Fit, data: Data) -> None:
    """Write `<name>.png`, and `<name>.json` with what made it: settings, versions, and the SHA-256 of the pixels.

    `latents` says in words which z were decoded. Raises StorageError.
    """
    writing.write(out / f"{name}.png", png(pixels))
    shown = {"title": title, "latents": latents, "cell": fit.cell.name, "data_digest": digest(data)}
    made = {"settings": asdict(fit.experiment), "numbers_version": numbers_version(fit.experiment)}
    sha256 = hashlib.sha256(pixels.tobytes()).hexdigest()
    image = {"shape": list(pixels.shape), "pixels_sha256": sha256, "fit": _fit(out, fit.cell.name)}
    writing.write_json(out / f"{name}.json", {**store.environment(), **shown, **made, **image})


def read(out: Path) -> list[Sheet]:
    """Return the sheets in a folder, by name: each one's PNG, and the facts beside it. Raises StorageError."""
    found = []
    for path in sorted(out.glob("*.json"), key=_by_number):
        image, mend = path.with_suffix(".png"), "remove it and draw it again"
        facts = reading.record(path, mend=mend)
        if (
            "pixels_sha256" in facts
            and reading.record(path, Facts, mend)
            and reading.content(image)[:8] == b"\x89PNG\r\n\x1a\n"
        ):
            found.append((image, facts))
    return found


def table(heading: str, sheets: list[Sheet]) -> str:
    """Return a folder's table.md: each image, and a table of what made it."""
    blocks: list[Block] = []
    for path, facts in sheets:
        title = facts["title"]
        blocks += [Heading(title), Figure(b"", path.name, title), Table(["", ""], settings(facts))]
    return markdown.printed(blocks, heading)


def settings(facts: dict[str, Any]) -> list[list[str]]:
    """Return what made a sheet, as pairs of name and value, for people."""
    s = facts["settings"]
    fit = (
        f"{s['backend']} on {s['engine']}, {s['n_latent']} latent variables, {s['n_hidden']} hidden units, "
        f"{s['samples']:,} points seen, seed {s['seed']}, theta={s['theta']}"
    )
    made = facts.get("fit") or {}
    bound = made.get("bound")
    rows = [
        ("fit", fit),
        ("lower bound, test", f"{bound:.2f} nats per datapoint" if bound is not None else "-"),
        ("decoded", f"{facts['latents']}; each image is the decoder's mean"),
        ("fitted by", f"`{made.get('command', '-')}` at commit {made.get('commit', '-')}"),
        ("drawn by", f"`{facts['command']}` at commit {facts['commit']}"),
        ("versions", f"{versions(facts)}, Python {facts['python']}"),
        ("cell", str(facts["cell"])),
        ("pixels", f"{facts['shape'][1]} x {facts['shape'][0]}, 8 bit grey, SHA-256 {facts['pixels_sha256']}"),
    ]
    return [[name, " ".join(str(value).split())] for name, value in rows]


def versions(facts: dict[str, Any]) -> str:
    """Return the libraries' versions in a manifest."""
    there = facts.get("versions") or {}
    return ", ".join(f"{name} {there[name]}" for name in VERSIONS if name in there)


def _fit(out: Path, cell: str) -> dict[str, Any]:
    """Return how the fit came about: command, commit, and its lower bound on test at its end [nats]."""
    for folder in (out, *FOLDERS):
        if not store.finished(folder, cell, with_state=True):
            continue
        manifest = store.read_manifest(folder, cell)
        rows = store.read_rows(folder / "cells" / cell / "rows.csv")
        ours = rows[(rows.metric == "elbo_nats") & (rows.split == "test")].sort_values("n_seen")
        bound = round(float(ours.value.iloc[-1]), 4) if len(ours) else None  # Monte Carlo EM has none
        return {"command": manifest.get("command"), "commit": manifest.get("commit"), "bound": bound}
    return {}


def _by_number(path: Path) -> list[str | int]:
    """Return the words and numbers of a file's name, so that 10 comes after 2."""
    return [int(word) if word.isdigit() else word for word in re.findall(r"[^\W_]+|[\W_]", path.stem)]
