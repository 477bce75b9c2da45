"""Nested dicts as flat ones by names with slashes, as a checkpoint has them: {"a": {"b": 1}} is {"a/b": 1}."""

from typing import Any


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return all that nested dicts hold, by names with slashes."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= flat(value, f"{prefix}{name}/") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """Undo `flat`."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        *groups, last = name.split("/")
        inner = found
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[last] = value
    return found
