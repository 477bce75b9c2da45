"""Run one experiment: train a backend on an engine, judge it at checkpoints, yield rows as they come."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

import inference
from comparisons.checks.contract import hold
from comparisons.cli import parts, stopping
from comparisons.data import Data
from comparisons.evidence.base import Estimate, Target
from comparisons.evidence.elbo import elbo
from comparisons.evidence.full_vb import AT_PRIOR, Average, bound, divergence, expected, predictive, under_draws
from comparisons.evidence.guard import contradiction
from comparisons.evidence.journal import Journal, kept_in
from comparisons.evidence.judge import estimate
from comparisons.runner.checkpoint import misfit
from comparisons.runner.experiment import STEP_SIZES, Experiment
from comparisons.runner.keeping import NAME as KEEPER
from comparisons.runner.keeping import Keeping
from comparisons.runner.rows import Row
from inference.base import Array, Backend, Batch, Engine, Info, Key, Posterior, Settings, State, arrays, numpys
from models.base import Model

CHUNK = 100  # steps between looks at the progress and at non-finite numbers, of at most so many datapoints in all:
CHUNK_ROWS = 100_000  # a full E-step of 50,000 chains takes seconds, and Ctrl-C and checkpoints wait for a chunk
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
# What a checkpoint holds besides the backend's state, the acceptance and an estimate's journal.
COUNTERS = (
    "rows", "scores", "trying", "begun", "step_size", "step", "judged", "seconds", "decoder_evals", "objective",
    "judging", "spent",
)  # fmt: skip

Progress = Callable[[int, str], None]  # told the points seen so far, and what is going on
Keep = Callable[[dict[str, Any], dict[str, Any]], None]  # given the arrays and the facts of a checkpoint
Work = Callable[[], tuple[Estimate | Average, int]]  # a metric's estimate, and the local steps that its q took
Kept = tuple[dict[str, Any], dict[str, Any]]


class Result(NamedTuple):
    """What a run leaves behind."""

    rows: list[Row]
    state: dict[str, Any]  # the backend's, in NumPy: nested dicts
    status: str  # "running", "done" or "diverged"
    pilot: dict[str, float]  # the objective that each step size reached, where one was chosen; -inf: it diverged


class DivergedError(Exception):
    """The fit left the finite numbers; the message says when."""


class MisfitError(Exception):
    """A checkpoint does not belong to this run; the message says how it differs."""


def run(
    comparison: str,
    cell: str,
    experiment: Experiment,
    data: Data,
    progress: Progress = lambda n_seen, doing: None,
    keep: Keep | None = None,
    kept: Kept | None = None,
    every: float = 60.0,
    keep_stop: Callable[[int, dict[str, Any], dict[str, Any]], None] | None = None,
) -> Iterator[Result]:
    """Train and judge one cell; yield the rows so far, and the backend's state, after each checkpoint of the grid.

    Every `every` seconds, and when a signal asks for the end, `keep` is given what a later call goes on from as
    `kept`. Such a run gives the same numbers as one that was never broken off, bit for bit, with the same versions and
    threads.

    `keep_stop` is given each stop's step and the checkpoint of it, trained and not yet judged.

    A run that turns non-finite ends with rows of status `diverged` that hold no number. Raises FlagError for settings
    that do not fit the data and a model that the judge cannot count on, MisfitError for a `kept` that is not this
    run's, KeyboardInterrupt on a signal.
    """
    n_train, n_x = data.train.shape
    experiment.fit_to(n_train, n_x)
    engine = inference.engine(experiment.engine, experiment.device, experiment.threads)
    model = experiment.built(n_x)
    hold(engine, model, experiment.model, points(data, "train", experiment.eval_points)[0])
    # The judge's work is short: what trains may be compiled, what judges is not.
    trainer = inference.engine(experiment.engine, experiment.device, experiment.threads, experiment.compiled)
    backend, train = training(trainer, model, experiment.backend, experiment.settings, data.fresh)
    experiment.fit_backend(backend.posterior is not None, backend.theta_posterior is not None)
    fit = _Fit(experiment, data, engine, model, backend, train, progress, keep, every)
    if kept:
        with engine.pinned():
            fit.resume(*kept)
    common = identifying(comparison, cell, experiment, n_train)
    last = experiment.samples // fit.rows_per_step
    try:
        with engine.pinned():  # between the verbs too; never over a `yield`, where settings are the caller's
            fit.start()
        for step in experiment.checkpoints(n_train):
            if step > fit.judged:
                with engine.pinned():
                    fit.advance(step)
                    if keep_stop and not fit.judging and not fit.journal.records():
                        keep_stop(step, *fit.snapshot())
                    fit.judge(common)
                    state = numpys(engine, fit.state)
                status = "done" if step == last else "running"
                yield Result(list(fit.rows), state, status, fit.pilot)
    except DivergedError:
        yield Result([*fit.rows, *({**common, **row} for row in fit.lost())], {}, "diverged", fit.pilot)


def identifying(comparison: str, cell: str, experiment: Experiment, n_train: int) -> Row:
    """Return what every row of a cell has in common."""
    settings = {name: getattr(experiment, name) for name in SETTINGS}
    return {"comparison": comparison, "n_train": n_train, "cell": cell, **settings}


def failed(comparison: str, cell: str, experiment: Experiment, n_train: int) -> list[Row]:
    """Return the rows of a run that ended without a number: every metric it owed, of status `failed`."""
    common = identifying(comparison, cell, experiment, n_train)
    rest = {
        "n_seen": 0, "value": math.nan, "stderr": math.nan, "seconds": 0.0, "status": "failed", "n_points": 0,
        "step_size": math.nan, "decoder_evals": 0, "fit_steps": 0, "eval_seconds": 0.0, "flagged": 0.0,
    }  # fmt: skip
    # Without asking the backend, which may be what failed.
    missing = owed(experiment, has_q=experiment.backend != "monte_carlo_em")
    return [{**common, **rest, "split": split, "metric": name} for split, name in missing]


def owed(experiment: Experiment, has_q: bool) -> list[tuple[str, str]]:
    """Return split and metric of each number that a checkpoint owes, in the order in which they are worked out."""
    shared = ["elbo_nats"] if has_q else []
    shared += [f"log_px_{name}_nats" for name in experiment.evidence]
    of_train: list[str] = []
    if experiment.theta == "vb":
        shared += ["log_px_expected_nats", "log_px_predictive_nats"] if experiment.evidence else []
        of_train = ["elbo_full_nats"] if has_q else []
        of_train += ["kl_theta_nats", "theta_at_prior"]
    return [("train", name) for name in (*shared, *of_train)] + [("test", name) for name in shared]


class _Fit:
    """A backend's state on its way through the training set, and the clock and counters that go with it.

    Everything that changes on the way is in `snapshot`, and comes back by `resume`.
    """

    def __init__(
        self,
        experiment: Experiment,
        data: Data,
        engine: Engine,
        model: Model,
        backend: Backend,
        train: Any,
        progress: Progress,
        keep: Keep | None,
        every: float,
    ) -> None:
        self.experiment, self.data, self.engine, self.model, self.backend = experiment, data, engine, model, backend
        self.train, self.progress, self.keep, self.every = train, progress, keep, every
        self.x = engine.array(data.train)
        self.rows_per_step = experiment.rows_per_step(len(data.train))
        self.chunk = max(1, min(CHUNK, CHUNK_ROWS // self.rows_per_step))
        self.key = engine.key(experiment.seed)
        self.rows: list[Row] = []
        self.state: State = {}
        self.scores: list[float] = []  # of the candidate step sizes tried to the end
        self.trying = self.begun = False  # a candidate; the run itself
        self.step_size = math.nan
        self.step = self.judged = 0  # the steps taken, and those up to the last checkpoint that was judged
        self.seconds = 0.0
        self.decoder_evals = 0
        self.objective = -math.inf
        self.acceptance = (math.nan, math.nan)
        self.judging: list[Row] = []  # this checkpoint's rows so far
        self.spent = 0.0  # seconds on the estimate under way, before this process took over
        self.journal = Journal(paused=self._pause)
        self.keeping = self._keeping()
        self.since = self.last_kept = time.perf_counter()

    def start(self) -> None:
        """Choose the step size, on the training set alone, and set the initial state; or go on where that was left."""
        if self.begun:
            return
        chosen = self.experiment.step_size
        self.step_size = self._choose_step_size() if chosen == "auto" else float(chosen)
        self._restart(self.step_size)
        if self.keeping:
            self.keeping.begin(self.backend.theta(self.state))
        self.begun = True

    def advance(self, last: int) -> None:
        """Take steps up to number `last`. Raises DivergedError."""
        while self.step < last:
            until = min(last, self.keeping.due) if self.keeping else last
            self._chunk(min(self.chunk, until - self.step))
            self.progress(self.step * self.rows_per_step, "training")
            if self.keeping:
                self.keeping.look(self.backend.theta(self.state), self.step)
            self._pause()

    def judge(self, common: Row) -> None:
        """Add the rows of this checkpoint: the bound where the backend has a q, log p(x) where it can be had."""
        self.progress(self.step * self.rows_per_step, "judging")
        for number, (split, metric, work, below) in enumerate(self._estimates()):
            if number < len(self.judging):
                continue
            self.since = time.perf_counter()
            with kept_in(self.journal):
                found, fit_steps = work()
            value, stderr = found.mean()
            if not (math.isfinite(value) and math.isfinite(stderr)):
                raise DivergedError(f"{metric} is not finite at step {self.step}")
            seconds = self.spent + time.perf_counter() - self.since
            row = self._row(split, metric, value, stderr, seconds, fit_steps, found.points)
            row["status"] = self._status(common["cell"], row, found, below)
            self.judging.append({**common, **row, "flagged": found.flagged})
            self.spent, self.journal = 0.0, Journal(paused=self._pause)
            self._pause()
        self.rows += self.judging
        if math.isfinite(self.acceptance[0]):
            moved = self._row("train", "hmc_acceptance", *self.acceptance, 0.0, 0, self.rows_per_step)
            self.rows.append({**common, **moved})
        if self.keeping:
            for split, evals in self.keeping.evals.items():
                row = self._row(split, f"{KEEPER}_evals", evals, 0.0, self.keeping.seconds[split], 0, 0)
                self.rows.append({**common, **row})
        self.judging, self.judged = [], self.step

    def lost(self) -> list[Row]:
        """Return the rows of a run that diverged: every metric it owed, and no number."""
        names = owed(self.experiment, has_q=self.backend.posterior is not None)
        missing = (math.nan, math.nan, 0.0, 0, 0)
        return [{**self._row(split, name, *missing), "status": "diverged"} for split, name in names]

    def resume(self, kept: dict[str, Any], facts: dict[str, Any]) -> None:
        """Go on from a checkpoint. Raises MisfitError where it is not one of this run."""
        self._restart(float(facts["step_size"]))
        wrong = misfit(kept.get("state", {}), numpys(self.engine, self.state))
        if wrong:
            raise MisfitError(wrong)
        self.state = arrays(self.engine, kept["state"])
        for name in COUNTERS:
            setattr(self, name, facts[name])
        self.acceptance = (facts["acceptance"][0], facts["acceptance"][1])
        if self.keeping and self.begun:
            self.keeping.resume(kept["keeping"], facts["keeping"])
        self.journal = Journal(kept.get("journal"), paused=self._pause)

    def snapshot(self) -> Kept:
        facts = {name: getattr(self, name) for name in (*COUNTERS, "acceptance")}
        records = self.journal.records()
        if records:
            facts["spent"] += time.perf_counter() - self.since
        chains, facts["keeping"] = self.keeping.snapshot() if self.keeping else ({}, {})
        return {"state": numpys(self.engine, self.state), "journal": records, "keeping": chains}, facts

    def _pause(self) -> None:
        """Write a checkpoint where one is due. Raises KeyboardInterrupt where a signal has asked for the end."""
        due = time.perf_counter() - self.last_kept >= self.every
        if self.keep and (due or stopping.requested()):
            self.keep(*self.snapshot())
            self.last_kept = time.perf_counter()
        stopping.pause()

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
            "step_size": self.step_size if self.begun else math.nan,
            "decoder_evals": self.decoder_evals,
            "fit_steps": fit_steps,
            "eval_seconds": round(seconds, 3),
            "flagged": 0.0,
        }

    def _keeping(self) -> Keeping | None:
        """Return what keeps the paper's estimator's chains along training, where they are to be kept."""
        if self.experiment.chains != "kept":
            return None
        every = max(1, self.experiment.chain_interval // self.rows_per_step)
        x = {split: self._taken(split, self.experiment.eval_points)[0] for split in ("train", "test")}
        return Keeping(self.experiment, self.engine, self.model, x, every)

    def _taken(self, split: str, count: int) -> tuple[Array, Array | None]:
        """Return the first points of a split, and their indices where they are training points."""
        x, indices = points(self.data, split, count)
        return self.engine.array(x), None if indices is None else self.engine.array(indices)

    def _status(self, cell: str, row: Row, found: Any, below: Work) -> str:
        """Return `contradicted`, and say so, for a log p(x) below the bound of the same datapoints; else `ok`."""
        judged = {f"log_px_{name}_nats" for name in self.experiment.evidence}
        if self.backend.posterior is None or row["metric"] not in judged:
            return "ok"
        known: Any = below()[0]  # worked out before; after a checkpoint once more, to the same bits
        told = contradiction(known, found, self.experiment.elbo_draws)
        if told:
            where = f"{cell}, {row['split']}, {row['n_seen']} points seen"
            print(f"{where}: {row['metric']} cannot be right, or the bound cannot: {told}", file=sys.stderr)
        return "contradicted" if told else "ok"

    def _estimates(self) -> Iterator[tuple[str, str, Work, Work]]:
        """Yield split, metric, what estimates it, and what estimates the bound of the same datapoints.

        An estimate comes with the local optimisation steps that its q took.
        """
        works = {split: self._works(split) for split in ("train", "test")}
        for split, metric in owed(self.experiment, has_q=self.backend.posterior is not None):
            yield split, metric, works[split][metric], works[split]["elbo_nats"]

    def _works(self, split: str) -> dict[str, Work]:
        """Return what estimates each metric of a split."""
        experiment, engine, theta = self.experiment, self.engine, self.backend.theta(self.state)
        fit_key, draw_key = engine.split(engine.fold_in(engine.fold_in(self.key, 1), self.step))

        def posterior_of(x: Array, indices: Array | None) -> Posterior | None:
            has_one = self.backend.posterior
            return has_one(fit_key, self.state, x, indices) if has_one else None

        x, indices = self._taken(split, experiment.eval_points)
        posterior = cache(partial(posterior_of, x, indices))

        @cache  # log p(x) is held against it
        def at_theta() -> tuple[Estimate, int]:
            q: Any = posterior()
            return elbo(target()._replace(q=q), draw_key, experiment.elbo_draws), q.fit_steps

        def target() -> Target:
            return Target(engine, self.model, theta, x, posterior())

        def evidence(name: str) -> tuple[Estimate, int]:
            return estimate(name, target(), experiment, experiment.seed), 0

        works: dict[str, Work] = {"elbo_nats": at_theta}
        works |= {f"log_px_{name}_nats": partial(evidence, name) for name in experiment.evidence}
        if keeping := self.keeping:
            works[f"log_px_{KEEPER}_nats"] = lambda: (keeping.estimate(split, theta, self.step), 0)
        if not self.backend.theta_posterior:
            return works

        q_theta = self.backend.theta_posterior(self.state)
        theta_key, bound_key = engine.split(engine.fold_in(engine.fold_in(self.key, 3), self.step))
        weights, n_train = divergence(engine, q_theta), len(self.data.train)

        @cache  # one set of draws serves both metrics
        def drawn() -> list[Estimate]:
            def log_px(target: Target, number: int) -> Estimate:
                return estimate(experiment.evidence[0], target, experiment, (experiment.seed + number) % 2**31)

            return under_draws(target(), q_theta, theta_key, experiment.theta_draws, log_px)

        def full_bound() -> tuple[Average, int]:
            x, indices = self._taken(split, n_train)
            q: Any = posterior_of(x, indices)
            everything = Target(engine, self.model, theta, x, q)
            return bound(everything, q_theta, bound_key, experiment.elbo_draws), q.fit_steps

        return works | {
            "log_px_expected_nats": lambda: (expected(drawn()), 0),
            "log_px_predictive_nats": lambda: (predictive(drawn()), 0),
            "elbo_full_nats": full_bound,
            "kl_theta_nats": lambda: (Average(float(weights.sum()) / n_train, 0.0, n_train), 0),
            "theta_at_prior": lambda: (Average(float((weights < AT_PRIOR).mean()), 0.0, n_train), 0),
        }

    def _restart(self, step_size: float) -> None:
        factor = np.float32(self.experiment.initial_scale)  # 1 changes no bit
        scaled = ({name: factor * v for name, v in group.items()} for group in self.model.init(self.experiment.seed))
        groups = (arrays(self.engine, group) for group in scaled)
        key = self.engine.fold_in(self.key, 0)
        state = self.backend.init(key, *groups, self.x, self.engine.array(step_size))
        self.state = arrays(self.engine, numpys(self.engine, state))  # no array twice: training reuses their memory
        self.step = 0

    def _chunk(self, count: int) -> None:
        """Take `count` steps. Raises DivergedError."""
        start = time.perf_counter()
        steps = np.arange(self.step, self.step + count)
        indices = np.stack([self._minibatch(int(step)) for step in steps])
        key = self.engine.fold_in(self.key, 2)
        self.state, info = self.train(self.state, self.x, key, self.engine.array(steps), self.engine.array(indices))
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
        self.objective = float(info.objective.mean())

    def _minibatch(self, step: int) -> np.ndarray:
        """Rows of one step, without repetition within it: from (seed, step) alone, the same for every engine.

        A step that takes them all has them in one order, shuffled, at every step: a backend may walk through it from
        one step to the next.
        """
        n = len(self.data.train)
        if self.experiment.full_e_step:
            return np.random.default_rng(self.experiment.seed).permutation(n)
        rng = np.random.default_rng([self.experiment.seed, step])
        return rng.choice(n, self.rows_per_step, replace=False, shuffle=False)

    @property
    def pilot(self) -> dict[str, float]:
        """The scores of the step sizes that were tried."""
        return {str(size): score for size, score in zip(STEP_SIZES, self.scores, strict=False)}

    def _choose_step_size(self) -> float:
        """Return the candidate with the best mean objective over the last chunk of a short run on the training set."""
        pilot = max(1, min(self.experiment.pilot_steps, self.experiment.samples // self.rows_per_step))
        while len(self.scores) < len(STEP_SIZES):
            candidate = STEP_SIZES[len(self.scores)]
            if not self.trying:
                self.step_size, self.trying = candidate, True
                self._restart(candidate)
            try:
                while self.step < pilot:
                    self.progress(0, f"trying step size {candidate}")
                    self._chunk(min(self.chunk, pilot - self.step))
                    self._pause()
                score = self.objective
            except DivergedError:
                score = -math.inf
            self.scores.append(score)
            self.trying = False
        if max(self.scores) == -math.inf:
            raise DivergedError("every candidate step size diverges")
        return STEP_SIZES[self.scores.index(max(self.scores))]


def points(data: Data, split: str, count: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the first points of a split, float32, and their indices where they are training points."""
    x = (data.train if split == "train" else data.test)[:count]
    if split == "train" and data.fresh:  # one fixed draw stands for the fresh ones that training sees
        x = np.random.default_rng(0).random(x.shape) < x
    return x.astype(np.float32), np.arange(len(x)) if split == "train" else None


@cache
def training(engine: Engine, model: Model, backend: str, settings: Settings, fresh: bool) -> tuple[Backend, Any]:
    """Build a backend and its training loop, compiled once for all seeds and step sizes.

    train(state, x [N, n_x], key, steps [s], indices [s, m]) -> (state, Info of [s]) takes s steps on minibatches
    that are rows of x, with noise from the key and the step's number. It gives up the memory of the state it is given.
    """
    built = parts.backend(backend)(engine, model, settings)

    def binarized(ppl: Any, x: Array) -> None:
        ppl.sample("x", ppl.dist.Bernoulli(probs=x))

    def train(state: State, x: Array, key: Key, steps: Array, indices: Array) -> tuple[State, Info]:
        fraction = indices.shape[1] / x.shape[0]

        def one(carry: tuple[State, Array], item: tuple[Array, Array]) -> tuple[tuple[State, Array], Info]:
            state, x = carry
            step, rows = item
            noise_key, step_key = engine.split(engine.fold_in(key, step))
            batch = engine.draw(noise_key, binarized, x[rows])["x"] if fresh else x[rows]
            state, info = built.step(step_key, state, Batch(batch, rows, fraction))
            return (state, x), info

        (state, _), info = engine.scan(one, (state, x), (steps, indices))
        return state, info

    return built, engine.compile(train, consumed=True)
