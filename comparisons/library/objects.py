"""A model or a backend that is an object of Python's, as what a flag could name: the file that defines it."""

import builtins
import hashlib
import inspect
import linecache
import symtable
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from comparisons.cli import parts
from comparisons.disk import writing
from comparisons.errors import FlagError
from inference import METHODS
from inference.base import Method
from models import MODELS

REGISTRIES: dict[str, Mapping[str, Any]] = {"model": MODELS, "backend": METHODS}


def words(kind: str, given: Any, out: Path) -> list[str]:
    """Return what a flag takes in place of a class, a function or a card: its name, or `path/to/file.py:NAME`.

    It counts by the whole file that defines it. What a notebook's cell defines counts by the cell's source, which is
    written to `<out>/parts/<NAME>-<digest>.py`. A dict {NAME: object} is for what has no source: the name vouches for
    it, in this process alone. Raises FlagError.
    """
    if isinstance(given, str):
        return [given]
    if isinstance(given, Mapping):
        return [parts.given(kind, str(name), found) for name, found in given.items()]
    for name, known in REGISTRIES[kind].items():
        if given is known or given is getattr(known, "build", None):
            return [name]
    home = given.build if isinstance(given, Method) else given
    names = vars(sys.modules.get(getattr(home, "__module__", None) or "", builtins))
    usual = getattr(given, "__name__", "")
    name = usual if names.get(usual) is given else next((n for n, one in names.items() if one is given), "")
    file = next((one for one in _files(home, names) if linecache.getlines(one)), "")
    source = "".join(linecache.getlines(file))
    if not source or name not in _defined(symtable.symtable(source, file, "exec")):
        what = usual or type(given).__name__
        raise FlagError(
            f"{kind} {what} is not defined by a name at the top of a file or cell; write {parts.FORM}, or "
            f"{kind}={{'NAME_1': ...}}, with a new name for each version"
        )
    if Path(file).is_file():
        return [f"{Path(file).absolute()}:{name}"]
    if lacking := _lacking(source):
        raise FlagError(f"{kind} {name} needs {', '.join(lacking)} of other cells; import or define it in its own cell")
    path = out / "parts" / f"{name}-{hashlib.sha256(source.encode()).hexdigest()[:8]}.py"
    if not path.exists() or path.read_text(encoding="utf-8") != source:
        writing.write(path, source)
    return [f"{path}:{name}"]


def _files(home: Any, names: Mapping[str, Any]) -> Iterator[str]:
    """Yield the files that a function, or a class's methods of its module, say they come from, as a cell has one too.

    What a decorator adds, such as a dataclass's __repr__, is of another module.
    """
    for one in (home, *getattr(home, "__dict__", {}).values()):
        one = getattr(one, "fget", one)
        if inspect.isfunction(one) and one.__globals__ is names:
            yield one.__code__.co_filename
    yield names.get("__file__") or ""


def _defined(top: symtable.SymbolTable) -> set[str]:
    return {one.get_name() for one in top.get_symbols() if one.is_assigned() or one.is_imported()}


def _lacking(source: str) -> list[str]:
    """Return the names that a source reads, and neither defines nor has from Python."""
    tables = [top := symtable.symtable(source, "cell", "exec")]
    for table in tables:
        tables += table.get_children()  # which the loop goes on to
    read = {
        one.get_name()
        for table in tables
        for one in table.get_symbols()
        if one.is_referenced() and (table is top or one.is_global())
    }
    return sorted(read - _defined(top) - {*vars(builtins), "__file__"})
