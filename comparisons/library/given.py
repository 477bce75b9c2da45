"""What Python gives in place of flags: settings as values, and data as arrays."""

import hashlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from comparisons.cli.flags import flag
from comparisons.data import Own
from comparisons.data.own import NAME, looked_at, table
from comparisons.errors import DataError, FlagError, unknown
from comparisons.runner import store
from comparisons.runner.experiment import Experiment
from comparisons.runner.grid import EVERYTHING, GRID, Request, Running, parse

COMMAND = "marginal_likelihood"  # which makes the same cells
SETTINGS = {f.name: flag(f) for kind in (Experiment, Running) for f in fields(kind)} | {"data_dir": "--data-dir"}
for _argument in ("data", "dry_run"):  # which is one of its own; which is for a look before a command is typed
    del SETTINGS[_argument]


def asked(settings: Mapping[str, Any], data: Any, name: str, out: str | Path) -> Request:
    """Return the request of a command with these flags. Raises FlagError and DataError."""
    words: list[str] = []
    for word, value in settings.items():
        singular = word.removesuffix("s") if word.removesuffix("s") in GRID else word
        if singular not in SETTINGS:
            raise unknown("setting", word, sorted(SETTINGS))
        if value is not None and value is not False:
            words += [SETTINGS[singular], *([] if value is True else _typed(value))]
    if not isinstance(data, (str, Path)):
        told = parse(COMMAND, "", {}, words).experiments[0]
        data = _kept(data, name, Path(out), told.test_share, told.scale)
    words = ["--data", getattr(data, "path", str(data)), *words, "--out", str(out)]
    request = parse(COMMAND, "", EVERYTHING, words)
    return replace(request, command=" ".join(["python -m", f"comparisons.{COMMAND}", *map(store.shown, words)]))


def rows(name: str, given: Any) -> np.ndarray:
    """Return an array: a table's numbers, or what NumPy makes of anything else. Raises DataError."""
    import pandas as pd

    if isinstance(given, pd.DataFrame):
        return table(name, given)
    try:
        return np.asarray(given)
    except (TypeError, ValueError) as error:  # ragged lists; a tensor on a card
        raise DataError(f"{name} is no array: {' '.join(str(error).split())[:100]}") from error


def _typed(value: Any) -> list[str]:
    """Return a value, or each of several, as it is typed; 1e5 is a whole number."""
    each = [value] if isinstance(value, str) or not isinstance(value, Iterable) else value
    return [str(int(one)) if isinstance(one, float) and one.is_integer() else str(one) for one in each]


def _kept(data: Any, name: str, out: Path, test_share: float, scale: float) -> Path:
    """Write arrays as np.savez does, unless a file of the same bytes is there; return the file."""
    path = out / "data" / f"{name}.npz"
    given = data if isinstance(data, Mapping) else {"x": data}
    arrays = {str(key): rows(f"{path.name} {key}", value) for key, value in given.items()}
    looked_at(Own(path.name, "", test_share, scale), arrays)
    np.savez(file := io.BytesIO(), **arrays)  # type: ignore[arg-type]
    other = path.with_stem(f"{name}-{hashlib.sha256(file.getvalue()).hexdigest()[:8]}")
    if not NAME.fullmatch(other.name):
        raise FlagError(f"name {name!r} goes into results; choose at most 50 letters, digits, ., _ or -")
    if path.exists() and path.read_bytes() != file.getvalue():
        path = other
    if not path.exists() or path.read_bytes() != file.getvalue():
        store.write(path, file.getvalue())
    return path
