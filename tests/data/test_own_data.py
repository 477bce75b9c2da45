"""Data of a user's own: every way to write it, what is found in it, and one line for whatever is wrong."""

import gzip
import os
import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from comparisons import cli, marginal_likelihood
from comparisons.data import DATA, Own, card_of, find, load
from comparisons.data.own import READERS
from comparisons.errors import DataError, FlagError, UnfitError
from comparisons.runner.experiment import Experiment
from inference import BACKENDS, ENGINES

RNG = np.random.default_rng(0)
REAL = RNG.normal(size=(30, 4))
COUNTS = RNG.poisson(3.0, (30, 4))


def idx(path: Path, images: np.ndarray) -> None:
    content = struct.pack(">4I", 0x803, *images.shape) + images.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


WRITERS: dict[str, Callable[[Path, np.ndarray], Any]] = {
    ".npz": lambda path, x: np.savez(path, x=x),
    ".npy": np.save,
    ".csv": lambda path, x: pd.DataFrame(x).to_csv(path, index=False, header=[f"c{i}" for i in range(x.shape[1])]),
    ".csv.gz": lambda path, x: pd.DataFrame(x).to_csv(path, index=False, header=False),
    ".parquet": lambda path, x: pd.DataFrame(x, columns=list("abcd")).to_parquet(path),
    **{
        ending: lambda path, x: idx(path, x.reshape(len(x), 2, 2))
        for ending in (".idx", ".idx.gz", "-ubyte", "-ubyte.gz")
    },
}


def own(path: Path, **told: Any) -> Own:
    found = find(str(path))
    assert isinstance(found, Own)
    return found.taken(told.get("test_share", 0.2), told.get("scale", 1.0))


def test_every_ending_has_a_test() -> None:
    assert WRITERS.keys() == READERS.keys()


@pytest.mark.parametrize("ending", READERS)
def test_a_file_is_read_whole_and_split_the_same_in_every_form(tmp_path: Path, ending: str) -> None:
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    WRITERS[ending](path := tmp_path / f"mine{ending}", COUNTS)
    data = load(own(path))
    assert data.name == path.name and data.train.shape == (24, 4) and data.test.shape == (6, 4)
    assert data.train.dtype == np.float32 and data.support == "count"
    both = np.concatenate([data.train, data.test])
    assert sorted(map(tuple, both)) == sorted(map(tuple, COUNTS.astype(np.float32)))
    np.savez(tmp_path / "other.npz", x=COUNTS)
    other = load(own(tmp_path / "other.npz"))
    np.testing.assert_array_equal(data.train, other.train)
    assert data.shape == ((2, 2) if READERS[ending].__name__ == "_idx" else (1, 4))


def test_a_file_s_own_test_rows_are_taken_and_images_keep_their_shape(tmp_path: Path) -> None:
    x = RNG.random((10, 3, 5))
    np.savez(tmp_path / "mine.npz", x=x, x_test=x[:4])
    data = load(own(tmp_path / "mine.npz"))
    np.testing.assert_array_equal(data.train, x.reshape(10, 15).astype(np.float32))
    np.testing.assert_array_equal(data.test, data.train[:4])
    assert data.shape == (3, 5) and data.support == "unit" and "grey" in data.note


@pytest.mark.parametrize(
    ("x", "scale", "support", "model"),
    [
        (COUNTS % 2 == 0, 1.0, "binary", "vae_bernoulli"),
        (COUNTS % 2, 1.0, "binary", "vae_bernoulli"),
        (RNG.random((30, 4)), 1.0, "unit", "vae_bernoulli"),
        (COUNTS, 1.0, "count", "vae_poisson"),
        (COUNTS.astype(float), 1.0, "count", "vae_poisson"),
        (COUNTS, 255.0, "unit", "vae_bernoulli"),
        (REAL, 1.0, "real", "linear_gaussian"),
        (COUNTS - 3, 1.0, "real", "linear_gaussian"),
    ],
)
def test_what_the_values_are_is_seen_and_never_changed_unasked(
    tmp_path: Path, x: np.ndarray, scale: float, support: str, model: str
) -> None:
    np.save(tmp_path / "mine.npy", x)
    name = own(tmp_path / "mine.npy", scale=scale)
    data = load(name)
    assert data.support == support and card_of(name).model == model
    everything = np.sort(np.concatenate([data.train, data.test]).ravel())
    np.testing.assert_array_equal(everything, np.sort(x.astype(np.float32).ravel() / np.float32(scale)))


def test_the_share_that_is_held_out(tmp_path: Path) -> None:
    np.save(tmp_path / "mine.npy", REAL)
    half = load(own(tmp_path / "mine.npy", test_share=0.5))
    assert len(half.train) == len(half.test) == 15
    assert "15 to train on, 15 to test on (--test-share 0.5)" in own(tmp_path / "mine.npy", test_share=0.5).read.told


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (RNG.normal(size=(4, 30)), "transposed?"),
        (np.arange(120).reshape(30, 4) % 256 + 136 * (np.arange(120).reshape(30, 4) == 119), "--scale 255"),
        (COUNTS, "30 rows of 4 whole numbers, 0 to"),
    ],
)
def test_what_is_found_is_one_line(tmp_path: Path, x: np.ndarray, words: str) -> None:
    np.save(tmp_path / "mine.npy", x)
    told = own(tmp_path / "mine.npy", test_share=0.5).read.told
    assert words in told and "\n" not in told


def bad_npz(**arrays: Any) -> Callable[[Path], Any]:
    return lambda path: np.savez(path, **arrays)


def text(content: str | bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(content if isinstance(content, bytes) else content.encode())


def npy_named_otherwise(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, REAL)


NAN = REAL.copy()
NAN[3, 2] = np.nan
BAD: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "no x": ("a.npz", bad_npz(y=REAL), "holds no array x, but y"),
    "nothing": ("a.npz", bad_npz(), "but nothing"),
    "other columns": ("a.npz", bad_npz(x=REAL, x_test=REAL[:, :2]), r"has the shape \(4,\), of x_test \(2,\)"),
    "objects": ("a.npz", bad_npz(x=np.array([[{}, 1]] * 5, object)), "Python objects are refused"),
    "object npy": ("a.npy", lambda path: np.save(path, np.array([[{}]] * 5, object)), "Python objects are refused"),
    "a pickle": ("a.npy", lambda path: path.write_bytes(pickle.dumps(REAL)), "Python objects are refused"),
    "words": ("a.npy", lambda path: np.save(path, np.array([["a"]] * 5)), "holds <U1 and no numbers"),
    "complex": ("a.npy", lambda path: np.save(path, REAL + 1j), "complex128 and no numbers"),
    "one axis": ("a.npy", lambda path: np.save(path, REAL[:, 0]), r"has the shape \(30,\); a row is a datapoint"),
    "four axes": ("a.npy", lambda path: np.save(path, REAL[:, :, None, None]), "has the shape"),
    "empty array": ("a.npy", lambda path: np.save(path, REAL[:0]), "has the shape"),
    "infinite": ("a.npy", lambda path: np.save(path, REAL * 1e300), "is -?inf"),
    "large whole numbers": ("a.npy", lambda path: np.save(path, COUNTS + 2**25), "whole numbers above 16777216"),
    "few rows": ("a.npy", lambda path: np.save(path, REAL[:3]), "3 rows leave 1 to test on"),
    "cut short": ("a.npy", text(b"\x93NUMPY\x01\x00"), "cannot be read"),
    "no archive": ("a.npz", text("x"), "cannot be read"),
    "an npy named npz": (
        "a.npz",
        npy_named_otherwise,
        "not an archive",
    ),
    "empty": ("a.csv", text(""), "cannot be read: No columns"),
    "ragged": ("a.csv", text("1,2\n3,4\n5,6,7\n"), "line 3"),
    "a word": ("a.csv", text("a,b\n1,2\n3,four\n5,6\n"), "row 1, column b: 'four' is no number"),
    "not UTF-8": ("a.csv", text(b"1,2\n\xff\xfe,3\n"), "utf-8"),
    "not gzip": ("a.csv.gz", text("1,2\n"), "cannot be read: Not a gzipped file"),
    "gzip cut": ("a.csv.gz", text(gzip.compress(b"1,2\n" * 9999)[:60]), "cannot be read"),
    "no parquet": ("a.parquet", text("x" * 100), "cannot be read|needs"),
    "no idx": ("a.idx", text(b"\0\0\x08\x01" + b"\0" * 20), "magic number"),
    "idx cut": ("a.idx", text(struct.pack(">4I", 0x803, 5, 2, 2) + b"\0" * 19), "announces"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_one_line_that_names_the_file(
    tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name, write, words = BAD[case]
    write(tmp_path / name)
    with pytest.raises(DataError, match=words) as caught:
        load(own(tmp_path / name))
    assert str(caught.value).startswith(name) and "\n" not in str(caught.value)


GAPS = "a model of rows with gaps says missing = True"
UNFIT: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "unused": (
        "a.npz",
        bad_npz(x=REAL, y=REAL),
        "the array 'y' of 'a.npz' would not be used by model 'linear_gaussian'",
    ),
    "nan": ("a.npy", lambda path: np.save(path, NAN), f"a.npy x: row 3, column 2 is nan.*{GAPS}"),
    "ragged, short": ("a.csv", text("1,2\n3,4\n5\n" + "6,7\n" * 9), "x: row 2, column 1 is nan"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_what_its_model_does_not_take_is_refused(tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, write, words = UNFIT[case]
    write(tmp_path / name)
    flags = ["--data", str(tmp_path / name), "--n-latent", "1", "--minibatch", "5", "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as caught:
        cli.main(lambda: marginal_likelihood.main(flags))
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert caught.value.code == 3 and re.search(words, line), line


HELD = {"x": REAL[:, :1], "y": REAL, "c": COUNTS[:, 0]}
APART: dict[str, tuple[dict[str, Any], str]] = {
    "fewer rows": ({**HELD, "c": COUNTS[:9, 0]}, "c has 9 rows, and x has 30"),
    "no test": ({**HELD, "x_test": REAL[:5, :1]}, "holds no array [cy]_test; give each array one to test on"),
    "no x_test": ({**HELD, "y_test": REAL[:5]}, "holds no array x_test"),
    "other columns": (
        {"x": REAL, "x_test": REAL, "y": REAL, "y_test": REAL[:, :2]},
        r"a row of y has the shape \(4,\), of y_test \(2,\)",
    ),
    "no name of a site": ({"x": REAL, "my y": REAL}, "the array 'my y' is named as no site of a model can be"),
    "words": ({"x": REAL, "y": np.array(["a"] * 30)}, "y holds <U1 and no numbers"),
}


@pytest.mark.parametrize("case", APART)
def test_arrays_stand_beside_each_other_row_by_row(tmp_path: Path, case: str) -> None:
    arrays, words = APART[case]
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=words) as caught:
        load(own(tmp_path / "a.npz"))
    assert str(caught.value).startswith("a.npz") and "\n" not in str(caught.value)


def test_several_arrays_are_one_row(tmp_path: Path) -> None:
    """x first, then the others by name, whatever their order in the file; the split is that of x alone."""
    np.savez(tmp_path / "a.npz", y=HELD["y"], c=HELD["c"], x=HELD["x"])
    np.savez(tmp_path / "x.npz", x=HELD["x"])
    name: Any = own(tmp_path / "a.npz")
    data, alone = load(name), load(own(tmp_path / "x.npz"))
    assert data.columns == (("x", 1), ("c", 1), ("y", 4)) and not alone.columns
    np.testing.assert_array_equal(data.train[:, :1], alone.train)
    order = [int(np.flatnonzero(np.isclose(REAL[:, 0], row[0]))[0]) for row in data.train]
    np.testing.assert_array_equal(data.train[:, 2:], REAL[order].astype(np.float32))
    np.testing.assert_array_equal(data.train[:, 1], COUNTS[order, 0])
    assert "beside c of 1, beside y of 4" in name.read.told


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("mine.xlsx", FlagError, r"does not end in \.npz, \.npy, \.csv"),
        ("missing.npy", DataError, "there is no such file"),
        ("a b.npy", FlagError, "rename it"),
        ("<b>.npy", FlagError, "rename it"),
    ],
)
def test_a_name_that_is_not_taken(tmp_path: Path, name: str, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        find(str(tmp_path / name))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "mine.npy")
    with pytest.raises(DataError, match="not a file"):
        load(own(tmp_path / "mine.npy"))


def test_names_of_sets_stay_names(tmp_path: Path) -> None:
    assert all(find(name) is name for name in DATA)
    with pytest.raises(FlagError, match="unknown data 'mnits'; did you mean mnist"):
        Experiment(data=find("mnits"))


def test_a_set_is_another_where_anything_of_it_is(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for folder in (tmp_path, tmp_path / "b"):
        np.save(folder / "mine.npy", REAL)
    one = own(tmp_path / "mine.npy")
    assert pickle.loads(pickle.dumps(one)) == one == own(tmp_path / "mine.npy")
    assert one != own(tmp_path / "b" / "mine.npy") and one != one.taken(0.3, 1.0) and one != one.taken(0.2, 2.0)


def test_what_a_model_cannot_score_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "mine.npy", COUNTS)
    counts = own(tmp_path / "mine.npy")
    with pytest.raises(UnfitError, match=r"cannot score the count values of 'mine\.npy'; choose vae_poisson"):
        Experiment(data=counts, model="vae_bernoulli")
    assert Experiment(data=counts).model == "vae_poisson"
    assert Experiment(data=counts, model="vae_gaussian").model == "vae_gaussian"
    with pytest.raises(UnfitError, match="cannot score the unit values of 'digits'; choose vae_bernoulli"):
        Experiment(data="digits", model="vae_poisson")
    wrong: tuple[dict[str, Any], ...] = ({"scale": 2.0}, {"test_share": 0.5})
    for told in wrong:
        with pytest.raises(FlagError, match="is for data of your own, not digits; drop --"):
            Experiment(**told)


TINY = ["--samples", "600", "--minibatch", "10", "--n-hidden", "5", "--n-latent", "2", "--eval-points", "5"]
TINY += ["--step-size", "0.05", "--elbo-draws", "3", "--fit-steps", "5"]


def test_counts_from_a_file_run_on_every_backend_and_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "genes.npz", x=COUNTS)
    arguments = ["--data", str(tmp_path / "genes.npz"), "--backend", *BACKENDS, "--engine", *ENGINES, *TINY]
    assert marginal_likelihood.main([*arguments, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert "genes.npz: 24 training points, vae_poisson" in printed.out and "z ignored" in printed.out
    assert "genes.npz: 30 rows of 4 whole numbers, 0 to" in printed.err
    rows = pd.read_csv(tmp_path / "out" / "rows.csv")
    assert set(rows.data) == {"genes.npz"} and set(rows.status) == {"ok"}
    assert str(tmp_path) not in (tmp_path / "out" / "rows.csv").read_text()
    for manifest in (tmp_path / "out" / "cells").glob("*/manifest.json"):
        assert manifest.parent.name.startswith("genes-npz-")
    assert marginal_likelihood.main([*arguments, "--out", str(tmp_path / "out")]) == 0
    assert "8 of 8 cells are finished and reused" in capsys.readouterr().err
