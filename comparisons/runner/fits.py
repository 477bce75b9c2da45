"""Fitted models to judge: taken from where an earlier comparison left them, or trained."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import inference
from comparisons import cli
from comparisons.cli import parts
from comparisons.cli.flags import FITTED
from comparisons.data import Data
from comparisons.disk import locking
from comparisons.errors import NumericsError
from comparisons.evidence.base import Target
from comparisons.evidence.judge import ESTIMATORS
from comparisons.runner import store
from comparisons.runner.cell import Cell, on, placed
from comparisons.runner.experiment import Experiment, built
from comparisons.runner.jobs import Job, run_cell
from comparisons.runner.watching import line
from inference.base import Array, Backend, Engine, Params, Posterior, State, arrays, numpys, setting
from inference.latents import latents
from inference.optim import STEP_SIZES
from inference.rows import generative, width
from models.base import Model


@dataclass(frozen=True, kw_only=True)
class FitPlan(cli.Plan):
    """What a comparison of fitted models is told of the fits. Each field is a flag."""

    model: str = parts.model_setting()
    n_hidden: int = setting(100, "hidden units", low=1, high=20_000)
    samples: int = setting(100_000, "training points of each fit [datapoints]", low=100, high=10**9, about=FITTED)
    optimizer: str = setting("adam", "optimiser of theta and phi", choices=tuple(STEP_SIZES), about=FITTED)
    step_size: float | str = setting(
        0.01, "step size; auto: the best of a few on the training set, for each fit", above=0.0, high=1e9, about=FITTED
    )

    def experiment(self, **told: Any) -> Experiment:
        """Return how a model is fitted, judged by its bound alone. Raises FlagError."""
        mine = {name: getattr(self, name) for name in FitPlan.__dataclass_fields__}
        return Experiment(evidence=("none",), **mine, **told)


class Fit(NamedTuple):
    """A trained model, its backend and the state it ended in, on an engine's device."""

    cell: Cell
    engine: Engine
    model: Model
    backend: Backend
    state: State

    def on(self, engine: Engine) -> "Fit":
        """Return the same fit on another engine."""
        return restored(self.cell, numpys(self.engine, self.state), engine)

    @property
    def experiment(self) -> Experiment:
        """How it was trained."""
        return self.cell.experiment

    @property
    def theta(self) -> Params:
        """The generative parameters."""
        return self.backend.theta(self.state)

    def posterior(self, x: Array, indices: Array | None = None) -> Posterior | None:
        """Return the backend's q(z | x) for rows x [n, n_x], new ones or those of the training set at `indices`."""
        if self.backend.posterior is None:
            return None
        return self.backend.posterior(self.engine.key(self.experiment.seed), self.state, x, indices)

    def target(self, x: Array, indices: Array | None = None) -> Target:
        """Return the problem that the fit is judged on: rows x [n, n_x] under its theta, with its q of them."""
        return Target(self.engine, self.model, self.theta, x, self.posterior(x, indices))

    def points(self, data: Data, split: str, count: int) -> tuple[Array, Array | None]:
        """Return the first points of a split, as a comparison judges them, and their indices in the training set."""
        return placed(self.engine, data, split, count)


def decoded(fit: Fit, z: np.ndarray, x: np.ndarray | None = None) -> np.ndarray:
    """Return E[x | z] [n, n_x] of a fit, for coordinates z [n, k]; of the first of what a model observes.

    Covariates are those of rows x [n, d], which a model that is given none does not need.
    """
    engine, sites = fit.engine, latents(fit.engine, fit.model)
    with engine.pinned():
        like = engine.array(np.zeros((len(z), width(fit.model))) if x is None else x)
        told = sites.values(sites.at(fit.theta), engine.array(z))
        said = engine.sites(engine.key(0), generative(fit.model, like), told, fit.theta)
        return np.asarray(engine.numpy(said[fit.model.observed[0]].fn.mean))


def fitted(experiment: Experiment, data: Data, out: Path, look_in: Sequence[Path] = ()) -> Fit:
    """Return the fit of an experiment: from `out` or one of the folders to look in, else trained and kept in `out`.

    One that is trained here has its bound judged on its way, and not log p(x). Of one that makes no use of z a line
    says so. Raises UserError.
    """
    judged = on(experiment, data)
    unjudged = judged._replace(experiment=replace(experiment, evidence=("none",)))
    for known in (judged, unjudged):
        for folder in (out, *look_in):
            if store.finished(folder, known.name, with_state=True):
                return _kept(known, folder)
    _train(Job("fit", unjudged, out, store.environment()), data)
    return _kept(unjudged, out)


def _kept(cell: Cell, out: Path) -> Fit:
    """Return the fit that a finished cell ended in, and say where its q is the prior for every x."""
    rows = store.read_rows(out / "cells" / cell.name / "rows.csv")
    active = rows[(rows.metric == "active_latents") & (rows.n_seen == rows.n_seen.max())]
    if len(active) and not active.value.any():
        e = cell.experiment
        print(
            f"{e.data} {e.backend} {e.engine} k={e.n_latent}: no latent variable is active after {e.samples:,} points, "
            "so x is modelled without z; try another --optimizer or --step-size, or more --samples",
            file=sys.stderr,
        )
    return restored(cell, store.load_state(out, cell.name))


def earlier(*names: str) -> list[Path]:
    """Return the folders of these comparisons where fits may lie already: one's own, and the published ones."""
    return [Path(root) / name for name in names for root in ("results", "reports")]


def followed(experiment: Experiment, estimator: str, data: Data, out: Path) -> tuple[Fit, dict[str, Any]]:
    """Return a fit, and what an estimator of log p(x) kept along its training, by split.

    Trained here unless it lies in `out` with them. Raises UserError.
    """
    cell = on(replace(experiment, evidence=(estimator,)), data)
    kept = store.load_checkpoint(out, cell.name, cell.last) if store.finished(out, cell.name) else None
    if kept is None:
        _train(Job("fit", cell, out, store.environment(), keep_stops=True), data)
        kept = store.load_checkpoint(out, cell.name, cell.last)
    keeper = ESTIMATORS[estimator].keeper
    assert kept  # written before the cell was finished
    assert keeper
    held, _ = kept
    return restored(cell, held["state"]), {split: keeper.restored(one) for split, one in held["keeping"].items()}


def stages(experiment: Experiment, data: Data, out: Path) -> Iterator[tuple[int, Fit]]:
    """Yield a fit as it was at each of its stops, after the number of training points that it had seen by then.

    Trained here unless it lies in `out` with all of them. Raises UserError.
    """
    cell = on(experiment, data)
    there = store.finished(out, cell.name) and all(store.load_checkpoint(out, cell.name, stop) for stop in cell.stops)
    if not there:
        _train(Job("fit", cell, out, store.environment(), keep_stops=True), data)
    for stop in cell.stops:
        kept = store.load_checkpoint(out, cell.name, stop)
        assert kept  # written before the stop was judged
        yield stop * cell.rows_per_step, restored(cell, kept[0]["state"])


def _train(job: Job, data: Data) -> None:
    """Train a fit, under a line that says how far it is. Raises UserError."""
    cell = job.cell
    total = cell.last * cell.rows_per_step
    with line() as show:

        def progress(n_seen: int, doing: str) -> None:
            show(lambda: (n_seen / total, f"{doing} {cell.experiment.data} {job.name}"), now=n_seen == total)

        with locking.locked(job.out, cell.name):
            ended = run_cell(job, data, progress)
    if ended != "done":
        raise NumericsError(f"the fit {cell.name} diverged; fits of other --samples or --seed may not")


def restored(cell: Cell, state: dict[str, Any], engine: Engine | None = None) -> Fit:
    """Rebuild a fit from its state in NumPy, on the engine it came from or on another: both read the same arrays."""
    e = cell.experiment
    engine = engine or inference.engine(e.engine, e.device, e.threads)
    model = built(e, cell.n_x)
    return Fit(cell, engine, model, e.card.build(engine, model, e.settings), arrays(engine, state))
