"""Check settings against the limits that their fields declare (see `inference.base.setting`)."""

import math
from dataclasses import fields
from typing import Any

from comparisons.cli.parts import FORM, Part
from comparisons.errors import FlagError

LIMITS = ("choices", "low", "high", "above", "words", "or_file")  # of what a field declares


def check(settings: Any) -> None:
    """Raise FlagError, naming the value and what is allowed, unless every field is within its limits."""
    for f in fields(settings):
        limits = {name: limit for name, limit in f.metadata.items() if name in LIMITS}
        value = getattr(settings, f.name)
        for one in value if isinstance(value, tuple) else (value,):
            _check(f.name, one, auto="str" in str(f.type), **limits)


def _check(
    name: str,
    value: Any,
    auto: bool,
    choices: tuple[str, ...] = (),
    low: float = -math.inf,
    high: float = math.inf,
    above: float = -math.inf,
    words: bool = False,
    or_file: bool = False,
) -> None:
    """Raise FlagError unless a value is a choice or a file, or within low <= value <= high and value > above."""
    if words:
        return  # whoever declares it says what it may be
    if choices:
        if value not in choices and not (or_file and isinstance(value, Part)):
            allowed = ", ".join(choices) + (f", or {FORM}" if or_file else "")
            raise FlagError(f"unknown {name.replace('_', ' ')} {value!r}; choose from {allowed}")
    elif isinstance(value, str):
        if value != "auto" or not auto:
            raise FlagError(f"{name} {value!r} is not a number{' or auto' if auto else ''}")
    elif value is not None and not (low <= value <= high and value > above):
        lower = f"above {above}" if above > low else f"at least {low}"
        upper = "" if high == math.inf else f" and at most {high}"
        raise FlagError(f"{name} {value} is out of range; it must be {lower}{upper}")
