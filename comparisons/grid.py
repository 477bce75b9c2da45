"""Run a grid of experiments: the missing cells alone, here or on workers, every row kept as it comes."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import inference
from comparisons import parts, store
from comparisons.cells import Job, work
from comparisons.cli import Request
from comparisons.data import Data, digest, load, take
from comparisons.errors import FlagError
from comparisons.experiment import Experiment

Report = Callable[[Any, Path], None]  # (all rows of the folder, the folder): writes tables and figures


def run_grid(request: Request, report: Report) -> int:
    """Run every cell that is not finished, then write the report. Returns 0, or 1 where a run failed.

    Whatever ends it, the rows written so far are gathered and reported. Raises UserError.
    """
    data = _look_ahead(request)
    jobs = list(_jobs(request, data))
    from comparisons import tables

    fresh = request.running.fresh
    missing = [job for job in jobs if fresh or not store.finished(job.out, job.cell)]
    if len(missing) < len(jobs):
        print(f"{len(jobs) - len(missing)} of {len(jobs)} cells are finished and reused", file=sys.stderr)
    if missing and not request.running.scheduler:
        # Workers import engines at the same time as one another; here it would be before any of them begins.
        _start_engines(missing, look_only=request.running.workers > 1)
    for job in missing:
        manifest = {**job.environment, "settings": asdict(job.experiment)}
        with store.locked(job.out, job.cell, wait=False) as held:
            if held:  # else another command is at work on it
                store.announce(job.out, job.cell, manifest, fresh)
    # The longest first: a long one that starts last would keep one worker busy while the others stand idle.
    missing.sort(key=lambda job: -cost(job.experiment))
    try:
        if missing:
            with _display(missing) as watch:
                if request.running.workers > 1 or request.running.scheduler:
                    from comparisons.workers import work_on_workers

                    running = request.running
                    work_on_workers(missing, running.workers, running.scheduler, watch)
                else:
                    for job in missing:
                        work(job, data[job.experiment.n_train], watch)
    finally:
        rows = store.collect(request.out)
        if len(rows):
            report(rows, request.out)
            mine = {job.cell for job in jobs}
            print(tables.plain(rows[rows.cell.isin(mine)]))
    return _failures(jobs)


def run_grids(requests: list[Request], report: Report) -> int:
    """Run one grid after another, into the same folder; return the greatest exit code. Raises UserError.

    What is wrong with any of them is found before the first begins.
    """
    for request in requests:
        _look_ahead(request)
    return max([run_grid(request, report) for request in requests])


def cost(experiment: Experiment) -> float:
    """Guess how long an experiment takes, in any unit: to have the long ones begin first, and to tell the time left."""
    e = experiment
    evaluations = {
        "aevb": e.particles,
        "wake_sleep": 2,
        "mean_field": e.particles * (e.local_steps + 1),
        "monte_carlo_em": e.leapfrog_steps + 1 + e.weight_updates,
    }.get(e.backend, 2)
    # Pyro runs Python in every step, which counts most where there is little else to do.
    each = (2.0 if e.engine == "pyro" else 1.0) * (0.2 + 1e-3 * (e.n_hidden + e.n_latent))
    return e.samples * evaluations * each


def _look_ahead(request: Request) -> dict[int | None, Data]:
    """Return the data by `n_train`, after everything that can be wrong with the grid has been looked at.

    Raises UserError.
    """
    store.prepare(request.out)
    whole = load(request.experiments[0].data, request.data_dir)
    data = {n_train: take(whole, n_train) for n_train in dict.fromkeys(e.n_train for e in request.experiments)}
    for experiment in request.experiments:
        experiment.fit_to(*data[experiment.n_train].train.shape)
    _hold_models(request, data)
    return data


def _hold_models(request: Request, data: dict[int | None, Data]) -> None:
    """Hold models from files to their contract before any cell begins; every run holds its own. Raises FlagError."""
    own = [e for e in request.experiments if isinstance(e.model, parts.Part)]
    for e in {(e.model, e.engine, e.n_train, e.n_latent, e.n_hidden): e for e in own}.values():
        try:
            engine = inference.engine(e.engine, e.device, e.threads)
        except (ImportError, RuntimeError, AssertionError):  # said when the engines start, or of no matter here
            continue
        from comparisons.checks.contract import hold
        from comparisons.run import points

        x, _ = points(data[e.n_train], "train", e.eval_points)
        hold(engine, e.built(x.shape[1]), e.model, x)


def _jobs(request: Request, data: dict[int | None, Data]) -> Iterator[Job]:
    """Yield the grid's cells."""
    here = store.environment()
    digests = {n_train: digest(one) for n_train, one in data.items()}
    # A worker may stand in another folder, and not know this process's environment.
    named = request.data_dir or os.environ.get("AEVB_DATA")
    folder = Path(named).expanduser().absolute() if named else None
    for experiment in request.experiments:
        environment = {**here, "data_digest": digests[experiment.n_train]}
        cell = experiment.identity(environment["data_digest"])
        yield Job(
            request.comparison, cell, experiment, request.out.absolute(), folder, len(data[experiment.n_train].train),
            environment, request.running.checkpoint_seconds, request.running.keep_stops,
        )  # fmt: skip


def _failures(jobs: list[Job]) -> int:
    """Name the runs that failed, and why; return the exit code."""
    failed: dict[str, list[str]] = {}
    for job in jobs:
        manifest = store.read_manifest(job.out, job.cell)
        if manifest.get("status") == "diverged":
            failed.setdefault("diverged", []).append(job.name)
        elif manifest.get("status") == "failed":
            failed.setdefault(f"failed ({manifest.get('reason')})", []).append(job.name)
    for reason, names in failed.items():
        advice = "a smaller --step-size may help" if reason == "diverged" else "the same command tries them again"
        print(f"{reason}: {'; '.join(names)}; {advice}", file=sys.stderr)
    return 1 if failed else 0


@contextmanager
def _display(jobs: list[Job]) -> Iterator[Callable[[], None]]:
    """Show one bar for the grid: done, running, failed, and the time left; yield what brings it up to date.

    Where nobody watches (a log file), it is a line every half minute.
    """
    from tqdm import tqdm

    from comparisons.status import look

    costs = {job.cell: cost(job.experiment) for job in jobs}
    watched = sys.stderr.isatty()
    shown = 0.0
    form = "{desc} {bar:20} {percentage:3.0f}% [{elapsed}<{remaining}]" + ("" if watched else "\n")
    with tqdm(total=100.0, bar_format=form, file=sys.stderr, mininterval=1e9) as bar:

        def watch() -> None:
            nonlocal shown
            if time.monotonic() - shown < (0.5 if watched else 30.0):
                return
            shown = time.monotonic()
            seen = [look(job.out, job.cell) for job in jobs]
            counts = {name: sum(one.status == name for one in seen) for name in ("running", "diverged", "failed")}
            done = sum(one.status == "done" for one in seen)
            text = f"{done} of {len(jobs)} cells done, {counts['running']} running, {counts['failed']} failed"
            text += f", {counts['diverged']} diverged" if counts["diverged"] else ""
            doing = [f"{one.doing} {one.name}" for one in seen if one.status == "running" and one.doing]
            bar.set_description_str(f"{text}; {doing[0]}" if len(doing) == 1 else text, refresh=False)
            share = sum(costs[job.cell] * one.share for job, one in zip(jobs, seen, strict=True)) / sum(costs.values())
            bar.update(max(0.0, 100.0 * share - bar.n))
            bar.refresh()

        watch()
        yield watch
        shown = 0.0
        watch()


def _start_engines(jobs: list[Job], look_only: bool) -> None:
    """Import and build every engine that the jobs need, or see that it is there, before any runs. Raises FlagError."""
    first = jobs[0].experiment
    for name in sorted({job.experiment.engine for job in jobs}):
        try:
            if look_only and first.device == "cpu":
                inference.look(name)
            else:
                inference.engine(name, first.device, first.threads)
        except ImportError as error:
            reason, packages = str(error).splitlines()[0], inference.PACKAGES[name]
            raise FlagError(
                f"engine {name!r} is not installed ({reason}); install it: pip install {packages}"
            ) from error
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise FlagError(f"engine {name!r} cannot use {first.device!r} ({reason}); choose --device cpu") from error
    for compiled in {job.experiment.engine: job.experiment for job in jobs if job.experiment.compiled}.values():
        if look_only:
            break
        try:
            inference.engine(compiled.engine, compiled.device, compiled.threads, compiled=True)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise FlagError(
                f"engine {compiled.engine!r}: {reason}; install a C++ compiler, or add --compile off"
            ) from error
