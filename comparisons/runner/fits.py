"""Fitted models to judge: taken from where an earlier comparison left them, or trained."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import inference
from comparisons.cli import parts
from comparisons.data import Data, digest
from comparisons.errors import NumericsError
from comparisons.evidence.kept import Chains
from comparisons.runner import store
from comparisons.runner.cells import run_cell
from comparisons.runner.experiment import Experiment
from comparisons.runner.keeping import NAME as KEEPER
from comparisons.runner.run import points
from inference.base import Array, Backend, Engine, Params, Posterior, State, arrays, numpys
from models.base import Model


class Fit(NamedTuple):
    """A trained model, its backend and the state it ended in, on an engine's device."""

    experiment: Experiment
    cell: str
    engine: Engine
    model: Model
    backend: Backend
    state: State

    def on(self, engine: Engine) -> "Fit":
        """Return the same fit on another engine."""
        return restored(self.experiment, self.cell, self.model.n_x, numpys(self.engine, self.state), engine)

    @property
    def theta(self) -> Params:
        """The generative parameters."""
        return self.backend.theta(self.state)

    def posterior(self, x: Array, indices: Array | None = None) -> Posterior | None:
        """Return the backend's q(z | x) for rows x [n, n_x], new ones or those of the training set at `indices`."""
        if self.backend.posterior is None:
            return None
        return self.backend.posterior(self.engine.key(self.experiment.seed), self.state, x, indices)

    def points(self, data: Data, split: str, count: int) -> tuple[Array, Array | None]:
        """Return the first points of a split, as a comparison judges them, and their indices in the training set."""
        x, indices = points(data, split, count)
        return self.engine.array(x), None if indices is None else self.engine.array(indices)


def fitted(experiment: Experiment, data: Data, out: Path, look_in: Sequence[Path] = ()) -> Fit:
    """Return the fit of an experiment: from `out` or one of the folders to look in, else trained and kept in `out`.

    One that is trained here has its bound judged on its way, and not log p(x). Raises UserError.
    """
    identity = digest(data)
    unjudged = replace(experiment, evidence=("none",))
    for known in (experiment, unjudged):
        cell = known.identity(identity)
        for folder in (out, *look_in):
            if store.finished(folder, cell, with_state=True):
                return restored(known, cell, data.train.shape[1], store.load_state(folder, cell))
    _trained(unjudged, cell, data, identity, out)
    return restored(unjudged, cell, data.train.shape[1], store.load_state(out, cell))


def followed(experiment: Experiment, data: Data, out: Path) -> tuple[Fit, dict[str, Chains]]:
    """Return a fit, and the chains of the paper's estimator that were kept along its training, by split.

    Trained here unless it lies in `out` with them. Raises UserError.
    """
    experiment = replace(experiment, evidence=(KEEPER,))
    identity = digest(data)
    cell = experiment.identity(identity)
    last = experiment.samples // experiment.rows_per_step(len(data.train))
    kept = store.load_stop(out, cell, last) if store.finished(out, cell) else None
    if kept is None:
        _trained(experiment, cell, data, identity, out, keep_stops=True)
        kept = store.load_stop(out, cell, last)
    assert kept is not None  # written before the cell was finished
    arrays_of, _ = kept
    fit = restored(experiment, cell, data.train.shape[1], arrays_of["state"])
    return fit, {split: Chains(**chains) for split, chains in arrays_of["keeping"].items()}


def _trained(
    experiment: Experiment, cell: str, data: Data, data_digest: str, out: Path, keep_stops: bool = False
) -> None:
    """Train a fit, under a bar, into `out`. Raises UserError."""
    from tqdm import tqdm

    environment = {**store.environment(), "data_digest": data_digest}
    with tqdm(total=experiment.samples, desc=f"fitting {cell}", unit="pt", unit_scale=True, file=sys.stderr) as bar:

        def progress(n_seen: int, doing: str) -> None:
            bar.set_postfix_str(doing, refresh=False)
            bar.update(max(0, n_seen - bar.n))

        ended = run_cell("fit", out, cell, experiment, data, environment, progress, keep_stops=keep_stops)
    if ended != "done":
        raise NumericsError(f"the fit {cell} diverged; fits of other --samples or --seed may not")


def restored(experiment: Experiment, cell: str, n_x: int, state: dict[str, Any], engine: Engine | None = None) -> Fit:
    """Rebuild a fit from its state in NumPy, on the engine it came from or on another: both read the same arrays."""
    engine = engine or inference.engine(experiment.engine, experiment.device, experiment.threads)
    model = experiment.built(n_x)
    backend = parts.backend(experiment.backend)(engine, model, experiment.settings)
    return Fit(experiment, cell, engine, model, backend, arrays(engine, state))
