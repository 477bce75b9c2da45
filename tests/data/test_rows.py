"""A large .npy is read where its rows are asked for: the same values as of an array, in little memory."""

import hashlib
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from comparisons.data import Data, Own, Rows, digest, find, load, rows, take
from comparisons.data import own as owns
from comparisons.errors import DataError

RNG = np.random.default_rng(0)
REAL = RNG.normal(size=(300, 7))
ARRAYS: dict[str, np.ndarray] = {
    "float32": REAL.astype(np.float32),
    "float64": REAL,
    "big-endian": REAL.astype(">f4"),
    "int16": RNG.integers(-300, 300, (300, 7)).astype(np.int16),
    "uint8": RNG.integers(0, 256, (300, 7)).astype(np.uint8),
    "bool": RNG.random((300, 7)) < 0.5,
    "images": RNG.random((300, 2, 5)),
    "every second row": REAL[::2],
}


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From when it is called on, every .npy is large, and memory holds 40 rows of 7 at a time."""

    def lower() -> None:
        monkeypatch.setattr(owns, "LARGE", 0)
        for module in (rows, owns):
            monkeypatch.setattr(module, "HELD", 4 * 4 * 7 * 40)

    return lower


def named(path: Path, share: float = 0.2, scale: float = 1.0) -> Own:
    found = find(str(path))
    assert isinstance(found, Own)
    return found.taken(share, scale)


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("kind", ARRAYS)
def test_its_rows_are_those_of_the_array(tmp_path: Path, kind: str, scale: float, large: Any) -> None:
    np.save(tmp_path / "x.npy", ARRAYS[kind])
    name = named(tmp_path / "x.npy", 0.3, scale)
    whole, told = load(name), name.read.told
    large()
    data = load(name)
    assert data._replace(train=whole.train, test=whole.test, content="") == whole
    assert name.read.told == f"{told}; too large for memory: rows are read as they are needed"
    for mine, theirs in ((data.train, whole.train), (data.test, whole.test)):
        assert isinstance(mine, Rows) and mine.shape == theirs.shape and len(mine) == len(theirs)
        for which in (slice(None), slice(5, 40), slice(0, 0), np.array([3, 0, 3]), RNG.integers(0, len(mine), 9)):
            found = mine[which]
            np.testing.assert_array_equal(found, theirs[which])
            assert found.dtype == np.float32 and found.flags.c_contiguous and found.flags.writeable
        np.testing.assert_array_equal(np.asarray(mine), theirs)


def test_some_rows_of_it_are_held_where_they_are_few(tmp_path: Path, large: Any) -> None:
    np.save(tmp_path / "x.npy", REAL)
    whole = load(named(tmp_path / "x.npy"))
    large()
    data = load(named(tmp_path / "x.npy"))
    for n in (2, 160, 161, 240):
        train = take(data, n).train
        assert isinstance(train, Rows if n > 160 else np.ndarray)
        np.testing.assert_array_equal(train[:], whole.train[:n])


def test_its_identity_is_that_of_its_values_in_their_order(tmp_path: Path, large: Any, monkeypatch: Any) -> None:
    np.save(tmp_path / "x.npy", REAL)
    name = named(tmp_path / "x.npy")
    small = digest(load(name))
    large()
    data = load(name)
    content = hashlib.sha256(REAL.astype(np.float32).tobytes()).hexdigest()
    assert digest(data) == hashlib.sha256(f"x.npy (240, 7) (60, 7){content}".encode()).hexdigest() != small
    monkeypatch.setattr(owns, "HELD", 2**20)
    owns._large.cache_clear()
    assert digest(load(name)) == digest(data)
    others: list[Data] = [take(data, 9), take(data, 200), load(named(tmp_path / "x.npy", 0.3))]
    np.save(tmp_path / "x.npy", REAL[::-1])
    others.append(load(name))
    assert len({digest(each) for each in (data, *others)}) == 5


def changed(at: Any, value: float, kind: Any = np.float32) -> np.ndarray:
    array = (100 * REAL).astype(kind)
    array[at] = value
    return array


def cut_short(path: Path) -> None:
    np.save(path, REAL)
    os.truncate(path, 9000)


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "nan": (lambda path: np.save(path, changed((200, 3), np.nan)), "row 200, column 3 is nan, not a finite number"),
    "infinite as float32": (lambda path: np.save(path, changed((299, 6), 1e300, float)), "row 299, column 6 is inf"),
    "whole": (lambda path: np.save(path, changed((200, 3), 2**24 + 1, int)), "holds whole numbers above 16777216"),
    "columns": (lambda path: np.save(path, np.asfortranarray(REAL)), r"column by column .*; save np\.ascontiguous"),
    "words": (lambda path: np.save(path, REAL.astype(str)), "holds <U32 and no numbers"),
    "objects": (lambda path: np.save(path, REAL.astype(object)), "Python objects"),
    "one axis": (lambda path: np.save(path, REAL[0]), r"has the shape \(7,\); a row is a datapoint"),
    "few": (lambda path: np.save(path, REAL[:3]), "3 rows leave 1 to test on"),
    "cut short": (cut_short, "is cut short: .* copy it again"),
    "no array": (lambda path: path.write_bytes(b"x" * 99), "cannot be read"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_one_line(tmp_path: Path, case: str, large: Any) -> None:
    write, words = BAD[case]
    write(tmp_path / "x.npy")
    large()
    with pytest.raises(DataError, match=words) as caught:
        load(named(tmp_path / "x.npy"))
    assert str(caught.value).startswith("x.npy") and "\n" not in str(caught.value)


def test_an_archive_by_the_name_of_an_array_is_none(tmp_path: Path, large: Any) -> None:
    np.savez(tmp_path / "x.npz", x=REAL)
    (tmp_path / "x.npz").rename(tmp_path / "x.npy")
    large()
    with pytest.raises(DataError, match="cannot be read: not a single array"):
        load(named(tmp_path / "x.npy"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: np.save(path, REAL + 1), "x.npy has changed since it was looked at; leave it alone"),
        (lambda path: os.truncate(path, 5000), "x.npy has changed since"),
        (lambda path: path.unlink(), "x.npy cannot be read any more: No such file"),
    ],
    ids=["written", "cut", "gone"],
)
@pytest.mark.parametrize("which", [np.array([0, 239]), slice(None)], ids=["some", "all"])
def test_a_file_that_changes_meanwhile_is_seen(tmp_path: Path, change: Any, words: str, which: Any, large: Any) -> None:
    np.save(tmp_path / "x.npy", REAL)
    os.utime(tmp_path / "x.npy", ns=(0, 0))
    large()
    data = load(named(tmp_path / "x.npy"))
    change(tmp_path / "x.npy")
    with pytest.raises(DataError, match=words):
        data.train[which]


def test_looking_at_it_takes_a_fraction_of_it(tmp_path: Path, large: Any) -> None:
    np.save(tmp_path / "x.npy", np.tile(ARRAYS["float32"], (5000, 1)))  # 42 MB, of 6 bytes of order for each 28
    large()
    owns.HELD = 2**20  # the fixture puts it back
    tracemalloc.start()
    try:
        data = load(named(tmp_path / "x.npy"))
        assert data.train[np.arange(0, 10**6, 10**4)].shape == (100, 7)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
