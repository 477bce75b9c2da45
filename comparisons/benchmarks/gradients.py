"""Estimators of the bound's gradient, measured: in one dimension, in closed form, on data, and in training."""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import inference
from comparisons import cli
from comparisons.benchmarks import gradients_closed, gradients_exact, gradients_trained
from comparisons.benchmarks.gradients_trained import OF_THE_BOUND, POINTS
from comparisons.cli.flags import FITTED, RUN
from comparisons.cli.parts import model_setting
from comparisons.data import DATA, card_of, load, take
from comparisons.disk import reading, writing
from comparisons.errors import FlagError
from comparisons.reporting.folder import where
from comparisons.runner import store
from comparisons.runner.experiment import Experiment
from comparisons.runner.grid import Request, Running, looked_at, run
from inference.base import setting
from inference.gradients import ESTIMATORS
from inference.optim import STEP_SIZES

# Each optimiser is shown at the best of its own step sizes; Adam's usual ones are below the paper's for Adagrad.
TRIED = {**STEP_SIZES, "adam": (3e-4, 1e-3, 3e-3, 1e-2)}
RAN = ("estimator", "optimizer", "particles", "step_size", "seed")

Row = dict[str, Any]


def exact(plan: "Plan", out: Path, data_dir: Path | None) -> Iterator[Row]:
    """Yield variances in one dimension, by numerical integration."""
    return gradients_exact.rows()


def closed(plan: "Plan", out: Path, data_dir: Path | None) -> Iterator[Row]:
    """Yield bias, variance and signal-to-noise ratio against the number of draws, on a linear Gaussian model."""
    engine = inference.engine(plan.engine, "cpu", plan.threads)
    return gradients_closed.rows(engine, plan.counts, plan.repeats, plan.seed)


def trained(plan: "Plan", out: Path, data_dir: Path | None) -> Iterator[Row]:
    """Yield variances on data, along AEVB's training."""
    data = load(plan.data, data_dir)
    data = take(data, min(plan.n_train, len(data.train)))
    told = plan.stages, plan.particles, plan.minibatches, plan.repeats
    return gradients_trained.rows(plan.experiment(seed=plan.seed), data, out / "fits", *told)


def estimators(plan: "Plan", out: Path, data_dir: Path | None) -> Iterator[Row]:
    """Yield the bound along training by each estimator, at as few draws as it takes, and of all at two."""
    told = {(name, count) for name in OF_THE_BOUND for count in (1, 2) if count >= ESTIMATORS[name].least}
    grid = [{"estimator": name, "particles": count} for name, count in sorted(told)]
    return _curves(plan, grid, out, data_dir)


def optimizers(plan: "Plan", out: Path, data_dir: Path | None) -> Iterator[Row]:
    """Yield the bound along training by each optimiser and step size, with estimator B."""
    grid = [{"optimizer": name, "step_size": size} for name, sizes in TRIED.items() for size in sizes]
    return _curves(plan, grid, out, data_dir)


def _curves(plan: "Plan", grid: list[Row], out: Path, data_dir: Path | None) -> Iterator[Row]:
    experiments = [
        plan.experiment(samples=plan.samples, seed=seed, **one) for one, seed in product(grid, plan.fit_seeds)
    ]
    request = Request("gradient_variance", experiments, out / "fits", data_dir, Running(workers=plan.workers))
    (looked,) = looked_at([request])
    run([looked], lambda rows, folder, mine: "")
    of = {job.cell.name: job.cell.experiment for job in looked.jobs}
    for row in store.collect(request.out).itertuples():
        if row.cell in of and row.metric == "elbo_nats" and row.split == "test":
            told = {name: getattr(of[row.cell], name) for name in RAN}
            told |= {"n_seen": row.n_seen, "train_seconds": row.seconds, "status": row.status, "cell": row.cell}
            yield {**told, "value": row.value, "stderr": row.stderr}


MEASURE: dict[str, Callable[["Plan", Path, Path | None], Iterator[Row]]] = {
    "exact": exact,
    "closed": closed,
    "trained": trained,
    "estimators": estimators,
    "optimizers": optimizers,
}


@dataclass(frozen=True, kw_only=True)
class Plan(cli.Plan):
    """What is measured. Each field is a flag."""

    parts: tuple[str, ...] = setting(tuple(MEASURE)[:3], "what to measure", choices=tuple(MEASURE), about=RUN)
    data: str = setting("digits", "the data set", choices=tuple(DATA))
    model: str = model_setting()
    n_latent: int = setting(10, "latent variables of the fits", low=1, high=1000)
    n_hidden: int = setting(100, "hidden units", low=1, high=20_000)
    n_train: int = setting(50_000, "training datapoints [datapoints]", low=100, high=10**6)
    repeats: int = setting(50, "pairs of gradients that a variance is taken from", low=20, high=10**6)
    counts: tuple[int, ...] = setting((1, 10, 100), "part closed: K, draws of z [draws]", low=1, high=100_000)
    stages: tuple[int, ...] = setting(
        (0, 10_000),
        "part trained: training points of AEVB after which gradients are measured [datapoints]",
        low=0,
        high=10**10,
    )
    particles: tuple[int, ...] = setting((1, 5), "part trained: L, draws of z [draws]", low=1, high=1000)
    minibatches: tuple[int, ...] = setting((100,), "part trained: M [datapoints]", low=1, high=1000)
    samples: int = setting(
        30_000, "parts estimators, optimizers: training points of each fit", low=1000, high=10**9, about=FITTED
    )
    fit_seeds: tuple[int, ...] = setting(
        (0, 1, 2), "parts estimators, optimizers: seeds", low=0, high=2**31 - 1, about=FITTED
    )
    workers: int = setting(
        1,
        "parts estimators, optimizers: fits at once, in processes of their own [processes]",
        low=1,
        high=1024,
        about=RUN,
    )

    def experiment(self, **told: Any) -> Experiment:
        """Return AEVB as it is told, on the data of the plan, judged by its bound alone. Raises FlagError."""
        mine = {name: getattr(self, name) for name in ("data", "model", "n_latent", "n_hidden", "engine", "threads")}
        n_train = None if self.n_train == Plan.n_train else self.n_train
        return Experiment(**mine, n_train=n_train, evidence=("none",), **told)


def measure(plan: Plan, out: Path, data_dir: Path | None) -> int:
    """Measure, and write parts/, rows.csv, table.md and the figures; return 0. What lies there of other parts stays.

    Raises UserError.
    """
    writing.prepare(out)
    for samples in {*plan.stages, plan.samples} - {0}:  # what is wrong with one is said before anything is measured
        plan.experiment(samples=samples)
    there = min(plan.n_train, card_of(plan.data).n_train, POINTS)
    if "trained" in plan.parts and max(plan.minibatches) > there:
        raise FlagError(
            f"minibatches {max(plan.minibatches)} exceeds the {there} training points that they are drawn from; lower "
            "--minibatches"
        )
    for part in dict.fromkeys(plan.parts):
        print(f"{part} ...", file=sys.stderr, flush=True)
        began = time.perf_counter()
        rows = [{"part": part, **row} for row in MEASURE[part](plan, out, data_dir)]
        told = {"plan": asdict(plan), "seconds": round(time.perf_counter() - began)}
        writing.write_rows(out / "parts" / f"{part}.csv", rows)
        told |= reading.sums([out / "parts" / f"{part}.csv"])
        writing.write_json(out / "parts" / f"{part}.json", {**store.environment(), **told})
    from comparisons.benchmarks import gradients_report

    print(gradients_report.report(out))
    print(where(out))
    return 0
