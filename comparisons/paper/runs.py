"""Which rows stand for a curve of the paper, and their values along points seen. Pure functions of rows.

One curve of the paper may have been run in several configurations. The main one is what it is held against; the others
are experiments on the cause of a difference. `main` chooses, by these rules:

1. Nothing that departs from the paper's method (`ALLOWED` names what does not). Where the paper's estimator is the
   judge, and some runs keep its chains from one judgement to the next, as its authors do, nothing that starts them
   anew.
2. The longest run.
3. What keeps those chains. Then what chooses its step size and warm-up on training data (`=auto`), before what leaves
   them at their defaults, before what was told them; of two that choose, the one that tries each step size for longer.
4. NumPyro before Pyro; then by name, so that the choice is one.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd

from comparisons.evidence.judge import JudgeSettings
from comparisons.paper.curves import WHOLE, Curve
from comparisons.reporting import outcomes
from comparisons.runner.experiment import Experiment
from comparisons.runner.rows import trained

HIDDEN = {("figure2", "mnist"): 500, ("figure2", "frey"): 200, ("figure3", "mnist"): 100}  # the paper's section 5
SPLITS = ("test", "train")
SIZES = (1000, 50_000)  # training points of Figure 3
MODEL_OF = {"mnist": "vae_bernoulli", "frey": "vae_gaussian"}
TRUTH, PAPERS = "log_px_quadrature_nats", "log_px_appendix_d_nats"  # the estimators of Figure 3

# Settings of `method` that a run may have and still be the paper's: how it is judged, and what the paper tunes.
ALLOWED = {*JudgeSettings.__dataclass_fields__, "chains", "step_size", "pilot_steps", "warmup", "compile"}
FULL = ("e_step=full",)  # what the authors' Monte Carlo EM does: each E-step moves the chains of all training points
ENGINES = ("numpyro", "pyro")
Key = TypeVar("Key")


class Configuration(NamedTuple):
    """One way in which a curve was run; seeds are not told apart."""

    method: str
    engine: str
    samples: int


class Point(NamedTuple):
    """A configuration's value at some points seen, over its seeds that did not fail.

    `error` is the standard deviation over seeds, what one run such as the paper's scatters by; for one seed the
    estimator's own standard error. `stderr` is the error of the mean. Both are in nats, NaN where `value` is: where a
    seed has diverged. `flagged` is the share of datapoints that the estimator itself says are not to be trusted;
    `contradicted` says that a bound of some seed exceeds log p(x) by more than their errors.
    """

    n_seen: int
    value: float
    error: float
    stderr: float
    seeds: int
    step_sizes: tuple[float, ...] = ()  # that the runs had, or chose
    flagged: float = 0.0
    contradicted: bool = False
    command: str = ""  # by which the runs were made, where their manifests say


def panel(rows: pd.DataFrame, figure: str, data: str, n_latent: int, n_train: int) -> pd.DataFrame:
    """Return the rows of one panel of a figure, of every backend and configuration, without runs that failed."""
    rows = outcomes.ran(rows)
    mine = (rows.data == data) & (rows.n_latent == n_latent) & (rows.n_train == n_train)
    return rows[mine & (rows.n_hidden == HIDDEN[figure, data]) & (rows.model == MODEL_OF[data])]


def configurations(rows: pd.DataFrame) -> list[Configuration]:
    """Return the configurations that rows hold, in order."""
    return [Configuration(*key) for key in rows.groupby([*Configuration._fields]).groups]


def of(rows: pd.DataFrame, configuration: Configuration) -> pd.DataFrame:
    """Return the rows of one configuration."""
    method, engine, samples = configuration
    return rows[(rows.method == method) & (rows.engine == engine) & (rows.samples == samples)]


def main(found: Iterable[Configuration], tolerated: tuple[str, ...] = ()) -> Configuration | None:
    """Choose the configuration that the paper's is held against, None where there is none (see the module).

    `tolerated` names further settings, `e_step=full` say, that each choice must have.
    """
    faithful = []
    for one in found:
        told = one.method.split()
        departures = [each for each in told if each not in tolerated and each.partition("=")[0] not in ALLOWED]
        if not departures and {*tolerated} <= {*told}:
            faithful.append(one)
    return min(faithful, key=_rank, default=None)


def stands(rows: pd.DataFrame, tolerated: tuple[str, ...] = ()) -> Configuration | None:
    """Return the configuration that stands for a curve: `main` of those that the rows, of one metric, hold."""
    found = configurations(rows)
    if (rows.metric == PAPERS).any() and any(keeps_chains(one.method) for one in found):
        found = [one for one in found if keeps_chains(one.method)]
    return main(found, tolerated)


def _alike(part: pd.DataFrame, backend: str, split: str, metric: str) -> pd.DataFrame:
    """Return rows of one metric by how they were trained: seeds of one fit, whatever chains the paper's estimator had.

    Rows of that estimator itself stay as they are.
    """
    rows = part[(part.backend == backend) & (part.split == split) & (part.metric == metric)]
    return rows if (rows.metric == PAPERS).any() else rows.assign(method=rows.method.map(trained))


def keeps_chains(method: str) -> bool:
    """Say whether the paper's estimator keeps its chains from one judgement of a run to the next."""
    return "chains=kept" in method.split()


def _rank(one: Configuration) -> tuple[int, bool, int, int, int, str]:
    told = dict(setting.split("=", 1) for setting in one.method.split())
    tuned = sum(1 if told[name] != "auto" else -1 for name in ("step_size", "warmup") if name in told)
    pilot = int(told.get("pilot_steps", Experiment.pilot_steps))
    return (
        -one.samples,
        not keeps_chains(one.method),
        tuned,
        -pilot,
        ENGINES.index(one.engine) if one.engine in ENGINES else len(ENGINES),
        one.method,
    )


def points(rows: pd.DataFrame) -> list[Point]:
    """Return the values of one configuration's rows, of one backend, split and metric, along its points seen."""
    n_seen, value = rows.n_seen.to_numpy(), rows.value.to_numpy(dtype=float)
    gone = np.isnan(value)  # diverged there
    seed = rows.seed.to_numpy()
    lost = [n_seen[gone & (seed == one)].min() for one in np.unique(seed[gone])]
    told = {name: rows[name].to_numpy() for name in ("seed", "value", "stderr", "step_size", "flagged", "status")}
    found, command = [], outcomes.command(rows)
    for n in sorted({*n_seen}):
        there = (n_seen == n) & ~gone
        point = _point({name: one[there] for name, one in told.items()}, int(n), sum(one <= n for one in lost))
        found.append(point._replace(command=command))
    return found


def _point(told: dict[str, np.ndarray], n_seen: int, lost: int) -> Point:
    seeds = [told["value"][told["seed"] == one].mean() for one in np.unique(told["seed"])]
    count = len(seeds) + lost
    if lost:  # a mean over the seeds that happened to survive would flatter the method
        value = error = np.nan
    else:
        value = float(np.mean(seeds))
        error = float(np.std(seeds, ddof=1)) if count > 1 else float(told["stderr"][0])
    sizes = np.unique(told["step_size"].astype(float))
    sizes_seen = tuple(map(float, sizes[~np.isnan(sizes)]))
    flagged = float(np.nan_to_num(told["flagged"].astype(float)).mean()) if seeds else 0.0
    contradicted = bool((told["status"] == "contradicted").any())
    return Point(n_seen, value, error, error / count**0.5, count, sizes_seen, flagged, contradicted)


def each(rows: pd.DataFrame) -> list[tuple[Configuration, list[Point]]]:
    """Return every configuration that rows of one backend, split and metric hold, with its values."""
    return [(one, points(of(rows, one))) for one in configurations(rows)]


def near(along: Iterable[Point], n_seen: float) -> Point | None:
    """Return a curve's point at some points seen, None where it was not judged within a hundredth of them."""
    return next((point for point in along if abs(point.n_seen - n_seen) <= 0.01 * n_seen), None)


def best(along: Iterable[Point]) -> Point:
    """Return a curve's highest point: what diverged is lowest."""
    return max(along, key=lambda point: point.value if np.isfinite(point.value) else -np.inf)


def line(rows: pd.DataFrame, curve: Curve, metric: str) -> pd.DataFrame:
    """Return the rows, of every configuration, that stand beside a curve of the paper."""
    part = panel(rows, curve.figure, curve.data, curve.n_latent, curve.n_train)
    return _alike(part, curve.backend, curve.split, metric)


def standing(part: pd.DataFrame, backend: str, split: str, metric: str, told: tuple[str, ...] = ()) -> pd.DataFrame:
    """Return the rows of the configuration that stands for a curve of a panel, none where there is none."""
    mine = _alike(part, backend, split, metric)
    chosen = stands(mine, told)
    return of(mine, chosen) if chosen else mine[:0]


def curve_of(
    part: pd.DataFrame, backend: str, split: str, metric: str, told: tuple[str, ...] = (), marked: bool = False
) -> dict[int, Point]:
    """Return by points seen the points of the configuration that stands for a curve, empty where there is none.

    Without `marked` what a bound contradicts is left out: nothing may be concluded from it.
    """
    along = points(standing(part, backend, split, metric, told))
    return {point.n_seen: point for point in along if marked or not point.contradicted}


def shared(*along: Mapping[int, Point]) -> list[int]:
    """Return the points seen at which all of some curves were judged, in order; none of no curve."""
    return sorted(set.intersection(*map(set, along))) if along else []


def ends(along: Mapping[Key, Mapping[int, Point]]) -> dict[Key, Point]:
    """Return each curve's point at the last stop at which all of them were judged; a curve without points is none."""
    judged = {name: curve for name, curve in along.items() if curve}
    return {name: curve[n] for name, curve in judged.items() for n in shared(*judged.values())[-1:]}


def figure2_panels(rows: pd.DataFrame, sets: Iterable[str] = MODEL_OF) -> Iterator[tuple[str, int, pd.DataFrame]]:
    """Yield data, latent variables and rows of each panel of Figure 2, as the paper has them."""
    for data in sets:
        for k in sorted(int(k) for k in rows[rows.data == data].n_latent.unique()):
            yield data, k, panel(rows, "figure2", data, k, WHOLE[data])


def figure3_panel(rows: pd.DataFrame, n_train: int) -> pd.DataFrame:
    """Return the rows of one panel of Figure 3."""
    return panel(rows, "figure3", "mnist", 3, n_train)
