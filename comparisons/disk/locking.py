"""A cell's folder held against other processes."""

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from comparisons.disk import writing
from comparisons.errors import StorageError

HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}  # what the system answers of a lock that somebody else has
# Nobody writes to it, but NFS locks only what is open for writing. A pipe of this name would be waited for.
OPENED = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextmanager
def locked(out: Path, cell: str, wait: bool = True) -> Iterator[bool]:
    """Hold a cell's folder against other processes, which wait; the system lets go of it when this one dies.

    Yields whether it is held: without `wait`, a folder that somebody else holds is left alone. Raises StorageError,
    also where the file system has no locks.
    """
    path = out / "cells" / cell / "lock"
    try:
        with writing.opened(path.parent) as folder:
            file = _opened(folder, OPENED | os.O_CREAT)
    except OSError as error:
        raise StorageError(f"cannot write {path} ({error.strerror}); choose another folder with --out") from error
    try:
        held = _lock(file, path) or (wait and _wait(file, path))
        if held:
            for left in path.parent.glob(".*.tmp"):  # of a process that was killed in the middle of a write
                writing.remove(left)
        yield held
    finally:
        os.close(file)


@contextmanager
def folder(path: Path) -> Iterator[None]:
    """Hold a folder against other processes, which wait; where the file system locks no folders, as NFS, do not."""
    file = os.open(path, writing.FOLDER)
    try:
        with suppress(StorageError):
            _wait(file, path)
        yield
    finally:
        os.close(file)


def busy(out: Path, cell: str) -> bool:
    """Say whether some process on this machine is at work on a cell; where nothing can be locked, none is."""
    path = out / "cells" / cell / "lock"
    try:
        with writing.opened(path.parent, make=False) as folder:
            try:
                file = _opened(folder, OPENED)
            except OSError:  # of somebody else, or on a disk that is only read
                file = _opened(folder, OPENED & ~os.O_RDWR)
        try:
            return not _lock(file, path)
        finally:
            os.close(file)
    except (OSError, StorageError):
        return False


def _opened(folder: int, flags: int) -> int:
    """Open the file `lock` in a folder. Raises OSError where it is a link or a pipe."""
    file = os.open("lock", flags, 0o666, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "it is not a regular file")
    return file


def _wait(file: int, path: Path) -> bool:
    """Take a lock as soon as nobody else has it. Raises StorageError."""
    while not _lock(file, path):
        time.sleep(0.2)
    return True


def _lock(file: int, path: Path) -> bool:
    """Take a lock, or say that somebody else has it. Raises StorageError where the file system has none."""
    import fcntl  # not on every platform: `cli.main` refuses those in a line

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in HELD:
            return False
        raise StorageError(
            f"cannot lock {path} ({error.strerror}): without locks two commands could write one cell; choose a folder "
            "on a local disk with --out, or mount this file system with locks"
        ) from error
    return True
