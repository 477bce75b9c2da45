"""Files written whole or not at all, and only into folders that are ours.

A folder is ours that a command made, or found empty: it has a marker in it. Below such a folder no link is followed,
and no name that somebody else could have put there before us is opened.
"""

import errno
import json
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from comparisons.errors import StorageError

MARKER = ".comparisons"
MARK = "The files here were written by python -m comparisons, which may write them anew.\n"
PAGE = {"index.html", "README.md", "verdicts.csv", "figures"}  # what a report writes beside the folders it is of
WRITTEN = {"cells", "rows.csv", "steps.csv", "table.md", "table.csv", "manifest.json"}  # by comparisons, and pictures
# What a file system answers that has no such thing to do, and that keeps its files as well as it can without.
UNSUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.ENOSYS}
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def prepare(out: Path) -> None:
    """Claim a comparison's folder and try to write in it, before anything is computed. Raises StorageError."""
    claim(out, WRITTEN)
    try:
        with opened(out / "cells"), tempfile.TemporaryFile(dir=out / "cells"):
            pass
    except OSError as error:
        raise StorageError(f"cannot write to {out} ({error.strerror}); choose another folder with --out") from error


def claim(out: Path, written: set[str] | None = None) -> None:
    """Make a folder and mark it as ours, or an empty one, before anything is computed.

    Raises StorageError for one that holds files which no comparison wrote; with `written`, only those that have such
    a name or are pictures, and beside the others the folder stays without a mark.
    """
    try:
        for folder in [folder for folder in (*reversed(out.parents), out) if not folder.exists()]:
            folder.mkdir(exist_ok=True)
            _mark(folder)
        if _marked(out):
            return
        foreign = [] if written and _results(out) else _foreign(out)
        if not foreign:
            _mark(out)
        for name in foreign:
            if written is None or name in written or name.endswith((".svg", ".png")):
                raise StorageError(
                    f"{out} holds {name!r}, which no comparison wrote, and files there could be overwritten; choose a "
                    f"new or an empty folder with --out, or allow this one: touch {out / MARKER}"
                )
    except OSError as error:
        raise StorageError(f"cannot write to {out} ({error.strerror}); choose another folder with --out") from error


def write(path: Path, content: str | bytes, lasting: bool = True) -> None:
    """Write a file atomically: temporary file, fsync, rename. Raises StorageError; the old file then still stands.

    One that need not be `lasting` is not waited for: a power cut may take it.

    What has the file's name, be it a link or a pipe, is replaced and never opened.
    """
    data = content if isinstance(content, bytes) else content.encode(errors="backslashreplace")
    try:
        with opened(path.parent) as folder:
            temporary = f".{secrets.token_hex(8)}.tmp"
            file = os.open(temporary, NEW, 0o666, dir_fd=folder)
            try:
                with open(file, "wb") as stream:
                    stream.write(data)
                    stream.flush()
                    if lasting:
                        _keep(file)
                os.replace(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary, dir_fd=folder)
                raise
            if lasting:
                _keep(folder)  # so that the rename itself lasts through a power cut
    except OSError as error:
        raise StorageError(f"cannot write {path} ({error.strerror}); what was there before is unchanged") from error


def remove(path: Path) -> None:
    """Remove a file, where it is there, and what it links to never. Raises StorageError."""
    try:
        with opened(path.parent) as folder, suppress(FileNotFoundError):
            os.unlink(path.name, dir_fd=folder)
    except OSError as error:
        raise StorageError(f"cannot remove {path} ({error.strerror})") from error


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a dict as JSON, atomically. Raises StorageError."""
    write(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write dicts as CSV, a column for each key that any of them has, atomically. Raises StorageError."""
    import pandas as pd

    write(path, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))


@contextmanager
def opened(folder: Path, make: bool = True) -> Iterator[int]:
    """Yield the handle of a folder, made where there is none. Raises OSError where a link lies below what is ours.

    The folder that is ours may itself be reached by a link, to a larger disk.
    """
    ours = next((one for one in (folder, *folder.parents) if _marked(one)), folder)
    if make:
        ours.mkdir(parents=True, exist_ok=True)
    handle = os.open(ours, FOLDER)
    try:
        for name in folder.relative_to(ours).parts:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(name, dir_fd=handle)
            try:
                below = os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=handle)
            except NotADirectoryError as error:  # as the system calls a link, too
                raise OSError(error.errno, f"{name} is no folder, or a link, which is not followed") from error
            os.close(handle)
            handle = below
        yield handle
    finally:
        os.close(handle)


def _keep(handle: int) -> None:
    """Have a file or folder written down, on file systems that know how."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


def _mark(folder: Path) -> None:
    with suppress(FileExistsError), open(os.open(folder / MARKER, NEW, 0o666), "w") as file:  # of another process
        file.write(MARK)


def _marked(folder: Path) -> bool:
    try:
        return stat.S_ISREG(os.lstat(folder / MARKER).st_mode)
    except OSError:
        return False


def _foreign(out: Path) -> list[str]:
    """Return the names in a folder of results that no comparison wrote.

    Versions before the marker left folders without it: those of a comparison are known by their cells and manifests,
    that of a report by having nothing in it but these, and a page.
    """
    names = sorted(os.listdir(out))
    page = PAGE if {"index.html", "verdicts.csv"} <= {*names} else set()
    return [name for name in names if name not in page and not _result(out / name)]


def _result(path: Path) -> bool:
    known = path.is_dir() and not path.is_symlink()
    return known and (_marked(path) or (path / "rows.csv").is_file() or _results(path))


def _results(out: Path) -> bool:
    """Say whether a folder holds the cells or manifests of a comparison, or the beginning of them."""
    if os.listdir(out) == ["cells"] and not any((out / "cells").iterdir()):
        return True
    told = (path for pattern in ("*.json", "parts/*.json") for path in out.glob(pattern))
    return any(out.glob("cells/*/manifest.json")) or any(
        path.is_file() and b"python -m comparisons" in path.read_bytes() for path in told
    )
