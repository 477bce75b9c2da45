"""Files read without trust: what they hold may be of another hand."""

import csv
import hashlib
import io
import json
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comparisons.errors import DamagedError

if TYPE_CHECKING:
    import pandas as pd

RECORD, TABLE = 16 * 2**20, 256 * 2**20  # bytes at most: of a file of JSON, and of rows
AGAIN = "remove it and run its command again"


@contextmanager
def opened(path: Path, mend: str = AGAIN) -> Iterator[BufferedReader]:
    """Open a regular file: a pipe or a device could be waited for without end. Raises DamagedError."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise DamagedError(path, "it is no regular file", mend)
            yield file
    except OSError as error:
        raise DamagedError(path, error.strerror or str(error), mend) from error


def content(path: Path, limit: int = RECORD, mend: str = AGAIN) -> bytes:
    """Return the bytes of a regular file, of which its size is asked first. Raises DamagedError."""
    with opened(path, mend) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise DamagedError(path, f"it has {size:,} bytes, of {limit:,} at most", mend)
        return file.read(size)  # and no buffer for what there could be


def record(path: Path, kind: Any = dict, mend: str = AGAIN) -> dict[str, Any]:
    """Return the dict that a file of JSON holds, each value of the type that `kind`, a TypedDict, gives its name.

    What `kind` does not name stays. Numbers are finite. Raises DamagedError.
    """
    import msgspec

    try:
        held = msgspec.json.decode(content(path, mend=mend))
        msgspec.convert(held, kind)
    except (ValueError, RecursionError) as error:  # msgspec's own are ValueErrors
        raise DamagedError(path, f"it is no record of its kind: {error}", mend) from error
    return dict(held)


def table(path: Path, numbers: Collection[str] = (), empty: Collection[str] | None = None) -> "pd.DataFrame":
    """Return the rows of a CSV: each as wide as its head, a number in each column that is named so, and none infinite.

    Of the numbers, those named in `empty` may be missing; without `empty`, pandas says what is missing, in any column.
    Raises DamagedError.
    """
    import pandas as pd

    mend = "remove its folder and run its command again"
    held = content(path, TABLE, mend)
    how: dict[str, Any] = {} if empty is None else {"keep_default_na": False, "na_values": {n: [""] for n in empty}}
    try:
        widths = {len(row) for row in csv.reader(io.StringIO(held.decode(), newline=""), strict=True) if row}
        frame = pd.read_csv(io.BytesIO(held), **how)
    except (ValueError, csv.Error) as error:
        raise DamagedError(path, str(error), mend) from error
    wrong = "" if len(widths) == 1 else f"its rows have {' and '.join(map(str, sorted(widths)))} fields"
    for name in frame.columns:
        as_text = partial(pd.read_csv, io.BytesIO(held), usecols=[name], dtype=str, keep_default_na=False)
        if problem := _problem(frame[name], as_text, empty is None, name in numbers, name in (empty or ())):
            wrong = f"column {name} {problem}"
    if wrong:
        raise DamagedError(path, wrong, mend)
    return frame


def _problem(column: Any, as_text: Callable[[], Any], free: bool, numbers: bool, empty: bool) -> str:
    """Say what a column holds that it may not, "" where nothing. A free format has infinities, by this name."""
    from pandas import to_numeric
    from pandas.api.types import is_numeric_dtype

    if not is_numeric_dtype(column) or column.dtype == bool:
        there = column.dropna()
        among = numbers or (free and 0.75 < to_numeric(there, errors="coerce").notna().mean() < 1.0)
        return "holds what is no number" if among and len(there) else ""
    infinite = column.isin([float("inf"), -float("inf")])
    if infinite.any() and not (free and as_text().squeeze(axis=1)[infinite].isin(["inf", "-inf"]).all()):
        return "is not finite"
    return "lacks a number" if numbers and not (free or empty) and column.isna().any() else ""


def made_with(path: Path, identity: dict[str, Any]) -> bool:
    """Say whether a file of JSON is there, whole, and tells that it was made with this identity.

    So do the files beside it, of which it has the SHA-256 from when it was written.
    """
    held = read_json(path)
    return bool(held.get("identity") == json.loads(json.dumps(identity))) and not altered(path.parent, held)


def sums(files: Iterable[Path]) -> dict[str, dict[str, str]]:
    """Return what a record tells of the files beside it: `files`, the SHA-256 of each by its name."""
    return {"files": {path.name: sha256(path) for path in files}}


def altered(folder: Path, held: dict[str, Any]) -> str:
    """Return the name of a file in a folder that has another SHA-256 than its record tells, "" where none has."""
    sums = held.get("files") or {}
    return next((name for name, known in sums.items() if sha256(folder / name) != known), "")


def read_json(path: Path) -> dict[str, Any]:
    """Return the dict that a file of JSON holds, empty where there is none that can be read."""
    try:
        return record(path)
    except DamagedError:
        return {}


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hex, "" where there is none."""
    try:
        with opened(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except DamagedError:
        return ""
