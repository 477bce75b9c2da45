"""`comparisons.export`: tables that other programs read as they are, and fits that they load to the same bits."""

import io
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from frames import frame, pipes, row, seeds

from comparisons import compare, export, judge
from comparisons.errors import FlagError, StorageError
from comparisons.library.compare import Comparison
from comparisons.reporting.export import TEX, table
from comparisons.runner import baselines, published, store

REPORTS = Path(__file__).parents[1] / "reports"
GRID, SMALL = REPORTS / "marginal_likelihood", REPORTS / "full_vb"
X = (np.random.default_rng(0).random((60, 6)) < 0.5).astype(np.float64)
HOW: dict[str, Any] = {"samples": 300, "minibatch": 10, "n_hidden": 5, "n_latent": 2, "eval_points": 8, "quiet": True}
HOW |= {"step_size": 0.05, "elbo_draws": 5, "fit_steps": 5, "warmup": 0, "evidence": "quadrature"}


def read(text: str) -> tuple[str, str, list[list[str]]]:
    """The caption, columns and cells of a table in LaTeX, which is held to be one: nothing in it is a stray command."""
    text = re.sub(r"\\[&%$#_{}]", "?", text)  # what is escaped
    assert text.count("{") == text.count("}") and text.count("$") % 2 == 0
    assert re.fullmatch(
        r"\\begin{table}\[t\]\n\\caption{(.*)}\n\\label{tab:\w+}\n\\begin{tabular}{([lr]+)}\n"
        r"\\toprule\n.*\\\\\n\\midrule\n(.*\\\\\n)+\\bottomrule\n\\end{tabular}\n\\end{table}\n",
        text,
    )
    inner = re.sub(r"\\(begin|end|caption|label|toprule|midrule|bottomrule|\\)", "", text)
    known = {*re.findall(r"\\[a-z]+", "".join(TEX.values()))} - {"\\", *(f"\\{one}" for one in "&%$#_{}")}
    assert {*re.findall(r"\\[a-zA-Z]+|\\.", inner)} <= known
    assert not re.search(r"[#%^~]", inner) and not re.search(r"[_<>|±†]", inner) and inner.isascii()
    caption, columns = re.findall(r"\\caption{(.*)}", text)[0], re.findall(r"{tabular}{([lr]+)}", text)[0]
    lines = [line.removesuffix(" \\\\").split(" & ") for line in text.splitlines() if line.endswith(" \\\\")]
    assert {len(line) for line in lines} == {len(columns)}
    return caption, columns, lines


def tables(text: str) -> list[str]:
    return [f"\\begin{{table}}{one}" for one in text.split("\\begin{table}")[1:]]


def compiled(text: str, folder: Path) -> None:
    """Compile it, where there is a LaTeX."""
    if latex := shutil.which("pdflatex"):
        preamble = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}"
        (folder / "all.tex").write_text(f"{preamble}\n{text}\n\\end{{document}}\n")
        subprocess.run([latex, "-halt-on-error", "all.tex"], cwd=folder, check=True, capture_output=True)


ROWS = store.read_rows(GRID / "rows.csv")
KNOWN = baselines.read(GRID)
SOME = ROWS[(ROWS.data == "digits") | ((ROWS.n_train == 1000) & (ROWS.samples == 10_000_000))]


@pytest.mark.parametrize("name", ["summary", "estimators", "agreement"])
def test_committed_tables_are_latex(name: str, tmp_path: Path) -> None:
    text = table(SOME, KNOWN, name, "latex").decode()
    for number, one in enumerate(tables(text), 1):
        caption, columns, lines = read(one.rstrip("\n") + "\n")
        assert f"tab:{name}{number}}}" in one and columns[0] == "l" and "r" in columns and len(lines) > 1
        assert "$\\pm$" not in one or "$\\pm$ is one standard error over seeds" in caption
    compiled(text, tmp_path)


def test_the_cells_of_latex_are_those_of_the_page() -> None:
    rows = frame(*seeds("pyro", [-10.0, -11.0]), *seeds("numpyro", [-9.0, -9.5], backend="hostile_&%$#{}~^\\|<x>.py"))
    rows = pd.concat([rows, frame(row(engine="jax", seed=3, status="contradicted", metric="log_px_exact_nats"))])
    _, columns, lines = read(table(rows, {}, "summary", "latex").decode())
    page = pipes(table(rows, {}, "summary", "markdown").decode())
    assert columns.startswith("ll") and lines[0][0] == page[0][0] == "backend" and len(lines) + 1 == len(page)
    shown = [
        [one.replace("$\\pm$", "±").replace("$\\dagger$", "†").replace("$-$", "-") for one in line] for line in lines
    ]
    numbers = [[one for one in line if re.match(r"-?\d", one)] for line in shown]
    assert numbers == [[one for one in line if re.match(r"-?\d", one)] for line in [page[0], *page[2:]]]
    assert any("† " in one or one.endswith("†") for line in shown for one in line)


def test_csv_and_parquet_hold_the_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = GRID
    assert export.main([str(out), "--to", "csv"]) == 0
    assert capsys.readouterr().out == (out / "table.csv").read_text()
    assert export.main([str(out), "--to", "csv", "--table", "rows", "--out", str(tmp_path / "rows.csv")]) == 0
    pd.testing.assert_frame_equal(store.read_rows(tmp_path / "rows.csv"), store.read_rows(out / "rows.csv"))
    assert (
        export.main([str(out), "--to", "parquet", "--table", "rows", "--out", str(tmp_path / "deep" / "one.parquet")])
        == 0
    )
    for name in ("summary", "estimators", "agreement", "rows"):
        text = pd.read_parquet(io.BytesIO(table(SOME, KNOWN, name, "parquet"))).to_csv(index=False, lineterminator="\n")
        assert text == table(SOME, KNOWN, name, "csv").decode() and text.count("\n") > 2


def test_what_cannot_be_had_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.csv").write_text("mine")
    for words, said in (
        ([str(SMALL), "--to", "word"], "unknown form 'word'; choose from latex, csv, markdown, parquet, npz, saf"),
        ([str(SMALL), "--to", "csv", "--table", "sumary"], "unknown table 'sumary'; did you mean summary"),
        ([str(SMALL), "--to", "latex", "--table", "rows"], "unknown table 'rows'; choose from summary as latex"),
        ([str(SMALL), "--to", "latex", "--out", str(tmp_path / "mine.csv")], "does not end in .tex; a file of another"),
        ([str(SMALL), "--to", "csv", "--out", str(SMALL / "rows.csv")], "lies among the files of a comparison"),
        ([str(SMALL), "--to", "parquet"], "parquet is for programs, not for a screen; name a file with --out"),
        ([str(SMALL), "--to", "npz"], "a fit is of one cell; name a folder in .*/cells, such as mnist-aevb"),
        (
            [str(REPORTS / "speed"), "--to", "csv"],
            "is neither a folder that a comparison wrote to nor one of its cells",
        ),
        (["nowhere", "--to", "csv"], "'nowhere' is neither a folder"),
    ):
        with pytest.raises(FlagError, match=said) as caught:
            export.main(words)
        assert "\n" not in str(caught.value)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(FlagError, match="parquet is written by pyarrow; pip install pyarrow, or choose --to csv"):
            table(frame(row()), {}, "rows", "parquet")
    assert (tmp_path / "mine.csv").read_text() == "mine"
    export.main([str(SMALL), "--to", "csv", "--out", str(tmp_path / "mine.csv")])  # of the same kind
    assert (tmp_path / "mine.csv").read_text().startswith("data,n_train")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fits")


@pytest.fixture(scope="module")
def found(out: Path) -> dict[str, Comparison]:
    """AEVB on both engines, and mean-field VI on one."""
    how = {"aevb": HOW, "mean_field": {**HOW, "engine": "pyro", "evidence": "none"}}
    return {backend: compare(X, backend=backend, out=out, **how[backend]) for backend in how}


def cell_of(found: dict[str, Comparison], backend: str, engine: str) -> Path:
    return found[backend].grid.request.out / "cells" / found[backend].fit(engine=engine).fit.cell.name


@pytest.mark.parametrize("form", published.READ)
@pytest.mark.parametrize(("backend", "engine"), [("aevb", "pyro"), ("aevb", "numpyro"), ("mean_field", "pyro")])
def test_a_fit_is_loaded_by_the_lines_that_are_printed(
    found: dict[str, Comparison],
    backend: str,
    engine: str,
    form: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, fit = cell_of(found, backend, engine), found[backend].fit(engine=engine)
    assert export.main([str(folder), "--to", form, "--out", str(tmp_path / f"fit.{form}")]) == 0
    said, into_torch, into_jax = capsys.readouterr().out.split("\n\n")
    assert said == f"written: {tmp_path / f'fit.{form}'}"
    for lines, kind in ((into_torch, "torch"), (into_jax, "jax")):
        assert len(lines.strip().splitlines()) == 3
        exec(lines, names := dict[str, Any]())
        assert names["theta"].keys() == fit.theta.keys()
        assert all(kind in str(type(value)) for value in names["theta"].values())
        for name, value in fit.theta.items():
            loaded = np.asarray(names["theta"][name])
            assert loaded.dtype == value.dtype and loaded.tobytes() == value.tobytes()
        local = np.asarray(names["saved"]["local.loc"]) if backend == "mean_field" else np.zeros(0)
        assert local.shape == ((48, 2) if backend == "mean_field" else (0,))
    if form == "pt":
        assert all(isinstance(value, torch.Tensor) for name, value in names["saved"].items() if name != "metadata")


@pytest.mark.parametrize("engine", ["pyro", "numpyro"])
@pytest.mark.parametrize("form", ["npz", "safetensors"])
def test_a_fit_is_judged_from_its_file_as_its_cell_judged_it(
    found: dict[str, Comparison], engine: str, form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, fit = cell_of(found, "aevb", engine), found["aevb"].fit(engine=engine)
    path = tmp_path / f"fit.{form}"
    export.main([str(folder), "--to", form, "--out", str(path)])
    again = judge("vae_bernoulli", path, fit.data.test[:8], engine=engine, evidence="quadrature", elbo_draws=5)
    last = store.read_rows(folder / "rows.csv").query("split == 'test' and n_seen == 300").set_index("metric")
    assert (again.mean, again.mean_stderr) == tuple(last.loc["log_px_quadrature_nats", ["value", "stderr"]])
    elbo, row = again.table.set_index("metric").loc["elbo_nats"], last.loc["elbo_nats"]
    assert abs(elbo["mean"] - row.value) < 4 * np.hypot(elbo.stderr, row.stderr)  # of other draws


def test_what_a_fit_is_of_is_said(found: dict[str, Comparison]) -> None:
    arrays, facts = published.fit(cell_of(found, "aevb", "pyro"))
    assert {name.partition(".")[0] for name in arrays} == {"theta", "phi"} and "minibatch=10" in facts["method"]
    expected = {"model": "vae_bernoulli", "n_x": 6, "n_latent": 2, "n_hidden": 5, "data": "data.npz", "n_train": 48}
    assert facts | expected == facts and facts["cell"].startswith("data-npz-aevb-pyro-seed0-")
    content = np.load(io.BytesIO(published.packed(arrays, facts, "npz")), allow_pickle=False)
    assert '"n_x": 6' in str(content["metadata"])
    loaded = torch.load(io.BytesIO(published.packed(arrays, facts, "pt")), weights_only=True)
    assert type(loaded) is dict and '"backend": "aevb"' in loaded["metadata"]


def test_a_cell_without_a_fit_says_what_runs_it(tmp_path: Path) -> None:
    (cell,) = [*(GRID / "cells").glob("digits-aevb-pyro-seed0-*")][:1]
    if not (cell / "state.safetensors").exists():
        with pytest.raises(StorageError, match=r"has no fit: .* run python -m comparisons\.marginal_likelihood"):
            export.main([str(cell), "--to", "npz", "--out", str(tmp_path / "fit.npz")])


def test_a_cell_has_tables_too(found: dict[str, Comparison], capsys: pytest.CaptureFixture[str]) -> None:
    assert export.main([str(cell_of(found, "aevb", "pyro")), "--to", "csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
