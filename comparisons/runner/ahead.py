"""What a grid would run, and about how long, by the cells that are finished in its folder: runs and writes nothing."""

import csv
import json
import textwrap
from dataclasses import asdict, replace
from datetime import timedelta
from statistics import median

from comparisons.runner import store
from comparisons.runner.cell import Cell
from comparisons.runner.experiment import completed
from comparisons.runner.jobs import Job
from comparisons.runner.watching import look

FREE = ("seed", "samples", "step_size", "pilot_steps")  # settings that leave the cost of a step and of a stop as it is


def show(jobs: list[Job], fresh: bool, workers: int) -> None:
    """Print a line for each cell, and how long those that are not finished take together."""
    times: list[float | None] = []
    for job in jobs:
        done, seen = not fresh and store.finished(job.out, job.cell.name), look(job.out, job.cell.name)
        words, whole = "done", None if done else estimated(job)
        if not done:
            goes_on = seen.status in ("running", "interrupted") and not fresh
            times.append(whole and whole * (1.0 - seen.share * goes_on))
            words = _clock(times[-1]) if times[-1] else "unknown"
        print(f"{f'{job.cell.experiment.data} {job.name} N={job.cell.n_train}'[:60]:61}{words:>19}")
    known = [time for time in times if time]
    text = f"{len(times)} of {len(jobs)} cells would run"
    text += f": {len(known)} in about {_clock(sum(known))}, besides starting" if known else ""
    text += f", shared by {workers} workers" if known and workers > 1 else ""
    text += ". To know the others, run one seed of them first" if len(known) < len(times) else ""
    print(textwrap.fill(f"{text}.", 80))


def estimated(job: Job) -> float | None:
    """Return about how long a cell takes [seconds], by the finished ones that differ in FREE alone; None without any.

    That is so much for each training point, the pilot's among them, so much for each stop, and the rest once.
    """
    cell, e, times = job.cell, job.cell.experiment, []
    for path in (job.out / "cells").glob("*/rows.csv"):
        told = store.read_manifest(job.out, path.parent.name)
        settings = completed(told.get("settings", {}))
        free = {name: settings[name] for name in FREE}
        if json.loads(json.dumps(asdict(e) | free)) != settings or not store.finished(job.out, path.parent.name):
            continue
        if told["status"] != "done" or told.get("processor") != job.environment["processor"]:
            continue
        like = cell._replace(experiment=replace(e, **free))
        if like.experiment.compiled != e.compiled:
            continue
        rows = [*csv.DictReader(path.read_text().splitlines())]
        trained = sorted({(int(row["n_seen"]), float(row["seconds"])) for row in rows})
        (first, start), (last, end) = trained[0], trained[-1]
        each = (end - start) / (last - first) if last > first else end / (last + _pilot(like))
        compiling = max(float(row.get("compile_seconds") or 0.0) for row in rows)
        once = max(0.0, end - each * (last + _pilot(like))) + compiling
        judging = sum(float(row["eval_seconds"]) for row in rows) / len(trained) * len(cell.stops)
        times.append(once + each * (e.samples + _pilot(cell)) + judging)
    return median(times) if times else None


def _pilot(cell: Cell) -> int:
    e = cell.experiment
    tried = len(e.step_sizes) if e.step_size == "auto" and e.card.updates(e) else 0
    return tried * min(e.pilot_steps, cell.last) * cell.rows_per_step


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=max(1, round(seconds))))
