"""A grid of experiments, one for each combination of flags that were given several values: asked for, and run.

The missing cells alone are run, here or on workers, and every row is kept as it comes.
"""

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import inference
from comparisons.cli import parts
from comparisons.cli.flags import JUDGED, RUN, Parser, check, expanded, read
from comparisons.data import Data, Own, digest, files, load, take
from comparisons.disk import locking, writing
from comparisons.errors import DataError, FlagError, StorageError, UnfitError, UserError, in_one_line, unknown
from comparisons.evidence.judge import ESTIMATORS
from comparisons.runner import ahead, baselines, store
from comparisons.runner.cell import Cell, on, points
from comparisons.runner.experiment import Experiment, built
from comparisons.runner.jobs import Job, work
from comparisons.runner.watching import cost, display
from inference.base import Engine, setting

# Given all rows of a folder, the folder, and those rows that a command asked for: writes tables and figures there, and
# returns what is to be printed.
Report = Callable[[Any, Path, Any], str]
Loaded = dict[int | None, Data]  # a request's data, by `n_train`


# The flags that take several values and span the grid.
GRID = {f.name: f for f in fields(Experiment) if f.metadata.get("spans")}
# Defaults of who asks for a comparison, and for nothing else.
EVERYTHING: dict[str, Any] = {"backend": ("all",), "engine": ("all",), "seed": (0,)}


@dataclass(frozen=True)
class Request:
    """What a command asks for: the cells, and where results go."""

    comparison: str
    experiments: list[Experiment]
    out: Path
    data_dir: Path | None
    running: "Running"
    command: str = ""  # that asks for the same, where none was typed


class Looked(NamedTuple):
    """A request after all that can be wrong with it has been looked at: its cells, and their data."""

    request: Request
    jobs: list[Job]
    data: Loaded


@dataclass(frozen=True, kw_only=True)
class Running:
    """How a grid is worked through: nothing here changes a number. Each field is a flag. Raises FlagError."""

    workers: int = setting(1, "cells run at once, in processes of their own [processes]", low=1, high=1024, about=RUN)
    scheduler: str = setting(
        "", "a running Dask scheduler whose workers run the cells: tcp://host:port", words=True, about=RUN
    )
    checkpoint_seconds: float = setting(
        60.0, "time between two checkpoints of a run [seconds]", low=0.0, high=1e6, about=RUN
    )
    keep_stops: bool = setting(False, "keep the fit as it was at each stop, so that it can be judged again", about=RUN)
    fresh: bool = setting(False, "run finished and unfinished cells again, from the start", about=RUN)
    dry_run: bool = setting(False, "list the cells that would run, and about how long; run nothing", about=RUN)

    def __post_init__(self) -> None:
        check(self)
        if self.scheduler and not re.fullmatch(r"(tcp|tls|ws|wss)://[\w.\-\[\]:]+:\d{1,5}", self.scheduler):
            raise FlagError(f"scheduler {self.scheduler!r} is no address; write it as tcp://host:port")
        if self.scheduler and self.workers > 1:
            raise FlagError("--scheduler has workers of its own; drop --workers")


def parse(
    comparison: str,
    description: str,
    defaults: dict[str, Any],
    arguments: Sequence[str] | None,
    presets: Iterable[str] = (),
) -> Request:
    """Turn flags into experiments, the product of every flag that was given several values. Raises FlagError."""
    cards = {JUDGED: {name: card.settings for name, card in ESTIMATORS.items()}}
    kinds = (Experiment, Running)
    flags, out, data_dir = read(comparison, description, kinds, defaults, arguments, presets, cards)
    running = Running(**{f.name: flags.pop(f.name) for f in fields(Running)})
    grid = {name: expanded(field, flags.pop(name)) for name, field in GRID.items()}
    experiments = [Experiment(**flags, **dict(zip(grid, values, strict=True))) for values in product(*grid.values())]
    return Request(comparison, experiments, out, data_dir, running)


def parse_preset(
    comparison: str,
    description: str,
    defaults: dict[str, Any],
    presets: Mapping[str, Sequence[dict[str, Any]]],
    arguments: Sequence[str] | None,
) -> list[Request]:
    """Turn flags into requests: one, or with `--preset` one for each of its panels, whose flags are other defaults.

    Flags that are given hold for all panels; with `--data`, the panels of that data set alone are run. Raises
    FlagError.
    """
    first = Parser(add_help=False)
    first.add_argument("--preset")
    first.add_argument("--data")
    told, rest = first.parse_known_args(arguments)
    rest += ["--data", told.data] if told.data else []
    if told.preset is None:
        return [parse(comparison, description, defaults, rest, presets)]
    if told.preset not in presets:
        raise unknown("preset", told.preset, presets)
    panels = [panel for panel in presets[told.preset] if told.data in (None, panel["data"])]
    if not panels:
        known = ", ".join(dict.fromkeys(panel["data"] for panel in presets[told.preset]))
        raise FlagError(f"preset {told.preset!r} has no panel of data {told.data!r}; choose from {known}")
    return [parse(comparison, description, {**defaults, **panel}, rest, presets) for panel in panels]


def run_grids(requests: list[Request], report: Report) -> int:
    """Run one grid after another; return 0, or 1 where a run failed. Raises UserError.

    What is wrong with any of them is found before the first begins.
    """
    if requests[0].running.dry_run:
        return copy_context().run(_dry_run, requests)
    return run(looked_at(requests), report)


def looked_at(requests: list[Request]) -> list[Looked]:
    """Return the cells and the data of requests, which can now be run. Raises UserError for what is wrong with any."""
    for request in requests:
        writing.prepare(request.out)
        baselines.read(request.out)  # a damaged file is said before anything is computed
    loaded = {e.data: load(e.data, request.data_dir) for request in requests for e in request.experiments[:1]}
    for name in loaded:
        if isinstance(name, Own):  # what was found in it, for whoever knows what should be there
            print(name.read.told, file=sys.stderr)
    return [_look_ahead(request, loaded[request.experiments[0].data]) for request in requests]


def run(looked: list[Looked], report: Report) -> int:
    """Run one grid after another; return 0, or 1 where a run failed. Raises UserError."""
    codes, unfit = [], []
    for one in looked:
        try:
            codes.append(_run(*one, report))
        except UnfitError as error:  # of some of its cells; the others have run, and so will the other grids
            unfit.append(str(error))
    if unfit:
        raise UnfitError("; ".join(unfit))
    return max(codes)


def _dry_run(requests: list[Request]) -> int:
    """List all cells, and how long they would take: trains, writes and downloads nothing. Raises UserError."""
    files.downloading.set(False)  # in this context alone
    jobs: list[Job] = []
    for request in requests:
        data, running = request.experiments[0].data, request.running
        try:
            jobs += _look_ahead(request, load(data, request.data_dir)).jobs
        except DataError as error:  # cells are named after their data
            print(f"{data}, {len(request.experiments)} cells: {error}")
    if jobs:
        _start_engines(jobs, look_only=True)
        ahead.show(jobs, running.fresh, running.workers)
    return 0


def _run(request: Request, jobs: list[Job], data: Loaded, report: Report) -> int:
    """Run every cell that is not finished, then write the report, whatever ended the runs."""
    fresh, place = request.running.fresh, store.Place(request.out)
    missing = [job for job in jobs if fresh or _unfinished(job)]
    if len(missing) < len(jobs):
        print(f"{len(jobs) - len(missing)} of {len(jobs)} cells are finished and reused", file=sys.stderr)
    if missing and not request.running.scheduler:
        # Workers import engines at the same time as one another; here it would be before any of them begins.
        _start_engines(missing, look_only=request.running.workers > 1)
    for job in missing:
        with locking.locked(job.out, job.cell.name, wait=False) as held:
            if held:  # else another command is at work on it
                store.announce(job.out, job.cell.name, job.manifest, fresh)
    # The longest first: a long one that starts last would keep one worker busy while the others stand idle.
    missing.sort(key=lambda job: -cost(job.cell.experiment))
    told = 0
    try:
        if missing:
            with display(missing) as watch:
                _work(missing, data, request.running, watch)
    finally:
        place.hold()
        with store.gathering(request.out):
            rows = store.collect(request.out)
            if len(rows):
                baselines.keep(request.out, ((job.cell, data[job.cell.experiment.n_train]) for job in jobs))
                told = _reported(report, request.out, rows, rows.cell.isin({job.cell.name for job in jobs}))
    return _failures(jobs) or told


def _unfinished(job: Job) -> bool:
    return not store.finished(job.out, job.cell.name) or store.renewed(job.out, job.cell.name)


def _reported(report: Report, out: Path, rows: Any, asked: Any) -> int:
    """Write and print the report of finished runs; return 1 where it breaks, which takes none of them away."""
    try:
        text = report(rows, out, rows[asked])
    except Exception as error:  # of it alone: the other grids still run
        reason = in_one_line(error, with_type=not isinstance(error, UserError))
        print(f"the report of {out} broke ({reason}); its rows are in {out / 'cells'}", file=sys.stderr)
        return 1
    if text:
        print(text)
    return 0


def _work(jobs: list[Job], data: Loaded, running: Running, watch: Callable[[], None]) -> None:
    if running.workers > 1 or running.scheduler:
        from comparisons.runner.workers import work_on_workers

        work_on_workers(jobs, running.workers, running.scheduler, watch)
        return
    for job in jobs:
        work(job, data[job.cell.experiment.n_train], watch)


def _look_ahead(request: Request, whole: Data) -> Looked:
    data = {n_train: take(whole, n_train) for n_train in dict.fromkeys(e.n_train for e in request.experiments)}
    digests = {n_train: digest(one) for n_train, one in data.items()}
    # A worker may stand in another folder, and not know this process's environment.
    named = request.data_dir or os.environ.get("AEVB_DATA")
    folder = Path(named).expanduser().absolute() if named else None
    here, out, running = store.environment(), request.out.absolute(), request.running
    here |= {"command": request.command} if request.command else {}
    how = folder, running.checkpoint_seconds, running.keep_stops
    cells = [on(e, data[e.n_train], digests[e.n_train]) for e in request.experiments]
    jobs = [Job(request.comparison, cell, out, here, *how) for cell in cells]
    _hold_models(request, data)
    _tell_what_stays(cells)
    return Looked(request, jobs, data)


def _tell_what_stays(cells: list[Cell]) -> None:
    """Say which methods will move nothing, for their steps are all of the optimiser's warm-up."""
    stays: dict[tuple[int, int, int], dict[str, None]] = {}
    for cell in cells:
        e = cell.experiment
        if e.optimizer != "sgd" and 0 < cell.last * e.card.updates(e) <= e.warmup:
            stays.setdefault((cell.last, e.warmup, e.warmup * cell.rows_per_step), {})[str(e.backend)] = None
    for (steps, warmup, rows), names in stays.items():
        print(
            f"{' '.join(names)}: all {steps} steps are of the warm-up of {warmup}, in which nothing moves; "
            f"raise --samples well above {rows:,}, or lower --warmup",
            file=sys.stderr,
        )


def _hold_models(request: Request, data: Loaded) -> None:
    """Hold models from files to their contract before any cell begins; every run holds its own. Raises FlagError."""
    own = [e for e in request.experiments if isinstance(e.model, parts.Part)]
    for e in {(e.model, e.guide, e.engine, e.n_train, e.n_latent, e.n_hidden): e for e in own}.values():
        try:
            engine = inference.engine(e.engine, e.device, e.threads)
        except (ImportError, RuntimeError, AssertionError):  # said when the engines start, or of no matter here
            continue
        from comparisons.checks.contract import hold

        x, _ = points(data[e.n_train], "train", e.eval_points)
        hold(engine, built(e, x.shape[1]), e.model, x)


def _failures(jobs: list[Job]) -> int:
    """Name the runs that failed, and why; return the exit code. Raises UnfitError where settings are why.

    Raises StorageError for results that are gone again.
    """
    failed: dict[str, list[str]] = {}
    unfit: dict[str, None] = {}
    for job in jobs:
        manifest = store.read_latest(job.out, job.cell.name)
        status, reason = manifest.get("status"), manifest.get("reason")
        if manifest.get("unfit"):
            unfit[str(reason)] = None
        elif status in ("diverged", "failed"):
            failed.setdefault("diverged" if status == "diverged" else f"failed ({reason})", []).append(job.name)
    for reason, names in failed.items():
        advice = "a smaller --step-size may help" if reason == "diverged" else "the same command tries them again"
        print(f"{reason}: {'; '.join(names)}; {advice}", file=sys.stderr)
    if unfit:
        raise UnfitError("; ".join(unfit))
    if gone := [job.name for job in jobs if _unfinished(job) and not failed]:
        raise StorageError(f"what was written of {'; '.join(gone)} is not there; {store.GONE}")
    return 1 if failed else 0


def _start_engines(jobs: list[Job], look_only: bool) -> None:
    """Import and build every engine that the jobs need, or see that it is there, before any runs. Raises FlagError."""
    first = jobs[0].cell.experiment
    for name in sorted({job.cell.experiment.engine for job in jobs}):
        started(name, first.device, first.threads, look_only)
    for compiled in {e.engine: e for job in jobs if (e := job.cell.experiment).compiled and not look_only}.values():
        try:
            inference.engine(compiled.engine, compiled.device, compiled.threads, compiled=True)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise FlagError(
                f"engine {compiled.engine!r}: {reason}; install a C++ compiler, or add --compile off"
            ) from error


def started(name: str, device: str, threads: int, look_only: bool = False) -> Engine | None:
    """Return an engine, or with `look_only` see that it is there, where that can be seen. Raises FlagError."""
    try:
        if not look_only or device != "cpu":
            return inference.engine(name, device, threads)
        inference.look(name)
    except ImportError as error:
        reason, packages = str(error).splitlines()[0], inference.ENGINES[name].packages
        raise FlagError(f"engine {name!r} is not installed ({reason}); install it: pip install {packages}") from error
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise FlagError(f"engine {name!r} cannot use {device!r} ({reason}); choose --device cpu") from error
    return None
