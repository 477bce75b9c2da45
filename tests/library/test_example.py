"""The examples run as scripts, and leave what they tell of."""

import runpy
import struct
import sys
from pathlib import Path

import pandas as pd
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(EXAMPLES / name), str(folder)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run("notebook.py", tmp_path, monkeypatch)
    printed = capsys.readouterr().out
    assert "aevb" in printed and "mean_field" in printed
    for name in ("curves", "embedding", "reconstructions", "samples"):
        content = (tmp_path / f"{name}.png").read_bytes()
        width, height = struct.unpack(">2I", content[16:24])
        assert content[:8] == b"\x89PNG\r\n\x1a\n" and width > 600 and height > 200 and len(content) > 5000


def test_a_network_of_torch_s_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("torch_network.py", tmp_path, monkeypatch)
    printed = capsys.readouterr().out
    means = {line.split()[0]: float(line.split()[1]) for line in printed.splitlines() if "_nats" in line}
    assert -26.5 < means["elbo_nats"] < means["log_px_quadrature_nats"] < -24.0  # -27 where z is ignored
    gap = means["log_px_quadrature_nats"] - means["elbo_nats"]
    assert f"leaves {gap:.2f} nats open" in printed or f"leaves {gap + 0.01:.2f}" in printed


def test_counts_of_one_s_own_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        run("counts.py", tmp_path, monkeypatch)
    assert not end.value.code and "vae_negative_binomial" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "table.csv").set_index("backend")
    assert table.log_px_test.aevb > table.baseline_test.aevb + 1.0
    assert "\\toprule" in (tmp_path / "paper" / "table.tex").read_text()
