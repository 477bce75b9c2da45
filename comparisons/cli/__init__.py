"""What a command line needs: flags from dataclasses, their limits, exit codes, signals, and a user's own files."""

import os
import sys
from collections.abc import Callable
from typing import NoReturn

from comparisons.cli import stopping
from comparisons.cli.flags import Parser, Plan, Told, parse_plan
from comparisons.errors import UserError

__all__ = ["Parser", "Plan", "Told", "main", "parse_plan"]


def main(command: Callable[[], int]) -> NoReturn:
    """Run a command and exit with its code; a user's mistake is one line on stderr."""
    try:
        with stopping.taken_over():
            code = command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print(stopping.MESSAGE, file=sys.stderr)
        code = stopping.INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)
