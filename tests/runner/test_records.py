"""Files that another hand touched: read without trust, said in a line, and the other cells live."""

import csv
import json
import os
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comparisons import status
from comparisons.disk import reading
from comparisons.errors import DamagedError, StorageError, printable
from comparisons.runner import baselines, checkpoint, manifests, store
from comparisons.runner.rows import COLUMNS, EMPTY, WORDS

REPORTS = Path(__file__).parents[2] / "reports"
GRID = REPORTS / "full_vb"
DEEP = b'{"a":' * 100_000
# What another hand may leave in a record, and a word of why it is none.
RECORDS: dict[str, bytes] = {
    "cut off": b'{"status": "done", "sett',
    "empty": b"",
    "a list": b'["done"]',
    "a text": b'"done"',
    "a number": b"3",
    "deep nesting": DEEP,
    "a deep list": b"[" * 100_000,
    "no utf-8": b'{"status": "\xff\xfe"}',
    "NaN": b'{"numbers_version": NaN}',
    "1e999": b'{"numbers_version": 1e999}',
    "text for a number": b'{"settings": {"samples": "many"}}',
    "a list of settings": b'{"settings": [1, 2]}',
    "a number for files": b'{"files": 3, "status": "done"}',
    "numbers for sums": b'{"files": {"rows.csv": 1}, "status": "done"}',
    "escapes": b'{"status": "done", "files": "\\u001b[2J\\u001b[31m"}',
    "raw escapes": b"\x1b[2J\x1b[31m",
}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    copytree(GRID, tmp_path / "full_vb")
    return tmp_path / "full_vb"


def first(out: Path) -> Path:
    return min((out / "cells").iterdir())


def plain(text: str) -> bool:
    return all(one.isprintable() or one == "\n" for one in text)


@pytest.mark.fault("a manifest of another hand", "the cell is damaged, and why is said; the others live")
@pytest.mark.parametrize("content", RECORDS.values(), ids=RECORDS)
def test_a_manifest_of_another_hand_is_a_damaged_cell(
    content: bytes, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (first(out) / "manifest.json").write_bytes(content)
    rows = store.collect(out)
    said = capsys.readouterr().err
    assert rows.cell.nunique() == 5 and first(out).name not in set(rows.cell)
    assert said.count("\n") == 1 and "is damaged" in said and plain(said)
    assert status.main([str(out)]) == 1
    told = capsys.readouterr().out
    assert "5 done" in told and "1 damaged" in told and plain(told)
    assert not store.finished(out, first(out).name)


@pytest.mark.fault("a manifest of another hand", "the cell is damaged, and why is said; the others live")
@pytest.mark.parametrize(
    "told",
    [
        {"status": "failed", "reason": "\x1b[2J" * 10**5},
        {"settings": {"backend": "x" * 10**6}},
        {"settings": {"seed": 10**4200}},
        {"settings": {"evidence": ["a" * 10**5]}},
    ],
)
def test_texts_and_numbers_without_end_are_cut(
    told: dict[str, Any], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = json.loads((first(out) / "manifest.json").read_text())
    settings = {**held["settings"], **told.get("settings", {})}
    (first(out) / "manifest.json").write_text(json.dumps({**held, **told, "settings": settings}))
    status.main([str(out)])
    shown = capsys.readouterr().out
    assert len(shown) < 5000 and plain(shown)


@pytest.mark.fault("a manifest of 100 MB, or a pipe", "refused by its size or kind, unread; the others live")
@pytest.mark.parametrize("name", ["manifest.json", "rows.csv"])
@pytest.mark.parametrize("kind", ["large", "pipe", "folder", "gone"])
def test_what_is_no_file_of_its_size_is_not_read(
    kind: str, name: str, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = first(out) / name
    path.unlink()
    if kind == "large":
        with path.open("wb") as file:
            file.truncate(300 * 2**20)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    assert store.collect(out).cell.nunique() == 5
    assert capsys.readouterr().err.count("\n") == (0 if (kind, name) == ("gone", "rows.csv") else 1)
    assert status.main([str(out)]) == 1 and "1 damaged" in capsys.readouterr().out


@pytest.mark.fault("a manifest of another hand", "the cell is damaged, and why is said; the others live")
@pytest.mark.parametrize("content", RECORDS.values(), ids=RECORDS)
def test_a_progress_of_another_hand_says_nothing(content: bytes, out: Path) -> None:
    manifest = store.read_manifest(out, first(out).name)
    (first(out) / "manifest.json").write_text(json.dumps({**manifest, "status": "running"}))
    (first(out) / "progress.json").write_bytes(content.replace(b"samples", b"n_seen"))
    assert status.main([str(out)]) == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.fault("a manifest of another hand", "the cell is damaged, and why is said; the others live")
@settings(derandomize=True, max_examples=30, deadline=None)
@given(name=st.sampled_from([*manifests.Manifest.__annotations__]), value=JSON)
def test_any_value_in_a_manifest_is_of_its_type_or_damage(
    name: str, value: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cell = tmp_path_factory.mktemp("any") / "cells" / "cell"
    cell.mkdir(parents=True)
    manifest = json.loads((first(GRID) / "manifest.json").read_text())
    (cell / "manifest.json").write_text(json.dumps({**manifest, name: value}))
    (cell / "rows.csv").write_bytes((first(GRID) / "rows.csv").read_bytes())
    assert store.damage(cell.parents[1], "cell")  # of another name, at the least
    assert not store.finished(cell.parents[1], "cell")


# Rows

HEAD, *LINES = (first(GRID) / "rows.csv").read_text().splitlines()
AT = {name: i for i, name in enumerate(HEAD.split(","))}


def edited(name: str, value: str) -> str:
    fields = next(csv.reader(LINES[:1]))
    fields[AT[name]] = value
    return "\n".join([HEAD, ",".join(fields), *LINES[1:]]) + "\n"


@pytest.mark.fault("rows of another hand", "damage, and why is said")
@pytest.mark.parametrize("value", ["1e999", "-inf", "NaN", "text", "0x10", "\x1b[2J", "1 2", "[1]"])
@pytest.mark.parametrize("name", ["value", "n_seen", "stderr", "seed"])
def test_a_column_of_numbers_holds_finite_numbers(name: str, value: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(edited(name, value))
    with pytest.raises(DamagedError, match=name) as caught:
        store.read_rows(tmp_path / "rows.csv")
    assert plain(str(caught.value)) and "\n" not in str(caught.value)


@pytest.mark.fault("rows of another hand", "damage, and why is said")
@pytest.mark.parametrize(
    "text",
    [
        *("", "a,b\n1,2\n", HEAD + "\n" + LINES[0] + ",1\n", HEAD + "\n" + LINES[0].rpartition(",")[0] + "\n"),
        *(HEAD + "\n" + "".join(f"{line},1\n" for line in LINES), HEAD + '\n"' + LINES[0] + "\n", "\0" * 50),
        *(HEAD + "\n" + LINES[0] + "x" * 200_000 + "\n", HEAD + "\n" + LINES[0][:40]),
    ],
)
def test_rows_of_other_widths_are_damage(text: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(DamagedError):
        store.read_rows(tmp_path / "rows.csv")


@pytest.mark.fault("rows of another hand", "damage, and why is said")
@settings(derandomize=True, max_examples=40, deadline=None)
@given(name=st.sampled_from(COLUMNS), value=st.text(st.characters(codec="utf-8"), max_size=12))
def test_any_text_in_a_field_is_read_or_damage(name: str, value: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("field") / "rows.csv"
    path.write_text(edited(name, value), newline="")
    try:
        rows = store.read_rows(path)
    except DamagedError as error:
        assert plain(str(error))
    else:
        numbers = rows[[column for column in COLUMNS if column not in WORDS]].astype(float)
        assert not np.isinf(numbers.to_numpy()).any()
        assert not numbers.drop(columns=[*EMPTY]).isna().to_numpy().any()


@pytest.mark.fault("rows of another hand", "damage, and why is said")
def test_a_word_among_the_numbers_of_a_free_format_is_damage(tmp_path: Path) -> None:
    text = (REPORTS / "calibration" / "rows.csv").read_text()
    head, *lines = text.splitlines()
    at = head.split(",").index("bias")
    fields = next(csv.reader(lines[3:4]))
    fields[at] = "abc"
    lines[3] = ",".join(f'"{one}"' for one in fields)
    (tmp_path / "rows.csv").write_text("\n".join([head, *lines]) + "\n")
    with pytest.raises(DamagedError, match="bias"):
        reading.table(tmp_path / "rows.csv")


@pytest.mark.fault("rows of another hand", "damage, and why is said")
@pytest.mark.parametrize("value", ["x", "1e999", "", "nan"])
def test_a_baseline_is_a_finite_number(value: str, tmp_path: Path) -> None:
    (tmp_path / "baselines.csv").write_text(f"model,data,n_train,split,n_points,value\nm,d,1,test,2,{value}\n")
    with pytest.raises(StorageError, match=r"baselines\.csv"):
        baselines.read(tmp_path)


# Arrays


def forged(path: Path, names: list[str], told: str, kind: str = "F32") -> Path:
    """Write a file of arrays whose digest holds, whatever else is wrong with it."""
    arrays = {name: np.zeros(2, np.float32) for name in names}
    header: dict[str, Any] = {
        name: {"dtype": kind, "shape": [2], "data_offsets": [8 * i, 8 * i + 8]} for i, name in enumerate(names)
    }
    header["__metadata__"] = {"told": checkpoint._digest(arrays, told) + told}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(8 * len(names)))
    return path


@pytest.mark.fault("a forged file of arrays", "damage, and why is said")
@pytest.mark.parametrize(
    ("names", "told", "kind"),
    [
        (["a", "a/b"], "{}", "F32"),
        (["a/b", "a/b/c"], "{}", "F32"),
        (["a"], "no json", "F32"),
        (["a"], "[1]", "F32"),
        (["a"], '{"step": "x"}', "F32"),
        (["a"], '{"identity": 3}', "F32"),
        (["a"], "[" * 100_000, "F32"),
        (["a"], '{"resumed": {"a": 1}}', "F32"),
        (["/".join("a" * 100_000)], "{}", "F32"),
        (["a"], "{}", "F8_E4M3"),
        (["a"], "{}", "F4"),
        (["a"], "{}", "BF16"),
        (["a"], "{}", "WHAT"),
    ],
)
def test_a_forged_file_of_arrays_is_damage(names: list[str], told: str, kind: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        checkpoint.read(forged(tmp_path / "x.safetensors", names, told, kind))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_an_honest_file_of_arrays_is_read(tmp_path: Path) -> None:
    arrays, facts = checkpoint.read(forged(tmp_path / "x.safetensors", ["a/b"], '{"step": 3}'))
    assert facts == {"step": 3} and list(arrays["a"]) == ["b"]


@settings(derandomize=True, max_examples=50, deadline=None)
@given(text=st.text(max_size=30))
def test_what_is_printable_moves_no_cursor(text: str) -> None:
    shown = printable(text)
    assert all(one.isprintable() or one in "\n\t" for one in shown) and "\x1b" not in shown
