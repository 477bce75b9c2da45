"""Files written whole or not at all."""

import json
import os
import tempfile
import threading
from pathlib import Path
from typing import Any

from comparisons.errors import StorageError


def prepare(out: Path) -> None:
    """Make the folder and try to write in it, before anything is computed. Raises StorageError."""
    try:
        (out / "cells").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out / "cells"):
            pass
    except OSError as error:
        raise StorageError(f"cannot write to {out} ({error.strerror}); choose another folder with --out") from error


def write(path: Path, content: str | bytes) -> None:
    """Write a file atomically: temporary file, fsync, rename. Raises StorageError; the old file then still stands."""
    # Processes and threads that write the same file do not share its temporary one.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_native_id()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # so that the rename itself lasts through a power cut
        finally:
            os.close(folder)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"cannot write {path} ({error.strerror}); what was there before is unchanged") from error


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a dict as JSON, atomically. Raises StorageError."""
    write(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write dicts as CSV, a column for each key that any of them has, atomically. Raises StorageError."""
    import pandas as pd

    write(path, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))
