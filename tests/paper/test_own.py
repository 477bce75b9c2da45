"""The report of anybody's runs: they come first, and nothing is said of a paper that was not run."""

from pathlib import Path

import pytest
from frames import row

from comparisons import report
from comparisons.disk import writing
from comparisons.paper.found import read
from comparisons.paper.report import shown
from comparisons.runner.rows import to_csv


def folder(tmp_path: Path, panels: int = 1) -> Path:
    rows = [
        row(backend=backend, seed=seed, n_seen=n, split=split, value=-10.0 - seed - 100 / n, n_latent=k)
        for backend in ("aevb", "iwae.py:iwae")
        for seed in (0, 1)
        for n in (100, 1000)
        for split in ("train", "test")
        for k in range(1, panels + 1)
    ]
    writing.write(tmp_path / "marginal_likelihood" / "rows.csv", to_csv(rows))
    return tmp_path


def test_own_runs_come_first_and_alone(tmp_path: Path) -> None:
    out = folder(tmp_path)
    assert report.main(["--out", str(out)]) == 0
    for name in ("index.html", "README.md"):
        text = (out / name).read_text()
        assert "Runs in this folder" in text and "iwae.py:iwae" in text and "to the best" in text
        assert "leads by the lower bound on test" in text or "cannot be told from" in text
        assert "Kingma" not in text and "not run yet" not in text.lower() and "Figure 2" not in text
    assert (out / "figures" / "marginal_likelihood.svg").exists()
    assert [part.name for part in shown(report.sections(), read(out))] == ["runs", "made"]


def test_a_comparison_that_was_run_beside_them_has_its_section(tmp_path: Path) -> None:
    out = folder(tmp_path)
    writing.write(out / "reliability" / "rows.csv", "injection,expected,outcome,rounds,kills\na,b,passed,1,1\n")
    assert [part.name for part in shown(report.sections(), read(out))] == ["runs", "reliability", "made"]


@pytest.mark.parametrize(("panels", "linked"), [(2, False), (13, True)])
def test_many_panels_are_linked(panels: int, linked: bool, tmp_path: Path) -> None:
    out = folder(tmp_path, panels)
    assert report.main(["--out", str(out)]) == 0
    assert ("marginal_likelihood/table.md" in (out / "index.html").read_text()) == linked


@pytest.mark.parametrize("versions", [1, 2])
def test_a_file_of_ones_own_goes_by_its_name(versions: int, tmp_path: Path) -> None:
    """Its hash stands below the table; in the table only where it alone tells two versions apart."""
    methods = {"aevb": [""], "iwae.py:iwae": [f"backend_sha256={i}0409a5c1d" for i in range(versions)]}
    rows = [
        row(backend=backend, method=method, seed=seed, n_seen=100, split="test", value=-10.0 - seed, cell=method or "a")
        for backend, each in methods.items()
        for method in each
        for seed in (0, 1)
    ]
    out = tmp_path / "marginal_likelihood"
    writing.write(out / "rows.csv", to_csv(rows))
    command = "python -m comparisons.marginal_likelihood --backend aevb iwae.py:iwae"
    for cell in {one["cell"] for one in rows}:
        writing.write_json(out / "cells" / cell / "manifest.json", {"command": command, "commit": "c0ffee"})
    assert report.main(["--out", str(tmp_path)]) == 0
    for name in ("index.html", "README.md"):
        text = (tmp_path / name).read_text()
        assert ("backend_sha256" in text) == (versions == 2) == ("SHA-256 of the files: iwae.py:iwae" not in text)
        assert "Table 1." in text and "Figure 1." in text and "c0ffee" in text
    assert f"command `{command}`" in text and text.count(command) == 1


def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    assert report.main(["--out", str(tmp_path)]) == 0
    assert "No comparison has been run into this folder yet." in (tmp_path / "README.md").read_text()
