"""Which runs are made, how they are judged, and what is written down: commands, and `compare` for Python."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from comparisons.library.compare import compare as compare

if sys.argv[:1] == ["-m"]:  # Python is looking for a module of ours: a misspelt one gets the nearest name
    _asked = next((word.partition(".")[2] for word in sys.orig_argv if word.startswith("comparisons.")), "")
    if _asked and not (Path(__file__).parent / _asked.replace(".", "/")).with_suffix(".py").is_file():
        from comparisons.cli.commands import refuse

        refuse(_asked)


def __getattr__(name: str) -> Any:
    """Import what is the library's when it is asked for: `import comparisons` alone stays light."""
    if name == "compare":
        from comparisons.library.compare import compare

        return compare
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
