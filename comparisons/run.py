"""Run one experiment: train a backend on an engine, judge it at checkpoints, yield rows as they come."""

import math
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np

import inference
from comparisons.data import Data
from comparisons.evidence.base import Estimate
from comparisons.evidence.elbo import elbo
from comparisons.evidence.judge import estimate
from comparisons.experiment import STEP_SIZES, Experiment
from comparisons.rows import Row
from inference import BACKENDS
from inference.base import Array, Backend, Batch, Engine, Info, Key, Settings, State
from models import MODELS
from models.base import Model

CHUNK = 100  # steps between looks at the progress and at non-finite numbers
SETTINGS = (
    "model",
    "data",
    "n_latent",
    "n_hidden",
    "backend",
    "engine",
    "seed",
    "samples",
    "method",
    "device",
    "threads",
)
PILOT = 300  # steps each candidate step size is tried for, when it is chosen on the training set

Progress = Callable[[int, str], None]  # told the points seen so far, and what is going on


class Result(NamedTuple):
    """What a run leaves behind."""

    rows: list[Row]
    state: dict[str, Any]  # the backend's, in NumPy: nested dicts


class DivergedError(Exception):
    """The fit left the finite numbers; the message says when."""


def run(
    comparison: str, cell: str, experiment: Experiment, data: Data, progress: Progress = lambda n_seen, doing: None
) -> Iterator[Result]:
    """Train and judge one cell; yield the rows so far, and the backend's state, after each checkpoint.

    A run that turns non-finite ends with rows of status `diverged` that hold no number. Raises FlagError for settings
    that do not fit the data.
    """
    n_train, n_x = data.train.shape
    experiment.fit_to(n_train, n_x)
    engine = inference.engine(experiment.engine, experiment.device, experiment.threads)
    model = MODELS[experiment.model](n_x, experiment.n_latent, experiment.n_hidden)
    settings = Settings(**{name: getattr(experiment, name) for name in Settings.__dataclass_fields__})
    backend, train = _compiled(engine, model, experiment.backend, settings, data.fresh)
    fit = _Fit(experiment, data, engine, model, backend, train)
    rows: list[Row] = []
    common = {
        "comparison": comparison,
        "n_train": n_train,
        "cell": cell,
        **{name: getattr(experiment, name) for name in SETTINGS},
    }
    try:
        fit.start(progress)
        for step in experiment.checkpoints(n_train):
            fit.advance(step, progress)
            rows += [{**common, **row} for row in fit.judge(progress)]
            yield Result(rows, numpys(engine, fit.state))
    except DivergedError:
        rows += [{**common, **row} for row in fit.lost()]
        yield Result(rows, {})


def numpys(engine: Engine, state: State) -> dict[str, Any]:
    """Copy a state to NumPy, nested as it is."""
    return {k: numpys(engine, v) if isinstance(v, dict) else engine.numpy(v) for k, v in state.items()}


class _Fit:
    """A backend's state on its way through the training set, and the clock and counters that go with it."""

    def __init__(
        self, experiment: Experiment, data: Data, engine: Engine, model: Model, backend: Backend, train: Any
    ) -> None:
        self.experiment, self.data, self.engine, self.model, self.backend = experiment, data, engine, model, backend
        self.train = train
        self.x = engine.array(data.train)
        self.rows_per_step = experiment.rows_per_step(len(data.train))
        self.key = engine.key(experiment.seed)
        self.state: State = {}
        self.step = 0
        self.seconds = 0.0
        self.decoder_evals = 0
        self.acceptance = (math.nan, math.nan)
        self.step_size = math.nan

    def start(self, progress: Progress) -> None:
        """Choose the step size, on the training set alone, and set the initial state."""
        chosen = self.experiment.step_size
        self.step_size = self._choose_step_size(progress) if chosen == "auto" else float(chosen)
        self._restart(self.step_size)

    def advance(self, last: int, progress: Progress) -> None:
        """Take steps up to number `last`. Raises DivergedError."""
        while self.step < last:
            self._chunk(min(CHUNK, last - self.step))
            progress(self.step * self.rows_per_step, "training")

    def judge(self, progress: Progress) -> list[Row]:
        """Return the rows of this checkpoint: the bound where the backend has a q, log p(x) where it can be had."""
        progress(self.step * self.rows_per_step, "judging")
        rows = []
        for split in ("train", "test"):
            x, indices = (
                None if part is None else self.engine.array(part)
                for part in points(self.data, split, self.experiment.eval_points)
            )
            for metric, found, seconds, fit_steps in self._estimates(x, indices):
                value, stderr = found.mean()
                if not (math.isfinite(value) and math.isfinite(stderr)):
                    raise DivergedError(f"{metric} is not finite at step {self.step}")
                row = self._row(split, metric, value, stderr, seconds, fit_steps, len(found.value))
                rows.append({**row, "flagged": found.flagged})
        if math.isfinite(self.acceptance[0]):
            rows.append(self._row("train", "hmc_acceptance", *self.acceptance, 0.0, 0, self.rows_per_step))
        return rows

    def lost(self) -> list[Row]:
        """Return the rows of a run that diverged: every metric it owed, and no number."""
        names = ["elbo_nats"] if self.backend.posterior else []
        names += [f"log_px_{name}_nats" for name in self.experiment.evidence]
        missing = (math.nan, math.nan, 0.0, 0, 0)
        splits = ("train", "test")
        return [{**self._row(split, name, *missing), "status": "diverged"} for split in splits for name in names]

    def _row(
        self, split: str, metric: str, value: float, stderr: float, seconds: float, fit_steps: int, n_points: int
    ) -> Row:
        return {
            "n_seen": self.step * self.rows_per_step,
            "split": split,
            "metric": metric,
            "value": value,
            "stderr": stderr,
            "seconds": round(self.seconds, 3),
            "status": "ok",
            "n_points": n_points,
            "step_size": self.step_size,
            "decoder_evals": self.decoder_evals,
            "fit_steps": fit_steps,
            "eval_seconds": round(seconds, 3),
            "flagged": 0.0,
        }

    def _estimates(self, x: Array, indices: Array | None) -> Iterator[tuple[str, Estimate, float, int]]:
        """Yield metric, estimate, its seconds, and the local optimisation steps that its q took."""
        experiment, engine, theta = self.experiment, self.engine, self.backend.theta(self.state)
        key = engine.fold_in(engine.fold_in(self.key, 1), self.step)
        posterior = None
        if self.backend.posterior:
            start = time.perf_counter()
            fit_key, draw_key = engine.split(key)
            posterior = self.backend.posterior(fit_key, self.state, x, indices)
            bound = elbo(engine, self.model, theta, posterior, x, draw_key, experiment.elbo_draws)
            yield "elbo_nats", bound, time.perf_counter() - start, posterior.fit_steps
        for name in experiment.evidence:
            start = time.perf_counter()
            found = estimate(name, engine, self.model, theta, x, experiment.seed, posterior, experiment)
            yield f"log_px_{name}_nats", found, time.perf_counter() - start, 0

    def _restart(self, step_size: float) -> None:
        theta, phi = self.model.init(self.experiment.seed)
        arrays = ({name: self.engine.array(value) for name, value in group.items()} for group in (theta, phi))
        key = self.engine.fold_in(self.key, 0)
        self.state = self.backend.init(key, *arrays, self.x, self.engine.array(step_size))
        self.step = 0

    def _chunk(self, count: int) -> float:
        """Take `count` steps; return the mean objective. Raises DivergedError."""
        start = time.perf_counter()
        steps = np.arange(self.step, self.step + count)
        indices = np.stack([self._minibatch(int(step)) for step in steps])
        key = self.engine.fold_in(self.key, 2)
        (self.state, _), info = self.train(
            self.state, self.x, key, self.engine.array(steps), self.engine.array(indices)
        )
        info = Info(*(self.engine.numpy(column).astype(np.float64) for column in info))
        self.step += count
        self.decoder_evals += int(info.decoder_evals.sum())
        self.acceptance = (
            float(info.acceptance.mean()),
            float(info.acceptance.std(ddof=1) / math.sqrt(count)) if count > 1 else 0.0,
        )
        theta = [self.engine.numpy(value) for value in self.backend.theta(self.state).values()]
        self.seconds += time.perf_counter() - start
        if not (np.isfinite(info.objective).all() and all(np.isfinite(value).all() for value in theta)):
            raise DivergedError(f"the fit is not finite after step {self.step}")
        return float(info.objective.mean())

    def _minibatch(self, step: int) -> np.ndarray:
        """Rows of one step, without repetition within it: from (seed, step) alone, the same for every engine."""
        rng = np.random.default_rng([self.experiment.seed, step])
        return rng.choice(len(self.data.train), self.rows_per_step, replace=False, shuffle=False)

    def _choose_step_size(self, progress: Progress) -> float:
        """Return the candidate with the best mean objective over the last chunk of a short run on the training set."""
        total = self.experiment.samples // self.rows_per_step
        pilot = max(1, min(PILOT, total))
        scores = {}
        for candidate in STEP_SIZES:
            self._restart(candidate)
            score = -math.inf
            try:
                while self.step < pilot:
                    progress(0, f"trying step size {candidate}")
                    score = self._chunk(min(CHUNK, pilot - self.step))
            except DivergedError:
                score = -math.inf
            scores[candidate] = score
        if max(scores.values()) == -math.inf:
            raise DivergedError("every candidate step size diverges")
        return max(scores, key=lambda candidate: scores[candidate])


def points(data: Data, split: str, count: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the first points of a split, float32, and their indices where they are training points."""
    x = (data.train if split == "train" else data.test)[:count]
    if split == "train" and data.fresh:  # one fixed draw stands for the fresh ones that training sees
        x = np.random.default_rng(0).random(x.shape) < x
    return x.astype(np.float32), np.arange(len(x)) if split == "train" else None


@cache
def _compiled(engine: Engine, model: Model, backend: str, settings: Settings, fresh: bool) -> tuple[Backend, Any]:
    """Build a backend and its training loop, compiled once for all seeds and step sizes."""
    built = BACKENDS[backend](engine, model, settings)

    def binarized(ppl: Any, x: Array) -> None:
        ppl.sample("x", ppl.dist.Bernoulli(probs=x))

    def train(state: State, x: Array, key: Key, steps: Array, indices: Array) -> tuple[tuple[State, Array], Info]:
        fraction = indices.shape[1] / x.shape[0]

        def one(carry: tuple[State, Array], item: tuple[Array, Array]) -> tuple[tuple[State, Array], Info]:
            state, x = carry
            step, rows = item
            noise_key, step_key = engine.split(engine.fold_in(key, step))
            batch = engine.draw(noise_key, binarized, x[rows])["x"] if fresh else x[rows]
            state, info = built.step(step_key, state, Batch(batch, rows, fraction))
            return (state, x), info

        return engine.scan(one, (state, x), (steps, indices))

    return built, engine.compile(train)
