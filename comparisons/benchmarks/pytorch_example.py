"""PyTorch's example of a VAE, trained here and by its own loop: bounds beside public logs, log p(x), seconds."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import inference
from comparisons.benchmarks.peers import torch_example
from comparisons.data import Data
from comparisons.disk import reading, writing
from comparisons.evidence.judge import JudgeSettings, estimate
from comparisons.reporting import folder, markdown
from comparisons.reporting.blocks import Block, Paragraph, Table
from comparisons.runner import store
from comparisons.runner.cell import Cell
from comparisons.runner.fits import restored
from comparisons.runner.grid import Request, looked_at, run, run_grids
from comparisons.runner.training import Standing, trainer

if TYPE_CHECKING:
    import pandas as pd

PUBLISHED = {4: 109.6, 7: 106.7, 10: 105.6}  # by epoch: the loss of a test image in public logs of the example
NEAR = 0.7  # nats, within which ours is to be: more than seeds differ by
N, M = 60_000, 128
EPOCH = math.ceil(N / M) * M  # points seen: the example's last minibatch is of what is left, ours are all whole
PRESET: dict[str, Any] = {
    **{"model": "vae_deep", "hidden": (400,), "activation": "relu", "n_latent": 20, "n_hidden": 400, "theta": "ml"},
    **{"data": "mnist_255", "n_train": N, "engine": ("all",), "seed": (0, 1, 2), "optimizer": "adam", "warmup": 0},
    **{"step_size": 1e-3, "minibatch": M, "samples": EPOCH * max(PUBLISHED), "evidence": ("none",)},
    **{"stops": tuple(EPOCH * epoch for epoch in PUBLISHED), "eval_points": 10_000},
}
POINTS, DRAWS, TURNS = 500, 2000, 5  # test images whose log p(x) is estimated, draws for each; epochs that are timed
HAND = "torch, by hand"

Row = dict[str, Any]


def compare(request: Request) -> int:
    """Train what is asked for and what stands beside it, write table.md, and return the exit code. Raises UserError."""
    if request.running.dry_run:
        return run_grids([request], lambda rows, out, mine: "")
    (looked,) = looked_at([request])
    if code := run([looked], lambda rows, out, mine: ""):
        return code
    (data,), cells = looked.data.values(), [job.cell for job in looked.jobs]
    with inference.engine("pyro", "cpu", cells[0].experiment.threads).pinned():  # torch alone has as many threads
        for name, part in PARTS.items():
            path, identity = request.out / "parts" / f"{name}.json", {"cells": sorted(cell.name for cell in cells)}
            if request.running.fresh or not reading.made_with(path, identity):
                print(f"{name} ...", file=sys.stderr)
                environment = store.environment()
                rows = [{"quantity": name, **row} for row in part(cells, data, request.out)]
                writing.write_rows(path.with_suffix(".csv"), rows)
                files = reading.sums([path.with_suffix(".csv")])
                writing.write_json(path, {**environment, "identity": identity, **files})
    print(report(request.out))
    print(folder.where(request.out))
    return 0


def likelihoods(cells: list[Cell], data: Data, out: Path) -> Iterator[Row]:
    """Yield log p(x) of the first test images under each fit, in nats, by importance sampling."""
    settings = JudgeSettings(proposal="q", importance_samples=DRAWS)  # the usual one for networks of this kind
    for cell in cells:
        fit, e = restored(cell, store.load_state(out, cell.name)), cell.experiment
        x, _ = fit.points(data, "test", POINTS)
        target = fit.target(x)
        found = estimate("importance", target, settings, e.seed)
        value, error = found.mean()
        told = {"by": e.engine, "seed": e.seed, "cell": cell.name, "flagged": found.flagged}
        yield {**told, "value": value, "stderr": error}


def example(cells: list[Cell], data: Data, out: Path) -> Iterator[Row]:
    """Yield minus the bound of the test images after each published epoch of the example's own loop, seed by seed."""
    for seed in sorted({cell.experiment.seed for cell in cells}):
        epoch, loss = torch_example(data.train, seed)
        start, spent = time.perf_counter(), 0.0
        for number in range(1, max(PUBLISHED) + 1):
            epoch()
            spent = time.perf_counter() - start
            if number in PUBLISHED:
                yield {"by": HAND, "seed": seed, "epoch": number, "value": loss(data.test), "seconds": spent}
            start = time.perf_counter() - spent


def turns(cells: list[Cell], data: Data, out: Path) -> Iterator[Row]:
    """Yield the seconds of an epoch of each engine and of the example, and those of a core, in turns, after one."""
    epochs = {HAND: torch_example(data.train, 0)[0]}
    epochs |= {e.engine: _epoch(cell, data) for cell in reversed(cells) if (e := cell.experiment)}
    rng = np.random.default_rng(0)
    for turn in range(-1, TURNS):
        for by in rng.permutation(list(epochs)):
            start, core = time.perf_counter(), time.process_time()
            epochs[by]()
            if turn >= 0:
                value, core = time.perf_counter() - start, time.process_time() - core
                yield {"by": by, "turn": turn, "value": value, "core": core}


def _epoch(cell: Cell, data: Data) -> Callable[[], None]:
    """Return what trains an epoch as a comparison does."""
    train = trainer(cell, data)
    steps, standing = math.ceil(cell.n_train / cell.rows_per_step), Standing(state=train.initial(1e-3))

    def epoch() -> None:
        last = standing.step + steps
        with train.engine.pinned():
            while standing.step < last:
                train.advance(standing, last)

    return epoch


PARTS = {"log_px": likelihoods, "loss": example, "epoch_s": turns}


def report(out: Path) -> str:
    """Write rows.csv and table.md from the cells and parts of a folder; return the table."""
    import pandas as pd

    rows, beside = store.collect(out), pd.concat([reading.table(out / "parts" / f"{name}.csv") for name in PARTS])
    mine = rows[rows.cell.isin(beside.cell)]
    title = "PyTorch's example of a VAE"
    return folder.beside(out, {"table.md": lambda: markdown.printed(blocks(mine, beside), title)})


def blocks(rows: "pd.DataFrame", beside: "pd.DataFrame") -> list[Block]:
    """Return the verdict, the bounds beside the published ones, and log p(x) and the seconds of an epoch."""
    import pandas as pd

    ours = rows[(rows.metric == "elbo_nats") & (rows.split == "test")]
    n_train, said = int(ours.n_train.iloc[0]), ["engine", "epoch", "value", "seconds"]
    epochs = ours.n_seen // (math.ceil(n_train / M) * M)
    ours = ours.assign(epoch=epochs, value=-ours.value)[said].rename(columns={"engine": "by"})
    both = pd.concat([ours, beside[beside.quantity == "loss"]])
    body, far = [], []
    for (epoch, by), part in both.groupby(["epoch", "by"]):
        if epoch in PUBLISHED:
            less = round(part.value.mean() - PUBLISHED[epoch], 2) + 0.0  # no -0.00
            far += [less] if by != HAND else []
            numbers = [_mean(part.value), f"{PUBLISHED[epoch]}", f"{less:+.2f}", f"{part.seconds.mean():.0f}"]
            body.append([str(int(epoch)), by, *numbers])
    seconds = beside[beside.quantity == "epoch_s"].groupby("by")[["value", "core"]].median().sort_values("core")
    likely, least = beside[beside.quantity == "log_px"], seconds.core[HAND]
    last = [
        [str(by), f"{one:.2f}", f"{core:.2f}", f"{core / least:.2f}", _mean(likely[likely.by == by].value)]
        for by, one, core in seconds.itertuples()
    ]
    near = f"{'Within' if np.abs(far).max() <= NEAR else 'Not within'} {NEAR} nats of every published number"
    uneven = f"for {likely.flagged.mean():.0%} the weights are too uneven to trust, and log p(x) lies higher"
    return [
        Paragraph(f"{near}: ours lie {min(far):+.2f} to {max(far):+.2f} nats from them."),
        Table(["epoch", "by", "minus the bound", "published", "difference", "seconds"], body),
        Paragraph(
            f"Nats an image, on {int(rows.n_points.max()):,} test images of {rows.data.iloc[0]}, with {n_train:,} to "
            "train; ± is the standard error over seeds. Published: public logs of the example. Seconds are of training "
            "up to there, without compiling."
        ),
        Table(["by", "seconds an epoch", "of a core", "of the example's", f"log p(x) of {POINTS} test images"], last),
        Paragraph(
            f"Seconds: the median of {TURNS} epochs in turns with the others. log p(x): {DRAWS:,} draws from q(z | x) "
            f"for each image; {uneven}."
        ),
    ]


def _mean(values: "pd.Series") -> str:
    """Return a mean with its standard error; one number has none, and no number is a dash."""
    error = f" ± {values.sem():.2f}" if len(values) > 1 else ""
    return f"{values.mean():.2f}{error}" if len(values) else "-"
