"""What is written goes into folders that are ours, is locked where locks are, and a failed picture costs no rows."""

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from comparisons import report
from comparisons.disk import locking, writing
from comparisons.errors import StorageError
from comparisons.reporting import folder


def refusing(number: int) -> Any:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.fault("a folder of another's files is named with --out", "one line; nothing is written")
@pytest.mark.parametrize("name", ["README.md", "table.md", "rows.csv", "own.svg", "notes.txt"])
def test_a_report_is_written_to_no_folder_of_others(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(StorageError, match="no comparison wrote"):
        report.main(["--out", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "mine"


@pytest.mark.fault("a link or a pipe has the name of an output", "it is replaced, and never opened")
@pytest.mark.parametrize("kind", ["link", "pipe", "dangling"])
def test_what_has_the_name_is_replaced(tmp_path: Path, kind: str) -> None:
    other, path = tmp_path / "other", tmp_path / "out" / "table.md"
    writing.prepare(path.parent)
    other.write_text("mine")
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(other if kind == "link" else tmp_path / "none")
    writing.write(path, "ours")
    assert path.read_text() == "ours" and not path.is_symlink() and other.read_text() == "mine"


@pytest.mark.fault("a folder of results is a link to elsewhere", "one line; nothing is written or removed there")
@pytest.mark.parametrize("act", ["write", "remove", "lock"])
def test_no_link_below_what_is_ours_is_followed(tmp_path: Path, act: str) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    writing.prepare(out)
    other.mkdir()
    (other / "a.svg").write_text("mine")
    (out / "figures").symlink_to(other)
    (out / "cells" / "c").symlink_to(other)
    path = out / "figures" / "a.svg"
    acts: dict[str, Callable[[], Any]] = {
        "write": lambda: writing.write(path, "ours"),
        "remove": lambda: writing.remove(path),
        "lock": lambda: locking.locked(out, "c").__enter__(),
    }
    with pytest.raises(StorageError):
        acts[act]()
    assert [path.name for path in other.iterdir()] == ["a.svg"] and (other / "a.svg").read_text() == "mine"


@pytest.mark.fault("the file system has no locks", "one line; nothing waits")
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO])
def test_a_lock_that_there_is_not_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(fcntl, "flock", refusing(number))
    with pytest.raises(StorageError, match="without locks"), locking.locked(tmp_path, "c"):
        pass
    assert not locking.busy(tmp_path, "c")


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EACCES])
def test_a_lock_that_is_held_is_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(fcntl, "flock", refusing(number))
    with locking.locked(tmp_path, "c", wait=False) as held:
        assert not held and locking.busy(tmp_path, "c")


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EBADF])
def test_a_folder_that_cannot_be_synced_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "fsync", refusing(number))
    writing.write(tmp_path / "rows.csv", "x")
    assert (tmp_path / "rows.csv").read_text() == "x"


@pytest.mark.fault("a table or a figure fails", "one line; the rows and the other files are there")
@pytest.mark.parametrize("error", [RuntimeError("usetex"), ValueError("nothing to draw"), StorageError("disk full")])
def test_a_picture_that_fails_takes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def fail() -> str:
        raise error

    folder.begin(tmp_path, {})
    assert folder.show(tmp_path, {"figure.svg": fail, "table.md": lambda: "the table"}) == 0
    out, err = capsys.readouterr()
    assert "the table" in out and (tmp_path / "table.md").is_file()
    assert err.count("\n") == 1 and "figure.svg was not written" in err and str(error) in err
