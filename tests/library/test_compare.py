"""`compare`: the command's own cells, from whatever Python has for data and settings."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from comparisons import compare, marginal_likelihood
from comparisons.data import find
from comparisons.errors import DataError, FlagError, NumericsError, UserError
from comparisons.library.compare import Comparison
from comparisons.runner import grid, store

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(0)
X = (RNG.random((60, 2, 3)) < 0.5).astype(np.float64)
CLOCKS = ["seconds", "eval_seconds", "compile_seconds"]
TINY: dict[str, Any] = {"samples": 600, "minibatch": 10, "n_hidden": 5, "n_latent": 2, "eval_points": 5}
TINY |= {"step_size": 0.05, "elbo_draws": 3, "fit_steps": 5, "warmup": 0, "engine": "pyro", "quiet": True}


def tiny(data: Any, out: Path, **changes: Any) -> Comparison:
    return compare(data, out=out, **{**TINY, **changes})


def test_its_cells_are_the_command_s_bit_for_bit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "data.npz", x=X)
    flags = [f"--{name.replace('_', '-')} {value}" for name, value in TINY.items() if name != "quiet"]
    words = [word for flag in flags for word in flag.split()]
    words += ["--backend", "aevb", "wake_sleep", "--seeds", "0", "1", "--data", str(tmp_path / "data.npz")]
    assert marginal_likelihood.main([*words, "--out", str(tmp_path / "command")]) == 0
    printed = capsys.readouterr().out
    found = tiny(X, tmp_path / "python", backends=["aevb", "wake_sleep"], seeds=range(2))
    assert capsys.readouterr() == ("", "")
    mine, theirs = (store.read_rows(tmp_path / out / "rows.csv").drop(columns=CLOCKS) for out in ("python", "command"))
    pd.testing.assert_frame_equal(mine, theirs, check_exact=True)
    pd.testing.assert_frame_equal(found.rows.drop(columns=CLOCKS), theirs, check_exact=True)
    states = [path.parent.name for path in (tmp_path / "command").glob("cells/*/state.safetensors")]
    assert len(states) == 4
    for cell in states:
        one, other = (tmp_path / out / "cells" / cell / "state.safetensors" for out in ("python", "command"))
        assert one.read_bytes() == other.read_bytes()
    first, second = repr(found).splitlines()[:2], printed.splitlines()[:2]
    assert first == second and "The results are in" in repr(found)


def test_what_a_manifest_says_was_typed_makes_the_same_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = tiny(X, Path("out"), backend="aevb", seeds=(3, 4), scale=2)
    (cell,) = [job.cell.name for job in found.grid.jobs][:1]
    command = store.read_manifest(Path("out"), cell)["command"].split()
    assert command[:5] == ["python", "-m", "comparisons.marginal_likelihood", "--data", "out/data/data.npz"]
    asked = grid.parse("", "", marginal_likelihood.DEFAULTS, command[3:])
    assert asked.experiments == found.grid.request.experiments
    again = compare(find("out/data/data.npz"), out="out", backend="aevb", seeds=(3, 4), scale=2, **TINY)
    pd.testing.assert_frame_equal(again.rows, found.rows, check_exact=True)


KINDS: dict[str, Any] = {
    "an array": X.reshape(60, 6),
    "images": X,
    "whole numbers": X.astype(int),
    "a table": pd.DataFrame(X.reshape(60, 6), columns=list("abcdef")),
    "lists": X.reshape(60, 6).tolist(),
    "a dict": {"x": X, "x_test": X[:7]},
    "a dict of tables": {name: pd.DataFrame(x.reshape(-1, 6)) for name, x in {"x": X, "x_test": X[:7]}.items()},
}


@pytest.mark.parametrize("kind", KINDS)
def test_data_of_every_kind_are_kept_as_a_file_of_the_command_s(tmp_path: Path, kind: str) -> None:
    found = tiny(KINDS[kind], tmp_path, backend="aevb", name="mine")
    assert set(found.rows.data) == {"mine.npz"} and set(found.rows.status) == {"ok"}
    (data,) = found.grid.data.values()
    assert len(data.test) == (7 if "dict" in kind else 12)
    assert data.shape == ((2, 3) if kind in ("images", "whole numbers", "a dict") else (1, 6))
    both = np.concatenate([data.train, data.test]) if "dict" not in kind else data.train
    assert sorted(map(tuple, both)) == sorted(map(tuple, X.reshape(60, 6)))


def test_a_name_and_a_path_are_data_too(tmp_path: Path) -> None:
    np.save(tmp_path / "own.npy", X)
    assert set(tiny("digits", tmp_path, backend="aevb").rows.data) == {"digits"}
    for path in (tmp_path / "own.npy", str(tmp_path / "own.npy")):
        assert set(tiny(path, tmp_path, backend="aevb").rows.data) == {"own.npy"}
    assert not (tmp_path / "data").exists()


def test_finished_cells_are_reused_and_other_arrays_have_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = tiny(X, tmp_path, backend="aevb"), tiny(1 - X, tmp_path, backend="aevb")
    assert set(one.rows.data) == {"data.npz"} and set(two.rows.cell).isdisjoint(one.rows.cell)
    files = sorted(path.name for path in (tmp_path / "data").iterdir())
    assert len(files) == 2 and files[1] == "data.npz" and files[0].startswith("data-")
    monkeypatch.setattr("comparisons.runner.grid.work", lambda *args: pytest.fail("run again"))
    for data, before in ((X, one), (1 - X, two)):
        pd.testing.assert_frame_equal(tiny(data, tmp_path, backend="aevb").rows, before.rows, check_exact=True)
    monkeypatch.undo()
    tiny(X, tmp_path, backend="aevb", fresh=True)
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == files


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"smaples": 3}, "unknown setting 'smaples'; did you mean samples"),
        ({"dry_run": True}, "unknown setting 'dry_run'"),
        ({"backends": ["aevb", "wake_slepe"]}, "unknown backend 'wake_slepe'; did you mean wake_sleep"),
        ({"samples": "many"}, "samples 'many' is not a whole number"),
        ({"samples": 10.5}, r"samples '10\.5' is not a whole number"),
        ({"workers": -1}, "workers -1 is out of range"),
        ({"seeds": []}, "expected at least one argument"),
        ({"model": "missing.py:Mine"}, "model file 'missing.py' is missing"),
        ({"model": "linear_gaussian", "n_latent": 6}, "n_latent"),
        ({"name": "a b"}, "name 'a b' goes into results"),
        ({"name": "x" * 60}, "at most 50 letters"),
    ],
)
def test_a_setting_that_is_not_allowed_is_one_line(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    told = {key: value for key, value in TINY.items() if key not in settings}
    with pytest.raises(FlagError, match=words) as caught:
        compare(X, out=tmp_path, **told, **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (X * np.nan, "data.npz x: row 0, column 0 is nan"),
        (X[:1], "data x: shape is .* not .* with at least 2 rows"),
        (X[0, 0], r"data x is float64 \[3\]; give numbers \[n, d\]"),
        (3.0, r"data x is float64 \[\]"),
        (X.astype(object), r"data x is object \[60, 2, 3\]"),
        ([[1], [2, 3]], "data x is no array"),
        (None, "data x is object"),
        (pd.DataFrame({"a": [1, 2], "b": ["c", "d"]}), "row 0, column b: 'c' is no number"),
        ("nothing.npz", "there is no such file"),
        ({"x": X, "y": X}, "the array 'y' of 'data.npz' would not be used by model 'vae_bernoulli'"),
        ({"x": X, "file": X}, "the array 'file' of data would not be used"),
    ],
)
def test_bad_arrays_are_refused_in_a_line_and_leave_no_file(tmp_path: Path, data: Any, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        tiny(data, tmp_path / "out")
    assert "\n" not in str(caught.value) and not [*tmp_path.rglob("*.npz")]


def test_arrays_that_do_not_go_together_are_refused_as_a_file_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^data\.npz.*3 rows leave 1 to test on"):
        tiny(X[:3], tmp_path)


def test_a_comparison_shows_itself(tmp_path: Path) -> None:
    found = tiny(X, tmp_path, backends=["aevb", "monte_carlo_em"])
    assert list(found.table.backend) == ["aevb", "monte_carlo_em"] and found.table.baseline_test.notna().all()
    figure = found.figure()
    assert isinstance(figure, Figure) and len(figure.axes) == 2
    figure.savefig(tmp_path / "figure.png")
    html = found._repr_html_()
    assert html.count("<table>") == 1 and "aevb" in html and "python -m comparisons.marginal_likelihood" in html


def test_a_fit_is_chosen_by_what_it_is_or_as_the_best(tmp_path: Path) -> None:
    found = tiny(X, tmp_path, backends=["aevb", "wake_sleep"], seeds=[0, 1], n_latents=[2, 3])
    last = found.rows[(found.rows.split == "test") & (found.rows.metric == "log_px_quadrature_nats")]
    last = last[last.n_seen == 600]
    assert found.fit().fit.cell.name == last.loc[last.value.idxmax()].cell
    mine = last[(last.backend == "wake_sleep") & (last.seed == 1)]
    assert found.fit("wake_sleep", seed=1).fit.cell.name == mine.loc[mine.value.idxmax()].cell
    only = found.fit("aevb", engine="pyro", seed=np.int64(1), n_latent=3)
    assert "aevb-pyro-seed1" in repr(only) and only.fit.model.n_latent == 3
    with pytest.raises(FlagError, match=r"no fit has {'seed': 7}; there are aevb pyro seed 0 k=2; "):
        found.fit(seed=7)
    with pytest.raises(FlagError, match="unknown setting 'sede'; did you mean seed"):
        found.fit(sede=0)
    (tmp_path / "cells" / only.fit.cell.name / "state.safetensors").unlink()
    with pytest.raises(NumericsError, match=r"aevb pyro seed 1 k=3 .*\(fresh=True\)"):
        found.fit("aevb", seed=1, n_latent=3)


OWN = (
    "from inference.aevb import aevb\n\ndef mine(engine, model, settings):\n    return aevb(engine, model, settings)\n"
)
FAILS = "def fails(engine, model, settings):\n    raise ValueError('at these settings')\n"


def test_a_backend_of_a_file_s(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN + FAILS)
    found = tiny(X, tmp_path, backend=f"{tmp_path / 'own.py'}:mine")
    for name in ("own.py:mine", f"{tmp_path / 'own.py'}:mine", None):
        assert found.fit(name).embed(X).shape == (60, 2)
    with pytest.raises(UserError, match="at these settings"):
        tiny(X, tmp_path, backend=f"{tmp_path / 'own.py'}:fails")


def test_it_runs_where_an_event_loop_is_running(tmp_path: Path) -> None:
    async def cell() -> Comparison:
        return tiny(X, tmp_path, backend="aevb")

    assert len(asyncio.run(cell()).rows)


def test_importing_the_package_imports_no_library() -> None:
    code = "import sys, comparisons; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "comparisons" in loaded.split()
    assert not {*loaded.split()} & {"numpy", "pandas", "matplotlib", "jax", "torch", "numpyro", "pyro", "models"}
    with pytest.raises(ImportError, match="comparee"):
        exec("from comparisons import comparee")
