"""What became of each fault: the rows and the table of reports/reliability, from the tests marked `fault`."""

import csv
import os
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from comparisons.disk import writing
from comparisons.reporting import markdown, reliability
from comparisons.runner import store


class Case(NamedTuple):
    """One test of a fault: what was done, what has to come of it, how the test ended, and its counters."""

    injection: str
    expected: str
    outcome: str  # passed, failed or skipped
    counters: dict[str, Any]  # rounds, kills


def write(folder: Path, seen: list[Case], flags: str) -> None:
    """Write rows, table and manifest. What ran again takes the place of what the folder knew of it before."""
    path, rows = folder / "rows.csv", observed(seen)
    known: list[dict[str, Any]] = []
    if path.exists():
        with path.open(newline="") as file:
            known = list(csv.DictReader(file))
    again = {row["injection"] for row in rows}
    rows = [*(row for row in known if row["injection"] not in again), *rows]
    writing.write_rows(path, rows)
    table = reliability.blocks(pd.read_csv(path))
    writing.write(folder / "table.md", markdown.printed(table, reliability.TITLE))
    command = f"TORTURE={os.environ.get('TORTURE', 0)} python -m pytest {flags}"  # of the rows of this commit
    writing.write_json(folder / "manifest.json", {**store.environment(), "command": command})


def observed(seen: list[Case]) -> list[dict[str, Any]]:
    """Return a row for each injection: its cases, what became of them, and of what code."""
    groups: dict[tuple[str, str], list[Case]] = {}
    for case in seen:
        groups.setdefault((case.injection, case.expected), []).append(case)
    here = store.environment()
    return [
        {
            "injection": injection,
            "expected": expected,
            "cases": len(cases),
            "passed": sum(case.outcome == "passed" for case in cases),
            "failed": sum(case.outcome == "failed" for case in cases),
            "rounds": sum(case.counters.get("rounds", 1) for case in cases),
            "kills": sum(case.counters.get("kills", 0) for case in cases),
            "torture": os.environ.get("TORTURE", "0"),
            "commit": here["commit"],
            "processor": here["processor"],
            "python": here["python"],
        }
        for (injection, expected), cases in groups.items()
    ]
