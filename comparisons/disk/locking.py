"""A cell's folder held against other processes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from comparisons.errors import StorageError


@contextmanager
def locked(out: Path, cell: str, wait: bool = True) -> Iterator[bool]:
    """Hold a cell's folder against other processes, which wait; the system lets go of it when this one dies.

    Yields whether it is held: without `wait`, a folder that somebody else holds is left alone. Raises StorageError.
    """
    path = out / "cells" / cell / "lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise StorageError(f"cannot write {path} ({error.strerror}); choose another folder with --out") from error
    with file:
        held = _lock(file)
        while wait and not held:
            time.sleep(0.2)
            held = _lock(file)
        if held:
            for left in path.parent.glob(".*.tmp"):  # of a process that was killed in the middle of a write
                left.unlink(missing_ok=True)
        yield held


def busy(out: Path, cell: str) -> bool:
    """Say whether some process on this machine is at work on a cell."""
    try:
        with (out / "cells" / cell / "lock").open("r") as file:
            return not _lock(file)
    except OSError:
        return False


def _lock(file: Any) -> bool:
    import fcntl  # not on every platform: `cli.main` refuses those in a line

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
