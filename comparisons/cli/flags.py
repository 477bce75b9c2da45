"""Flags made from the fields of dataclasses, so that each has its default, unit and limits in one place.

What a field may declare is said at `inference.base.setting`.
"""

import argparse
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import Field, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from comparisons.cli import parts
from comparisons.errors import FlagError
from inference import ENGINES
from inference.base import setting


def check(settings: Any) -> None:
    """Raise FlagError, naming the value and what is allowed, unless every field is within its limits."""
    for f in fields(settings):
        value = getattr(settings, f.name)
        for one in value if isinstance(value, tuple) else (value,):
            if not f.metadata.get("words"):  # else whoever declares it says what it may be
                _check(f, one)


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
        unknown = message.partition("unrecognized arguments:")[2].split()
        known = [name for name in self._option_string_actions if name.startswith("--")]
        near = [name for word in unknown for name in get_close_matches(word.partition("=")[0], known, 1)]
        hint = f"did you mean {' '.join(near)}? See --help" if near else "see --help"
        raise FlagError(f"{' '.join(message.split())}; {hint}")


def parse_plan(
    comparison: str, description: str, kind: type[P], arguments: Sequence[str] | None
) -> tuple[P, Path, Path | None]:
    """Turn flags into a plan of this kind, the folder of its results and that of its data. Raises FlagError."""
    flags, out, data_dir = read(comparison, description, (kind,), {}, arguments)
    return kind(**flags), out, data_dir


def read(
    comparison: str,
    description: str,
    kinds: tuple[Any, ...],
    defaults: dict[str, Any],
    arguments: Sequence[str] | None,
    presets: Iterable[str] = (),
) -> tuple[dict[str, Any], Path, Path | None]:
    """Read a flag for each field of some dataclasses that is one; return their values, typed, and the two folders."""
    parser = Parser(
        prog=f"python -m comparisons.{comparison}",
        description=description,
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=28, width=110),
    )
    if presets:  # taken by `parse_preset`; here for the help
        text = "a whole figure: other defaults of the flags below, panel by panel"
        parser.add_argument("--preset", metavar="X", help=f"{text} {{{', '.join(presets)}}} (default: none)")
    declared = [f for kind in kinds for f in fields(kind) if f.metadata.get("flag") is not False]
    for f in declared:
        default = defaults.get(f.name, f.default)
        several = isinstance(f.default, tuple) or f.metadata.get("spans", False)
        values = default if isinstance(default, tuple) else (default,)
        shown = "all" if default is None else " ".join(map(str, values)) or "none"
        name = f.metadata.get("flag") or "--" + f.name.replace("_", "-")
        text = f.metadata["help"].replace("%", "%%")  # argparse expands % in help
        if isinstance(default, bool):
            parser.add_argument(name, dest=f.name, action="store_true", help=f"{text} (default: off)")
            continue
        choices = f.metadata.get("choices")
        text += f" {{{', '.join(choices)}}}" if choices else ""
        taken = {"nargs": "+", "default": list(values)} if several else {"default": default}
        parser.add_argument(name, dest=f.name, metavar="X", help=f"{text} (default: {shown})", **taken)
    out = f"results/{comparison.rpartition('.')[2]}"
    parser.add_argument("--out", default=out, metavar="DIR", help=f"folder of the results (default: {out})")
    where = "folder of the data files (default: $AEVB_DATA, else the user's cache)"
    parser.add_argument("--data-dir", metavar="DIR", help=where)
    flags = vars(parser.parse_args(arguments))
    typed = {}
    for f in declared:
        value = flags[f.name]
        typed[f.name] = tuple(_convert(f, one) for one in value) if isinstance(value, list) else _convert(f, value)
    out, data_dir = flags["out"], flags["data_dir"]
    if not out or "\0" in out or len(out) > 1000:
        raise FlagError(f"out {out[:40]!r} is not a folder's name")
    return typed, Path(out), Path(data_dir) if data_dir else None


def expanded(field: Field, values: tuple[Any, ...]) -> list[Any]:
    """Return the values of a flag that spans a grid, each once, with `all` as all of its choices."""
    choices = field.metadata.get("choices", ())
    return list(dict.fromkeys(one for v in values for one in (choices if v == "all" and choices else (v,))))


def _check(field: Field, value: Any) -> None:
    """Raise FlagError unless a value is a choice or a file, or within low <= value <= high and value > above."""
    name, choices, or_file = field.name, field.metadata.get("choices"), field.metadata.get("or_file", False)
    low, above = (field.metadata.get(limit, -math.inf) for limit in ("low", "above"))
    high, auto = field.metadata.get("high", math.inf), "str" in str(field.type)
    if choices:
        if value not in choices and not (or_file and isinstance(value, parts.Part)):
            allowed = ", ".join(choices) + (f", or {parts.FORM}" if or_file else "")
            raise FlagError(f"unknown {name.replace('_', ' ')} {value!r}; choose from {allowed}")
    elif isinstance(value, str):
        if value != "auto" or not auto:
            raise FlagError(f"{name} {value!r} is not a number{' or auto' if auto else ''}")
    elif value is not None and not (low <= value <= high and value > above):
        lower = f"above {above}" if above > low else f"at least {low}"
        upper = "" if high == math.inf else f" and at most {high}"
        raise FlagError(f"{name} {value} is out of range; it must be {lower}{upper}")


def _convert(field: Field, value: Any) -> Any:
    """Turn a flag's text into the field's type. Raises FlagError."""
    name, kind = field.name, str(field.type)
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
