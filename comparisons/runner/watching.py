"""How far cells have come: read from the files in their folders alone, so that anybody can look at any time."""

import math
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from comparisons.disk import locking
from comparisons.errors import printable
from comparisons.runner import store
from comparisons.runner.experiment import Experiment
from comparisons.runner.jobs import Job
from comparisons.runner.rows import METRICS
from inference import ENGINES

CLEAR = "\r\x1b[K"
LONGEST = 300  # characters of a text from a file that are shown
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
    manifest, stands = store.read_latest(out, cell), store.stands(out, cell)
    settings = manifest.get("settings", {})
    samples = settings.get("samples", 0)
    status = manifest.get("status", "older" if settings else "damaged")
    reason = manifest.get("reason", "")
    progress: dict[str, Any] = {}
    if status in ("failed", "older", *store.FINISHED) or not manifest:
        n_seen = samples
        if why := store.damage(out, cell):
            status, n_seen, reason = "damaged", 0, why
    else:
        progress = store.read_progress(out, cell)
        n_seen = progress.get("n_seen", 0)
        if locking.busy(out, cell):
            status = "running"
        elif status == "running" or progress or (out / "cells" / cell / "checkpoint.safetensors").exists():
            status = "interrupted"
        if stands and status != "running":
            status, n_seen, reason = "done", samples, "another run of it was not finished; these results stand"
    name = " ".join(str(settings[key]) for key in ("data", "backend", "engine") if key in settings)
    name += f" k={settings.get('n_latent')} seed {settings.get('seed')}" if settings else ""
    share = min(1.0, n_seen / samples) if samples else 0.0
    doing = progress.get("doing", "") if status == "running" else ""
    status, name, doing, reason = (printable(text[:LONGEST]) for text in (status, name, doing, reason))
    return Look(cell, status, name, share, n_seen, samples, doing, reason)


@contextmanager
def display(jobs: list[Job]) -> Iterator[Callable[[], None]]:
    """Show one line for the grid: share, time left, what runs and has failed; yield what brings it up to date.

    Above it stays what each cell came to, when it has.
    """
    costs = {job.cell.name: cost(job.cell.experiment) for job in jobs}
    ended: set[str] = set()

    def all_of_them() -> tuple[float, str]:
        seen = [look(job.out, job.cell.name) for job in jobs]
        for job, one in zip(jobs, seen, strict=True):
            if one.status == "done" and one.cell not in ended:
                ended.add(one.cell)
                print(
                    f"{CLEAR if sys.stderr.isatty() else ''}{one.name}: {came_to(job.out, one.cell)}", file=sys.stderr
                )
        return sum(costs[one.cell] * one.share for one in seen) / sum(costs.values()), told(seen)

    with line() as show:
        show(all_of_them)
        yield lambda: show(all_of_them)
        show(all_of_them, now=True)


@contextmanager
def line() -> Iterator[Callable[..., None]]:
    """Show one line: a share, the time left, and words; yield what is given, now and then, what tells share and words.

    Where nobody watches (a log file), it is a whole line every half minute; in a notebook, a text that is replaced.
    """
    watched, began, first, shown = sys.stderr.isatty(), time.monotonic(), -1.0, 0.0
    replace = _notebook_s()

    def show(tell: Callable[[], tuple[float, str]], now: bool = False) -> None:
        nonlocal shown, first
        if not now and shown and time.monotonic() - shown < (0.5 if watched or replace else 30.0):
            return
        shown = time.monotonic()
        share, words = tell()
        first = share if first < 0 else first  # what was there before has taken none of this time
        text = f"{share:4.0%} {remaining(share - first, 1.0 - share, shown - began)}, {words}"
        if replace:
            replace(text)
        elif watched:
            print(f"\r{shortened(text, sys.stderr)}\x1b[K", end="", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)

    try:
        yield show
    finally:
        if watched:
            print(file=sys.stderr)


def _notebook_s() -> Callable[[str], None] | None:
    """Return what shows a text in a notebook's cell, in place of the one before; None where stderr is no kernel's."""
    if not type(sys.stderr).__module__.startswith("ipykernel"):
        return None
    display = import_module("IPython.display").display
    handle: Any = None

    def replace(text: str) -> None:
        nonlocal handle
        shown = {"text/plain": text}
        if handle is None:
            handle = display(shown, raw=True, display_id=True)
        else:
            handle.update(shown, raw=True)

    return replace


def came_to(out: Path, cell: str) -> str:
    """Say the number of a cell's end that counts, in nats: log p(x) on test, or the bound where it is not asked."""
    metric, value = reached(out, cell)
    return f"{METRICS[metric]} on test {value:.2f}" if metric else "done"


def reached(out: Path, cell: str) -> tuple[str, float]:
    """Return that number's metric and the number; "" and -inf where there is none."""
    rows = store.read_rows(out / "cells" / cell / "rows.csv")
    rows = rows[(rows.split == "test") & (rows.n_seen == rows.n_seen.max()) & rows.value.notna()].set_index("metric")
    first = sorted(METRICS, key=lambda name: METRICS[name] != "log p(x)")
    metric = next((name for name in first if name in rows.index), "")
    return metric, float(rows.value[metric]) if metric else -math.inf


def told(seen: list[Look]) -> str:
    """Say in words how many cells have come how far, and what runs, if it is one."""
    counts = Counter(one.status for one in seen)
    text = f"{counts['done']}/{len(seen)} done"
    text += "".join(f", {counts[state]} {state}" for state in ("running", "failed", "diverged") if counts[state])
    doing = [f"; {one.doing} {one.name}" for one in seen if one.status == "running" and one.doing]
    return text + (doing[0] if len(doing) == 1 else "")


def remaining(done: float, left: float, seconds: float) -> str:
    """Say how long the share that is left will take, by the share that was done in so many seconds."""
    return f"{timedelta(seconds=round(seconds * left / done))} left" if done > 0 else "?:??:?? left"


def shortened(text: str, stream: Any) -> str:
    """Cut a line from the right to a terminal's width, at most 80 columns; elsewhere it stays whole."""
    width = min(80, shutil.get_terminal_size().columns)
    return text if len(text) < width or not stream.isatty() else text[: width - 4] + "..."


def cost(e: Experiment) -> float:
    """Guess how long an experiment takes, in any unit: to have the long ones begin first, and to tell the time left."""
    # One that need not compile runs Python in every step, which counts most where there is little else to do.
    each = (2.0 if ENGINES[e.engine].compiling_is_a_choice else 1.0) * (0.2 + 1e-3 * (e.n_hidden + e.n_latent))
    return e.samples * e.card.evaluations(e) * each
