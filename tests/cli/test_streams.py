"""No standard stream ends a command or changes its exit code."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.fault("a standard stream is closed, full, or its reader gone", "the exit code is that of the work")
@pytest.mark.parametrize("streams", ["2>&-", ">&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full", "| head -1"])
@pytest.mark.parametrize(("command", "code"), [("status --help", 0), ("status --zzz", 2)])
def test_the_exit_code_is_of_the_work(streams: str, command: str, code: int) -> None:
    line = f"{sys.executable} -m comparisons.{command} {streams}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == code and "Traceback" not in done.stderr
