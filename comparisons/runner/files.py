"""Write a file whole or not at all."""

import os
import threading
from pathlib import Path

from comparisons.errors import StorageError


def write(path: Path, content: str | bytes) -> None:
    """Write a file atomically: temporary file, fsync, rename. Raises StorageError; the old file then still stands."""
    # Processes and threads that write the same file do not share its temporary one.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_native_id()}.tmp")
    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"cannot write {path} ({error.strerror}); what was there before is unchanged") from error


def _sync_folder(folder: Path) -> None:
    """Make the rename itself last through a power cut."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
