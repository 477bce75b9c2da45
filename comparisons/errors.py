"""Failures a user can mend: one line that names the value, what is allowed, and what to do.

The exit code of a command is the kind of failure: 2 flags, 3 data, 4 numerics, 5 storage (1: some runs failed, the
others finished). `comparisons.cli` turns each into one line on stderr, never a traceback.
"""

import sysconfig
import traceback
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class UserError(Exception):
    """Base of the failures below; `exit_code` is what the command ends with."""

    exit_code = 1


class FlagError(UserError):
    """A flag has a value that is not allowed."""

    exit_code = 2


class UnfitError(FlagError):
    """Settings do not go together in one cell; another cell of a grid may be fine."""


class DataError(UserError):
    """A data set is missing, damaged, or holds values that no model here accepts."""

    exit_code = 3


class NumericsError(UserError):
    """A computation left the finite numbers, or an estimate could not reach its tolerance."""

    exit_code = 4


class StorageError(UserError):
    """A result could not be written or read back."""

    exit_code = 5


class DamagedError(StorageError):
    """A file is not as it was written; `why` says how, in words that a terminal can show."""

    def __init__(self, path: Path, why: object, mend: str) -> None:
        self.why = " ".join(printable(str(why)).split())[:200]
        super().__init__(f"cannot read {path} ({self.why}); {mend}")


def printable(text: str) -> str:
    """Return a text from a file as a terminal may have it: what would move its cursor or colour it is spelt out."""
    return "".join(one if one.isprintable() or one in "\n\t" else ascii(one)[1:-1] for one in text)


def unknown(what: str, word: str, known: Iterable[str], more: str = "") -> FlagError:
    """Return the refusal of a word that is none of the known ones, with the nearest of them."""
    near = get_close_matches(word.lower(), known := list(known), 1)
    choose = f"did you mean {near[0]}? Choose" if near else "choose"
    return FlagError(f"unknown {what} {word!r}; {choose} from {', '.join(known)}{more}")


def in_one_line(error: BaseException, with_type: bool = True) -> str:
    """Return an exception as `Type: message (file, line n)`, with the line at fault in a user's file or in a model."""
    text = " ".join(str(error).split())
    text = text if len(text) <= 300 else text[:297] + "..."
    if with_type:
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, SyntaxError):  # its message has the place already
        return text
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _ours(frame.filename)]
    own = [frame for frame in frames if ROOT not in Path(frame.filename).parents] or [
        frame for frame in frames if not {*RUNNERS} & {Path(frame.filename), *Path(frame.filename).parents}
    ]
    return f"{text} ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else text


ROOT = Path(__file__).parents[1]
# What runs the code at fault.
RUNNERS = (ROOT / "comparisons", ROOT / "inference" / "engines", ROOT / "models/networks.py", ROOT / "models/pairs.py")


def _ours(file: str) -> bool:
    """Say whether a file is neither the standard library's nor an installed package's."""
    paths = sysconfig.get_paths()
    libraries = {Path(paths[kind]) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    return not file.startswith("<") and not libraries & {*Path(file).parents}
