"""A backend's way through the training set, some steps at a time: how far it has come, and by which step size."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

import inference
from comparisons.checks.contract import hold
from comparisons.cli import parts
from comparisons.data import Data, Rows
from comparisons.data.rows import HELD
from comparisons.evidence.journal import Journal
from comparisons.runner.cell import Cell, points
from comparisons.runner.experiment import built, refuse
from comparisons.runner.rows import Row
from inference.base import Array, Backend, Batch, Engine, Info, Key, Params, Settings, State, arrays, numpys
from inference.latents import latents
from models.base import Model

CHUNK = 100  # steps between looks at the progress and at non-finite numbers, of at most so many datapoints in all:
CHUNK_ROWS = 100_000  # a full E-step of 50,000 chains takes seconds, and Ctrl-C and checkpoints wait for a chunk
MANY = 100_000  # steps that repay compiling them once more, without the objective that a choice of step size reads
Kept = tuple[dict[str, Any], dict[str, Any]]  # the arrays and the facts of a checkpoint
FACTS = (  # the fields that JSON can hold
    *("trying", "begun", "step", "judged", "scores", "rows", "judging"),
    *("step_size", "seconds", "compile_seconds", "decoder_evals", "objective", "acceptance", "spent"),
)
SPLITS = ("train", "test")


class DivergedError(Exception):
    """The fit left the finite numbers; the message says when."""


@dataclass
class Standing:
    """All that changes in a run, and so what a checkpoint holds and a later process goes on from.

    It is the backend's state on its way, and the clocks and counters that go with it.
    """

    state: State = field(default_factory=dict)
    step_size: float = math.nan
    scores: list[float] = field(default_factory=list)  # of the candidate step sizes tried to the end
    trying: bool = False  # a candidate
    begun: bool = False  # the run itself
    step: int = 0  # steps taken
    judged: int = 0  # and those up to the last stop that was judged
    seconds: float = 0.0  # of training alone
    compile_seconds: float = 0.0  # of tracing and compiling, for training and for the judge
    decoder_evals: int = 0
    objective: float = -math.inf  # of the last steps, while a step size is chosen
    acceptance: tuple[float, float] = (math.nan, math.nan)  # of the last steps: its mean and error
    rows: list[Row] = field(default_factory=list)
    judging: list[Row] = field(default_factory=list)  # those of the stop under way
    spent: float = 0.0  # seconds on the estimate under way, before this process took over at `since`
    since: float = field(default_factory=time.perf_counter)
    journal: Journal = field(default_factory=Journal)  # what that estimate has worked out
    chains: dict[str, Any] = field(default_factory=dict)  # what an estimator keeps along training, by split
    looked: int = 0  # the step of its last look
    chain_evals: dict[str, int] = field(default_factory=dict)
    chain_seconds: dict[str, float] = field(default_factory=dict)

    def packed(self, engine: Engine) -> Kept:
        """Return it as a checkpoint holds it."""
        facts = {name: getattr(self, name) for name in FACTS}
        records = self.journal.records()
        if records:
            facts["spent"] += time.perf_counter() - self.since
        facts["keeping"] = {}
        if self.chains:
            evals, seconds = [*self.chain_evals.values()], [*self.chain_seconds.values()]
            facts["keeping"] = {"looked": self.looked, "evals": evals, "seconds": seconds}
        chains = {split: kept._asdict() for split, kept in self.chains.items()}
        return {"state": numpys(engine, self.state), "journal": records, "keeping": chains}, facts


def unpacked(
    engine: Engine, kept: Kept, paused: Callable[[], None], restored: Callable[[dict[str, Any]], Any]
) -> Standing:
    """Return what a checkpoint holds; `restored` makes of arrays what an estimator keeps."""
    held, facts = kept
    chains = {split: restored(held["keeping"][split]) for split in SPLITS if split in held.get("keeping", {})}
    keeping = facts.get("keeping") or {"looked": 0, "evals": [], "seconds": []}
    return Standing(
        **{name: facts[name] for name in FACTS if name in facts and name != "acceptance"},  # an old one lacks some
        acceptance=(facts["acceptance"][0], facts["acceptance"][1]),
        state=arrays(engine, held["state"]),
        journal=Journal(held.get("journal"), paused),
        chains=chains,
        looked=int(keeping["looked"]),
        chain_evals=dict(zip(chains, keeping["evals"], strict=True)),
        chain_seconds=dict(zip(chains, keeping["seconds"], strict=True)),
    )


@dataclass(frozen=True)
class Trainer:
    """What of a run does not change: the cell, its data on the device, the backend and its compiled steps."""

    cell: Cell
    data: Data
    engine: Engine
    model: Model
    backend: Backend
    steps: Any
    x: Any  # train [n, n_x]: on the device, or `Rows`

    @property
    def key(self) -> Key:
        """The key that all of the run's keys are folded from."""
        return self.engine.key(self.cell.experiment.seed)

    @property
    def chunk(self) -> int:
        """How many steps are taken at once, at most."""
        return max(1, min(CHUNK, CHUNK_ROWS // self.cell.rows_per_step))

    def reads(self, standing: Standing) -> bool:
        """Whether the next steps' objective is read, or is there anyhow: they train alike, bit for bit, without."""
        return standing.trying or (self.cell.experiment.step_size == "auto" and self.cell.last < MANY)

    def theta(self, standing: Standing) -> Params:
        """Return the generative parameters as they stand."""
        return self.backend.theta(standing.state)

    def scores(self, standing: Standing) -> dict[str, float]:
        """Return the score that each step size reached, where one was chosen; -inf: it diverged."""
        sizes = map(str, self.cell.experiment.step_sizes)
        return dict(zip(sizes, standing.scores, strict=False))

    def initial(self, step_size: float) -> State:
        """Return the state before any step."""
        experiment = self.cell.experiment
        factor = np.float32(experiment.initial_scale)  # 1 changes no bit
        scaled = ({name: factor * v for name, v in group.items()} for group in self.model.init(experiment.seed))
        groups = (arrays(self.engine, group) for group in scaled)
        state = self.backend.init(self.engine.fold_in(self.key, 0), *groups, self.x, self.engine.array(step_size))
        return arrays(self.engine, numpys(self.engine, state))  # no array twice: training reuses their memory

    def clock(self, standing: Standing) -> Callable[[], float]:
        """Return what says how many seconds have passed since, but for those of compiling, which it writes down."""
        start, before = time.perf_counter(), self.engine.compiling_seconds

        def passed() -> float:
            compiling = self.engine.compiling_seconds - before
            standing.compile_seconds += compiling
            return time.perf_counter() - start - compiling

        return passed

    def advance(self, standing: Standing, last: int) -> None:
        """Take the next chunk of steps, up to number `last`. Raises DivergedError."""
        passed = self.clock(standing)
        count = min(self.chunk, last - standing.step)
        valued, size = self.reads(standing), self.size
        infos = [self._steps(standing, min(size, count - taken), valued) for taken in range(0, count, size)]
        info = Info(*map(np.concatenate, zip(*infos, strict=True)))
        standing.decoder_evals += int(info.decoder_evals.sum())
        error = float(info.acceptance.std(ddof=1) / math.sqrt(count)) if count > 1 else 0.0
        standing.acceptance = float(info.acceptance.mean()), error
        params = standing.state.get("params", {})  # phi, which can leave the finite numbers a step before theta
        watched = [*self.theta(standing).values(), *(params.values() if isinstance(params, dict) else ())]
        arrays = {id(value): value for value in watched if not isinstance(value, dict)}  # each once
        read = [self.engine.numpy(value) for value in arrays.values()] + ([info.objective] if valued else [])
        standing.seconds += passed()
        if not all(np.isfinite(value).all() for value in read):
            raise DivergedError(f"the fit is not finite after step {standing.step}")
        standing.objective = float(info.objective.mean())

    @property
    def size(self) -> int:
        """How many steps the compiled program takes, at most."""
        held = HELD // (4 * self.cell.rows_per_step * self.cell.n_x) if isinstance(self.x, Rows) else self.chunk
        return max(1, min(self.chunk, held))

    def _steps(self, standing: Standing, count: int, valued: bool) -> Info:
        """Take the next steps, at most `size`; return what each tells, in NumPy."""
        rows = np.zeros((self.size, self.cell.rows_per_step), np.int64)  # of one size, whatever the count: one program
        numbers = np.arange(standing.step, standing.step + len(rows))
        rows[:count] = [self.minibatch(int(number)) for number in numbers[:count]]
        key, array = self.engine.fold_in(self.key, 2), self.engine.array
        x, items = self.x, [array(numbers), array(rows), array(count)]
        if isinstance(x, Rows):
            x, items = array(x[rows.ravel()]), [*items, array(np.arange(rows.size).reshape(rows.shape))]
        standing.state, info = self.steps(standing.state, x, key, *items, valued=valued)
        standing.step += count
        return Info(*(self.engine.numpy(column)[:count].astype(np.float64) for column in info))

    def minibatch(self, step: int) -> np.ndarray:
        """Return the rows of one step, without repetition: from (seed, step) alone, the same for every engine.

        A step that takes them all has them in one order, shuffled, at every step: a backend may walk through it from
        one step to the next.
        """
        n, e = self.cell.n_train, self.cell.experiment
        if e.card.full_batch(e):
            return np.random.default_rng(e.seed).permutation(n)
        return np.random.default_rng([e.seed, step]).choice(n, e.minibatch, replace=False, shuffle=False)


def choose_step_size(
    trainer: Trainer, standing: Standing, progress: Callable[[int, str], None], pause: Callable[[], None]
) -> float:
    """Return the candidate with the best mean objective over the last chunk of a short run on the training set.

    Goes on where `standing` was left. Raises DivergedError where every candidate diverges.
    """
    e, sizes = trainer.cell.experiment, trainer.cell.experiment.step_sizes
    last = max(1, min(e.pilot_steps, trainer.cell.last))
    while len(standing.scores) < len(sizes):
        candidate = sizes[len(standing.scores)]
        if not standing.trying:
            standing.step_size, standing.trying = candidate, True
            standing.state, standing.step = trainer.initial(candidate), 0
        try:
            while standing.step < last:
                progress(0, f"trying step size {candidate}")
                trainer.advance(standing, last)
                pause()
            score = standing.objective
        except DivergedError:
            score = -math.inf
        standing.scores.append(score)
        standing.trying = False
    if max(standing.scores) == -math.inf:
        raise DivergedError("every candidate step size diverges")
    return sizes[standing.scores.index(max(standing.scores))]


def trainer(cell: Cell, data: Data) -> Trainer:
    """Build what trains a cell. Raises FlagError for a model that the judge cannot count on, and a backend that cannot.

    The judge's work is short: what trains may be compiled, what judges is not.
    """
    e = cell.experiment
    engine = inference.engine(e.engine, e.device, e.threads)
    model = built(e, cell.n_x)
    hold(engine, model, e.model, points(data, "train", e.eval_points)[0])
    compiling = inference.engine(e.engine, e.device, e.threads, e.compiled)
    large = isinstance(data.train, Rows)
    backend, steps = training(compiling, model, e.backend, e.settings, data.fresh, cell.n_train if large else None)
    refuse(e, model, backend, latents(engine, model).size)
    return Trainer(cell, data, engine, model, backend, steps, data.train if large else engine.array(data.train))


class Loop(NamedTuple):
    """The training loop, compiled with the objective of each step and without: see `training`."""

    valued: Any
    silent: Any

    def __call__(self, *args: Any, valued: bool = True) -> tuple[State, Info]:
        return (self.valued if valued else self.silent)(*args)


@cache
def training(
    engine: Engine, model: Model, backend: str, settings: Settings, fresh: bool, n_train: int | None = None
) -> tuple[Backend, Any]:
    """Build a backend and its training loop, compiled once for all seeds and step sizes.

    train(state, x [N, n_x], key, steps [s], indices [s, m], count [], valued=True) -> (state, Info of [s]) takes the
    first `count` of s steps, on minibatches that are rows of x, with noise from the key and the step's number. It gives
    up the memory of the state it is given. Unless `valued`, no objective is worked out, and it is NaN.

    With `n_train`, N, x holds the rows of these minibatches alone, and one more argument says where: [s, m].
    """
    built = parts.backend(backend).build(engine, model, settings)

    def binarized(ppl: Any, x: Array) -> None:
        ppl.sample("x", ppl.dist.Bernoulli(probs=x))

    def loop(
        valued: bool, state: State, x: Array, key: Key, steps: Array, indices: Array, count: Any = None, *places: Array
    ) -> tuple[State, Info]:
        fraction = indices.shape[1] / (n_train or x.shape[0])

        def one(carry: tuple[State, Array], item: tuple[Array, ...]) -> tuple[tuple[State, Array], Info]:
            state, x = carry
            step, rows, place = item if places else (*item, item[1])
            noise_key, step_key = engine.split(engine.fold_in(key, step))
            batch = engine.draw(noise_key, binarized, x[place])["x"] if fresh else x[place]
            state, info = built.step(step_key, state, Batch(batch, rows, fraction))
            return (state, x), info if valued else info._replace(objective=math.nan)

        (state, _), info = engine.scan(one, (state, x), (steps, indices, *places), count)
        return state, info

    return built, Loop(*(engine.compile(partial(loop, valued), consumed=True) for valued in (True, False)))
