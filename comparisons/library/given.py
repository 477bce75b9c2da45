"""What Python gives in place of flags: settings as values, and data as arrays."""

import hashlib
import io
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from comparisons.cli import parts
from comparisons.cli.flags import flag
from comparisons.data import check, own
from comparisons.data.base import check_values
from comparisons.data.own import NAME, table
from comparisons.disk import writing
from comparisons.errors import DataError, FlagError, UserError, unknown
from comparisons.library import objects
from comparisons.runner import store
from comparisons.runner.experiment import Experiment
from comparisons.runner.grid import EVERYTHING, GRID, Request, Running, parse
from inference.base import Method, pick
from inference.rows import widths
from models.base import Model

COMMAND = "marginal_likelihood"  # which makes the same cells
SETTINGS = {f.name: flag(f) for kind in (Experiment, Running) for f in fields(kind)} | {"data_dir": "--data-dir"}
for _argument in ("data", "dry_run"):  # which is one of its own; which is for a look before a command is typed
    del SETTINGS[_argument]


@contextmanager
def taken_back(out: Path) -> Iterator[None]:
    """Remove what was written under `out` of data, where it is refused within."""
    before = set((out / "data").glob("*"))
    try:
        yield
    except UserError:
        for file in set((out / "data").glob("*")) - before:
            file.unlink()
        with suppress(OSError):  # there before, or not empty
            (out / "data").rmdir()
            out.rmdir()
        raise


def asked(settings: Mapping[str, Any], data: Any, name: str, out: str | Path) -> Request:
    """Return the request of a command with these flags. Raises FlagError and DataError."""
    words: list[str] = []
    for word, value in settings.items():
        singular = word.removesuffix("s") if word.removesuffix("s") in GRID else word
        if singular not in SETTINGS:
            raise unknown("setting", word, sorted(SETTINGS))
        if singular in parts.KINDS and value is not None:
            value = [one for each in _each(value) for one in objects.words(singular, each, Path(out))]
        if value is not None and value is not False:
            words += [SETTINGS[singular], *([] if value is True else _typed(value))]
    source = data if isinstance(data, (str, Path)) else _kept(data, name, Path(out))
    words = ["--data", getattr(source, "path", str(source)), *words, "--out", str(out)]
    command = " ".join(["python -m", f"comparisons.{COMMAND}", *map(store.shown, words)])
    request = replace(parse(COMMAND, "", EVERYTHING, words), command=command)
    alone = [word for word in words if isinstance(word, parts.Part) and not word.path]
    if alone and (request.running.workers > 1 or request.running.scheduler):
        raise FlagError(f"{alone[0]} is known to this process alone, not to workers; write {parts.FORM}, or workers=1")
    return request


def numbers(name: str, given: Any, flat: bool = False) -> np.ndarray:
    """Return an array of numbers, a table's or what NumPy makes of anything else. Raises DataError.

    A `flat` one [n] may stand for one column.
    """
    import pandas as pd

    try:
        array = table(name, given) if isinstance(given, pd.DataFrame) else plain(given)
    except (TypeError, ValueError) as error:  # ragged lists
        raise DataError(f"{name} is no array: {' '.join(str(error).split())[:100]}") from error
    array = array[:, None] if flat and array.ndim == 1 else array
    if array.dtype.kind not in "biuf" or array.ndim not in (2, 3):
        raise DataError(f"{name} is {array.dtype} {list(array.shape)}; give numbers [n, d] or [n, rows, columns]")
    return array


def plain(given: Any) -> np.ndarray:
    """Return what NumPy makes of anything, of a tensor of torch's too that asks for gradients or lies on a card."""
    for verb in ("detach", "cpu"):
        given = getattr(given, verb, lambda known=given: known)()
    return np.asarray(given)


def rows(given: Any, model: Model) -> np.ndarray:
    """Return datapoints [n, d] in float32: x [n, n_x], or images, and a dict of arrays where a model takes several.

    Raises DataError for what the model cannot score.
    """
    each = widths(model)
    told = given if isinstance(given, Mapping) else {"x": given}
    if told.keys() != each.keys():
        wanted = ", ".join(each)
        raise DataError(f"{', '.join(map(str, told))} is given, and the model takes {wanted}; give a dict of these")
    parts = []
    for name, width in each.items():
        x = numbers(name, told[name], flat=name != "x")
        if x[:1].size != width:
            raise DataError(f"{name} has the shape {x.shape}; a row is a datapoint: [n, {width}]")
        x = x.reshape(len(x), -1).astype(np.float32)
        known = x[~np.isnan(x)][None] if model.missing and name in model.observed else x
        check_values(name, known, model.support if name == "x" and name in model.observed else "real")
        parts.append(x)
    if len({len(part) for part in parts}) > 1:
        counts = ", ".join(str(len(part)) for part in parts)
        raise DataError(f"{', '.join(each)} have {counts} rows; give as many of each")
    return np.concatenate(parts, 1)


def parameters(group: str, given: Any) -> dict[str, np.ndarray]:
    """Return theta or phi, as `group` says, in float32: arrays by name, or a file of them.

    A file is .npz or .safetensors; where names in it begin with `theta.` or `phi.`, as `comparisons.export` writes
    them, those of the group are taken. Raises DataError for what holds no finite numbers by name.
    """
    if isinstance(given, (str, Path)):
        held = opened(Path(given))
        given = pick(held, group) if any(name.startswith(("theta.", "phi.")) for name in held) else held
    if not isinstance(given, Mapping):
        raise DataError(f"{group} is of type {type(given).__name__}; give arrays by name, or a .npz or .safetensors")
    arrays: dict[str, np.ndarray] = {}
    for name, value in given.items():
        try:
            with np.errstate(over="ignore"):
                arrays[str(name)] = plain(value).astype(np.float32)
        except (TypeError, ValueError) as error:
            raise DataError(f"{group} {name} is no array: {' '.join(str(error).split())[:100]}") from error
        if not np.isfinite(arrays[str(name)]).all():
            raise DataError(f"{group} {name} holds numbers that are not finite")
    return arrays


def opened(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a .npz or .safetensors by name; no pickle is read. Raises DataError."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        if path.suffix == ".npz":
            return dict(np.load(path, allow_pickle=False))
    except (OSError, ValueError, TypeError, KeyError, EOFError, zlib.error, BadZipFile, SafetensorError) as error:
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from error
    raise DataError(f"{path} does not end in .npz or .safetensors; load it, and give the arrays by name")


def _typed(value: Any) -> list[str]:
    """Return a value, or each of several, as it is typed; 1e5 is a whole number."""
    whole = (int(one) if isinstance(one, float) and one.is_integer() else one for one in _each(value))
    return [one if isinstance(one, str) else str(one) for one in whole]


def _each(value: Any) -> Iterable[Any]:
    return [value] if isinstance(value, (str, Mapping, Method)) or not isinstance(value, Iterable) else value


def _kept(data: Any, name: str, out: Path) -> Path:
    """Write arrays as np.savez does, unless a file of the same bytes is there; return the file."""
    given = data if isinstance(data, Mapping) else {"x": data}
    if "x" not in given:
        raise DataError(f"{name} holds no array x, but {', '.join(map(str, given)) or 'nothing'}; name the data x")
    arrays: dict[str, Any] = {}
    if "file" in given:  # which is what NumPy calls the file that it writes
        raise DataError(f"the array 'file' of {name} would not be used; rename it")
    for key, one in given.items():
        arrays[str(key)] = numbers(f"{name} {key}", one, flat=key not in ("x", "x_test"))
    for key, array in arrays.items():
        if isinstance(data, np.memmap) and array.nbytes >= own.LARGE:  # it would be written once more, from memory
            raise DataError(f"{name} is a memory map; give its path, {data.filename}, and rows are read as needed")
        gapless = np.where(np.isnan(array), 0, array) if array.dtype.kind == "f" else array
        check(f"{name} {key}", gapless.reshape(len(array), -1), "real")
    np.savez(file := io.BytesIO(), **arrays)
    content = file.getvalue()
    other = f"{name}-{hashlib.sha256(content).hexdigest()[:8]}.npz"
    if not NAME.fullmatch(other):
        raise FlagError(f"name {name!r} goes into results; choose at most 50 letters, digits, ., _ or -")
    path = out / "data" / f"{name}.npz"
    path = path.with_name(other) if path.exists() and path.read_bytes() != content else path
    if not path.exists() or path.read_bytes() != content:
        writing.write(path, content)
    return path
