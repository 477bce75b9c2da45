"""Which runs are made, how they are judged, and what is written: commands, and `compare` and `judge` for Python."""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from comparisons.library.compare import compare as compare
    from comparisons.library.judge import judge as judge

_ROOT = Path(__file__).parents[1]
for _room in ("models", "inference"):  # names that a user's own files may have, in the folder where Python looks first
    _file = getattr(sys.modules.get(_room), "__file__", None) or getattr(find_spec(_room), "origin", None) or ""
    if _ROOT not in Path(_file).parents:
        if _room in sys.modules:
            raise ImportError(f"{_file} is imported as {_room!r}, which a package here is called; rename that file")
        sys.path.insert(0, str(_ROOT))

if sys.argv[:1] == ["-m"]:  # Python is looking for a module of ours: a misspelt one gets the nearest name
    _asked = next((word.partition(".")[2] for word in sys.orig_argv if word.startswith("comparisons.")), "")
    if _asked and not (Path(__file__).parent / _asked.replace(".", "/")).with_suffix(".py").is_file():
        from comparisons.cli.commands import refuse

        refuse(_asked)


def __getattr__(name: str) -> Any:
    """Import what is the library's when it is asked for: `import comparisons` alone stays light."""
    if name in ("compare", "judge"):
        return getattr(import_module(f"comparisons.library.{name}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
