"""Images restored from what is seen of them, by draws of z from p(z | y, theta), and scored on the true pixels."""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from comparisons.benchmarks import restoration_report as report
from comparisons.benchmarks.channels import FLOOR, Channel, Degraded, is_normal
from comparisons.benchmarks.restoration_report import (
    COLUMNS,
    ENCODER,
    MIXED,
    NEAREST,
    NEIGHBOURS,
    POSTERIOR,
    Pictures,
    Row,
)
from comparisons.benchmarks.traits import recognises
from comparisons.cli import parts
from comparisons.cli.flags import JUDGED
from comparisons.data import Data, card_of, load
from comparisons.disk import writing
from comparisons.errors import FlagError, UnfitError
from comparisons.evidence.annealed import annealed_points
from comparisons.evidence.base import Target
from comparisons.evidence.draws import Chains, Moves, posterior_draws, starting_points
from comparisons.evidence.mixing import rhat
from comparisons.reporting import markdown
from comparisons.reporting.folder import begin, beside, complete, where
from comparisons.runner import store
from comparisons.runner.experiment import Experiment, built
from comparisons.runner.fits import Fit, FitPlan, earlier, fitted
from comparisons.runner.grid import started
from inference.base import Engine, arrays, setting
from inference.latents import latents
from inference.rows import generative
from models.base import Array, Model

TASKS = ("denoising", "inpainting", "super_resolution")
SETS = ("digits", "mnist", "mnist_255", "mnist_binary", "frey")
HOLES = ("lower", "centre", "scattered")
LEAPFROG = 5
SHOWN = 8  # images of a figure
KNOWN = earlier("lower_bound", "samples", "manifold")


@dataclass(frozen=True, kw_only=True)
class Plan(FitPlan):
    """What is run. Each field is a flag."""

    data: tuple[str, ...] = setting(("digits",), "data sets", choices=SETS)
    tasks: tuple[str, ...] = setting(TASKS, "what is done to images", choices=TASKS)
    backends: tuple[str, ...] = parts.backend_setting(("aevb",), flag="--backend", also=("--backends",))
    n_latent: int = setting(10, "latent variables of a datapoint", low=1, high=1000)
    flip: float = setting(
        0.1, "denoising: probability that a pixel is flipped, of Bernoulli decoders", low=0, high=0.49
    )
    sigma: float = setting(0.2, "denoising: standard deviation of the noise, of normal decoders", above=0.0, high=100.0)
    unseen: str = setting("lower", "inpainting: the half or quarter of the pixels that is unseen", choices=HOLES)
    block: int = setting(2, "super-resolution: side of the blocks whose mean is seen [pixels]", low=2, high=8)
    points: int = setting(
        50, "first test images that are restored [datapoints]", low=2, high=10_000, about=JUDGED, flag="--eval-points"
    )
    chains: int = setting(8, "HMC chains of an image", low=2, high=1000, about=JUDGED)
    warmup: int = setting(100, "moves that tune the step sizes of the chains", low=10, high=100_000, about=JUDGED)
    draws: int = setting(50, "draws of z by each chain [draws]", low=4, high=100_000, about=JUDGED)


class Task(NamedTuple):
    """Images x [n, d], what is seen of them, y [n, m], through a channel, and which pixels are scored, [d]."""

    name: str
    channel: Channel
    x: np.ndarray
    y: np.ndarray
    scored: np.ndarray


class Restored(NamedTuple):
    """E[x | y] and log p(x | y) of each pixel by each of several chains, and E[x | z, y] at the last z: [c, n, d] each.

    What has no chains has one.
    """

    mean: np.ndarray
    log_p: np.ndarray
    last: np.ndarray

    def score(self, task: Task) -> np.ndarray:
        """Return the mean of log p(x | y) over the scored pixels of each image, [n] in nats."""
        return np.asarray((np.logaddexp.reduce(self.log_p) - np.log(len(self.log_p)))[:, task.scored].mean(1))


def restore(plan: Plan, out: Path, data_dir: Path | None) -> int:
    """Fit, degrade, restore; write rows.csv, table.md and figure.svg; return 0. Raises UserError."""
    import pandas as pd

    writing.prepare(out)
    experiments = planned(plan)
    sets = {name: load(name, data_dir) for name in dict.fromkeys(plan.data)}
    new = begin(out, {**store.environment(), "plan": asdict(plan)})
    rows: list[Row] = []
    pictures: dict[tuple[str, str], Pictures] = {}
    for experiment in experiments:
        data = sets[experiment.data]
        fit = fitted(experiment, data, out, KNOWN)
        for task in tasks(plan, fit, data):
            shown = pictures.setdefault((data.name, task.name), {})
            for row, images in restored(plan, fit, data, task, first=not shown):
                rows.append(row)
                shown |= images
                print(report.line(row), file=sys.stderr)
            writing.write_rows(new / "rows.csv", rows)
        drawn = {key: (sets[key[0]].shape, one) for key, one in pictures.items()}
        files: dict[str, Callable[[], str]] = {
            "table.md": lambda: markdown.printed(report.blocks(pd.DataFrame(rows)), report.TITLE),
            "figure.svg": partial(report.figure, drawn),
        }
        table = beside(new, files)
    complete(out)
    print(table)
    print(where(out))
    return 0


def planned(plan: Plan) -> list[Experiment]:
    """Return the fits, once all that can be refused before training has been looked at. Raises FlagError."""
    pairs = product(dict.fromkeys(plan.backends), dict.fromkeys(plan.data))
    found = [plan.experiment(data=data, backend=backend, n_latent=plan.n_latent) for backend, data in pairs]
    for experiment in found:
        shape = card_of(experiment.data).shape
        if "super_resolution" in plan.tasks and any(side % plan.block for side in shape):
            able = [str(b) for b in range(2, 9) if not any(side % b for side in shape)]
            raise FlagError(
                f"block {plan.block} does not divide the {shape[0]} x {shape[1]} pixels of {experiment.data}; "
                f"choose --block {' or '.join(able)}"
            )
        engine: Any = started(experiment.engine, experiment.device, experiment.threads)
        try:
            pixel(engine, Degraded(built(experiment, shape[0] * shape[1]), Channel(shape)))
        except (ValueError, AttributeError) as error:
            raise UnfitError(
                f"model {str(experiment.model)!r} has {error}; choose vae_bernoulli or vae_gaussian"
            ) from error
    return found


def pixel(engine: Engine, model: Model) -> Any:
    """Return the kind of distribution that a pixel has given z."""
    theta = arrays(engine, model.init(0)[0])
    program = generative(model, engine.array(np.ones((2, model.n_x))))
    return engine.outline(engine.key(0), program, theta)["x"].fn.base_dist


def tasks(plan: Plan, fit: Fit, data: Data) -> Iterator[Task]:
    """Yield what is done to the first test images: the same images and the same noise, whoever restores them.

    Of a Bernoulli decoder grey images are binarised first, by a draw of each pixel: a score is then a log probability.
    """
    x, everywhere = data.test[: plan.points], np.ones(data.test.shape[1], bool)
    binary = not is_normal(fit.engine.ppl, pixel(fit.engine, fit.model))
    if binary:
        x = (np.random.default_rng([plan.seed, 0]).random(x.shape) < x).astype(np.float32)
    for name in dict.fromkeys(plan.tasks):
        rng = np.random.default_rng([plan.seed, 1 + TASKS.index(name)])
        unseen = hole(plan.unseen, data.shape, rng) if name == "inpainting" else ~everywhere
        noise = (plan.flip if binary else plan.sigma) if name == "denoising" else 0.0
        channel = Channel(data.shape, plan.block if name == "super_resolution" else 1, noise)
        y = channel.seen(rng, x, unseen, binary)
        yield Task(name, channel, x, y, unseen if unseen.any() else everywhere)


def hole(kind: str, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return which pixels of an image are not seen, [d]."""
    (row, column), (height, width) = np.indices(shape), shape
    inside = (abs(2 * row - height + 1) < height / 2) & (abs(2 * column - width + 1) < width / 2)
    scattered = rng.permutation(height * width).reshape(shape) < height * width // 2
    return np.asarray({"lower": row >= height // 2, "centre": inside, "scattered": scattered}[kind].ravel())


def restored(plan: Plan, fit: Fit, data: Data, task: Task, first: bool) -> Iterator[tuple[Row, Pictures]]:
    """Yield the row and the pictures of each way to restore: posterior draws, and what they are held against.

    The ways that ask no fit come with the first one alone. Differences to the posterior are on the same images.
    """
    engine, e, began = fit.engine, fit.experiment, time.perf_counter()
    title = getattr(parts.known(e.backend), "title", "") or str(e.backend)
    target = Target(engine, Degraded(fit.model, task.channel), fit.theta, engine.array(task.y))
    z, mixed = posterior(plan, target)
    best = by_draws(target, task, z)
    of = {"data": data.name, "model": str(e.model), "n_latent": fit.model.n_latent, "task": task.name}
    row = {**of, "backend": str(e.backend), "way": POSTERIOR, **scores(task, best), **mixed}
    shown = {"original": task.x, "seen": task.channel.filled(np, task.y, np.nan)} if first else {}
    shown[f"{title}, mean"] = best.mean.mean(0)
    if first:
        shown |= {f"{title}, a draw": best.last[0], f"{title}, another": best.last[1]}
    yield {**row, "seconds": time.perf_counter() - began}, _few(shown)
    ways = {}
    if recognises(engine, e.backend):
        ways[ENCODER] = by_draws(target, task, encoded(plan, fit, data, task, target))
    for way, one in {**ways, **(baselines(engine, data, task) if first else {})}.items():
        less = one.score(task) - best.score(task)
        row = {**of, "backend": str(e.backend) if way in ways else "", "way": way, **scores(task, one)}
        row |= {"to_posterior": less.mean(), "to_posterior_stderr": _error(less)}
        yield row, _few({f"{title}'s encoder" if way in ways else way: one.mean.mean(0)})


def scores(task: Task, found: Restored) -> Row:
    """Return the mean log score and squared error of a scored pixel, with their standard errors over images.

    `mc_error` is that of the score by chains, a jackknife: what other chains would have said.
    """
    log_p, off = found.score(task), np.square(found.mean.mean(0) - task.x)[:, task.scored].mean(1)
    row: Row = {"n_images": len(log_p), "n_pixels": int(task.scored.sum())}
    row |= {"log_score": log_p.mean(), "log_score_stderr": _error(log_p)}
    row |= {"squared_error": off.mean(), "squared_error_stderr": _error(off)}
    c = len(found.log_p)
    if c > 1:
        without = [found._replace(log_p=np.delete(found.log_p, i, 0)).score(task).mean() for i in range(c)]
        row["mc_error"] = np.std(without) * np.sqrt(c - 1)
    return row


def posterior(plan: Plan, target: Target) -> tuple[np.ndarray, Row]:
    """Return z [draws, chains, n, k] from p(z | y, theta), and how well the chains have mixed.

    Chains begin where annealed ones end, which meet modes by their mass. R-hat is of each coordinate, the worst of an
    image counts; one above 1.05 says that chains stay in modes of their own.
    """
    start = Chains.at(annealed_points(target, plan.seed, plan.chains).astype(np.float32))
    moves = Moves(plan.warmup, plan.draws, LEAPFROG)
    drawn = posterior_draws(target, target.engine.key(plan.seed), start, plan.chains, moves)
    worst = rhat(drawn.z.transpose(2, 3, 1, 0)).max(1)
    mixed = {"rhat": float(np.median(worst)), "unmixed": float((worst > MIXED).mean())}
    return drawn.z, {**mixed, "acceptance": float(drawn.acceptance.mean())}


def encoded(plan: Plan, fit: Fit, data: Data, task: Task, target: Target) -> np.ndarray:
    """Return as many z from q(z | x) of images that look like y, the training set's mean where nothing is seen."""
    look = fit.engine.array(task.channel.filled(np, task.y, data.train.mean(0)))
    key = fit.engine.key(plan.seed)
    z = starting_points(target, fit.posterior(look), key, plan.draws * plan.chains)
    return np.asarray(fit.engine.numpy(z)).reshape(plan.draws, plan.chains, *z.shape[1:])


def by_draws(target: Target, task: Task, z: np.ndarray) -> Restored:
    """Return what draws z [draws, chains, n, k] restore: the means over draws of E[x | z, y] and of p(x | z, y)."""
    engine, model = target.engine, target.model
    assert isinstance(model, Degraded)
    run, x = _decoding(engine, model), engine.array(task.x)
    mean, log_p, last = 0.0, -np.inf, np.zeros(0)
    for each in z:
        last, density = (engine.numpy(a).astype(float) for a in run(target.place, engine.array(each), x, target.x))
        mean, log_p = mean + last / len(z), np.logaddexp(log_p, density)
    return Restored(np.asarray(mean), log_p - np.log(len(z)), last)


@cache
def _decoding(engine: Engine, model: Degraded) -> Any:
    """Return f(place, z [c, n, k], x, y) -> E[x | z, y] and log p(x | z, y), [c, n, d] each, compiled."""
    sites = latents(engine, model)

    def run(place: Any, z: Array, x: Array, y: Array) -> tuple[Array, Array]:
        told = {**sites.values(place, z), "x": x}
        given = engine.conditional(generative(model.of, x), "x", told, place if sites.plain else place.theta)
        return model.channel.restored(engine, given.base_dist, x, y)

    return engine.compile(run)


def baselines(engine: Engine, data: Data, task: Task) -> dict[str, Restored]:
    """Return what is restored without a model: each pixel by itself, and by the training images nearest to y.

    Both give a distribution to each pixel, which then takes up what is seen of it as a decoder's does. The 10 nearest
    images, by the sums that are seen, stand beside one more that is the mean of all.
    """
    train, dist = np.asarray(data.train, np.float32), engine.ppl.dist
    binary = np.isin(task.x, (0, 1)).all()
    loc, variance = train.mean(0), train.var(0)
    if binary:  # a pixel that is black in all of them may be white in the next
        loc = (len(train) * loc + 0.5) / (len(train) + 1.0)
    nearest = train[_nearest(task, train)]
    near = (nearest.sum(1) + loc) / (NEIGHBOURS + 1)
    scatter = (np.square(nearest - near[:, None]).sum(1) + np.square(loc - near) + variance) / (NEIGHBOURS + 1)

    def given(loc: Array, scale: Array, x: Array, y: Array) -> tuple[Array, Array]:
        fn = dist.Bernoulli(probs=loc, validate_args=False) if binary else dist.Normal(loc, scale)
        return task.channel.restored(engine, fn, x, y)

    found, run, like = {}, engine.compile(given), np.zeros_like(task.x)
    for way, mean, spread in ((COLUMNS, loc, variance), (NEAREST, near, scatter)):
        columns = (mean + like, np.sqrt(np.maximum(spread, FLOOR)) + like, task.x, task.y)
        e, log_p = (engine.numpy(a).astype(float)[None] for a in run(*map(engine.array, columns)))
        found[way] = Restored(e, log_p, e)
    return found


def _nearest(task: Task, train: np.ndarray) -> np.ndarray:
    """Return the numbers of the training images whose sums are nearest to what is seen, [n, NEIGHBOURS]."""
    sums, there = train[:, task.channel.pixels].sum(-1), ~np.isnan(task.y)
    y = np.where(there, task.y, 0.0)
    distance = there @ np.square(sums).T - 2.0 * y @ sums.T
    return np.argpartition(distance, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]


def _few(images: Pictures) -> Pictures:
    return {name: one[:SHOWN] for name, one in images.items()}


def _error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))
