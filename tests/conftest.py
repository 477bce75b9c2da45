"""Fixtures: the engines, each built once for the session, on one CPU thread so that results repeat bit for bit."""

from collections.abc import Mapping
from typing import Any

import pytest

import inference
from inference import ENGINES
from inference.base import Engine


@pytest.fixture(scope="session", params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each registered engine in turn."""
    return inference.engine(request.param, "cpu", 1)


@pytest.fixture(scope="session")
def engines() -> dict[str, Engine]:
    """All registered engines, for tests that hold them against each other."""
    return {name: inference.engine(name, "cpu", 1) for name in ENGINES}


def arrays(engine: Engine, values: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a dict of NumPy arrays to the engine."""
    return {name: engine.array(value) for name, value in values.items()}


def numpys(engine: Engine, values: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a dict of arrays back to NumPy."""
    return {name: engine.numpy(value) for name, value in values.items()}
