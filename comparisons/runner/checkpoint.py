"""Arrays and facts in one safetensors file, with a checksum: what a fit is kept in, and what a run goes on from.

No pickle: reading a file runs no code, whatever it holds.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from comparisons.errors import StorageError

SEPARATOR = "/"  # between the names of nested dicts


def pack(arrays: dict[str, Any], facts: dict[str, Any]) -> bytes:
    """Return the content of a file: nested dicts of NumPy arrays, and facts that JSON can hold."""
    from safetensors.numpy import save

    flat = dict(_flat(arrays))
    told = json.dumps(facts, sort_keys=True)
    # One entry: the library writes several in an order of its own, and equal content should be equal bytes.
    return save(flat, metadata={"told": _digest(flat, told) + told})


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return arrays, nested as they were, and facts. Raises StorageError for a file that is not as it was written."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StorageError(f"cannot read {path} ({reason}); run its cell again") from error
    digest, told = metadata.get("told", "")[:64], metadata.get("told", "")[64:]
    if digest != _digest(flat, told):
        raise StorageError(f"cannot read {path} (it is not as it was written); run its cell again")
    arrays: dict[str, Any] = {}
    for name, value in flat.items():
        *groups, last = name.split(SEPARATOR)
        inner = arrays
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[last] = value
    return arrays, json.loads(told)


def misfit(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """Say how nested arrays differ in names, shapes, kinds or finiteness from those expected; "" if they do not."""
    flat, other = dict(_flat(found)), dict(_flat(expected))
    if flat.keys() != other.keys():
        return f"it lacks {sorted(other.keys() - flat.keys())} and has {sorted(flat.keys() - other.keys())} beyond"
    for name, value in other.items():
        one = flat[name]
        if one.shape != value.shape or one.dtype != value.dtype:
            return f"{name} is {one.dtype} {list(one.shape)}, expected {value.dtype} {list(value.shape)}"
        if one.dtype.kind == "f" and not np.isfinite(one).all():
            return f"{name} is not finite"
    return ""


def _digest(flat: dict[str, np.ndarray], told: str) -> str:
    sha256 = hashlib.sha256(told.encode())
    for name in sorted(flat):
        sha256.update(f"{name} {flat[name].dtype} {flat[name].shape}".encode())
        sha256.update(np.ascontiguousarray(flat[name]).data)
    return sha256.hexdigest()


def _flat(arrays: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    for name, value in arrays.items():
        if isinstance(value, dict):
            yield from _flat(value, prefix + name + SEPARATOR)
        else:
            yield prefix + name, np.ascontiguousarray(value).reshape(np.shape(value))  # which would make scalars [1]
