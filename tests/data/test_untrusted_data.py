"""Files that have no end, that are other files, or that are the right ones packed in another way."""

import gzip
import hashlib
import os
import socket
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pooch
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comparisons.data import files, find, frey, labels, load, mnist
from comparisons.data.files import File, fetch, read, unpack, whole
from comparisons.errors import DataError

FOLDER = Path(os.environ.get("AEVB_DATA") or Path(__file__).parents[3] / "shared" / "data")
SOME = b"sixteen bytes.. " * 100
FILE = File("some/data.gz", hashlib.sha256(gzip.compress(SOME, mtime=0)).hexdigest(), (), len(SOME),
            hashlib.sha256(SOME).hexdigest(), ("Some/raw",))  # fmt: skip


def fifo(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def terabyte(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


def folder(path: Path) -> None:
    path.mkdir()


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


ENDLESS: dict[str, Callable[[Path], None]] = {
    "a pipe": fifo, "a device": device, "a terabyte of holes": terabyte, "a folder": folder, "a socket": listening,
}  # fmt: skip


def refusal(function: Callable[..., Any], *args: Any) -> str:
    """The one line of a DataError, which comes at once."""
    start = time.monotonic()
    with pytest.raises(DataError) as caught:
        function(*args)
    assert "\n" not in str(caught.value) and time.monotonic() - start < 5
    return str(caught.value)


@pytest.mark.fault("a pipe, a device, a folder, a socket or a terabyte of holes for a data file", "one line, at once")
@pytest.mark.parametrize("kind", ENDLESS)
def test_what_is_no_file_of_its_size_is_refused(kind: str, tmp_path: Path) -> None:
    (tmp_path / "mnist").mkdir()
    (tmp_path / "frey").mkdir()
    for name, file in (("mnist", mnist.TRAIN), ("frey", frey.FRAMES)):
        path = tmp_path / file.path
        ENDLESS[kind](path)
        assert str(path) in refusal(load, name, tmp_path)
        assert str(path) in refusal(mnist.read_idx if name == "mnist" else frey.read_frey, path)


@pytest.mark.fault("the same for a file of one's own", "one line, at once")
@pytest.mark.parametrize("ending", [".npz", ".npy", ".csv", ".csv.gz", ".parquet", ".idx"])
@pytest.mark.parametrize("kind", ENDLESS)
def test_an_own_file_that_has_no_end_is_refused(kind: str, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{ending}"
    ENDLESS[kind](path)
    assert path.name in refusal(lambda: load(find(str(path))))


@pytest.mark.fault("an archive that unpacks to more than memory holds", "refused before it is unpacked")
def test_an_archive_that_unpacks_to_more_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comparisons.data.own._memory", lambda: 2**20)
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros((2**12, 64)))
    (tmp_path / "y.csv.gz").write_bytes(gzip.compress(b"1,2\n" * 2**19))
    for name in ("x.npz", "y.csv.gz"):
        assert "more than memory holds; save fewer, or a .npy" in refusal(
            lambda name=name: load(find(str(tmp_path / name)))
        )
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:
        assert sum(entry.compress_size for entry in archive.infolist()) < 2**14


# Packed in another way

PACKED: dict[str, Callable[[bytes], bytes]] = {
    "as it is": lambda content: gzip.compress(content, mtime=0),
    "packed harder": lambda content: gzip.compress(content, 1, mtime=1),
    "packed in two parts": lambda content: gzip.compress(content[:7]) + gzip.compress(content[7:]),
    "stored": lambda content: gzip.compress(content, 0),
    "unpacked": lambda content: content,
}
PLACES = ("some/data.gz", "some/data", "Some/raw/data", "Some/raw/data.gz")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("how", PACKED)
def test_the_same_content_is_taken_however_it_is_packed(how: str, place: str, tmp_path: Path) -> None:
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_bytes(PACKED[how](SOME))
    path, content = read(FILE, tmp_path)
    assert path == tmp_path / place == fetch(FILE, tmp_path) and unpack(content, FILE.size) == SOME


@given(at=st.integers(0, len(SOME) - 1), bit=st.integers(0, 7), how=st.sampled_from(sorted(PACKED)))
@settings(derandomize=True, max_examples=60, deadline=None)
def test_another_content_is_refused_however_it_is_packed(at: int, bit: int, how: str) -> None:
    other = bytearray(SOME)
    other[at] ^= 1 << bit
    assert not FILE.is_in(PACKED[how](bytes(other))) and FILE.is_in(PACKED[how](SOME))


@given(cut=st.integers(0, 10**6), how=st.sampled_from(sorted(PACKED)))
@settings(derandomize=True, max_examples=60, deadline=None)
def test_a_part_of_the_content_is_refused(cut: int, how: str) -> None:
    packed = PACKED[how](SOME)
    assert not FILE.is_in(packed[: cut % len(packed)])


def test_torchvisions_folder_is_taken(tmp_path: Path) -> None:
    if not (FOLDER / "mnist").is_dir():
        pytest.skip(f"no folder mnist in {FOLDER}: set AEVB_DATA")
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file in (mnist.TRAIN, mnist.TEST, mnist.TRAIN_LABELS, mnist.TEST_LABELS):
        path = FOLDER / file.path
        (raw / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    ours, theirs = load("mnist", FOLDER), load("mnist", tmp_path)
    assert (ours.train == theirs.train).all() and (ours.test == theirs.test).all()
    for one, other in zip(labels("mnist", FOLDER), labels("mnist", tmp_path), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_was_looked_at_is_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that changes after it was looked at changes nothing: it is read once."""
    path = tmp_path / "x"
    path.write_bytes(SOME)
    read_once = whole(path, len(SOME))
    path.write_bytes(b"other")
    assert read_once == SOME
    opened: list[str] = []

    def once(path: Path, limit: int) -> bytes:
        opened.append(str(path))
        return gzip.compress(SOME, mtime=0)

    monkeypatch.setattr(files, "whole", once)
    assert unpack(read(FILE, tmp_path)[1], FILE.size) == SOME and len(opened) == 1


# Downloads


@pytest.fixture
def mirror() -> Iterator[Callable[[float, int], str]]:
    """A mirror that sends so many bytes, one after so many seconds, or all at once for 0; it goes on for ever."""
    server = socket.create_server(("127.0.0.1", 0))
    over, told = threading.Event(), [0.0, 0]

    def serve() -> None:
        while not over.is_set():
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(2**16)
                try:
                    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                    while not over.wait(told[0]):
                        connection.sendall(bytes(int(told[1])))
                except OSError:
                    continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()

    def start(seconds: float, count: int) -> str:
        told[:] = [seconds, count]
        return f"http://127.0.0.1:{server.getsockname()[1]}/"

    yield start
    over.set()
    server.close()
    thread.join(5)


@pytest.mark.fault("a download that has no end, or comes byte by byte", "given up in a time that ends; no file is left")
@pytest.mark.parametrize(("seconds", "count"), [(0.0, 2**16), (0.05, 1), (0.05, 2**12), (60.0, 1)])
def test_a_download_ends(
    seconds: float, count: int, mirror: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "DEADLINE", 1.0)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path)
    monkeypatch.delenv("AEVB_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    text = refusal(fetch, FILE._replace(mirrors=(mirror(seconds, count),)))
    assert "is missing and could not be downloaded (127.0.0.1:" in text
    assert "it is larger or slower than the file can be" in text or "it takes longer than 1 seconds" in text
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
