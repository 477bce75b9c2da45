"""Where results lie: a folder per cell, every file written whole or not at all.

<out>/cells/<cell>/manifest.json            status, settings, versions, commit, hardware, command, SHA-256 of each file
                   rows.csv                 the cell's rows
                   state.safetensors        the backend's last state, theta and q in it (kept out of git)
                   checkpoint.safetensors   what an unfinished run goes on from (kept out of git)
                   stops/<step>.safetensors a fit as it was at each stop, with --keep-stops (kept out of git)
                   progress.json, lock      of a run under way (kept out of git)
                   renewal.json             the manifest of a run beside a finished one, until it takes its place
<out>/rows.csv                              all cells' rows: a pure function of the folders above

A cell is finished when its manifest says so, the rows have the SHA-256 that it names, and its folder has the name that
its settings give: see `runner.manifests`.
"""

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comparisons.cli.parts import shown
from comparisons.disk import locking, reading
from comparisons.disk.writing import write, write_json
from comparisons.errors import DamagedError, StorageError, printable
from comparisons.runner import checkpoint, manifests
from comparisons.runner.rows import COLUMNS, EMPTY, WORDS, Row, to_csv

if TYPE_CHECKING:
    import pandas as pd

ROOT = Path(__file__).parents[2]
LIBRARIES = ("torch", "pyro-ppl", "jax", "jaxlib", "numpyro", "optax", "numpy", "pandas", "scikit-learn")
GONE = "cells that were finished lie where it went; put it back, or choose another with --out"
FINISHED = ("done", "diverged")  # what running a cell again would not change


def save_cell(out: Path, cell: str, rows: list[Row], manifest: dict[str, Any], state: dict[str, Any]) -> None:
    """Write or overwrite a cell's folder; `state` is nested dicts of NumPy arrays, empty where there is none.

    The manifest comes last, with its `status` and the SHA-256 of the other files: until then the cell is not finished.
    """
    folder = out / "cells" / cell
    files = {"rows.csv": to_csv(rows).encode()}
    if state:
        files["state.safetensors"] = checkpoint.pack(state, {})
    else:  # one from before a divergence is not this run's result
        (folder / "state.safetensors").unlink(missing_ok=True)
    for name, content in files.items():
        write(folder / name, content)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    write_json(folder / "manifest.json", {**manifest, "files": sums})


def save_checkpoint(
    out: Path, cell: str, arrays: dict[str, Any], facts: dict[str, Any], stop: int | None = None
) -> None:
    """Write what a run goes on from, or a fit as it was at a stop. Raises StorageError; what was there then stands."""
    write(_checkpoint(out, cell, stop), checkpoint.pack(arrays, facts))


def load_checkpoint(out: Path, cell: str, stop: int | None = None) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return arrays and facts of an unfinished run, or of a fit at a stop; None where there are none.

    Raises StorageError for damage.
    """
    path = _checkpoint(out, cell, stop)
    return checkpoint.read(path) if path.exists() else None


def drop_checkpoint(out: Path, cell: str) -> None:
    """Remove what a finished run no longer needs."""
    for name in ("renewal.json", "checkpoint.safetensors", "progress.json"):
        (out / "cells" / cell / name).unlink(missing_ok=True)


def announce(out: Path, cell: str, manifest: dict[str, Any], fresh: bool) -> None:
    """Say in a cell's folder that it is to be run, from the start where that is asked for. Raises StorageError.

    Results that are there stand until it has run to its end.
    """
    if fresh:
        drop_checkpoint(out, cell)
    write_standing(out, cell, {**manifest, "status": "waiting"})


def write_standing(out: Path, cell: str, manifest: dict[str, Any]) -> None:
    """Write the manifest of a run without results: beside that of results which stand, else in its place."""
    before = read_manifest(out, cell)
    kept = {"files": before["files"]} if "files" in before else {}  # of an unfinished run's rows
    name = "renewal.json" if stands(out, cell) else "manifest.json"
    write_json(out / "cells" / cell / name, {**manifest, **kept})


def stands(out: Path, cell: str) -> bool:
    """Say whether a cell holds results that another run may only replace whole: finished, or of the first version."""
    return finished(out, cell) or ("status" not in (told := read_manifest(out, cell)) and "settings" in told)


def renewed(out: Path, cell: str) -> bool:
    """Say whether a run beside a finished one was announced, and has not come to its end."""
    return (out / "cells" / cell / "renewal.json").exists()


def read_manifest(out: Path, cell: str) -> dict[str, Any]:
    """Return a cell's manifest, empty where there is none that can be read."""
    return manifests.read(out / "cells" / cell / "manifest.json")


def read_latest(out: Path, cell: str) -> dict[str, Any]:
    """Return the manifest of the run that was last announced: of one beside finished results, else the cell's."""
    return manifests.read(out / "cells" / cell / "renewal.json") or read_manifest(out, cell)


def read_progress(out: Path, cell: str) -> dict[str, Any]:
    """Return what the run under way last said of itself, empty where nothing."""
    return manifests.read(out / "cells" / cell / "progress.json", manifests.Progress)


def write_progress(out: Path, cell: str, progress: dict[str, Any]) -> None:
    """Say how far a run has come: for those who watch, of no consequence if it is lost."""
    with suppress(StorageError):
        write(out / "cells" / cell / "progress.json", json.dumps(progress), lasting=False)


def finished(out: Path, cell: str, with_state: bool = False) -> bool:
    """Say whether a cell has run to its end and its rows, and its state where it is wanted, are as they were written.

    With its state, a cell that diverged is none.
    """
    manifest = read_manifest(out, cell)
    wanted = {"rows.csv", "state.safetensors"} if with_state else {"rows.csv"}
    done = manifest.get("status") in FINISHED and wanted <= manifest.get("files", {}).keys()
    return done and not manifests.wrong(out / "cells" / cell, manifest, wanted)


def load_state(out: Path, cell: str) -> dict[str, Any]:
    """Read back a cell's state, nested as it was. Raises StorageError."""
    arrays, _ = checkpoint.read(out / "cells" / cell / "state.safetensors")
    return arrays


def collect(out: Path) -> "pd.DataFrame":
    """Gather the rows of every cell that counts, write `<out>/rows.csv`, and return them. Raises StorageError."""
    rows = gathered(out)
    write(out / "rows.csv", as_csv(rows))
    return rows


def gathered(out: Path) -> "pd.DataFrame":
    """Return the rows of every cell that counts; of those that are damaged, say on stderr which they are, and why.

    A cell that another one with the same settings has superseded stays out: a mean over both would count a seed twice.
    """
    import pandas as pd

    past, frames = superseded(out), []
    for path in sorted((out / "cells").glob("*/rows.csv")):
        if path.parent.name not in past:
            try:
                if why := damage(out, path.parent.name):
                    raise DamagedError(path, why, "")
                frames.append(read_rows(path))
            except DamagedError as error:
                if not locking.busy(out, path.parent.name):  # else it is just being written
                    print(f"{printable(path.parent.name)} is damaged, and not counted: {error.why}", file=sys.stderr)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(COLUMNS))


def as_csv(rows: "pd.DataFrame") -> str:
    """Return the rows of several cells as their file has them."""
    known = rows if rows.compile_seconds.notna().any() else rows.drop(columns="compile_seconds")  # as they were written
    return known.to_csv(index=False, lineterminator="\n")


@contextmanager
def gathering(out: Path) -> Iterator[None]:
    """Hold a folder while its cells are gathered and shown: of two commands, the one that is last shows all."""
    if not (out / "cells").is_dir():
        raise StorageError(f"{out / 'cells'} is not there; {GONE}")
    with locking.folder(out / "cells"):
        yield


class Place:
    """A folder as it was when it was first looked at: one that is moved, removed or replaced is another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known = self._now()

    def hold(self) -> None:
        """Raise StorageError where the folder is another by now."""
        if self._now() != self.known:
            raise StorageError(f"{self.folder} was moved, removed or replaced while it was written to; {GONE}")

    def _now(self) -> tuple[int, int] | None:
        with suppress(OSError):
            seen = self.folder.stat()
            return seen.st_dev, seen.st_ino
        return None


def superseded(out: Path) -> set[str]:
    """Return the cells whose numbers are of an earlier version than another finished cell's with the same settings."""
    from comparisons.runner.experiment import completed  # which, like most, has no need of a store

    versions: dict[str, dict[str, int]] = {}
    for path in sorted((out / "cells").glob("*/rows.csv")):
        manifest = read_manifest(out, path.parent.name)
        if stands(out, path.parent.name):
            settings = json.dumps(completed(manifest.get("settings", {})), sort_keys=True, default=str)
            versions.setdefault(settings, {})[path.parent.name] = int(manifest.get("numbers_version", 0))
    return {cell for cells in versions.values() for cell in cells if cells[cell] < max(cells.values())}


def damage(out: Path, cell: str) -> str:
    """Say how a cell with rows is not as it was written, "" where it is. The first version told no SHA-256 of them."""
    folder = out / "cells" / cell
    try:
        manifest = reading.record(folder / "manifest.json", manifests.Manifest)
    except DamagedError as error:
        return error.why
    asked = {"rows.csv"} if "status" in manifest else {"rows.csv"} & manifest.get("files", {}).keys()
    return manifests.wrong(folder, manifest, asked)


def read_rows(path: Path) -> "pd.DataFrame":
    """Read rows as they were written; columns that an older version did not write stay empty. Raises DamagedError."""
    frame = reading.table(path, [name for name in COLUMNS if name not in WORDS], EMPTY)
    if not set(frame.columns) <= set(COLUMNS) or "value" not in frame.columns:
        raise DamagedError(path, "it has other columns than this version writes", "remove its folder and run it again")
    return frame.reindex(columns=list(COLUMNS))


def environment() -> dict[str, Any]:
    """What a number depends on besides its settings: versions, commit, processor, command; else "unknown"."""
    return {
        "command": _command(),
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": versions(),
        "processor": _processor(),
        "cores": os.cpu_count(),
    }


def _command() -> str:
    """Return what was typed, as far as a process knows it: a module of ours, a script's name, or code."""
    start, arguments = sys.argv[0], [*map(shown, sys.argv[1:])]
    if start in ("", "-", "-c", "-m"):  # of code on a command line or on stdin, or of a notebook, nothing more is known
        return f"python {start}".strip() + " ..."
    path = Path(start).resolve()
    within = ROOT / "comparisons" in path.parents
    module = ["-m", ".".join(path.with_suffix("").relative_to(ROOT).parts)] if within else [path.name]
    return " ".join(["python", *module, *arguments])


def _commit() -> str:
    """Return the checkout's commit; "unknown" where git is missing, refuses the folder, or tells of another one."""
    top, head = _git("rev-parse", "--show-toplevel"), _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--", ".", ":!reports")
    if not top or not head or changes is None or Path(top).resolve() != ROOT.resolve():
        return "unknown"
    return head + ("+changes" if changes else "")


def versions() -> dict[str, str]:
    """Return the version of each library that is installed."""
    found = {}
    for library in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[library] = version(library)
    return found


def _checkpoint(out: Path, cell: str, stop: int | None) -> Path:
    return out / "cells" / cell / ("checkpoint.safetensors" if stop is None else f"stops/{stop}.safetensors")


def _git(*args: str) -> str | None:
    """Return what git says of the checkout, whatever repository a hook is at work on; None where it fails."""
    about = {
        name: value for name, value in os.environ.items() if name not in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")
    }
    try:
        done = subprocess.run(
            ["git", *args], cwd=ROOT, env=about, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
