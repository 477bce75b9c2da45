"""Run a grid of experiments: one after the other, each with a progress bar, every row kept as it comes."""

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import inference
from comparisons import store
from comparisons.cli import Request
from comparisons.data import digest, load, take
from comparisons.errors import FlagError

Report = Callable[[Any, Path], None]  # (all rows of the folder, the folder): writes tables and figures


def run_grid(request: Request, report: Report) -> int:
    """Run every cell, write its folder after each checkpoint, then the report. Returns 0, or 1 where a run failed.

    Whatever ends it, the rows written so far are gathered and reported. Raises UserError.
    """
    from tqdm import tqdm

    first = request.experiments[0]
    store.prepare(request.out)
    data = take(load(first.data, request.data_dir), first.n_train)
    for experiment in request.experiments:
        experiment.fit_to(*data.train.shape)
    _start_engines(request)
    from comparisons import tables
    from comparisons.run import run

    environment = {**store.environment(), "data_digest": digest(data)}
    failed = []
    try:
        for number, experiment in enumerate(request.experiments, 1):
            cell = experiment.identity(environment["data_digest"])
            name = f"{experiment.backend} {experiment.engine} seed {experiment.seed} k={experiment.n_latent}"
            bar = tqdm(
                total=experiment.samples,
                desc=f"[{number}/{len(request.experiments)}] {name}",
                unit="pt",
                unit_scale=True,
                bar_format="{l_bar}{bar:20}{r_bar}",
                mininterval=0.5,
                file=sys.stderr,
            )

            def progress(n_seen: int, doing: str, bar: Any = bar) -> None:
                bar.set_postfix_str(doing, refresh=False)
                bar.update(max(0, n_seen - bar.n))

            manifest = {**environment, "settings": asdict(experiment)}
            with bar:
                for result in run(request.comparison, cell, experiment, data, progress):
                    store.save_cell(request.out, cell, result.rows, manifest, result.state)
                bar.set_postfix_str("done")
            if any(row["status"] != "ok" for row in result.rows):
                failed.append(name)
    finally:
        rows = store.collect(request.out)
        if len(rows):
            report(rows, request.out)
            mine = {experiment.identity(environment["data_digest"]) for experiment in request.experiments}
            print(tables.plain(rows[rows.cell.isin(mine)]))
    if failed:
        print(f"diverged: {'; '.join(failed)}; a smaller --step-size may help", file=sys.stderr)
    return 1 if failed else 0


def _start_engines(request: Request) -> None:
    """Import and build every engine that the grid needs, before any of it runs. Raises FlagError."""
    first = request.experiments[0]
    for name in sorted({experiment.engine for experiment in request.experiments}):
        try:
            inference.engine(name, first.device, first.threads)
        except ImportError as error:
            reason, packages = str(error).splitlines()[0], inference.PACKAGES[name]
            raise FlagError(
                f"engine {name!r} is not installed ({reason}); install it: pip install {packages}"
            ) from error
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise FlagError(f"engine {name!r} cannot use {first.device!r} ({reason}); choose --device cpu") from error
