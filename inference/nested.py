"""Nested dicts as flat ones by names with slashes, as a checkpoint has them: {"a": {"b": 1}} is {"a/b": 1}.

What a name has of its own that would be read otherwise is quoted as in an address: "a/b" is "a%2Fb". A dict that holds
nothing is an empty array whose name ends in a slash.
"""

import string
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote

import numpy as np

PLAIN = "".join(sorted({*string.printable} - {"/", "%"}))
ODD = {"": "%", "__metadata__": "%5F_metadata__"}  # names that a file cannot have, or has for itself
ALLOWED = "a state holds arrays of numbers, in dicts whose keys are words"


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return all that nested dicts hold, by names with slashes. Raises TypeError for a key that is no word."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        name = prefix + (ODD.get(key) or quote(key, PLAIN, errors="surrogatepass"))
        if isinstance(value, dict):
            leaves |= flat(value, f"{name}/") or {f"{name}/": np.zeros(0, bool)}
        else:
            leaves[name] = value
    return leaves


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """Undo `flat`."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *groups, last = ("" if part == "%" else unquote(part, errors="surrogatepass") for part in name.split("/"))
        inner = tree
        for group in groups:
            inner = inner.setdefault(group, {})
        if not name.endswith("/"):
            inner[last] = value
    return tree


def flaw(tree: Any, read: Callable[[Any], Any] = np.asarray, where: str = "state") -> str:
    """Say which leaf or key of nested dicts no file would give back as it was; "" where there is none.

    `read` makes a NumPy array of a leaf.
    """
    if not isinstance(tree, dict):
        return f"{where} is a {type(tree).__name__}; {ALLOWED}"
    for key, value in tree.items():
        if not isinstance(key, str):
            return f"{where} has the key {key!r}; {ALLOWED}"
        place = f"{where}[{key!r}]"
        text = flaw(value, read, place) if isinstance(value, dict) else _flaw_of_leaf(value, read, place)
        if text:
            return text
    return ""


def _flaw_of_leaf(value: Any, read: Callable[[Any], Any], place: str) -> str:
    kind = type(value).__name__
    # NumPy would make an array of a sequence, and forget a mask.
    if (hasattr(value, "__iter__") and not hasattr(value, "dtype")) or isinstance(value, np.ma.MaskedArray):
        return f"{place} is a {kind}; {ALLOWED}"
    try:
        dtype = read(value).dtype
    except Exception:  # of another library, about what it alone can hold
        return f"{place} is a {kind}, of which NumPy makes no array; {ALLOWED}"
    return "" if dtype.kind in "biuf" and dtype.itemsize <= 8 else f"{place} is a {kind} of {dtype}; {ALLOWED}"
