"""What steps, bounds, memory and grids cost: who takes turns against the clock, the parts, and where their rows lie."""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import inference
from comparisons import cli
from comparisons.benchmarks.peers import Shape, Steps, em_products, minibatches, peers, step_products
from comparisons.benchmarks.scans import scans
from comparisons.benchmarks.traits import leaps, remembers
from comparisons.cli.flags import FITTED, RUN
from comparisons.disk import reading, writing
from comparisons.evidence.base import Target
from comparisons.evidence.elbo import elbo
from comparisons.reporting.folder import beside, where
from comparisons.runner import store
from comparisons.runner.training import CHUNK, training
from inference import BACKENDS, ENGINES, AllSettings
from inference.base import Engine, Posterior, arrays, numpys, setting
from models.vae import VaeBernoulli

PARTS = ("step", "growth", "bound", "memory", "grid")
SHOWN = ("step", "growth", "seeds", "bound", "memory", "grid")  # `seeds` is measured no more; its rows stay
SHAPES = (Shape(500, 20), Shape(100, 3))  # the paper's Figures 2 and 3
SMALL = Shape(100, 3)
# Along what the cost of a step may grow, and how far it is followed.
GROWTH: dict[str, tuple[Shape, tuple[int, ...]]] = {
    "n_train": (Shape(100, 3, n_x=64), (1000, 10_000, 100_000, 1_000_000)),
    "n_hidden": (SMALL, (50, 100, 200, 500, 1000)),
    "n_latent": (SMALL, (2, 10, 50, 200)),
    "minibatch": (SMALL, (10, 30, 100, 300, 1000)),
    "leapfrog_steps": (SMALL, (1, 5, 10, 20, 40)),
}
SHOWS = {"n_train": remembers, "leapfrog_steps": leaps}  # what a backend has that an axis is for
USUAL = AllSettings()
POINTS = 10_000  # of the part bound
DRAWS = (2, 4, 20)  # for each of them
GRID_TURNS = 3  # at most: a turn takes minutes

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Plan(cli.Told):
    """What is measured. Each field is a flag."""

    parts: tuple[str, ...] = setting(PARTS, "what to measure", choices=PARTS, about=RUN)
    device: str = setting("cpu", "where arrays live, in the parts step and grid", choices=("cpu", "cuda"), about=RUN)
    threads: int = setting(
        2, "threads of the array libraries, and workers of the part grid", low=1, high=4096, about=RUN
    )
    repeats: int = setting(5, "turns of each contestant, of which the median counts", low=1, high=1000)
    seconds: float = setting(0.5, "least length of a turn [seconds]", above=0.0, high=600.0)
    cells: int = setting(16, "part grid: cells, on digits", low=2, high=1024, flag="--n-cells", also=("--cells",))
    samples: int = setting(
        100_000, "part grid: training points of each cell [datapoints]", low=1000, high=10**8, about=FITTED
    )


def measure(plan: Plan, out: Path, data_dir: Path | None) -> int:
    """Measure, write rows.csv, table.md and figure.svg, print the ratios as a line of JSON; return 0.

    What lies there of other parts stays; parts/<part>.json says what each was measured with.
    """
    writing.prepare(out)
    with tempfile.TemporaryDirectory() as cache:
        # Compilation is measured: nothing may be there from before.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        os.environ["OMP_NUM_THREADS"] = str(plan.threads)
        os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # a user's own, on disk
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # a card is shared: by two libraries, by workers
        for name in ENGINES:  # before anything else loads a library: it is then that threads are counted
            inference.engine(name, plan.device, plan.threads)
        for part in plan.parts:
            print(f"{part} ...", file=sys.stderr, flush=True)
            began, load = time.perf_counter(), os.getloadavg()[0]
            other = f"-{plan.threads}" if part == "step" and plan.threads != Plan.threads else ""  # told for several
            path, rows, done = out / "parts" / f"{part}{other}.csv", [], False
            try:
                for row in MEASURE[part](plan):
                    rows.append({"part": part, "threads": plan.threads, **row})
                done = True
            finally:
                if done or (rows and not path.exists()):  # half a part is better than none, and worse than a whole one
                    spent = {"load_before": round(load, 2), "seconds": round(time.perf_counter() - began), "done": done}
                    writing.write_rows(path, rows)
                    told = {**store.environment(), "plan": asdict(plan), **spent, **reading.sums([path])}
                    writing.write_json(path.with_suffix(".json"), told)
    print(json.dumps(report(out)))
    print(where(out), file=sys.stderr)  # the line before is for programs
    return 0


def report(out: Path) -> dict[str, float]:
    """Write rows.csv, table.md and figure.svg from the parts that lie in a folder; return the ratios."""
    from comparisons.benchmarks import speed_report
    from comparisons.reporting import markdown

    places = [path for part in SHOWN for path in sorted((out / "parts").glob(f"{part}*.csv"), reverse=True)]
    found = speed_report.read(places)
    writing.write(out / "rows.csv", found.to_csv(index=False, lineterminator="\n"))
    files = {
        "table.md": lambda: markdown.printed(speed_report.blocks(found)),
        "figure.svg": lambda: speed_report.figure(found),
    }
    print(beside(out, files))
    return speed_report.ratios(found)


def step(plan: Plan) -> Iterator[Row]:
    """Every backend on every engine, the peers and the roofs, at the paper's two shapes."""
    for shape in SHAPES:
        contestants = []
        for name, engine, build, leapfrog in _builders(shape, plan):
            one = Contestant(name, engine, shape, build(), leapfrog)
            contestants.append(one)
            yield compilation(one)
        yield from turns(contestants, plan.repeats, plan.seconds, plan.seed)


def _builders(shape: Shape, plan: Plan) -> Iterator[tuple[str, str, Callable[[], Steps], int]]:
    """Yield name, engine, what builds the steps, and their leapfrog steps; HMC has a roof of its own."""
    leapfrog = {name: USUAL.leapfrog_steps if leaps(_asked(plan), name) else 0 for name in BACKENDS}
    yield "matrix products", "torch", partial(step_products, shape, plan.device), 0
    for name, count in leapfrog.items():
        if count:
            roof = partial(em_products, shape, count, USUAL.weight_updates, plan.device)
            yield f"matrix products of {name}", "torch", roof, count
    for peer in (*peers(shape, images(shape), plan.device), *scans(shape, images(shape), plan.device)):
        yield *peer, 0
    for engine in ENGINES:
        for name, count in leapfrog.items():
            steps = partial(ours, name, engine, shape, plan.threads, count or USUAL.leapfrog_steps, plan.device)
            yield name, engine, steps, count


def growth(plan: Plan) -> Iterator[Row]:
    """How a step's cost grows along each axis, on the backend that it would show on.

    At every value; at the ends where an engine need not compile, for there compiling takes long.
    """
    for axis, (base, values) in GROWTH.items():
        contestants = []
        backend = shown_on(axis, _asked(plan))
        leapfrog = USUAL.leapfrog_steps if leaps(_asked(plan), backend) else 0
        for value in values:
            shape = base if axis == "leapfrog_steps" else base._replace(**{axis: value})
            count = value if axis == "leapfrog_steps" else leapfrog
            for engine in ENGINES:
                if not ENGINES[engine].compiling_is_a_choice or value in (values[0], values[-1]):
                    steps = ours(backend, engine, shape, plan.threads, count or USUAL.leapfrog_steps)
                    steps(CHUNK)
                    contestants.append(Contestant(backend, engine, shape, steps, count))
        for row in turns(contestants, plan.repeats, plan.seconds, plan.seed):
            yield {"axis": axis, **row}


def shown_on(axis: str, engine: Engine) -> str:
    """Return the first backend whose cost might grow along an axis as no other's: else the first of all."""
    shows = SHOWS.get(axis)
    return next(name for name in BACKENDS if shows is None or shows(engine, name))


def _asked(plan: Plan) -> Engine:
    """Return the engine on which backends are asked for their traits."""
    return inference.engine(next(iter(ENGINES)), "cpu", plan.threads)


def bound(plan: Plan) -> Iterator[Row]:
    """Seconds for the lower bound of 10,000 points, once compiled."""
    for shape in SHAPES:
        for name in ENGINES:
            engine = inference.engine(name, "cpu", plan.threads)
            model = VaeBernoulli(shape.n_x, shape.n_latent, shape.n_hidden)
            theta, phi = (arrays(engine, group) for group in model.init(0))
            x = engine.array(images(shape)[:POINTS])
            target = Target(engine, model, theta, x, Posterior(model.recognition, (phi, x)))
            named = {"contestant": "bound", "engine": name, **shape._asdict()}
            for draws in DRAWS:
                for repeat in range(-1, plan.repeats):
                    start = time.perf_counter()
                    elbo(target, engine.key(repeat + 1), draws)
                    if repeat >= 0:
                        seconds = time.perf_counter() - start
                        yield {**named, "draws": draws, "quantity": "bound_s", "repeat": repeat, "value": seconds}


def memory(plan: Plan) -> Iterator[Row]:
    """Peak memory of a run on data of MNIST's size, in a process of its own: training, and a bound of 10,000 points."""
    shape, backend = SHAPES[0], next(iter(BACKENDS))
    for engine in ENGINES:
        settings = {"backend": backend, "engine": engine, "threads": plan.threads}
        command = [sys.executable, "-c", ALONE.format(settings=settings, shape=tuple(shape))]
        ended = subprocess.run(command, capture_output=True, text=True, check=True)
        megabytes = float(ended.stdout.split()[-1]) / 1e6
        named = {"contestant": backend, "engine": engine, **shape._asdict()}
        yield {**named, "quantity": "peak_mb", "repeat": 0, "value": megabytes}


# A run as a comparison makes it; the data are MNIST's in size, not in content. The kernel's VmHWM is this program's own
# peak; what getrusage tells begins with that of the process it was forked from.
ALONE = """
import re
from pathlib import Path
import numpy as np
from comparisons.data import Data
from comparisons.runner.experiment import Experiment
from comparisons.benchmarks.peers import Shape
from comparisons.runner.run import run
shape = Shape(*{shape})
x = np.random.default_rng(0).random((shape.n_train + 10_000, shape.n_x), dtype=np.float32)
data = Data("mnist", x[: shape.n_train], x[shape.n_train :], (28, 28), "unit", "", False)
experiment = Experiment(
    data="mnist", n_hidden=shape.n_hidden, n_latent=shape.n_latent, samples=100_000, step_size=0.01,
    eval_points=10_000, evidence=("none",), compile="on", **{settings},
)
list(run("speed", "cell", experiment, data))
print(1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]))
"""


def grid(plan: Plan) -> Iterator[Row]:
    """Seconds for a grid of cells on digits: on workers of one thread each, and one at a time on all threads."""
    n_seeds = max(1, plan.cells // (len(BACKENDS) * len(ENGINES)))
    command = [sys.executable, "-m", "comparisons.marginal_likelihood", "--samples", str(plan.samples), "--seeds"]
    command += [*map(str, range(n_seeds)), "--device", plan.device]
    ways = {
        f"{plan.threads} workers of one thread": ["--workers", str(plan.threads)],
        f"one at a time, {plan.threads} threads": ["--threads", str(plan.threads)],
    }
    cells = n_seeds * len(BACKENDS) * len(ENGINES)
    mine = ("OMP_NUM_THREADS", "NPROC", "TORCHINDUCTOR_CACHE_DIR")  # set for this process; a user's shell has none
    environment = {name: value for name, value in os.environ.items() if name not in mine}
    # In turns, as everywhere: minutes lie between two grids, in which a shared machine's pace drifts.
    for turn in range(min(plan.repeats, GRID_TURNS)):
        for name, flags in ways.items():
            with tempfile.TemporaryDirectory() as out:
                start = time.perf_counter()
                subprocess.run([*command, *flags, "--out", out], env=environment, capture_output=True, check=True)
                seconds = time.perf_counter() - start
            named = {"contestant": name, "cells": cells, "repeat": turn}
            yield {**named, "quantity": "grid_s", "value": seconds}
            yield {**named, "quantity": "cells_per_hour", "value": 3600.0 * cells / seconds}


MEASURE: dict[str, Callable[[Plan], Iterator[Row]]] = {
    part.__name__: part for part in (step, growth, bound, memory, grid)
}


# Who takes turns


class Contestant(NamedTuple):
    """Something that takes steps, and what tells it apart."""

    name: str
    engine: str
    shape: Shape
    steps: Steps
    leapfrog_steps: int = 0

    @property
    def row(self) -> Row:
        """The columns that name it."""
        named = {"contestant": self.name, "engine": self.engine, **self.shape._asdict()}
        return {**named, "leapfrog_steps": self.leapfrog_steps}


def images(shape: Shape) -> np.ndarray:
    """Return grey values in [0, 1], [n_train, n_x]: what they show does not matter to a clock."""
    return np.random.default_rng(0).random((shape.n_train, shape.n_x), dtype=np.float32)


def ours(
    backend: str,
    engine_name: str,
    shape: Shape,
    threads: int,
    leapfrog_steps: int = USUAL.leapfrog_steps,
    device: str = "cpu",
) -> Steps:
    """Return a backend's training as a comparison runs it once the step size is chosen, in chunks of 100 steps.

    On a card Pyro does not compile.
    """
    engine = inference.engine(engine_name, device, threads, device == "cpu")
    model = VaeBernoulli(shape.n_x, shape.n_latent, shape.n_hidden)
    settings = AllSettings(warmup=0, minibatch=shape.minibatch, leapfrog_steps=leapfrog_steps)
    built, train = training(engine, model, backend, settings, False)
    data, key = engine.array(images(shape)), engine.key(1)
    theta, phi = (arrays(engine, group) for group in model.init(0))
    state = built.init(engine.key(0), theta, phi, data, engine.array(0.01))
    state = arrays(engine, numpys(engine, state))  # no array twice: training reuses their memory
    batches, done = minibatches(shape), 0

    def steps(number: int) -> None:
        nonlocal state, done
        for _ in range(math.ceil(number / CHUNK)):
            rows = engine.array(np.stack([next(batches) for _ in range(CHUNK)]))
            numbers = engine.array(np.arange(done, done + CHUNK))
            state, _ = train(state, data, key, numbers, rows, engine.array(CHUNK), valued=False)
            if not all(np.isfinite(engine.numpy(value)).all() for value in built.theta(state).values()):
                raise RuntimeError(f"{backend} on {engine_name} left the finite numbers")
            done += CHUNK

    return steps


def compilation(contestant: Contestant) -> Row:
    """Time the first steps against later ones."""
    first, later = _timed(contestant, CHUNK), _timed(contestant, CHUNK)
    return {**contestant.row, "quantity": "compile_s", "repeat": 0, "value": max(0.0, first - later)}


def turns(contestants: Sequence[Contestant], repeats: int, least: float, seed: int) -> Iterator[Row]:
    """Time the contestants in turn, in another order each time; yield milliseconds a step.

    A turn is so many steps that it lasts `least` seconds.
    """
    numbers = [CHUNK * math.ceil(least / _timed(one, CHUNK)) for one in contestants]
    rng = np.random.default_rng(seed)
    for repeat in range(repeats):
        for i in rng.permutation(len(contestants)):
            value = 1e3 * _timed(contestants[i], numbers[i]) / numbers[i]
            yield {**contestants[i].row, "quantity": "step_ms", "repeat": repeat, "value": value}


def _timed(contestant: Contestant, number: int) -> float:
    start = time.perf_counter()
    contestant.steps(number)
    return time.perf_counter() - start
