"""Fixtures: the engines, each built once for the session, on one CPU thread so that results repeat bit for bit.

Tests marked `fault(injection, expected)` do some harm to the suite. With `--reliability DIR` what they saw becomes a
table there (`make torture`).
"""

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import inference
from inference import ENGINES
from inference.base import Engine

os.environ["NPROC"] = "1"  # whichever test is the first to let jax compute, it then has the engines' one thread


@pytest.fixture(scope="session", params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each registered engine in turn."""
    return inference.engine(request.param, "cpu", 1)


@pytest.fixture(scope="session")
def engines() -> dict[str, Engine]:
    """All registered engines, for tests that hold them against each other."""
    return {name: inference.engine(name, "cpu", 1) for name in ENGINES}


# What becomes of each fault


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--reliability", metavar="DIR", help="write what the tests marked fault saw to DIR/table.md")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fault(injection, expected): does some harm; a row of reports/reliability")
    config.addinivalue_line("markers", "gpu: needs an engine that has a GPU; skipped where there is none")


# Minutes each: they come first, so that no worker is left with one of them while the others have nothing to do.
LONG = ("test_faults.py", "test_readme.py", "test_calibration.py", "test_compiled.py", "test_workers.py", "test_run.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


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
        import pandas as pd

        from comparisons.reporting import markdown, reliability
        from comparisons.runner import store

        path = Path(folder) / "rows.csv"
        rows = _observed(session.config.stash.get(FAULTS, []))
        known: list[dict[str, Any]] = []
        if path.exists():
            with path.open(newline="") as file:
                known = list(csv.DictReader(file))
        # What ran again takes the place of what was seen before.
        rows = [*(row for row in known if row["injection"] not in {one["injection"] for one in rows}), *rows]
        store.write_rows(path, rows)
        table = reliability.blocks(pd.read_csv(path))
        store.write(Path(folder) / "table.md", markdown.printed(table, reliability.TITLE))
        flags = " ".join(map(str, session.config.invocation_params.args))
        command = f"TORTURE={os.environ.get('TORTURE', 0)} python -m pytest {flags}"  # of the rows of this commit
        store.write_json(Path(folder) / "manifest.json", {**store.environment(), "command": command})


def _observed(seen: list[tuple[str, str, str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return a row for each injection: its cases, what became of them, and of what code."""
    from comparisons.runner import store

    lines: dict[tuple[str, str], list[tuple[str, dict[str, Any]]]] = {}
    for injection, expected, outcome, properties in seen:
        lines.setdefault((injection, expected), []).append((outcome, properties))
    here = store.environment()
    return [
        {
            "injection": injection,
            "expected": expected,
            "cases": len(cases),
            "passed": sum(outcome == "passed" for outcome, _ in cases),
            "failed": sum(outcome == "failed" for outcome, _ in cases),
            "rounds": sum(properties.get("rounds", 1) for _, properties in cases),
            "kills": sum(properties.get("kills", 0) for _, properties in cases),
            "torture": os.environ.get("TORTURE", "0"),
            "commit": here["commit"],
            "processor": here["processor"],
            "python": here["python"],
        }
        for (injection, expected), cases in lines.items()
    ]
