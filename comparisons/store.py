"""Where results lie: a folder per cell, every file written whole or not at all.

<out>/cells/<cell>/rows.csv            the cell's rows
                   manifest.json       its settings, versions, commit, hardware, command
                   state.safetensors   the backend's last state, theta and q in it (kept out of git)
<out>/rows.csv                         all cells' rows: a pure function of the folders above
"""

import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from comparisons.errors import StorageError
from comparisons.rows import COLUMNS, Row, to_csv

if TYPE_CHECKING:
    import pandas as pd

SEPARATOR = "/"  # between the names of a nested state
LIBRARIES = ("torch", "pyro-ppl", "jax", "jaxlib", "numpyro", "optax", "numpy", "pandas", "scikit-learn")


def prepare(out: Path) -> None:
    """Make the folder and try to write in it, before anything is computed. Raises StorageError."""
    try:
        (out / "cells").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise StorageError(f"cannot write to {out} ({error.strerror}); choose another folder with --out") from error


def write(path: Path, content: str | bytes) -> None:
    """Write a file atomically: temporary file, fsync, rename. Raises StorageError; the old file then still stands."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"cannot write {path} ({error.strerror}); what was there before is unchanged") from error


def save_cell(out: Path, cell: str, rows: list[Row], manifest: dict[str, Any], state: dict[str, Any]) -> None:
    """Write or overwrite a cell's folder; `state` is nested dicts of NumPy arrays, empty where there is none."""
    from safetensors.numpy import save

    folder = out / "cells" / cell
    if state:
        write(folder / "state.safetensors", save(dict(_flat(state))))
    else:  # one from before a divergence is not this run's result
        (folder / "state.safetensors").unlink(missing_ok=True)
    write_json(folder / "manifest.json", manifest)
    write(folder / "rows.csv", to_csv(rows))


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a dict as JSON, atomically. Raises StorageError."""
    write(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write dicts as CSV, a column for each key that any of them has, atomically. Raises StorageError."""
    import pandas as pd

    write(path, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))


def finished(out: Path, cell: str, n_seen: int) -> bool:
    """Say whether a cell has a state, and rows that end well at `n_seen` points."""
    folder = out / "cells" / cell
    if not (folder / "state.safetensors").exists():
        return False
    try:
        with (folder / "rows.csv").open(newline="") as file:
            last = list(csv.DictReader(file))[-1]
    except (OSError, IndexError, csv.Error):
        return False
    return last.get("status") == "ok" and last.get("n_seen") == str(n_seen)


def load_state(out: Path, cell: str) -> dict[str, Any]:
    """Read back a cell's state, nested as it was. Raises StorageError."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = out / "cells" / cell / "state.safetensors"
    try:
        flat = load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise StorageError(f"cannot read {path} ({error}); run its cell again") from error
    state: dict[str, Any] = {}
    for name, value in flat.items():
        *groups, last = name.split(SEPARATOR)
        inner = state
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[last] = value
    return state


def _flat(state: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    for name, value in state.items():
        if isinstance(value, dict):
            yield from _flat(value, prefix + name + SEPARATOR)
        else:
            yield prefix + name, np.ascontiguousarray(value).reshape(np.shape(value))  # which would make scalars [1]


def collect(out: Path) -> "pd.DataFrame":
    """Gather every cell's rows, write `<out>/rows.csv`, and return them. Raises StorageError for a damaged file."""
    import pandas as pd

    frames = []
    for path in sorted((out / "cells").glob("*/rows.csv")):
        try:
            frame = pd.read_csv(
                path,
                keep_default_na=False,
                na_values={c: [""] for c in ("value", "stderr", "step_size", "eval_seconds", "flagged")},
            )
        except (OSError, ValueError) as error:
            raise StorageError(f"cannot read {path} ({error}); remove its folder and run the cell again") from error
        if not set(frame.columns) <= set(COLUMNS) or "value" not in frame.columns:
            raise StorageError(f"{path} has other columns than this version writes; remove its folder and run it again")
        # What an older version did not write yet stays empty.
        frames.append(frame.reindex(columns=list(COLUMNS)))
    rows = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(COLUMNS))
    write(out / "rows.csv", rows.to_csv(index=False, lineterminator="\n"))
    return rows


def environment() -> dict[str, Any]:
    """What a number depends on besides its settings: versions, commit, processor, command."""
    versions = {}
    for library in LIBRARIES:
        with suppress(PackageNotFoundError):
            versions[library] = version(library)
    return {
        "command": " ".join(["python", "-m", *_module(), *sys.argv[1:]]),
        "commit": _git("rev-parse", "HEAD")
        + ("+changes" if _git("status", "--porcelain", "--", ".", ":!reports") else ""),
        "python": platform.python_version(),
        "versions": versions,
        "processor": _processor(),
        "cores": os.cpu_count(),
    }


def _module() -> list[str]:
    return [f"comparisons.{Path(sys.argv[0]).stem}"]


def _git(*args: str) -> str:
    root = Path(__file__).parent
    try:
        return subprocess.run(["git", *args], cwd=root, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
