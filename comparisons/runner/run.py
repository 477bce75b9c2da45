"""Run one cell: train a backend on an engine, judge it at its stops, yield rows as they come."""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from comparisons.cli import stopping
from comparisons.data import Data
from comparisons.evidence.journal import Journal
from comparisons.runner import training
from comparisons.runner.cell import Cell
from comparisons.runner.checkpoint import misfit
from comparisons.runner.judging import Judge, Keeping, keeping
from comparisons.runner.rows import Row
from comparisons.runner.training import DivergedError, Kept, Standing, Trainer
from inference.base import numpys

Progress = Callable[[int, str], None]  # told the points seen so far, and what is going on
Pause = Callable[[], None]  # writes a checkpoint where one is due; raises KeyboardInterrupt on a signal
Keep = Callable[..., None]  # given the arrays and the facts of a checkpoint, and the step where it is a stop's


class Result(NamedTuple):
    """What a run leaves behind."""

    rows: list[Row]
    state: dict[str, Any]  # the backend's, in NumPy: nested dicts
    status: str  # "running", "done" or "diverged"
    pilot: dict[str, float]  # the objective that each step size reached, where one was chosen; -inf: it diverged


class MisfitError(Exception):
    """A checkpoint does not belong to this run; the message says how it differs."""


def run(
    comparison: str,
    cell: Cell,
    data: Data,
    progress: Progress = lambda n_seen, doing: None,
    keep: Keep | None = None,
    kept: Kept | None = None,
    every: float = 60.0,
    keep_stops: bool = False,
) -> Iterator[Result]:
    """Train and judge one cell; yield the rows so far, and the backend's state, after each of its stops.

    Every `every` seconds, and when a signal asks for the end, `keep` is given what a later call goes on from as
    `kept`. Such a run gives the same numbers as one that was never broken off, bit for bit, with the same versions and
    threads.

    With `keep_stops` it is given the checkpoint of each stop besides, trained and not yet judged.

    A run that turns non-finite ends with rows of status `diverged` that hold no number. Raises FlagError for a model
    that the judge cannot count on, MisfitError for a `kept` that is not this run's, KeyboardInterrupt on a signal.
    """
    train = training.trainer(cell, data)
    engine, chains = train.engine, keeping(train)
    last = time.perf_counter()

    def pause() -> None:
        nonlocal last
        if keep and (time.perf_counter() - last >= every or stopping.requested()):
            keep(*standing.packed(engine))
            last = time.perf_counter()
        stopping.pause()

    with engine.pinned():
        standing = resumed(train, chains, kept, pause) if kept else Standing(journal=Journal(paused=pause))
    judge = Judge(train, chains, cell.common(comparison), pause)
    try:
        with engine.pinned():  # between the verbs too; never over a `yield`, where settings are the caller's
            start(train, chains, standing, progress, pause)
        for step in (stop for stop in cell.stops if stop > standing.judged):
            with engine.pinned():
                advance(train, chains, standing, step, progress, pause)
                if keep and keep_stops and not standing.judging and not standing.journal.records():
                    keep(*standing.packed(engine), step)
                progress(step * cell.rows_per_step, "judging")
                judge.judge(standing)
                state = numpys(engine, standing.state)
            yield Result([*standing.rows], state, "done" if step == cell.last else "running", train.scores(standing))
    except DivergedError:
        yield Result([*standing.rows, *judge.lost(standing)], {}, "diverged", train.scores(standing))


def start(train: Trainer, chains: Keeping | None, standing: Standing, progress: Progress, pause: Pause) -> None:
    """Choose the step size and set the initial state; or go on where that was left. Raises DivergedError."""
    if standing.begun:
        return
    e = train.cell.experiment
    if not e.card.updates(e):  # nothing takes a step of any size
        chosen = math.nan
    elif e.step_size == "auto":
        chosen = training.choose_step_size(train, standing, progress, pause)
    else:
        chosen = float(e.step_size)
    standing.step_size, standing.state, standing.step = chosen, train.initial(chosen), 0
    if chains:
        chains.begin(standing)
    standing.begun = True


def advance(
    train: Trainer, chains: Keeping | None, standing: Standing, stop: int, progress: Progress, pause: Pause
) -> None:
    """Take steps up to a stop. Raises DivergedError."""
    while standing.step < stop:
        train.advance(standing, min(stop, chains.due(standing)) if chains else stop)
        progress(standing.step * train.cell.rows_per_step, "training")
        if chains:
            chains.look(standing)
        pause()


def resumed(train: Trainer, chains: Keeping | None, kept: Kept, pause: Pause) -> Standing:
    """Return what a checkpoint holds. Raises MisfitError where it is not one of this run."""
    held, facts = kept
    wrong = misfit(held.get("state", {}), numpys(train.engine, train.initial(float(facts["step_size"]))))
    if wrong:
        raise MisfitError(wrong)
    return training.unpacked(train.engine, kept, pause, chains.keeper.restored if chains else dict)
