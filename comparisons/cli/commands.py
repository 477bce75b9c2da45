"""The commands by name, as `python -m comparisons` lists them."""

import sys
from pathlib import Path
from typing import NoReturn

from comparisons.cli import streams
from comparisons.errors import FlagError, unknown

HERE = Path(__file__).parents[1]
COMMANDS = {
    ".".join(path.relative_to(HERE).with_suffix("").parts): path
    for path in sorted(HERE.rglob("*.py"), key=lambda path: (len(path.parts), path))
    if "\n    cli.main(" in path.read_text(encoding="utf-8")
}


def refuse(name: str) -> NoReturn:
    """End with one line for a command that there is not, and the nearest that there is."""
    streams.outlast()
    print(f"error: {unknown('comparison', name, COMMANDS)}", file=sys.stderr)
    sys.exit(FlagError.exit_code)
