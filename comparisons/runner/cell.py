"""An experiment on its data, as a value that is asked once: its name, its steps and stops, and the numbers it owes."""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from comparisons.cli import parts
from comparisons.data import Data, Rows, digest
from comparisons.data.rows import HELD
from comparisons.errors import FlagError, UnfitError
from comparisons.runner.experiment import Experiment, built, identity, method, refuse
from comparisons.runner.rows import SETTINGS, Row
from inference.base import Array, Engine


class Cell(NamedTuple):
    """What is run: settings, and what of the data they meet."""

    experiment: Experiment
    n_train: int
    n_x: int
    data_digest: str

    @property
    def name(self) -> str:
        """The name of its folder."""
        return identity(self.experiment, self.data_digest)

    @property
    def rows_per_step(self) -> int:
        """How many datapoints one step consumes."""
        return self.experiment.card.batch(self.experiment, self.n_train)

    @property
    def last(self) -> int:
        """The step that it ends with."""
        return self.experiment.samples // self.rows_per_step

    @property
    def stops(self) -> tuple[int, ...]:
        """The steps after which a fit is judged: as told, else 1, 2, 5 x 10^k points; and the last.

        Those points begin at samples / 10 or 1e5.
        """
        samples, rows = self.experiment.samples, self.rows_per_step
        floor = min(1e5, samples / 10)
        decades = range(int(math.log10(samples)) + 1)
        usual = [m * 10**k for k in decades for m in (1, 2, 5) if floor <= m * 10**k < samples]
        steps = {points // rows for points in self.experiment.stops or usual}
        return tuple(sorted({step for step in steps if 1 <= step < self.last} | {self.last}))

    def owes(self, has_q: bool) -> list[tuple[str, str]]:
        """Return split and metric of each number that a stop owes, in the order in which they are worked out."""
        e = self.experiment
        shared = ["elbo_nats"] if has_q else []
        shared += [f"log_px_{name}_nats" for name in e.evidence]
        of_train: list[str] = []
        if e.theta == "vb":
            shared += ["log_px_expected_nats", "log_px_predictive_nats"] if e.evidence else []
            of_train = ["elbo_full_nats"] if has_q else []
            of_train += ["kl_theta_nats", "theta_at_prior"]
        owed = [("train", name) for name in (*shared, *of_train)] + [("test", name) for name in shared]
        # Last, where what a checkpoint of before there were these two has judged stays in its place.
        used = ("kl_z_nats", "active_latents") if has_q else ()
        return owed + [(split, name) for split in ("train", "test") for name in used]

    def common(self, comparison: str) -> Row:
        """Return what every row of it has in common."""
        e = self.experiment
        settings = {name: getattr(e, name) for name in SETTINGS} | {"method": method(e)}
        return {"comparison": comparison, "n_train": self.n_train, "cell": self.name, **settings}


def on(experiment: Experiment, data: Data, data_digest: str = "") -> Cell:
    """Put an experiment on its data, of which the digest may be known. Raises FlagError where they do not fit.

    That a model or backend from a file loads is seen here, before anything runs.
    """
    n_train, n_x = data.train.shape
    if experiment.minibatch > n_train:
        raise FlagError(f"minibatch {experiment.minibatch} exceeds the {n_train} training points; lower --minibatch")
    model = built(experiment, n_x)
    refuse(experiment, model)
    if hasattr(model, "levels"):
        experiment = replace(experiment, levels=_levels(experiment, data))
    if isinstance(data.train, Rows):
        _refuse_all_at_once(experiment, n_train, n_x)
    parts.backend(experiment.backend)
    cell = Cell(experiment, n_train, n_x, data_digest or digest(data))
    if cell.rows_per_step > experiment.samples:
        raise FlagError(f"samples {experiment.samples} is below one full E-step over {n_train} points; raise --samples")
    return cell


def _levels(experiment: Experiment, data: Data) -> int:
    """Return K for values 0 to K - 1: one more than the largest, or as told. Raises FlagError for too few."""
    largest = int(max(data.train.max(), data.test.max()))
    told = experiment.levels
    if isinstance(told, int) and told <= largest:
        raise FlagError(
            f"levels {told} is too few for the value {largest} of {data.name}; choose {largest + 1} or more"
        )
    return max(2, largest + 1) if isinstance(told, str) else told


def _refuse_all_at_once(e: Experiment, n_train: int, n_x: int) -> None:
    """Raise UnfitError for what needs all rows at once, of a training set that memory does not hold."""
    if (full := e.card.full_batch(e)) or e.theta == "vb":
        what, instead = ("a full E-step", "e-step minibatch") if full else ("the bound of theta 'vb'", "theta map")
        few = f"--n-train {HELD // (4 * n_x)} at most"
        raise UnfitError(f"{what} takes all {n_train:,} rows of {str(e.data)!r} at once; choose --{instead}, or {few}")


def points(data: Data, split: str, count: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the first points of a split, float32, and their indices where they are training points."""
    x = (data.train if split == "train" else data.test)[:count]
    if split == "train" and data.fresh:  # one fixed draw stands for the fresh ones that training sees
        x = np.random.default_rng(0).random(x.shape) < x
    return x.astype(np.float32), np.arange(len(x)) if split == "train" else None


def placed(engine: Engine, data: Data, split: str, count: int) -> tuple[Array, Array | None]:
    """Return the same as an engine's arrays."""
    x, indices = points(data, split, count)
    return engine.array(x), None if indices is None else engine.array(indices)
