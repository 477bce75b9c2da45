"""Arrays and facts in one safetensors file, with a checksum: what a fit is kept in, and what a run goes on from.

No pickle: reading a file runs no code, whatever it holds.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, TypedDict

import msgspec
import numpy as np

from comparisons.disk.reading import opened
from comparisons.errors import DamagedError, StorageError
from inference.nested import flat, flaw, nested

AGAIN = "run its cell again"
DEEP = 32  # slashes in a name at most: nested dicts are walked from one to the next


class Facts(TypedDict, total=False):
    """What is read of facts before a run takes them up."""

    identity: dict[str, Any]
    versions: dict[str, str]
    resumed: list[dict[str, Any]]
    step: int
    step_size: float


def pack(arrays: dict[str, Any], facts: dict[str, Any]) -> bytes:
    """Return the content of a file: nested dicts of NumPy arrays, and facts that JSON can hold.

    Raises StorageError for arrays that `read` would not give back as they are.
    """
    from safetensors.numpy import save

    if text := flaw(arrays, where="the checkpoint"):
        raise StorageError(f"{text}; keep other things out of what the backend returns")
    held = _contiguous(arrays)
    told = json.dumps(facts, sort_keys=True)
    # One entry: the library writes several in an order of its own, and equal content should be equal bytes.
    return save(held, metadata={"told": _digest(held, told) + told})


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return arrays, nested as they were, and facts. Raises StorageError for a file that is not as it was written."""
    from safetensors import SafetensorError, safe_open

    try:
        with opened(path, AGAIN), safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
        digest, told = metadata.get("told", "")[:64], metadata.get("told", "")[64:]
        if digest != _digest(held, told):
            raise DamagedError(path, "it is not as it was written", AGAIN)
        if deep := [name for name in held if name.count("/") > DEEP]:
            raise DamagedError(path, f"{deep[0][:40]}... has more than {DEEP} slashes", AGAIN)
        facts = json.loads(told)
        msgspec.convert(facts, Facts)
        return nested(held), facts
    except (OSError, SafetensorError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise DamagedError(path, str(error).partition("\n")[0] or type(error).__name__, AGAIN) from error


def misfit(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """Say how nested arrays differ in names, shapes, kinds or finiteness from those expected; "" if they do not."""
    held, other = _contiguous(found), _contiguous(expected)
    if held.keys() != other.keys():
        return f"it lacks {sorted(other.keys() - held.keys())} and has {sorted(held.keys() - other.keys())} beyond"
    for name, value in other.items():
        one = held[name]
        if one.shape != value.shape or one.dtype != value.dtype:
            return f"{name} is {one.dtype} {list(one.shape)}, expected {value.dtype} {list(value.shape)}"
        if one.dtype.kind == "f" and not np.isfinite(one).all():
            return f"{name} is not finite"
    return ""


def _digest(held: dict[str, np.ndarray], told: str) -> str:
    sha256 = hashlib.sha256(told.encode())
    for name in sorted(held):
        sha256.update(f"{name} {held[name].dtype} {held[name].shape}".encode())
        sha256.update(np.ascontiguousarray(held[name]).data)
    return sha256.hexdigest()


def _contiguous(arrays: dict[str, Any]) -> dict[str, np.ndarray]:
    # NumPy's own makes scalars [1]. The order of bytes is this machine's: a file has one.
    found = {name: (np.ascontiguousarray(value), np.shape(value)) for name, value in flat(arrays).items()}
    return {
        name: value.astype(value.dtype.newbyteorder("="), copy=False).reshape(s) for name, (value, s) in found.items()
    }
