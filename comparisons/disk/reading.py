"""Files read without trust: what they hold may be of another hand."""

import hashlib
import json
from pathlib import Path
from typing import Any


def made_with(path: Path, identity: dict[str, Any]) -> bool:
    """Say whether a file of JSON is there, whole, and tells that it was made with this identity."""
    return bool(read_json(path).get("identity") == json.loads(json.dumps(identity)))


def read_json(path: Path) -> dict[str, Any]:
    """Return the dict that a file of JSON holds, empty where there is none that can be read."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hex, "" where there is none."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
