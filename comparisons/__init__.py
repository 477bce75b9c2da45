"""Which runs are made, how they are judged, and what is written down."""

import sys
from pathlib import Path

if sys.argv[:1] == ["-m"]:  # Python is looking for a module of ours: a misspelt one gets the nearest name
    _asked = next((word.partition(".")[2] for word in sys.orig_argv if word.startswith("comparisons.")), "")
    if _asked and not (Path(__file__).parent / _asked.replace(".", "/")).with_suffix(".py").is_file():
        from comparisons.cli.commands import refuse

        refuse(_asked)
