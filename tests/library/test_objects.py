"""A model or a backend given as an object: it counts by its source, and without one it is refused or named."""

import linecache
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from comparisons import compare
from comparisons.cli import parts
from comparisons.errors import FlagError
from comparisons.library.compare import Comparison
from comparisons.library.objects import words
from comparisons.runner import store
from inference.aevb import AEVB, aevb
from models.vae import VaeBernoulli

RNG = np.random.default_rng(0)
X = (RNG.random((60, 6)) < 0.5).astype(np.float64)
TINY: dict[str, Any] = {"samples": 300, "minibatch": 10, "n_hidden": 5, "n_latent": 2, "eval_points": 5}
TINY |= {"step_size": 0.05, "elbo_draws": 3, "warmup": 0, "engine": "pyro", "evidence": "none", "quiet": True}

MODEL = """\
from dataclasses import dataclass

from models.vae import VaeBernoulli


@dataclass(frozen=True)
class Mine(VaeBernoulli):
    @property
    def theta_shapes(self):
        return super().theta_shapes
"""
BACKEND = """\
from inference.aevb import aevb
from inference.base import Method


def mine(engine, model, settings):
    return aevb(engine, model, settings)


CARD = Method(mine, has_q=True)
"""


def tiny(out: Path, **changes: Any) -> Comparison:
    return compare(X, out=out, **{**TINY, **changes})


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What runs a cell as a kernel does: under a file's name that no disk has, with its lines known to `linecache`."""
    module = ModuleType("a_notebook")
    monkeypatch.setitem(sys.modules, "a_notebook", module)

    def cell(source: str) -> dict[str, Any]:
        file = f"/nowhere/ipykernel_1/{abs(hash(source))}.py"
        monkeypatch.setitem(linecache.cache, file, (len(source), None, source.splitlines(True), file))
        exec(compile(source, file, "exec"), vars(module))
        return vars(module)

    return cell


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of a user's own, imported."""
    (tmp_path / "own_module.py").write_text(MODEL + "\n\n" + BACKEND)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_module", raising=False)
    yield __import__("own_module")
    sys.modules.pop("own_module")


def cells(found: Comparison) -> list[str]:
    return [job.cell.name for job in found.grid.jobs]


def test_an_imported_object_is_the_part_of_its_file(tmp_path: Path, module: Any) -> None:
    file = tmp_path / "own_module.py"
    by_object = tiny(tmp_path / "out", model=module.Mine, backends=["aevb", module.mine, module.CARD])
    by_name = [f"{file}:mine", f"{file}:CARD"]
    assert cells(by_object) == cells(tiny(tmp_path / "out", model=f"{file}:Mine", backends=["aevb", *by_name]))
    assert {*by_object.rows.backend} == {"aevb", "own_module.py:mine", "own_module.py:CARD"}
    for asked in (module.mine, "mine", "own_module.py:mine"):
        assert "own_module-mine" in repr(by_object.fit(asked))
    file.write_text(file.read_text() + "# another version\n")
    assert not {*cells(by_object)} & {*cells(tiny(tmp_path / "out", model=module.Mine, backends=["aevb"]))}


def test_a_class_without_a_method_of_its_own_has_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that a dataclass adds are not the user's."""
    (tmp_path / "bare.py").write_text(MODEL.partition("    @property")[0] + "    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "bare", raising=False)
    assert words("model", __import__("bare").Mine, Path()) == [f"{tmp_path / 'bare.py'}:Mine"]
    del sys.modules["bare"]


def test_what_is_registered_keeps_its_name() -> None:
    assert words("model", VaeBernoulli, Path()) == ["vae_bernoulli"]
    assert words("backend", AEVB, Path()) == words("backend", aevb, Path()) == ["aevb"]


def test_a_cell_of_a_notebook_is_written_once_and_workers_load_it(tmp_path: Path, notebook: Any) -> None:
    mine, backend = notebook(MODEL)["Mine"], notebook(BACKEND)["mine"]
    found = tiny(tmp_path, model=mine, backend=backend, seeds=[0, 1], workers=2)
    files = sorted((tmp_path / "parts").iterdir())
    assert [one.name.rpartition("-")[0] for one in files] == ["Mine", "mine"]
    assert [one.read_text() for one in files] == [MODEL, BACKEND]
    assert {*found.rows.status} == {"ok"} and {*found.rows.model} == {f"{files[0].name}:Mine"}
    again = tiny(tmp_path, model=f"{files[0]}:Mine", backend=f"{files[1]}:mine", seeds=[0, 1])
    pd.testing.assert_frame_equal(found.rows, again.rows, check_exact=True)
    assert f"--model {files[0].name}:Mine " in store.read_manifest(tmp_path, cells(found)[0])["command"]
    files[0].write_text("broken")  # by hand: the cell's source counts
    assert cells(tiny(tmp_path, model=mine, backend=backend, seeds=[0, 1])) == cells(found)
    other = notebook(MODEL + "\n# changed\n")["Mine"]
    assert not {*cells(tiny(tmp_path, model=other, backend=backend))} & {*cells(found)}
    assert len([*(tmp_path / "parts").iterdir()]) == 3


@pytest.mark.parametrize("own", ["lambda", "partial", "local", "instance"])
def test_what_has_no_source_of_its_own_is_refused_in_a_line(tmp_path: Path, own: str) -> None:
    def local(engine: Any, model: Any, settings: Any) -> Any:
        return aevb(engine, model, settings)

    given: Any = {"lambda": lambda *told: aevb(*told), "partial": partial(aevb), "local": local, "instance": object()}
    with pytest.raises(FlagError, match=r"^backend \S+ is not defined by a name .*NAME_1.*version$") as caught:
        tiny(tmp_path, backend=given[own])
    assert "\n" not in str(caught.value)


def test_a_cell_that_needs_another_says_which_names(tmp_path: Path, notebook: Any) -> None:
    notebook("import numpy as np\nfrom models.vae import VaeBernoulli\n")
    mine = notebook("class Mine(VaeBernoulli):\n    def f(self):\n        return [np.ones(n) for n in range(3)]\n")
    with pytest.raises(FlagError, match=r"^model Mine needs VaeBernoulli, np of other cells; import or define it"):
        tiny(tmp_path, model=mine["Mine"])


def test_a_name_and_version_stand_for_what_has_none(tmp_path: Path) -> None:
    found = tiny(tmp_path, backends=["aevb", {"mine_1": lambda *told: aevb(*told)}], seeds=[0, 1])
    assert {*found.rows.backend} == {"aevb", "given:mine_1"}
    same = ["seed", "split", "metric", "value"]
    by = {name: rows[same].reset_index(drop=True) for name, rows in found.rows.groupby("backend")}
    pd.testing.assert_frame_equal(by["aevb"], by["given:mine_1"], check_exact=True)
    assert "given-mine_1" in repr(found.fit("mine_1", seed=1))
    other = tiny(tmp_path, backend={"mine_2": lambda *told: aevb(*told)})
    assert not {*cells(found)} & {*cells(other)}
    assert cells(tiny(tmp_path, model={"net_1": VaeBernoulli}, backend={"mine_1": aevb})) != cells(found)
    with pytest.raises(FlagError, match="given:mine_1 is known to this process alone, not to workers"):
        tiny(tmp_path, backend={"mine_1": aevb}, workers=2)
    with pytest.raises(FlagError, match="'mine 1' is not a Python identifier"):
        tiny(tmp_path, backend={"mine 1": aevb})
    parts.GIVEN.clear()
    with pytest.raises(FlagError, match="known to no other process"):
        parts.named("backend", other.grid.jobs[0].cell.experiment.backend)


def test_a_script_that_compares_what_it_defines_is_not_run_in_a_circle(tmp_path: Path, notebook: Any) -> None:
    call = f"\nfrom comparisons import compare\n\ncompare('digits', model=Mine, out={str(tmp_path)!r}, samples=300)\n"
    with pytest.raises(FlagError, match=r"raised FlagError: compare\(\) stands where .* cell of its own"):
        notebook(MODEL + call)
