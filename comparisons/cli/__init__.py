"""What a command line needs: flags from dataclasses, their limits, exit codes, signals, and a user's own files."""

import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import NoReturn

from comparisons.cli import stopping, streams
from comparisons.cli.flags import Parser, Plan, Told, parse_plan
from comparisons.errors import StorageError, UserError, printable

__all__ = ["Parser", "Plan", "Told", "main", "parse_plan"]


def main(command: Callable[[], int]) -> NoReturn:
    """Run a command and exit with its code; a user's mistake is one line on stderr."""
    streams.outlast()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # with which jax keeps its programs on disk: see `keep_programs`
    try:
        if find_spec("fcntl") is None:
            raise StorageError("files cannot be locked on this platform; use Linux and macOS, or on Windows WSL")
        with stopping.taken_over():
            code = command()
    except UserError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print(stopping.MESSAGE, file=sys.stderr)
        code = stopping.INTERRUPTED
    sys.exit(code)
