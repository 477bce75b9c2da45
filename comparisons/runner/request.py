"""What a command asks for: a grid of experiments, one for each combination of flags that were given several values."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any

from comparisons.cli.flags import Parser, check, expanded, read
from comparisons.errors import FlagError
from comparisons.runner.experiment import Experiment
from inference.base import setting

# The flags that take several values and span the grid.
GRID = {f.name: f for f in fields(Experiment) if f.metadata.get("spans")}


@dataclass(frozen=True)
class Request:
    """What a command asks for: the cells, and where results go."""

    comparison: str
    experiments: list[Experiment]
    out: Path
    data_dir: Path | None
    running: "Running"


@dataclass(frozen=True, kw_only=True)
class Running:
    """How a grid is worked through: nothing here changes a number. Each field is a flag. Raises FlagError."""

    workers: int = setting(1, "cells run at once, in processes of their own [processes]", low=1, high=1024)
    scheduler: str = setting("", "a running Dask scheduler whose workers run the cells: tcp://host:port", words=True)
    checkpoint_seconds: float = setting(60.0, "time between two checkpoints of a run [seconds]", low=0.0, high=1e6)
    keep_stops: bool = setting(False, "keep the fit as it was at each stop, so that it can be judged again")
    fresh: bool = setting(False, "run finished and unfinished cells again, from the start")

    def __post_init__(self) -> None:
        check(self)
        if self.scheduler and not re.fullmatch(r"(tcp|tls|ws|wss)://[\w.\-\[\]:]+:\d{1,5}", self.scheduler):
            raise FlagError(f"scheduler {self.scheduler!r} is no address; write it as tcp://host:port")
        if self.scheduler and self.workers > 1:
            raise FlagError("--scheduler has workers of its own; drop --workers")


def parse(
    comparison: str,
    description: str,
    defaults: dict[str, Any],
    arguments: Sequence[str] | None,
    presets: Iterable[str] = (),
) -> Request:
    """Turn flags into experiments: the product of every flag that was given several values.

    Raises FlagError.
    """
    flags, out, data_dir = read(comparison, description, (Experiment, Running), defaults, arguments, presets)
    running = Running(**{f.name: flags.pop(f.name) for f in fields(Running)})
    grid = {name: expanded(field, flags.pop(name)) for name, field in GRID.items()}
    experiments = [Experiment(**flags, **dict(zip(grid, values, strict=True))) for values in product(*grid.values())]
    return Request(comparison, experiments, out, data_dir, running)


def parse_preset(
    comparison: str,
    description: str,
    defaults: dict[str, Any],
    presets: Mapping[str, Sequence[dict[str, Any]]],
    arguments: Sequence[str] | None,
) -> list[Request]:
    """Turn flags into requests: one, or with `--preset` one for each of its panels, whose flags are other defaults.

    Flags that are given hold for all panels; with `--data`, the panels of that data set alone are run. Raises
    FlagError.
    """
    first = Parser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset")
    first.add_argument("--data")
    told, rest = first.parse_known_args(arguments)
    rest += ["--data", told.data] if told.data else []
    if told.preset is None:
        return [parse(comparison, description, defaults, rest, presets)]
    if told.preset not in presets:
        raise FlagError(f"unknown preset {told.preset!r}; choose from {', '.join(presets)}")
    panels = [panel for panel in presets[told.preset] if told.data in (None, panel["data"])]
    if not panels:
        known = ", ".join(dict.fromkeys(panel["data"] for panel in presets[told.preset]))
        raise FlagError(f"preset {told.preset!r} has no panel of data {told.data!r}; choose from {known}")
    return [parse(comparison, description, {**defaults, **panel}, rest, presets) for panel in panels]
