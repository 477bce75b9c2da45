"""Flags made from the fields of dataclasses, so that each has its default, unit and limits in one place.

What a field may declare is said at `inference.base.setting`. In the help a flag stands in the group that it is `about`:
that which its field declares, else the title of the methods or estimators whose settings have it, else COMPARED.
"""

import argparse
import math
import re
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import Field, dataclass, fields
from difflib import get_close_matches
from inspect import get_annotations
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from comparisons.errors import FlagError, unknown
from inference import BACKENDS, ENGINES
from inference.base import setting

COMPARED, FITTED, JUDGED, RUN = "what is compared", "how it is fitted", "how it is judged", "what is run, and where"
METHODS = {card.title: card.settings for card in BACKENDS.values()}
Cards = Mapping[str, Mapping[str, type]]  # the settings of all cards of a kind by their titles, by what they are about


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

    seed: int = setting(0, "seed of everything", low=0, high=2**31 - 1, also=("--seeds",))
    threads: int = setting(1, "threads of the array library [threads]", low=1, high=4096, about=RUN)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True)
class Plan(Told):
    """The same, of one that runs on one engine."""

    engine: str = setting("numpyro", "PPL and array library", choices=tuple(ENGINES))


P = TypeVar("P", bound=Told)


class Help(argparse.HelpFormatter):
    """Help as wide as the terminal; of a text paragraphs are filled, and what is indented stays as it is."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=min(110, shutil.get_terminal_size().columns - 2))

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.strip().split("\n\n")
        filled = (one if one.startswith(" ") else textwrap.fill(" ".join(one.split()), width) for one in paragraphs)
        return "\n\n".join(filled)


class Parser(argparse.ArgumentParser):
    """A command's parser: what its docstring says from `Examples:` on ends the help; errors are one line."""

    def __init__(self, comparison: str = "", description: str = "", **how: Any) -> None:
        text, title, examples = description.partition("\nExamples:")
        prog = f"python -m comparisons.{comparison}"
        super().__init__(
            prog, "%(prog)s [flags]", text, title + examples, allow_abbrev=False, formatter_class=Help, **how
        )
        self.of_flags: dict[str, Any] = {}  # groups of the help, by title

    def add(self, about: str, name: str, also: Sequence[str] = (), **how: Any) -> None:
        """Add a flag to a group of the help; names that it had are taken too, and not shown."""
        if about not in self.of_flags:
            self.of_flags[about] = self.add_argument_group(about)
        dest = self.of_flags[about].add_argument(name, **how).dest
        for old in also:
            self.add_argument(old, **{**how, "dest": dest, "default": argparse.SUPPRESS, "help": argparse.SUPPRESS})

    def error(self, message: str) -> NoReturn:
        words = message.partition("unrecognized arguments:")[2].split()
        shown = [action for action in self._actions if action.help is not argparse.SUPPRESS]
        known = [name for action in shown for name in action.option_strings if name.startswith("--")]
        near = [name for word in words for name in get_close_matches(word.partition("=")[0], known, 1)]
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
    cards: Cards | None = None,
) -> tuple[dict[str, Any], Path, Path | None]:
    """Read a flag for each field of some dataclasses that is one; return their values, typed, and the two folders."""
    parser = Parser(comparison, description)
    if presets:  # taken by `parse_preset`; here for the help
        text = "a whole figure: other defaults of the flags below, panel by panel"
        parser.add(COMPARED, "--preset", metavar="X", help=f"{text} {{{', '.join(presets)}}} (default: none)")
    declared = {f.name: (f, kind) for kind in kinds for f in fields(kind) if f.metadata.get("flag") is not False}
    cards = {FITTED: METHODS, **(cards or {})}
    told = sorted((_about(f, kind, cards), i, f) for i, (f, kind) in enumerate(declared.values()))
    for (_, about), _, f in told:
        parser.add(
            about, flag(f), f.metadata.get("also", ()), dest=f.name, **_shown(f, defaults.get(f.name, f.default))
        )
    out = f"results/{comparison.rpartition('.')[2]}"
    parser.add(RUN, "--out", default=out, metavar="DIR", help=f"folder of the results (default: {out})")
    where = "folder of the data files (default: $AEVB_DATA, else the user's cache)"
    parser.add(RUN, "--data-dir", metavar="DIR", help=where)
    flags = vars(parser.parse_args(arguments))
    typed = {}
    for f, _ in declared.values():
        value = flags[f.name]
        typed[f.name] = tuple(_convert(f, one) for one in value) if isinstance(value, list) else _convert(f, value)
    out, data_dir = flags["out"], flags["data_dir"]
    if not out or "\0" in out or len(out) > 1000:
        raise FlagError(f"out {out[:40]!r} is not a folder's name")
    return typed, Path(out), Path(data_dir) if data_dir else None


def flag(field: Field) -> str:
    """Return a field's flag."""
    return str(field.metadata.get("flag") or "--" + field.name.replace("_", "-"))


def _about(field: Field, kind: type, cards: Cards) -> tuple[int, str]:
    """Return the group that a field's flag stands in, after its place among all."""
    order = [COMPARED, FITTED, JUDGED, RUN]
    if about := field.metadata.get("about"):
        return order.index(about) * 100, about
    owner = next(one for one in reversed(kind.__mro__) if field.name in get_annotations(one))
    for about, settings in cards.items():
        mine = [title for title, one in settings.items() if issubclass(one, owner)]
        if len(mine) == len(settings):
            return order.index(about) * 100, about
        if mine:
            return order.index(about) * 100 + 1 + [*settings].index(mine[0]), f"{about}: {', '.join(mine)}"
    return 0, COMPARED


def _shown(field: Field, default: Any) -> dict[str, Any]:
    """Return what argparse is told of a field's flag besides its name."""
    several = isinstance(field.default, tuple) or field.metadata.get("spans", False)
    values = default if isinstance(default, tuple) else (default,)
    text = field.metadata["help"].replace("%", "%%")  # argparse expands % in help
    if isinstance(default, bool):
        return {"action": "store_true", "help": f"{text} (default: off)"}
    choices = field.metadata.get("choices")
    text += f" {{{', '.join(choices)}}}" if choices else ""
    shown = "all" if default is None else " ".join(map(str, values)) or "none"
    taken = {"nargs": "+", "default": list(values)} if several else {"default": default}
    return {"metavar": "X", "help": f"{text} (default: {shown})", **taken}


def expanded(field: Field, values: tuple[Any, ...]) -> list[Any]:
    """Return the values of a flag that spans a grid, each once, with `all` as all of its choices, or those it names."""
    choices = field.metadata.get("all", field.metadata.get("choices", ()))
    return list(dict.fromkeys(one for v in values for one in (choices if v == "all" and choices else (v,))))


def _check(field: Field, value: Any) -> None:
    """Raise FlagError unless a value is a choice or a file, or within low <= value <= high and value > above."""
    name, choices, form = _spoken(field), field.metadata.get("choices"), field.metadata.get("form", "")
    low, above = (field.metadata.get(limit, -math.inf) for limit in ("low", "above"))
    high, auto = field.metadata.get("high", math.inf), "str" in str(field.type)
    if choices:
        if value not in choices and not (form and type(value) is not str):  # a name from a file is more than its text
            raise unknown(name.replace("_", " "), value, choices, f", or {form}" if form else "")
    elif isinstance(value, str):
        if value != "auto" or not auto:
            raise FlagError(f"{name} {value!r} is not a number{' or auto' if auto else ''}")
    elif value is not None and not (low <= value <= high and value > above):
        lower = f"above {above}" if above > low else f"at least {low}"
        upper = "" if high == math.inf else f" and at most {high}"
        raise FlagError(f"{name} {value} is out of range; it must be {lower}{upper}")


def _spoken(field: Field) -> str:
    """Return a setting's name as who typed its flag knows it."""
    return flag(field).removeprefix("--").replace("-", "_")


def _convert(field: Field, value: Any) -> Any:
    """Turn a flag's text into the field's type. Raises FlagError."""
    name, kind = _spoken(field), str(field.type)
    if not isinstance(value, str):
        return value
    if find := field.metadata.get("or_file"):
        return find(value)
    if "int" in kind and not (value == "auto" and "str" in kind):
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
