"""One cell from start to end: its folder, its checkpoint, and what becomes of a run that fails."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import inference
from comparisons.data import Data, digest, load, take
from comparisons.errors import DataError, StorageError, UserError
from comparisons.runner import store
from comparisons.runner.experiment import Experiment, completed

CHECKPOINT_SECONDS = 60.0
TELLING = 0.5  # seconds between two words about the progress


@dataclass(frozen=True)
class Job:
    """A cell to be run, here or in another process, which sees the same folders."""

    comparison: str
    cell: str
    experiment: Experiment
    out: Path
    data_dir: Path | None
    n_train: int  # of the data: how many the experiment takes of them
    environment: dict[str, Any]  # of the command: with the data's digest
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    keep_stops: bool = False

    @property
    def name(self) -> str:
        """What people read of it."""
        e = self.experiment
        return f"{e.backend} {e.engine} seed {e.seed} k={e.n_latent}{'' if e.theta == 'map' else f' theta {e.theta}'}"


def work(job: Job, data: Data | None = None, watch: Callable[[], None] = lambda: None) -> str:
    """Run a job to its end, and return how it ended: "done", "diverged", "failed" or "reused".

    The data are loaded here where they are not given: names and digests travel, arrays do not. Somebody else's work on
    the same cell is waited for, and then used. `watch` is called now and then. A run that fails for a reason of its own
    leaves rows of status `failed` and the reason in its manifest. Raises UserError for what would stop other cells too.
    """
    with store.locked(job.out, job.cell):
        if store.finished(job.out, job.cell):
            return "reused"
        data = data or _data(job)
        told, last = 0.0, ""

        def progress(n_seen: int, doing: str) -> None:
            nonlocal told, last
            if time.monotonic() - told > TELLING or doing != last:
                told, last = time.monotonic(), doing
                store.write_progress(job.out, job.cell, {"n_seen": n_seen, "doing": doing})
                watch()

        try:
            return run_cell(
                job.comparison, job.out, job.cell, job.experiment, data, job.environment, progress,
                job.checkpoint_seconds, job.keep_stops,
            )  # fmt: skip
        except UserError:
            raise
        except Exception as error:
            reason = _reason(error)
            if reason != OUT_OF_MEMORY:  # one of ours: it should be mended, and for that be seen
                import traceback

                traceback.print_exc(file=sys.stderr)
            give_up(job, reason)
            return "failed"


def give_up(job: Job, reason: str) -> None:
    """Write down that a cell failed, and why: rows without numbers, and a manifest. Raises StorageError."""
    from comparisons.runner.run import failed

    experiment = job.experiment
    rows = failed(job.comparison, job.cell, experiment, job.n_train)
    manifest = {**job.environment, "settings": asdict(experiment), "status": "failed", "reason": reason}
    store.save_cell(job.out, job.cell, rows, manifest, {})


def run_cell(
    comparison: str,
    out: Path,
    cell: str,
    experiment: Experiment,
    data: Data,
    environment: dict[str, Any],
    progress: Callable[[int, str], None],
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    keep_stops: bool = False,
) -> str:
    """Run a cell to its end, from its checkpoint where it has one; return its status, `done` or `diverged`.

    A damaged checkpoint is said and left behind. Raises StorageError for one of other settings or data.
    """
    from comparisons.cli import stopping
    from comparisons.runner.run import MisfitError, run

    identity = {
        "cell": cell, "settings": asdict(experiment), "data_digest": environment["data_digest"],
        "numbers_version": experiment.numbers_version,
    }  # fmt: skip
    versions = store.versions()

    def keep(arrays: dict[str, Any], facts: dict[str, Any]) -> None:
        facts |= {"identity": identity, "versions": versions, "resumed": resumed}
        store.save_checkpoint(out, cell, arrays, facts)

    def keep_stop(step: int, arrays: dict[str, Any], facts: dict[str, Any]) -> None:
        store.save_stop(out, cell, step, arrays, {**facts, "identity": identity, "versions": versions})

    kept = None
    resumed: list[dict[str, Any]] = []
    try:
        kept = store.load_checkpoint(out, cell)
    except StorageError as error:
        print(f"{error}: it starts again", file=sys.stderr)
    if kept:
        _same(identity, kept[1].get("identity", {}), out / "cells" / cell)
        resumed = [*kept[1].get("resumed", []), {"n_seen": _n_seen(kept[1], experiment, data)}]
        changed = _changed(kept[1].get("versions", {}), versions)
        if changed:
            print(f"{cell} goes on under other versions than it began with: {changed}", file=sys.stderr)
            resumed[-1]["changed"] = changed
    manifest = {**environment, "settings": asdict(experiment), "numbers_version": experiment.numbers_version}
    process = inference.unpinned(experiment.engine)
    manifest |= {"process": process} if process else {}
    while True:
        try:
            with stopping.deferred():
                for result in run(
                    comparison,
                    cell,
                    experiment,
                    data,
                    progress,
                    keep,
                    kept,
                    checkpoint_seconds,
                    keep_stop if keep_stops else None,
                ):
                    told = {**manifest, "status": result.status, **({"resumed": resumed} if resumed else {})}
                    if result.pilot:  # as text: JSON has no infinity
                        told["pilot"] = {size: str(score) for size, score in result.pilot.items()}
                    store.save_cell(out, cell, result.rows, told, result.state)
            break
        except MisfitError as error:
            print(f"the checkpoint of {cell} does not fit ({error}): it starts again", file=sys.stderr)
            kept = None
    store.drop_checkpoint(out, cell)
    return result.status


OUT_OF_MEMORY = "out of memory"


def _reason(error: Exception) -> str:
    text = str(error)
    if isinstance(error, MemoryError) or any(word in text for word in ("RESOURCE_EXHAUSTED", "can't allocate memory")):
        return OUT_OF_MEMORY
    return f"{type(error).__name__}: {text.splitlines()[0] if text else 'no message'}"[:300]


def _same(mine: dict[str, Any], theirs: dict[str, Any], folder: Path) -> None:
    """Raise StorageError, with the difference, unless a checkpoint is of the same settings and data.

    A setting that its version did not know had its default, as in the name of a cell.
    """
    theirs = {**theirs, "settings": completed(theirs.get("settings", {}))}
    mine, theirs = (json.loads(json.dumps(one)) for one in (mine, theirs))  # as the checkpoint has it: lists for tuples
    if mine == theirs:
        return
    both = [_flat(one) for one in (theirs, mine)]
    differences = [
        f"{name}: {both[0].get(name, 'nothing')} there, {both[1].get(name, 'nothing')} here"
        for name in sorted(both[0].keys() | both[1].keys())
        if both[0].get(name) != both[1].get(name)
    ]
    how = "; ".join(differences[:5])
    raise StorageError(f"the checkpoint in {folder} is of another run ({how}); remove that folder or add --fresh")


def _changed(before: dict[str, str], now: dict[str, str]) -> str:
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    return ", ".join(f"{name} {before.get(name)} before, {now.get(name)} now" for name in names)


def _flat(value: dict[str, Any]) -> dict[str, Any]:
    return {**{name: one for name, one in value.items() if name != "settings"}, **value.get("settings", {})}


def _n_seen(facts: dict[str, Any], experiment: Experiment, data: Data) -> int:
    return int(facts.get("step", 0)) * experiment.rows_per_step(len(data.train))


def _data(job: Job) -> Data:
    data, found = _loaded(job.experiment.data, job.data_dir, job.experiment.n_train)
    expected = job.environment["data_digest"]
    if found != expected:
        raise DataError(
            f"{job.experiment.data} here is not the data the command was given ({found[:12]}, {expected[:12]})"
        )
    return data


@lru_cache(maxsize=2)
def _loaded(name: str, data_dir: Path | None, n_train: int | None) -> tuple[Data, str]:
    data = take(load(name, data_dir), n_train)
    return data, digest(data)
