"""A data set from a user's file. What it holds is looked at and said in a line; nothing is scaled unasked."""

import hashlib
import io
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from comparisons.data.base import GREY, SUPPORTS, DataCard, check, check_values, shuffled, split
from comparisons.data.files import unpack, whole
from comparisons.data.mnist import read_idx
from comparisons.data.rows import HELD, Rows, scaled
from comparisons.errors import DataError, FlagError

if TYPE_CHECKING:
    import pandas as pd

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")  # it goes into rows, tables and names of folders
EXACT = 2**24  # from here on not every whole number is a float32
# Bytes from which on a .npy is not read whole: what trains would hold two or three copies. Its identity changes with
# it (`base.digest`), so that it is fixed, and no matter of this machine's memory.
LARGE = 2**30
IDX_BYTES = 2**32  # that an IDX file may unpack to
MODEL_OF = {"binary": "vae_bernoulli", "unit": "vae_bernoulli", "count": "vae_poisson", "real": "linear_gaussian"}
KINDS = {"binary": "zeros and ones", "unit": "numbers in [0, 1]", "count": "whole numbers", "real": "real numbers"}


class Own(str):
    """A user's data set: as a string its file's name, which is all that results ever show of where it lies.

    `test_share` of its rows are held out, drawn with one seed, where the file has no `x_test`; all values are divided
    by `scale`. Two are equal where all of this is.
    """

    path: str
    test_share: float
    scale: float

    def __new__(cls, label: str, path: str, test_share: float = 0.2, scale: float = 1.0) -> "Own":
        own = super().__new__(cls, label)
        own.path, own.test_share, own.scale = path, test_share, scale
        return own

    def __getnewargs__(self) -> tuple[str, str, float, float]:  # type: ignore[override]
        return str(self), self.path, self.test_share, self.scale

    def __eq__(self, other: object) -> bool:
        same = not isinstance(other, Own) or self.__getnewargs__()[1:] == other.__getnewargs__()[1:]
        return str.__eq__(self, other) is True and same

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__

    @property
    def folder(self) -> str:
        """The name as it may stand in that of a folder."""
        return self.replace(".", "-")

    def taken(self, test_share: float, scale: float) -> "Own":
        """Return it with another share held out, and another scale."""
        return Own(str(self), self.path, test_share, scale)

    @property
    def read(self) -> "Read":
        """What the file holds. Raises DataError, which names the file, the place and what to do."""
        path = Path(self.path)
        if not path.is_file():  # a pipe or a device never ends
            raise DataError(f"{self}: {'not a file' if path.exists() else 'no such file'}: {path}")
        stat = path.stat()
        stamp = stat.st_mtime_ns, stat.st_size
        if stat.st_size >= LARGE and self.endswith(".npy"):
            return _large(self, stamp)
        _hold_size(self, stat.st_size)
        return _read(self, stamp)

    @property
    def card(self) -> DataCard:
        """What a registered data set's card says. Raises DataError."""
        found = self.read
        note = GREY if found.support == "unit" else ""
        arrays = found.train, found.test
        model = MODEL_OF[found.support]
        known = self, len(found.train), found.shape, found.support, note, model
        return DataCard(*known, lambda data_dir: arrays, columns=found.columns, gaps=found.gaps)


class Read(NamedTuple):
    """The arrays of a file, and what was found about them."""

    train: Any  # [n, d] float32; `Rows` of a large .npy
    test: Any  # [m, d] float32; `Rows` of a large .npy
    shape: tuple[int, int]
    support: str
    told: str  # the finding as a line
    columns: tuple[tuple[str, int], ...] = ()  # names and widths of what a row holds, where that is more than x
    gaps: tuple[tuple[str, str], ...] = ()  # names of what has a NaN, and the refusal of it


def find(text: str) -> str:
    """Return the user's data set that a flag's text names, or the text itself where it names no file.

    Raises FlagError for an ending that is not among READERS, DataError for a file that is not there.
    """
    if isinstance(text, Own) or not ("." in text or "/" in text):
        return text
    path = Path(text).expanduser()
    if not _ending(path.name):
        raise FlagError(f"data {text!r} does not end in {', '.join(READERS)}; write it as one of these")
    if not NAME.fullmatch(path.name):
        raise FlagError(
            f"data {text!r}: the file's name goes into results; rename it to at most 64 letters, digits, ., _ or -"
        )
    if not path.exists():
        raise DataError(f"data {text!r}: there is no such file")
    return Own(path.name, str(path.absolute()))


@lru_cache(maxsize=2)
def _read(own: Own, stamp: tuple[int, int]) -> Read:
    arrays = _opened(own, READERS[_ending(own)])
    if "x" not in arrays:
        raise DataError(f"{own} holds no array x, but {', '.join(arrays) or 'nothing'}; name the data x, and x_test")
    taken: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        rows = array[:, None] if array.ndim == 1 and name not in ("x", "x_test") else array
        taken[name] = _numbers(f"{own} {name}", rows, own.scale if name in ("x", "x_test") else 1.0)
    shape = taken["x"].shape[1:]
    tests = {name for name in taken if name.endswith("_test") and name.removesuffix("_test") in taken}
    names = sorted(taken.keys() - tests, key=lambda name: (name != "x", name))
    _hold_together(own, taken, names)
    flat = {name: array.reshape(len(array), -1) for name, array in taken.items()}
    of_x = [flat[name][~np.isnan(flat[name])] for name in ("x", "x_test") if name in flat]
    if not all(x.size for x in of_x):
        raise DataError(next(_gaps(own, flat))[1])
    support = next(kind for kind in KINDS if all(SUPPORTS[kind][1](x).all() for x in of_x))
    train = np.concatenate([flat[name] for name in names], 1)
    if "x_test" in flat:
        test, how = np.concatenate([flat[f"{name}_test"] for name in names], 1), "x_test"
    else:
        (train, test), how = split(train, _n_train(own, len(train))), f"--test-share {own.test_share:g}"
    low, high = min(x.min() for x in of_x), max(x.max() for x in of_x)
    columns = tuple((name, flat[name].shape[1]) for name in names) if len(names) > 1 else ()
    found = _described(own, train, test, shape, support, (low, high), how, columns)
    return found._replace(columns=columns, gaps=tuple(_gaps(own, flat)))


def _hold_together(own: Own, taken: dict[str, np.ndarray], names: list[str]) -> None:
    """Raise DataError for arrays that do not stand beside each other, row by row."""
    for name in names:
        if not name.isidentifier() or name.startswith("_"):
            raise DataError(f"{own}: the array {name!r} is named as no site of a model can be; rename it")
        if ("x_test" in taken) != (f"{name}_test" in taken):
            lacking = f"{name}_test" if "x_test" in taken else "x_test"
            raise DataError(f"{own} holds no array {lacking}; give each array one to test on, or none of them")
        other = taken.get(f"{name}_test", taken[name]).shape[1:]
        if other != taken[name].shape[1:]:
            raise DataError(
                f"{own}: a row of {name} has the shape {taken[name].shape[1:]}, of {name}_test {other}; "
                "they must be the same"
            )
        for one, rows in ((name, "x"), (f"{name}_test", "x_test")):
            if one in taken and len(taken[one]) != len(taken[rows]):
                raise DataError(
                    f"{own}: {one} has {len(taken[one])} rows, and {rows} has {len(taken[rows])}; a row of each is one "
                    "datapoint"
                )


def _gaps(own: Own, flat: dict[str, np.ndarray]) -> Iterator[tuple[str, str]]:
    """Yield the name of what has a NaN, with the refusal for a model that takes none."""
    for name, array in flat.items():
        try:
            check_values(f"{own} {name}", array, "real")
        except DataError as error:
            yield name.removesuffix("_test"), f"{error}; a model of rows with gaps says missing = True"


@lru_cache(maxsize=2)
def _large(own: Own, stamp: tuple[int, int]) -> Read:
    """Look at all values of a .npy once, some rows at a time, and leave them where they are. Raises DataError."""
    name, (dtype, shape, offset) = f"{own} x", _opened(own, _header)
    _form(name, dtype, shape)
    n, d = shape[0], prod(shape[1:])
    n_train, order = _n_train(own, n), shuffled(n)
    rows = Rows(own, own.path, dtype, offset, d, np.arange(n, dtype=order.dtype), own.scale, stamp)
    supports, low, high, sha256 = [*KINDS], np.inf, -np.inf, hashlib.sha256()
    for start in range(0, n, size := max(1, HELD // (16 * d))):
        x = _taken(name, rows.read(slice(start, start + size)), own.scale)
        check_values(name, x, "real", start)
        supports = [kind for kind in supports if SUPPORTS[kind][1](x).all()]
        low, high = min(low, x.min()), max(high, x.max())
        sha256.update(x.data)
    train, test = (
        replace(rows, order=part, content=sha256.hexdigest(), largest=float(high))
        for part in np.split(order, [n_train])
    )
    return _described(own, train, test, shape[1:], supports[0], (low, high), f"--test-share {own.test_share:g}")


def _n_train(own: Own, n: int) -> int:
    """Return how many of n rows are for training. Raises DataError unless both parts have 2."""
    if min(held := round(n * own.test_share), n - held) < 2:
        share = f"--test-share {own.test_share:g}"
        raise DataError(f"{own}: {n} rows leave {held} to test on with {share}; both parts need 2")
    return n - held


def _described(
    own: Own,
    train: Any,
    test: Any,
    shape: tuple[int, ...],
    support: str,
    ends: tuple[float, float],
    how: str,
    columns: tuple[tuple[str, int], ...] = (),
) -> Read:
    n, d = len(train) + len(test), columns[0][1] if columns else train.shape[1]
    told = f"{own}: {n:,} rows of {d:,} {KINDS[support]}, {ends[0]:g} to {ends[1]:g}"
    told += f", divided by {own.scale:g}" if own.scale != 1.0 else ""
    told += "".join(f", beside {name} of {width:,}" for name, width in columns[1:])
    told += f"; {len(train):,} to train on, {len(test):,} to test on ({how})"
    told += "; a row is a datapoint: is it transposed?" if d > n else ""
    told += "; grey values are divided by --scale 255" if support == "count" and ends[1] == 255 else ""
    told += "; too large for memory: rows are read as they are needed" if isinstance(train, Rows) else ""
    return Read(train, test, (shape[0], shape[1]) if len(shape) == 2 and not columns else (1, d), support, told)


def _numbers(name: str, array: np.ndarray, scale: float) -> np.ndarray:
    """Return an array as float32, divided by `scale`. Raises DataError for what is no numbers, or no datapoints."""
    _form(name, array.dtype, array.shape)
    taken = _taken(name, array, scale)
    check(name, np.where(np.isnan(taken), 0, taken).reshape(len(taken), -1), "real")  # a NaN may be a gap
    return taken


def _taken(name: str, array: np.ndarray, scale: float) -> np.ndarray:
    if array.dtype.kind in "iu" and max(abs(int(array.min())), abs(int(array.max()))) > EXACT:
        raise DataError(f"{name} holds whole numbers above {EXACT}, which float32 rounds; save it as float, scaled")
    return scaled(array, scale)


def _form(name: str, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    """Raise DataError for an array that holds no numbers, or no datapoints."""
    if dtype.kind not in "biuf":
        raise DataError(f"{name} holds {dtype} and no numbers; save bool, int or float")
    if len(shape) not in (2, 3) or prod(shape) == 0:
        raise DataError(f"{name} has the shape {shape}; a row is a datapoint: [n, d], or images [n, rows, columns]")


def _opened(own: Own, reader: Callable[[Own], Any]) -> Any:
    """Return what a reader finds in a file. Raises DataError for one that is unreadable or damaged."""
    try:
        return reader(own)
    except DataError as error:
        raise DataError(str(error).replace(own.path, own)) from None
    except ImportError as error:
        raise DataError(
            f"{own}: reading it needs {error.name or 'pyarrow'}; pip install it, or save as .npz"
        ) from error
    except (OSError, EOFError, ValueError, KeyError, zlib.error, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:200]
        if "pickle" in reason or "Object arrays" in reason:
            reason = "arrays of Python objects are refused, for reading them can run code; save numbers"
        raise DataError(f"{own} cannot be read: {reason or type(error).__name__}") from error


def _memory() -> int:
    """Return the bytes of memory that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _hold_size(own: Own, size: int) -> None:
    """Raise DataError for more bytes than memory could hold: what is read whole ends there, holes and bombs too."""
    if size > _memory():
        raise DataError(
            f"{own}: {size:,} bytes are more than memory holds; save fewer, or a .npy, which is read by rows"
        )


def _npz(own: Own) -> dict[str, np.ndarray]:
    archive = np.load(own.path, allow_pickle=False)
    if isinstance(archive, np.ndarray):
        raise ValueError("not an archive of arrays, which np.savez writes")
    with archive:
        _hold_size(own, sum(entry.file_size for entry in archive.zip.infolist()))  # 1 MB may unpack to 1 GB
        return {name: archive[name] for name in archive.files}


def _npy(own: Own) -> dict[str, np.ndarray]:
    array = np.load(own.path, allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise ValueError("not a single array, which np.save writes")
    return {"x": array}


def _header(own: Own) -> tuple[np.dtype, tuple[int, ...], int]:
    """Return type and shape of a .npy, and where its values begin [bytes]."""
    try:
        found = np.load(own.path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        if "mmap length" not in str(error):
            raise
        raise DataError(f"{own} is cut short: it holds fewer values than it begins by saying; copy it again") from None
    if not isinstance(found, np.memmap):
        raise ValueError("not a single array, which np.save writes")
    if not found.flags.c_contiguous:
        raise DataError(f"{own} lies column by column (Fortran order); save np.ascontiguousarray(x)")
    return found.dtype, found.shape, found.offset


def _csv(own: Own) -> dict[str, np.ndarray]:
    """Read lines of numbers with commas between them; a first line with a word in it names the columns."""
    import pandas as pd

    packed = whole(own.path, _memory())
    if own.endswith(".gz") and packed[:2] != b"\x1f\x8b":
        raise ValueError(f"Not a gzipped file ({packed[:2]!r})")
    content = unpack(packed, _memory())
    _hold_size(own, len(content))
    file = io.BytesIO(content)
    words = file.readline(2**20).decode().split(",")
    file.seek(0)
    named = not all(re.fullmatch(r"\s*[-+]?(\d*\.?\d+|\d+\.|nan|inf)(e[-+]?\d+)?\s*", word, re.I) for word in words)
    return {"x": table(own, pd.read_csv(file, header=0 if named else None))}


def _parquet(own: Own) -> dict[str, np.ndarray]:
    import pandas as pd

    return {"x": table(own, pd.read_parquet(own.path))}


def table(own: str, frame: "pd.DataFrame") -> np.ndarray:
    """Return a table's numbers. Raises DataError, which names `own` and the place, for a word among them."""
    import pandas as pd

    for name, column in frame.items():
        if not pd.api.types.is_numeric_dtype(column):
            words = column[pd.to_numeric(column, errors="coerce").isna() & column.notna()]
            where = (
                f"row {words.index[0]}, column {name}: {str(words.iloc[0])[:40]!r}" if len(words) else f"column {name}"
            )
            raise DataError(f"{own}: {where} is no number; drop that column or row")
    return frame.to_numpy(dtype=np.float64)


def _idx(own: Own) -> dict[str, np.ndarray]:
    return {"x": read_idx(own.path, IDX_BYTES)}


# How a file is read, by the end of its name.
READERS: dict[str, Callable[[Own], dict[str, np.ndarray]]] = {
    **{".npz": _npz, ".npy": _npy, ".csv": _csv, ".csv.gz": _csv, ".parquet": _parquet},
    **dict.fromkeys((".idx", ".idx.gz", "-ubyte", "-ubyte.gz"), _idx),
}


def _ending(name: str) -> str:
    return next((ending for ending in READERS if name.endswith(ending)), "")
