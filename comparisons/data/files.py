"""Files of data sets: looked for in --data-dir, else in $AEVB_DATA, else in the user's cache.

A missing file is downloaded there; no file is used whose SHA-256 is not the one that its set declares, packed or
unpacked. What is hashed is what is parsed: a file is read once, into memory, where it is a regular file of a size that
it can have.
"""

import errno
import gzip
import hashlib
import io
import os
import tempfile
import threading
import time
import zlib
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from comparisons.disk import reading
from comparisons.errors import DamagedError, DataError

TIMEOUT = 30.0  # seconds a mirror may stay silent before the next one is tried
DEADLINE = 600.0  # seconds a mirror may take for a file
CHUNK = 2**16  # bytes that are downloaded at a time
downloading = ContextVar("downloading", default=True)  # whether a missing file may be fetched, and its folder made


class File(NamedTuple):
    """A file of a data set: `path` within the folder of data, its SHA-256, and where to have it, tried in order."""

    path: str
    sha256: str
    mirrors: tuple[str, ...]
    size: int = 2**26  # bytes that it unpacks to
    unpacked: str = ""  # the SHA-256 of those; "" where it is not packed
    also: tuple[str, ...] = ()  # where others keep it: folders within that of data

    @property
    def places(self) -> list[str]:
        """Where it may lie, packed or unpacked, in order."""
        bare = self.path.removesuffix(".gz")
        folders = (str(Path(bare).parent), *self.also)
        names = [Path(self.path).name, *(Path(bare).name + end for end in ("", ".gz") if bare + end != self.path)]
        return [f"{folder}/{name}" for folder in folders for name in names]

    def is_in(self, content: bytes | bytearray) -> bool:
        """Say whether a file's content is this file's, as it is downloaded or packed in another way."""
        if hashlib.sha256(content).hexdigest() == self.sha256:
            return True
        try:
            return hashlib.sha256(unpack(content, self.size)).hexdigest() == (self.unpacked or self.sha256)
        except ValueError:
            return False


def whole(path: str | Path, limit: int) -> bytes:
    """Return the content of a regular file of at most `limit` bytes: pipes, devices and terabytes of holes have no end.

    Raises FileNotFoundError, and DataError for another file or size, or one that cannot be read.
    """
    try:
        return reading.content(Path(path), limit)
    except DamagedError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise error.__cause__ from None
        raise DataError(f"{path}: cannot be read ({error.why}); put the file itself there") from error


def unpack(content: bytes | bytearray, limit: int) -> bytes | bytearray:
    """Return what a gzip file holds, or what is not one as it is; no more than a little above `limit` bytes.

    Raises ValueError for what is damaged.
    """
    if content[:2] != b"\x1f\x8b":
        return content
    unpacked = bytearray()
    try:
        with gzip.open(io.BytesIO(content)) as file:
            while (chunk := file.read(2**20)) and len(unpacked) <= limit:
                unpacked += chunk
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(str(error)) from error
    return unpacked


def data_folder(data_dir: str | Path | None = None) -> Path:
    """Return the folder of the data files: `data_dir`, else $AEVB_DATA, else the user's cache."""
    from pooch import os_cache  # not at the top: importing pooch takes as long as importing NumPy

    return Path(_given(data_dir) or os_cache("aevb-comparison")).expanduser()


def fetch(file: File, data_dir: str | Path | None = None) -> Path:
    """Return the path of a file in `data_folder(data_dir)`, after downloading it if it is missing.

    A damaged file is replaced in the cache, but left as it is in a folder that the user named. Raises DataError where
    no file with the right SHA-256 is to be had.
    """
    return read(file, data_dir)[0]


def read(file: File, data_dir: str | Path | None = None) -> tuple[Path, bytes]:
    """Return the path of a file as `fetch` does, and the very bytes that were looked at. Raises DataError."""
    folder, found = data_folder(data_dir), ""
    path = folder / file.path
    for place in file.places:
        try:
            content = whole(folder / place, file.size + file.size // 1000 + 2**10)  # gzip may add a little
        except FileNotFoundError:
            continue
        if file.is_in(content):
            return folder / place, content
        if not found:
            path, found = folder / place, hashlib.sha256(content).hexdigest()
    if found and _given(data_dir):
        raise DataError(
            f"{path}: SHA-256 is {found}, expected {file.sha256}; it is left as it is: move it away to download it anew"
        )
    state = f"damaged (SHA-256 {found})" if found else "missing"
    if not downloading.get():
        raise DataError(f"{path.name} is {state.partition(' ')[0]}; a run downloads it")
    path = folder / file.path
    remedy = f"put {path.name} there, or set --data-dir or AEVB_DATA to a folder with {file.path}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise DataError(f"{path} is {state} and its folder cannot be written ({error.strerror}); {remedy}") from error

    failures = []
    for mirror in file.mirrors:
        try:
            _download(mirror + path.name, file, path)
            return path, whole(path, file.size)
        except (OSError, ValueError) as error:  # requests' errors are OSErrors; a ValueError is pooch's wrong hash
            reason = "wrong SHA-256" if type(error) is ValueError else getattr(error, "strerror", None)
            failures.append(f"{urlsplit(mirror).netloc}: {reason or type(error).__name__}")
    raise DataError(f"{path} is {state} and could not be downloaded ({', '.join(failures)}); {remedy}")


def _download(url: str, file: File, path: Path) -> None:
    """Download a file beside where it belongs, and move it there. Raises OSError, or ValueError for another content."""
    import pooch

    downloader = pooch.HTTPDownloader(timeout=TIMEOUT, chunk_size=CHUNK, progressbar=_Bounds(file.size))
    failures: list[BaseException] = []

    def retrieve(folder: str) -> None:
        try:
            pooch.retrieve(url, f"sha256:{file.sha256}", path.name, folder, downloader=downloader)
        except BaseException as error:
            failures.append(error)

    with tempfile.TemporaryDirectory(dir=path.parent, ignore_cleanup_errors=True) as folder:
        # A thread of its own: of a mirror that drips, even a single chunk may take days.
        thread = threading.Thread(target=retrieve, args=(folder,), daemon=True)
        thread.start()
        thread.join(DEADLINE)
        if thread.is_alive():
            raise TimeoutError(errno.ETIMEDOUT, f"it takes longer than {DEADLINE:g} seconds")
        if failures:
            raise failures.pop()  # and is held by nothing, with the socket that it holds
        Path(folder, path.name).replace(path)


class _Bounds:
    """What pooch takes for a progress bar: it ends a download that is larger than its file, or slower than DEADLINE."""

    def __init__(self, size: int) -> None:
        self.left, self.end, self.total = size + CHUNK, time.monotonic() + DEADLINE, 0

    def update(self, count: int) -> None:
        """Note that so many bytes have come. Raises OSError."""
        self.left -= count
        if self.left < 0 or time.monotonic() > self.end:
            raise OSError(errno.EFBIG, "it is larger or slower than the file can be")

    def reset(self) -> None:
        """Begin again, as pooch does at the end."""
        self.left = self.total

    def close(self) -> None:
        """Nothing is to be closed."""


def _given(data_dir: str | Path | None) -> str | Path | None:
    """Return the folder that the user named, if any: what lies there is theirs and never overwritten."""
    return data_dir or os.environ.get("AEVB_DATA")
