"""What a cell's folder says of itself in records, and whether that is so."""

import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypedDict

from comparisons.disk import reading
from comparisons.errors import DamagedError, UserError

FIRST = 2  # the version of the numbers of cells whose manifest has none


class Settings(TypedDict, total=False):
    """Of an experiment, what is read before it is one again."""

    data: str
    model: str
    guide: str
    backend: str
    engine: str
    seed: int
    n_latent: int
    n_hidden: int
    samples: int
    evidence: list[str]


class Manifest(TypedDict, total=False):
    """How a cell's results came about. An older version did not write all of it."""

    status: str
    reason: str
    unfit: bool
    cell: str
    settings: Settings
    files: dict[str, str]
    data_digest: str
    numbers_version: int
    process: dict[str, str]
    pilot: dict[str, str]
    resumed: list[dict[str, Any]]
    rows: list[dict[str, str | float | None]]
    command: str
    commit: str
    python: str
    processor: str
    versions: dict[str, str]


class Progress(TypedDict, total=False):
    """How far a run has come."""

    n_seen: int
    doing: str


def read(path: Path, kind: Any = Manifest) -> dict[str, Any]:
    """Return a record, empty where there is none that can be read."""
    try:
        return reading.record(path, kind)
    except DamagedError:
        return {}


def wrong(folder: Path, manifest: dict[str, Any], files: Iterable[str]) -> str:
    """Say how a cell's folder differs from its manifest: in its name, or the SHA-256 of files; "" if it does not.

    A manifest without settings tells no name, and one of a user's own model, backend or data that of its own version.
    """
    for name in sorted(files):
        if (known := manifest.get("files", {}).get(name)) is None:
            return f"its manifest tells no SHA-256 of {name}"
        if reading.sha256(folder / name) != known:
            return f"{name} has another SHA-256 than its manifest tells"
    try:
        of = {"numbers_version": FIRST, "process": {}, **manifest}
        told = {name: of.get(name) for name in ("settings", "data_digest", "numbers_version", "process")}
        names = {manifest.get("cell", folder.name), _named(json.dumps(told, sort_keys=True)) or folder.name}
    except (UserError, TypeError, ValueError, KeyError) as error:
        return f"its settings are none of this version: {error}"
    others = sorted(names - {folder.name})
    return f"its settings are those of {others[0]}" if others else ""


@lru_cache(maxsize=4096)
def _named(told: str) -> str:
    """Return the name that settings give a cell, "" where that takes files of a user's. Raises UserError, TypeError."""
    from comparisons.data import DATA
    from comparisons.runner.experiment import Experiment, completed, identity
    from inference import BACKENDS, ENGINES
    from models import MODELS

    manifest = json.loads(told)
    settings = completed(manifest["settings"] or {})
    known: dict[str, Any] = {"data": DATA, "model": MODELS, "backend": BACKENDS, "engine": ENGINES}
    if not manifest["data_digest"] or any(settings[name] not in values for name, values in known.items()):
        return ""
    return identity(Experiment(**settings), manifest["data_digest"], manifest["numbers_version"], manifest["process"])
