"""A cell to be run, from start to end: its folder, its checkpoint, and what becomes of a run that fails."""

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
from comparisons.disk import locking
from comparisons.errors import DataError, StorageError, UnfitError, UserError
from comparisons.runner import store
from comparisons.runner.cell import Cell
from comparisons.runner.experiment import built, completed, numbers_version
from comparisons.runner.rows import BLANK

TELLING = 0.5  # seconds between two words about the progress
OUT_OF_MEMORY = "out of memory"


@dataclass(frozen=True)
class Job:
    """A cell to be run, here or in another process, which sees the same folders."""

    comparison: str
    cell: Cell
    out: Path
    environment: dict[str, Any]  # of the command
    data_dir: Path | None = None
    checkpoint_seconds: float = 60.0
    keep_stops: bool = False

    @property
    def name(self) -> str:
        """What people read of it."""
        e = self.cell.experiment
        return f"{e.backend} {e.engine} seed {e.seed} k={e.n_latent}{'' if e.theta == 'map' else f' theta {e.theta}'}"

    @property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint has to share with it to be its own."""
        return {
            "cell": self.cell.name,
            "settings": asdict(self.cell.experiment),
            "data_digest": self.cell.data_digest,
            "numbers_version": numbers_version(self.cell.experiment),
        }

    @property
    def manifest(self) -> dict[str, Any]:
        """What its results tell of how they came about, besides their status."""
        process = inference.unpinned(self.cell.experiment.engine)
        return {**self.environment, **self.identity, **({"process": process} if process else {})}


def work(job: Job, data: Data | None = None, watch: Callable[[], None] = lambda: None) -> str:
    """Run a job to its end, and return how it ended: "done", "diverged", "failed" or "reused".

    The data are loaded here where they are not given: names and digests travel, arrays do not. Somebody else's work on
    the same cell is waited for, and then used. `watch` is called now and then. A run that fails for a reason of its own
    leaves rows of status `failed` and the reason in its manifest. Raises UserError for what would stop other cells too.
    """
    out, cell = job.out, job.cell.name
    with locking.locked(out, cell):
        if store.finished(out, cell) and not store.renewed(out, cell):
            return "reused"
        data = data or _data(job)
        told, last = 0.0, ""

        def progress(n_seen: int, doing: str) -> None:
            nonlocal told, last
            if time.monotonic() - told > TELLING or doing != last:
                told, last = time.monotonic(), doing
                store.write_progress(out, cell, {"n_seen": n_seen, "doing": doing})
                watch()

        try:
            return run_cell(job, data, progress)
        except UnfitError as error:  # what a file's backend cannot do is known when it is built
            give_up(job, str(error), unfit=True)
        except UserError:
            raise
        except Exception as error:
            reason = _reason(error)
            if reason != OUT_OF_MEMORY:  # one of ours: it should be mended, and for that be seen
                import traceback

                traceback.print_exc(file=sys.stderr)
            give_up(job, reason)
        return "failed"


def give_up(job: Job, reason: str, unfit: bool = False) -> None:
    """Write down that a cell failed, and why: rows without numbers, and a manifest. Raises StorageError.

    One is `unfit` where its own settings are why, and trying again would change nothing. Finished results stand.
    """
    told = {"status": "failed", "reason": reason, **({"unfit": True} if unfit else {})}
    if store.stands(job.out, job.cell.name):
        store.write_standing(job.out, job.cell.name, {**job.manifest, **told})
        return
    common = {**job.cell.common(job.comparison), **BLANK, "status": "failed"}
    rows = [{**common, "split": split, "metric": name} for split, name in job.cell.owes(_has_q(job.cell))]
    store.save_cell(job.out, job.cell.name, rows, {**job.manifest, **told}, {})


def _has_q(cell: Cell) -> bool:
    """Say whether the method has a q(z | x), and so owes a bound: by its card, else by what it builds, if it does."""
    e = cell.experiment
    try:
        if e.card.has_q is not None:
            return e.card.has_q
        engine = inference.engine(e.engine, e.device, e.threads)
        return e.card.build(engine, built(e, cell.n_x), e.settings).posterior is not None
    except Exception:  # whatever it was that failed: nothing is known to be owed
        return False


def run_cell(job: Job, data: Data, progress: Callable[[int, str], None] = lambda n_seen, doing: None) -> str:
    """Run a cell to its end, from its checkpoint where it has one; return its status, `done` or `diverged`.

    A damaged checkpoint is said and left behind. Finished results stand until others are complete. Raises StorageError
    for a checkpoint of other settings or data, and for a folder that is moved or removed meanwhile.
    """
    from comparisons.cli import stopping
    from comparisons.runner.run import MisfitError, run

    out, cell, versions = job.out, job.cell.name, store.versions()
    kept, resumed = _kept(job, versions)
    owner = {"identity": job.identity, "versions": versions}
    (out / "cells" / cell).mkdir(parents=True, exist_ok=True)
    place, stands = store.Place(out / "cells" / cell), store.stands(out, cell)

    def keep(arrays: dict[str, Any], facts: dict[str, Any], stop: int | None = None) -> None:
        place.hold()
        besides = {} if stop else {"resumed": resumed}
        store.save_checkpoint(out, cell, arrays, {**facts, **owner, **besides}, stop)

    how = job.checkpoint_seconds, job.keep_stops
    while True:
        try:
            with stopping.deferred():
                for result in run(job.comparison, job.cell, data, progress, keep, kept, *how):
                    place.hold()
                    if stands and result.status == "running":
                        continue
                    told = {**job.manifest, "status": result.status, **({"resumed": resumed} if resumed else {})}
                    if result.pilot:  # as text: JSON has no infinity
                        told["pilot"] = {size: str(score) for size, score in result.pilot.items()}
                    store.save_cell(out, cell, result.rows, told, result.state)
            break
        except MisfitError as error:
            print(f"the checkpoint of {cell} does not fit ({error}): it starts again", file=sys.stderr)
            kept = None
    store.drop_checkpoint(out, cell)
    place.hold()
    return result.status


def _kept(job: Job, versions: dict[str, str]) -> tuple[Any, list[dict[str, Any]]]:
    """Return a cell's checkpoint, None where there is none, and how often and from where the run has gone on."""
    cell = job.cell.name
    try:
        kept = store.load_checkpoint(job.out, cell)
    except StorageError as error:
        print(f"{error}: it starts again", file=sys.stderr)
        return None, []
    if not kept:
        return None, []
    _, facts = kept
    _same(job.identity, facts.get("identity", {}), job.out / "cells" / cell)
    n_seen = int(facts.get("step", 0)) * job.cell.rows_per_step
    resumed = [*facts.get("resumed", []), {"n_seen": n_seen}]
    if changed := _differences(facts.get("versions", {}), versions, "{} {} before, {} now", None):
        print(f"{cell} goes on under other versions than it began with: {', '.join(changed)}", file=sys.stderr)
        resumed[-1]["changed"] = ", ".join(changed)
    return kept, resumed


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
    mine, theirs = ({**one, **one["settings"], "settings": None} for one in (mine, theirs))
    if mine != theirs:
        how = "; ".join(_differences(theirs, mine, "{}: {} there, {} here", "nothing")[:5])
        raise StorageError(f"the checkpoint in {folder} is of another run ({how}); remove that folder or add --fresh")


def _differences(one: dict[str, Any], other: dict[str, Any], form: str, missing: Any) -> list[str]:
    """Say where two dicts differ, in order of the names; what one lacks has `missing` for a value."""
    names = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
    return [form.format(name, one.get(name, missing), other.get(name, missing)) for name in names]


def _data(job: Job) -> Data:
    e = job.cell.experiment
    data, found = _loaded(e.data, job.data_dir, e.n_train)
    if found != job.cell.data_digest:
        raise DataError(
            f"{e.data} here is not the data the command was given ({found[:12]}, {job.cell.data_digest[:12]})"
        )
    return data


@lru_cache(maxsize=2)
def _loaded(name: str, data_dir: Path | None, n_train: int | None) -> tuple[Data, str]:
    data = take(load(name, data_dir), n_train)
    return data, digest(data)
