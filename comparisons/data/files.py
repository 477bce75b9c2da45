"""Files of data sets: looked for in --data-dir, else in $AEVB_DATA, else in the user's cache.

A missing file is downloaded there; no file is used whose SHA-256 is not the one that its set declares.
"""

import hashlib
import os
import tempfile
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from comparisons.errors import DataError

TIMEOUT = 30.0  # seconds a mirror may stay silent before the next one is tried
downloading = ContextVar("downloading", default=True)  # whether a missing file may be fetched, and its folder made


class File(NamedTuple):
    """A file of a data set: `path` within the folder of data, its SHA-256, and where to have it, tried in order."""

    path: str
    sha256: str
    mirrors: tuple[str, ...]


def data_folder(data_dir: str | Path | None = None) -> Path:
    """Return the folder of the data files: `data_dir`, else $AEVB_DATA, else the user's cache."""
    from pooch import os_cache  # not at the top: importing pooch takes as long as importing NumPy

    return Path(_given(data_dir) or os_cache("aevb-comparison")).expanduser()


def fetch(file: File, data_dir: str | Path | None = None) -> Path:
    """Return the path of a file in `data_folder(data_dir)`, after downloading it if it is missing.

    A damaged file is replaced in the cache, but left as it is in a folder that the user named. Raises DataError where
    no file with the right SHA-256 is to be had.
    """
    import pooch

    path, expected = data_folder(data_dir) / file.path, file.sha256
    found = _sha256(path)
    if found == expected:
        return path
    if found and _given(data_dir):
        raise DataError(
            f"{path}: SHA-256 is {found}, expected {expected}; it is left as it is: move it away to download it anew"
        )
    state = f"damaged (SHA-256 {found})" if found else "missing"
    if not downloading.get():
        raise DataError(f"{path.name} is {state.partition(' ')[0]}; a run downloads it")
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
            downloader = pooch.HTTPDownloader(timeout=TIMEOUT, chunk_size=2**16)
            # pooch downloads to a temporary file beside `path` and renames it once its hash is right
            pooch.retrieve(mirror + path.name, f"sha256:{expected}", path.name, path.parent, downloader=downloader)
            return path
        except (OSError, ValueError) as error:  # requests' errors are OSErrors; a ValueError is pooch's wrong hash
            reason = "wrong SHA-256" if type(error) is ValueError else getattr(error, "strerror", None)
            failures.append(f"{urlsplit(mirror).netloc}: {reason or type(error).__name__}")
    raise DataError(f"{path} is {state} and could not be downloaded ({', '.join(failures)}); {remedy}")


def _given(data_dir: str | Path | None) -> str | Path | None:
    """Return the folder that the user named, if any: what lies there is theirs and never overwritten."""
    return data_dir or os.environ.get("AEVB_DATA")


def _sha256(path: Path) -> str:
    """Return the file's SHA-256 in hex, "" if there is no file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
