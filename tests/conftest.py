"""Fixtures: the engines, each built once for the session, on one CPU thread so that results repeat bit for bit.

Tests marked `fault(injection, expected)` do some harm to the suite. With `--reliability DIR` what they saw becomes a
table there (`make torture`).
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
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


# What becomes of each fault


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--reliability", metavar="DIR", help="write what the tests marked fault saw to DIR/table.md")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fault(injection, expected): does some harm; a row of reports/reliability")
    config.addinivalue_line("markers", "gpu: needs an engine that has a GPU; skipped where there is none")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome: Any = yield
    report, marker = outcome.get_result(), item.get_closest_marker("fault")
    if marker and (report.when == "call" or report.skipped or report.failed):
        seen = dict(item.user_properties)
        item.config.stash.setdefault(FAULTS, []).append((*marker.args, report.outcome, seen))


FAULTS = pytest.StashKey[list[tuple[str, str, str, dict[str, Any]]]]()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    folder = session.config.getoption("--reliability")
    if folder:
        from comparisons import store
        from comparisons.tables import pipe

        whole = exitstatus != pytest.ExitCode.INTERRUPTED
        store.write(Path(folder) / "table.md", _reliability(session.config.stash.get(FAULTS, []), whole, pipe))
        store.write_json(
            Path(folder) / "manifest.json",
            {**store.environment(), "command": f"TORTURE={os.environ.get('TORTURE', 0)} python -m pytest -m fault"},
        )


def _reliability(seen: list[tuple[str, str, str, dict[str, Any]]], whole: bool, pipe: Any) -> str:
    """Return the table: a line for each injection, its cases and what became of them."""
    lines: dict[tuple[str, str], list[tuple[str, dict[str, Any]]]] = {}
    for injection, expected, outcome, properties in seen:
        lines.setdefault((injection, expected), []).append((outcome, properties))
    body, kills, wrong = [], 0, 0
    for (injection, expected), cases in lines.items():
        passed = sum(outcome == "passed" for outcome, _ in cases)
        failed = sum(outcome == "failed" for outcome, _ in cases)
        rounds = sum(properties.get("rounds", 1) for _, properties in cases)
        kills += sum(properties.get("kills", 0) for _, properties in cases)
        wrong += failed
        observed = (
            "as expected" if passed == len(cases) else f"{failed} otherwise, {len(cases) - passed - failed} skipped"
        )
        body.append([injection, expected, observed, str(len(cases)), str(passed), str(rounds)])
    head = ["injection", "expected", "observed", "cases", "passed", "rounds"]
    return (
        "# What the suite survives\n\n"
        f"{sum(len(cases) for cases in lines.values())} cases, {kills} rounds in which a process was killed, "
        f"{wrong} wrong results. {'' if whole else 'The run was broken off: these are the cases up to then.'}\n\n"
        + pipe(head, body)
    )
