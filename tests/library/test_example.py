"""The example runs as a script, and leaves the pictures that it tells of."""

import runpy
import struct
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "notebook.py"


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), str(tmp_path)])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    printed = capsys.readouterr().out
    assert "aevb" in printed and "mean_field" in printed
    for name in ("curves", "embedding", "reconstructions", "samples"):
        content = (tmp_path / f"{name}.png").read_bytes()
        width, height = struct.unpack(">2I", content[16:24])
        assert content[:8] == b"\x89PNG\r\n\x1a\n" and width > 600 and height > 200 and len(content) > 5000
