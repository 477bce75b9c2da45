"""A command from start to end: it exits with the code of what went wrong, and a user's mistake is one line."""

import os
import sys
from collections.abc import Callable
from typing import NoReturn

from comparisons.cli import stopping
from comparisons.errors import UserError


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
