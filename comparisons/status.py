"""The state of the cells in a folder of results: done, running, waiting, failed, and how far they have come.

Looks at files alone, so it can be asked at any time, from another terminal.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

from comparisons import cli, store

STATES = ("running", "waiting", "interrupted", "done", "older", "diverged", "failed", "damaged")


class Look(NamedTuple):
    """What is to be seen of a cell: `share` of its training points, `doing` and `reason` in words."""

    cell: str
    status: str
    name: str
    share: float
    n_seen: int
    samples: int
    doing: str
    reason: str


def look(out: Path, cell: str) -> Look:
    """Look at one cell. One whose process has gone is `interrupted`; one whose files are not as written, `damaged`.

    One that a version before checkpoints wrote is `older`: its rows count, and its command would compute it again.
    """
    manifest = store.read_manifest(out, cell)
    settings = manifest.get("settings") or {}
    samples = int(settings.get("samples") or 0)
    status = str(manifest.get("status", "older" if settings else "damaged"))
    progress: dict[str, Any] = {}
    if status in store.FINISHED:
        n_seen = samples if store.finished(out, cell) else 0
        status = status if n_seen or not samples else "damaged"
    elif status in ("failed", "older"):
        n_seen = samples
    else:
        progress = store.read_progress(out, cell)
        n_seen = int(progress.get("n_seen") or 0)
        if store.busy(out, cell):
            status = "running"
        elif status == "running" or progress or (out / "cells" / cell / "checkpoint.safetensors").exists():
            status = "interrupted"
    name = " ".join(str(settings[key]) for key in ("data", "backend", "engine") if key in settings)
    name += f" k={settings.get('n_latent')} seed {settings.get('seed')}" if settings else ""
    share = min(1.0, n_seen / samples) if samples else 0.0
    doing = str(progress.get("doing", "")) if status == "running" else ""
    return Look(cell, status, name, share, n_seen, samples, doing, str(manifest.get("reason", "")))


def main(arguments: list[str] | None = None) -> int:
    """Print a line for each cell and a summary; return 1 where cells failed, else 0. Raises UserError."""
    parser = argparse.ArgumentParser(prog="python -m comparisons.status", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "out", nargs="*", default=["reports/marginal_likelihood"],
        help="folders of results (default: reports/marginal_likelihood)",
    )  # fmt: skip
    seen = []
    for out in parser.parse_args(arguments).out:
        folder = Path(out) / "cells"
        if not folder.is_dir():
            raise cli.FlagError(f"there are no cells in {out}; name a folder that a comparison wrote to with --out")
        seen += [look(Path(out), path.name) for path in sorted(folder.iterdir()) if path.is_dir()]
    seen.sort(key=lambda one: STATES.index(one.status) if one.status in STATES else len(STATES))
    for one in seen:
        far = f"{one.n_seen:,} of {one.samples:,}" if one.samples else ""
        print(f"{one.status:12}{one.name:40}{far:>24}  {one.reason or one.doing}".rstrip())
    counts = {state: sum(one.status == state for one in seen) for state in STATES}
    print("\n" + ", ".join(f"{count} {state}" for state, count in counts.items() if count))
    return 1 if counts["failed"] or counts["diverged"] or counts["damaged"] else 0


if __name__ == "__main__":
    cli.main(lambda: main(sys.argv[1:]))
