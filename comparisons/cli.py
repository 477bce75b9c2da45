"""Flags: made from the fields of `Experiment`, so that each has its default, unit and limits in one place."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from comparisons import parts, stopping
from comparisons.errors import FlagError, UserError
from comparisons.experiment import Experiment
from comparisons.limits import check
from inference import BACKENDS, ENGINES
from inference.base import setting

# Flags that take several values and span the grid, with what `all` stands for.
GRID: dict[str, tuple[str, ...]] = {
    "backend": tuple(BACKENDS),
    "engine": tuple(ENGINES),
    "theta": ("ml", "map", "vb"),
    "n_train": (),
    "n_latent": (),
    "seed": (),
}
FLAGS = {"seed": "--seeds"}


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


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a comparison that is not a grid of experiments is told. Each field is a flag. Raises FlagError."""

    seed: int = setting(0, "seed of everything", low=0, high=2**31 - 1)
    threads: int = setting(1, "threads of the array library [threads]", low=1, high=4096)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True)
class Plan(Told):
    """The same, of one that runs on one engine."""

    engine: str = setting("numpyro", "PPL and array library", choices=tuple(ENGINES))


P = TypeVar("P", bound=Told)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, like all others."""

    def error(self, message: str) -> NoReturn:
        raise FlagError(f"{' '.join(message.split())}; see --help")


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
    flags, out, data_dir = _read(comparison, description, (Experiment, Running), defaults, arguments, presets)
    running = Running(**{f.name: flags.pop(f.name) for f in fields(Running)})
    grid = {name: _expand(name, flags.pop(name)) for name in GRID}
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


def parse_plan(
    comparison: str, description: str, kind: type[P], arguments: Sequence[str] | None
) -> tuple[P, Path, Path | None]:
    """Turn flags into a plan of this kind, the folder of its results and that of its data. Raises FlagError."""
    flags, out, data_dir = _read(comparison, description, (kind,), {}, arguments)
    return kind(**flags), out, data_dir


def _read(
    comparison: str,
    description: str,
    kinds: tuple[Any, ...],
    defaults: dict[str, Any],
    arguments: Sequence[str] | None,
    presets: Iterable[str] = (),
) -> tuple[dict[str, Any], Path, Path | None]:
    """Read a flag for each field of some dataclasses; return their values, typed, and the two folders."""
    parser = Parser(
        prog=f"python -m comparisons.{comparison}",
        description=description,
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=28, width=110),
    )
    if presets:  # taken by `parse_preset`; here for the help
        text = "a whole figure: other defaults of the flags below, panel by panel"
        parser.add_argument("--preset", metavar="X", help=f"{text} {{{', '.join(presets)}}} (default: none)")
    declared = [(kind, f) for kind in kinds for f in fields(kind)]
    for kind, f in declared:
        default = defaults.get(f.name, f.default)
        several = isinstance(f.default, tuple) or (kind is Experiment and f.name in GRID)
        values = default if isinstance(default, tuple) else (default,)
        shown = "all" if default is None else " ".join(map(str, values)) or "none"
        # argparse expands % in help
        name, text = _flag(kind, f.name), f.metadata["help"].replace("%", "%%")
        if isinstance(default, bool):
            parser.add_argument(name, dest=f.name, action="store_true", help=f"{text} (default: off)")
            continue
        choices = f.metadata.get("choices")
        options = f" {{{', '.join(choices)}}}" if choices else ""
        parser.add_argument(
            name,
            dest=f.name,
            nargs="+" if several else None,
            default=list(values) if several else default,
            metavar="X",
            help=f"{text}{options} (default: {shown})",
        )
    out = f"reports/{comparison}"
    parser.add_argument("--out", default=out, metavar="DIR", help=f"folder of the results (default: {out})")
    where = "folder of the data files (default: $AEVB_DATA, else the user's cache)"
    parser.add_argument("--data-dir", metavar="DIR", help=where)
    flags = vars(parser.parse_args(arguments))
    flags.pop("preset", None)
    out, data_dir = flags.pop("out"), flags.pop("data_dir")
    types = {f.name: str(f.type) for _, f in declared}
    read = {
        name: tuple(_convert(name, types[name], one) for one in value)
        if isinstance(value, list)
        else _convert(name, types[name], value)
        for name, value in flags.items()
    }
    return read, _folder(out), Path(data_dir) if data_dir else None


def main(command: Callable[[], int]) -> NoReturn:
    """Run a command and exit with its code; a user's mistake is one line on stderr."""
    try:
        with stopping.taken_over():
            code = command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print(stopping.MESSAGE, file=sys.stderr)
        code = stopping.INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def _flag(kind: Any, name: str) -> str:
    return (FLAGS.get(name) if kind is Experiment else None) or "--" + name.replace("_", "-")


def _expand(name: str, values: tuple[Any, ...]) -> list[Any]:
    return list(dict.fromkeys(one for v in values for one in (GRID[name] if v == "all" and GRID[name] else (v,))))


def _convert(name: str, kind: str, value: Any) -> Any:
    """Turn a flag's text into the field's type, `kind`. Raises FlagError."""
    if not isinstance(value, str):
        return value
    if name in parts.KINDS:
        return parts.find(name, value)
    if "int" in kind:
        if not re.fullmatch(r"[+-]?\d{1,18}", value):
            # 1e6 is how people write a million points
            number = float(value) if re.fullmatch(r"[+-]?\d+(\.\d+)?e\+?\d{1,2}", value, re.IGNORECASE) else 0.5
            if number != int(number):
                raise FlagError(f"{name} {value!r} is not a whole number")
            return int(number)
        return int(value)
    if "float" in kind and not (value == "auto" and "str" in kind):
        try:
            return float(value)
        except ValueError:
            raise FlagError(f"{name} {value!r} is not a number{' or auto' if 'str' in kind else ''}") from None
    return value


def _folder(out: str) -> Path:
    if not out or "\0" in out or len(out) > 1000:
        raise FlagError(f"out {out[:40]!r} is not a folder's name")
    return Path(out)
