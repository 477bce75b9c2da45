"""What steps, bounds, memory and grids cost: contestants, shapes, and how they take turns."""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import inference
from comparisons import cli
from comparisons.benchmarks.peers import (
    Shape,
    Steps,
    em_products,
    minibatches,
    numpyro_svi,
    pyro_svi,
    step_products,
    torch_by_hand,
    vectorised,
)
from comparisons.runner import store
from inference import BACKENDS, ENGINES
from inference.base import Settings, setting

PARTS = ("step", "growth", "seeds", "bound", "memory", "grid")
SHAPES = (Shape(500, 20), Shape(100, 3))  # the paper's Figures 2 and 3
SMALL = Shape(100, 3)
TURNS = 100  # steps at a time, as a comparison takes them
# Where the cost of a step may grow: the backend that it would show on, and how far it is followed.
GROWTH: dict[str, tuple[str, Shape, tuple[int, ...]]] = {
    "n_train": ("mean_field", Shape(100, 3, n_x=64), (1000, 10_000, 100_000, 1_000_000)),
    "n_hidden": ("aevb", SMALL, (50, 100, 200, 500, 1000)),
    "n_latent": ("aevb", SMALL, (2, 10, 50, 200)),
    "minibatch": ("aevb", SMALL, (10, 30, 100, 300, 1000)),
    "leapfrog_steps": ("monte_carlo_em", SMALL, (1, 5, 10, 20, 40)),
}
LOSSES = ("Trace_ELBO", "JitTrace_ELBO", "CompiledELBO")  # Pyro's, and ours in its place
SEEDS = 4
POINTS = 10_000  # of the part bound
DRAWS = (2, 4, 20)  # for each of them
GRID_TURNS = 3  # at most: a turn takes minutes


@dataclass(frozen=True, kw_only=True)
class Plan(cli.Told):
    """What is measured. Each field is a flag."""

    parts: tuple[str, ...] = setting(PARTS, "what to measure", choices=PARTS)
    threads: int = setting(2, "threads of the array libraries, and workers of the part grid", low=1, high=4096)
    repeats: int = setting(5, "turns of each contestant, of which the median counts", low=1, high=1000)
    seconds: float = setting(0.5, "least length of a turn [seconds]", above=0.0, high=600.0)
    cells: int = setting(16, "part grid: cells, on digits", low=2, high=1024)
    samples: int = setting(100_000, "part grid: training points of each cell [datapoints]", low=1000, high=10**8)


class Contestant(NamedTuple):
    """Something that takes steps, and what tells it apart."""

    name: str
    engine: str
    shape: Shape
    steps: Steps
    leapfrog_steps: int = 0

    @property
    def row(self) -> dict[str, Any]:
        """The columns that name it."""
        told = {"contestant": self.name, "engine": self.engine, **self.shape._asdict()}
        return {**told, "leapfrog_steps": self.leapfrog_steps}


def measure(plan: Plan, out: Path, data_dir: Path | None) -> int:
    """Measure, write rows.csv, table.md and figure.svg, print the ratios as a line of JSON; return 0.

    What lies there of other parts stays; parts/<part>.json says what each was measured with.
    """
    from comparisons.benchmarks import speed_report
    from comparisons.reporting import markdown

    store.prepare(out)
    with tempfile.TemporaryDirectory() as cache:
        # Compilation is measured: nothing may be there from before.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        os.environ["OMP_NUM_THREADS"] = str(plan.threads)
        for name in ENGINES:  # before anything else loads a library: it is then that threads are counted
            inference.engine(name, "cpu", plan.threads, True)
        for part in plan.parts:
            print(f"{part} ...", file=sys.stderr, flush=True)
            began, load = time.perf_counter(), os.getloadavg()[0]
            rows = [{"part": part, **row} for row in MEASURE[part](plan)]
            seconds = round(time.perf_counter() - began)
            manifest = {**store.environment(), "plan": asdict(plan), "load_before": round(load, 2), "seconds": seconds}
            store.write_rows(out / "parts" / f"{part}.csv", rows)
            store.write_json(out / "parts" / f"{part}.json", manifest)
    found = speed_report.read([path for path in (out / "parts" / f"{part}.csv" for part in PARTS) if path.exists()])
    store.write(out / "rows.csv", found.to_csv(index=False, lineterminator="\n"))
    table = markdown.printed(speed_report.blocks(found))
    store.write(out / "table.md", table)
    store.write(out / "figure.svg", speed_report.figure(found))
    print(table)
    print(json.dumps(speed_report.ratios(found)))
    return 0


def step(plan: Plan) -> Iterator[dict[str, Any]]:
    """Every backend on both engines, the peers and the roof, at the paper's two shapes."""
    for shape in SHAPES:
        x = _images(shape)
        builders: list[tuple[str, str, Callable[[], Steps], int]] = [
            ("matrix products", "torch", partial(step_products, shape), 0),
            ("matrix products of monte_carlo_em", "torch", partial(em_products, shape, 10, 5), 10),
            ("by hand", "torch", partial(torch_by_hand, shape, x), 0),
            *((f"SVI, {loss}", "pyro", partial(pyro_svi, shape, x, loss), 0) for loss in LOSSES),
            ("SVI, Python loop", "numpyro", partial(numpyro_svi, shape, x), 0),
        ]
        for engine, backend in product(ENGINES, BACKENDS):
            leapfrog = 10 if backend == "monte_carlo_em" else 0
            builders.append((backend, engine, partial(ours, backend, engine, shape, x, plan), leapfrog))
        contestants = []
        for name, engine, build, leapfrog in builders:
            one = Contestant(name, engine, shape, build(), leapfrog)
            contestants.append(one)
            yield from _compilation(one)
        yield from _turns(contestants, plan)


def growth(plan: Plan) -> Iterator[dict[str, Any]]:
    """How a step's cost grows along each axis: NumPyro at every value, Pyro, which compiles longer, at the ends."""
    for axis, (backend, base, values) in GROWTH.items():
        contestants = []
        for value in values:
            leapfrog = value if axis == "leapfrog_steps" else 10 if backend == "monte_carlo_em" else 0
            shape = base if axis == "leapfrog_steps" else base._replace(**{axis: value})
            x = _images(shape)
            for engine in ENGINES:
                if engine == "numpyro" or value in (values[0], values[-1]):
                    steps = ours(backend, engine, shape, x, plan, leapfrog or 10)
                    steps(TURNS)
                    contestants.append(Contestant(backend, engine, shape, steps, leapfrog))
        for row in _turns(contestants, plan):
            yield {"axis": axis, **row}


def seeds(plan: Plan) -> Iterator[dict[str, Any]]:
    """NumPyro's AEVB: a few seeds as one vectorised axis, and one alone. The time is that of one seed's step."""
    for shape in SHAPES:
        x = _images(shape)
        alone = Contestant("one seed", "numpyro", shape, ours("aevb", "numpyro", shape, x, plan))
        together = Contestant(
            f"{SEEDS} seeds at once", "numpyro", shape, ours("aevb", "numpyro", shape, x, plan, n_seeds=SEEDS)
        )
        for one in (alone, together):
            one.steps(TURNS)
        for row in _turns([alone, together], plan):
            yield {**row, "value": row["value"] / (SEEDS if row["contestant"] == together.name else 1)}


def bound(plan: Plan) -> Iterator[dict[str, Any]]:
    """Seconds for the lower bound of 10,000 points, once compiled."""
    from comparisons.evidence.elbo import elbo
    from inference.base import Posterior, arrays
    from models.vae import VaeBernoulli

    for shape in SHAPES:
        for name in ENGINES:
            engine = inference.engine(name, "cpu", plan.threads)
            model = VaeBernoulli(shape.n_x, shape.n_latent, shape.n_hidden)
            theta, phi = (arrays(engine, group) for group in model.init(0))
            x = engine.array(_images(shape)[:POINTS])
            q = Posterior(model.recognition, (phi, x))
            told = {"contestant": "bound", "engine": name, **shape._asdict()}
            for draws in DRAWS:
                for repeat in range(-1, plan.repeats):
                    start = time.perf_counter()
                    elbo(engine, model, theta, q, x, engine.key(repeat + 1), draws)
                    if repeat >= 0:
                        seconds = time.perf_counter() - start
                        yield {**told, "draws": draws, "quantity": "bound_s", "repeat": repeat, "value": seconds}


def memory(plan: Plan) -> Iterator[dict[str, Any]]:
    """Peak memory of AEVB on data of MNIST's size, in a process of its own: training, and a bound of 10,000 points."""
    shape = SHAPES[0]
    for engine in ENGINES:
        command = [sys.executable, "-c", ALONE.format(engine=engine, shape=tuple(shape), threads=plan.threads)]
        ended = subprocess.run(command, capture_output=True, text=True, check=True)
        megabytes = float(ended.stdout.split()[-1]) / 1e6
        told = {"contestant": "aevb", "engine": engine, **shape._asdict()}
        yield {**told, "quantity": "peak_mb", "repeat": 0, "value": megabytes}


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
    data="mnist", engine="{engine}", n_hidden=shape.n_hidden, n_latent=shape.n_latent, samples=100_000, step_size=0.01,
    eval_points=10_000, evidence=("none",), threads={threads}, compile="on",
)
list(run("speed", "cell", experiment, data))
print(1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]))
"""


def grid(plan: Plan) -> Iterator[dict[str, Any]]:
    """Seconds for a grid of cells on digits: on workers of one thread each, and one at a time on all threads."""
    n_seeds = max(1, plan.cells // (len(BACKENDS) * len(ENGINES)))
    command = [sys.executable, "-m", "comparisons.marginal_likelihood", "--samples", str(plan.samples), "--seeds"]
    command += map(str, range(n_seeds))
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
            told = {"contestant": name, "cells": cells, "repeat": turn}
            yield {**told, "quantity": "grid_s", "value": seconds}
            yield {**told, "quantity": "cells_per_hour", "value": 3600.0 * cells / seconds}


MEASURE: dict[str, Callable[[Plan], Iterator[dict[str, Any]]]] = {
    "step": step, "growth": growth, "seeds": seeds, "bound": bound, "memory": memory, "grid": grid,
}  # fmt: skip


def ours(
    backend: str, engine_name: str, shape: Shape, x: np.ndarray, plan: Plan, leapfrog_steps: int = 10, n_seeds: int = 0
) -> Steps:
    """Return a backend's training as a comparison runs it, in chunks of 100 steps; of `n_seeds` at once, where said."""
    from comparisons.runner.run import arrays, numpys, training
    from models.vae import VaeBernoulli

    engine = inference.engine(engine_name, "cpu", plan.threads, True)
    model = VaeBernoulli(shape.n_x, shape.n_latent, shape.n_hidden)
    settings = Settings(warmup=0, minibatch=shape.minibatch, leapfrog_steps=leapfrog_steps)
    built, train = training(engine, model, backend, settings, False)
    data = engine.array(x)
    theta, phi = (arrays(engine, group) for group in model.init(0))
    state = numpys(engine, built.init(engine.key(0), theta, phi, data, engine.array(0.01)))
    key: Any = engine.key(1)
    if n_seeds:
        train, state = vectorised(train, n_seeds), _stacked(state, n_seeds)
        key = engine.split(key, n_seeds)
    state = arrays(engine, state)
    batches, done = minibatches(shape), 0

    def steps(number: int) -> None:
        nonlocal state, done
        for _ in range(math.ceil(number / TURNS)):
            rows = np.stack([next(batches) for _ in range(TURNS)])
            rows = np.stack(n_seeds * [rows]) if n_seeds else rows
            numbers = engine.array(np.arange(done, done + TURNS))
            state, info = train(state, data, key, numbers, engine.array(rows))
            if not np.isfinite(engine.numpy(info.objective)).all():
                raise RuntimeError(f"{backend} on {engine_name} left the finite numbers")
            done += TURNS

    return steps


def _stacked(state: dict[str, Any], n: int) -> dict[str, Any]:
    return {name: _stacked(v, n) if isinstance(v, dict) else np.stack(n * [v]) for name, v in state.items()}


def _images(shape: Shape) -> np.ndarray:
    """Return grey values in [0, 1], [n_train, n_x]: what they show does not matter to a clock."""
    return np.random.default_rng(0).random((shape.n_train, shape.n_x), dtype=np.float32)


def _compilation(contestant: Contestant) -> Iterator[dict[str, Any]]:
    """Time the first steps against later ones."""
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        contestant.steps(TURNS)
        seconds.append(time.perf_counter() - start)
    yield {**contestant.row, "quantity": "compile_s", "repeat": 0, "value": max(0.0, seconds[0] - seconds[1])}


def _turns(contestants: list[Contestant], plan: Plan) -> Iterator[dict[str, Any]]:
    """Time the contestants in turn, in another order each time; yield milliseconds a step."""
    numbers = []
    for one in contestants:
        start = time.perf_counter()
        one.steps(TURNS)
        each = (time.perf_counter() - start) / TURNS
        numbers.append(TURNS * math.ceil(plan.seconds / each / TURNS))
    rng = np.random.default_rng(plan.seed)
    for repeat in range(plan.repeats):
        for i in rng.permutation(len(contestants)):
            start = time.perf_counter()
            contestants[i].steps(numbers[i])
            value = 1e3 * (time.perf_counter() - start) / numbers[i]
            yield {**contestants[i].row, "quantity": "step_ms", "repeat": repeat, "value": value}
