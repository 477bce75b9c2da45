"""A user's own models and backends: how they are named, loaded, told apart, and refused."""

import copy
import importlib
import json
import pickle
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from frames import table_of

from comparisons import cli, marginal_likelihood
from comparisons.cli import parts
from comparisons.cli.parts import Part, find
from comparisons.data import Data
from comparisons.errors import FlagError, in_one_line
from comparisons.evidence.blocks import pairs_within
from comparisons.reporting import figures, tables
from comparisons.runner import store
from comparisons.runner.cell import on
from comparisons.runner.experiment import Experiment, method
from comparisons.runner.experiment import identity as name_of
from comparisons.runner.grid import parse
from models.linear_gaussian import LinearGaussian

ROOT = Path(__file__).parents[2]
DIGEST = "0" * 64
ROWS = Data("synthetic", np.zeros((1000, 10), np.float32), np.zeros((2, 10), np.float32), (1, 10), "real", "", False)
SMALL = [
    "--samples", "400", "--warmup", "0", "--step-size", "0.05", "--eval-points", "20", "--elbo-draws", "4",
    "--n-latent", "2", "--n-hidden", "5", "--engine", "pyro",
]  # fmt: skip

# The registered ruler under another name: whatever is reported of it can be held against the closed form.
MODEL = """
from __future__ import annotations
from dataclasses import dataclass
from models.linear_gaussian import LinearGaussian

@dataclass(frozen=True)
class Ruler(LinearGaussian):
    n_hidden: int

class Plain:
    pass

def refuse(n_x, n_latent, n_hidden):
    raise ValueError(f"n_x is {n_x}\\n  and must be even")

def crash(n_x, n_latent, n_hidden):
    return {}["missing"]

def nothing(n_x, n_latent, n_hidden):
    return Plain()

def other_sizes(n_x, n_latent, n_hidden):
    return LinearGaussian(n_x, n_latent + 1)

class Unhashable(Ruler):
    __hash__ = None

number = 3
"""
BACKEND = """
from inference.aevb import aevb

def mine(engine, model, settings):
    return aevb(engine, model, settings)

def without_q(engine, model, settings):
    return mine(engine, model, settings)._replace(posterior=None)

def crash(engine, model, settings):
    return 1 / 0

def nothing(engine, model, settings):
    return None
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a model file and a backend file."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "toy.py").write_text(MODEL)
    (folder / "fit.py").write_text(BACKEND)
    return folder


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """Run a command that must end with exit code 2 and one line on stderr; return it."""

    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit) as caught:
            cli.main(lambda: marginal_likelihood.main([*SMALL, *arguments, "--out", str(tmp_path / "out")]))
        _, err = capfd.readouterr()
        lines = [line for line in err.splitlines() if "pt/s" not in line and line.strip()]  # progress bars aside
        assert caught.value.code == 2, err
        assert "Traceback" not in err and lines[-1].startswith("error: ")
        assert sum(line.startswith("error: ") for line in lines) == 1
        return lines[-1]

    return run


def part(kind: str, path: Path, name: str) -> Part:
    found = find(kind, f"{path}:{name}")
    assert isinstance(found, Part)
    return found


def experiment(**settings: Any) -> Experiment:
    return Experiment(**{"data": "synthetic", "n_latent": 2, "step_size": 0.05, **settings})


# Names


def test_a_part_is_shown_by_file_and_name_alone(files: Path) -> None:
    found = part("model", files / "toy.py", "Ruler")
    assert found == "toy.py:Ruler" and found.name == "Ruler" and found.folder == "toy-Ruler"
    assert found.path == str(files / "toy.py") and re.fullmatch("[0-9a-f]{64}", found.sha256)
    assert [f"{found}", json.dumps({"model": found})] == ["toy.py:Ruler", '{"model": "toy.py:Ruler"}']


@pytest.mark.parametrize("text", ["aevb", "auto", "avb", "", "two\nlines", "a:b", "a/b", "http"])
def test_what_has_not_the_form_of_a_file_stays_a_name(text: str) -> None:
    assert find("backend", text) == text and not isinstance(find("backend", text), Part)


def test_a_relative_path_is_found_from_another_folder(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    found = find("model", "toy.py:Ruler")
    monkeypatch.chdir(files.parent)
    assert parts.model(found)(6, 2, 5).n_x == 6


def test_parts_are_equal_where_content_and_name_are(files: Path, tmp_path: Path) -> None:
    first = part("model", files / "toy.py", "Ruler")
    (tmp_path / "elsewhere").mkdir()
    copied = shutil.copy(files / "toy.py", tmp_path / "elsewhere")
    same, other = part("model", Path(copied), "Ruler"), part("model", Path(copied), "crash")
    assert first == same and hash(first) == hash(same)
    assert first != other and first not in {other}
    Path(copied).write_text(MODEL + "\n")
    assert first != part("model", Path(copied), "Ruler")


def test_a_part_goes_through_pickle_and_copies_whole(files: Path) -> None:
    found = part("model", files / "toy.py", "Ruler")
    for twin in (pickle.loads(pickle.dumps(found)), copy.deepcopy(found), copy.copy(found)):
        assert type(twin) is Part and twin == found and (twin.path, twin.sha256) == (found.path, found.sha256)


# Identity


def test_the_identity_follows_content_and_name_and_not_the_place(files: Path, tmp_path: Path) -> None:
    def identity(folder: Path, model: str = "toy.py:Ruler", backend: str = "fit.py:mine") -> str:
        named = {"model": find("model", f"{folder}/{model}"), "backend": find("backend", f"{folder}/{backend}")}
        return name_of(experiment(**named), DIGEST)

    first = identity(files)
    moved = Path(shutil.copytree(files, tmp_path / "moved"))
    assert identity(moved) == first
    assert identity(moved, model="toy.py:crash") != first and identity(moved, backend="fit.py:without_q") != first
    for file in ("toy.py", "fit.py"):
        before = (moved / file).read_text()
        (moved / file).write_text(before + "# a comment\n")
        assert identity(moved) != first
        (moved / file).write_text(before)
    assert identity(moved) == first
    assert name_of(experiment(), DIGEST) not in (first, name_of(experiment(model="linear_gaussian"), DIGEST) + "x")


def test_the_identity_is_a_file_name_and_method_tells_the_content(files: Path) -> None:
    chosen = experiment(
        model=part("model", files / "toy.py", "Ruler"), backend=part("backend", files / "fit.py", "mine")
    )
    assert re.fullmatch(r"synthetic-fit-mine-numpyro-seed0-[0-9a-f]{12}", name_of(chosen, DIGEST))
    shas = [f"{kind}_sha256={getattr(chosen, kind).sha256[:12]}" for kind in ("model", "backend")]
    assert method(chosen) == " ".join(["step_size=0.05", *shas])
    assert str(files) not in json.dumps(asdict(chosen)) + method(chosen)
    assert replace(chosen, seed=1).model == chosen.model and isinstance(replace(chosen, seed=1).model, Part)


def test_auto_takes_what_serves_a_model_it_does_not_know(files: Path) -> None:
    mine = part("model", files / "toy.py", "Ruler")
    assert experiment(model=mine).evidence == ("quadrature",)
    assert experiment(model=mine, n_latent=4).evidence == ("importance",)
    on(experiment(model=mine, evidence=("exact",)), ROWS)  # a ruler knows its log p(x) in closed form
    (files / "vae.py").write_text("from models.vae import VaeGaussian as Vae\n")
    asked = experiment(model=part("model", files / "vae.py", "Vae"), evidence=("exact",))
    with pytest.raises(FlagError, match=r"closed form.*vae\.py:Vae"):
        on(asked, ROWS)


# What is refused


@pytest.mark.fault("a hostile or broken file, or name of one, as a model or backend", "one line, exit code 2")
@pytest.mark.parametrize("flag", ["model", "backend"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nothing.py:f", ["nothing.py", "missing", "path/to/file.py:NAME"]),
        ("toy.py", ["names no callable", "path/to/file.py:NAME"]),
        ("own/toy", ["unknown", "path/to/file.py:NAME"]),
        ("./toy.txt:Ruler", [".py", "path/to/file.py:NAME"]),
        ("folder.py:f", ["folder.py", "not a file"]),
        ("toy.py:", ["not a Python identifier"]),
        ("toy.py:a b", ["not a Python identifier"]),
        ("toy.py:a.b", ["not a Python identifier"]),
        ("toy.py:a,b", ["not a Python identifier"]),
        ("toy.py:é", ["not a Python identifier"]),
        ("toy.py:" + "a" * 65, ["not a Python identifier"]),
        ("toy.py:<b>", ["not a Python identifier"]),
        ("toy.py:../../x", ["names no callable"]),
        ("<b>.py:f", ["rename it"]),
        ("=cmd.py:f", ["rename it"]),
        ("-cmd.py:f", ["rename it"]),
        ("_private.py:f", ["rename it"]),
        ("a|b.py:f", ["rename it"]),
        ("a,b.py:f", ["rename it"]),
        ("two\nlines.py:f", ["rename it"]),
        ("dotted.name.py:f", ["rename it"]),
        ("a" * 65 + ".py:f", ["rename it"]),
        ("toy.py:absent", ["toy.py", "defines no absent"]),
        ("toy.py:number", ["number", "int", "cannot be called"]),
        ("syntax.py:f", ["syntax.py", "SyntaxError", "line 2"]),
        ("raises.py:f", ["raises.py", "KeyError", "'there is no such thing'", "line 3"]),
        ("exits.py:f", ["exits.py", "SystemExit"]),
        ("neighbour.py:f", ["ModuleNotFoundError", "toy"]),
    ],
)
def test_a_file_that_cannot_be_used_ends_with_one_line(
    files: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, flag: str, text: str, words: list[str]
) -> None:
    (files / "folder.py").mkdir()
    (files / "syntax.py").write_text("f = 1\ndef f(:\n")
    (files / "raises.py").write_text("\n\nraise KeyError('there is no such thing')\n")
    (files / "exits.py").write_text("import sys\nsys.exit(0)\n")
    (files / "neighbour.py").write_text("import toy\n")
    monkeypatch.chdir(files)
    line = refused(f"--{flag}={text}", "--data", "synthetic")
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "toy.py:refuse"], ["toy.py:refuse", "(10, 2, 5)", "n_x is 10 and must be even"]),
        (["--model", "toy.py:crash"], ["toy.py:crash", "KeyError: 'missing' (toy.py, line 17)"]),
        (["--model", "toy.py:nothing"], ["Plain", "models.base.Model"]),
        (["--model", "toy.py:other_sizes"], ["(10, 3)", "(10, 2)"]),
        (["--model", "toy.py:Unhashable"], ["hashed", "frozen dataclass"]),
        (["--backend", "fit.py:crash"], ["fit.py:crash", "ZeroDivisionError", "fit.py, line 11"]),
        (["--backend", "fit.py:nothing"], ["NoneType", "inference.base.Backend"]),
        (["--backend", "fit.py:without_q", "--evidence", "importance", "--proposal", "q"], ["fit.py:without_q", "hmc"]),
        (["--backend", "fit.py:without_q", "--evidence", "annealed", "--start", "recognition"], ["--start prior"]),
    ],
)
def test_a_callable_that_does_not_build_ends_with_one_line(
    files: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: list[str]
) -> None:
    monkeypatch.chdir(files)
    line = refused(*arguments, "--data", "synthetic")
    assert all(word in line for word in words), line


def test_a_name_that_is_unknown_mentions_files() -> None:
    for kind in parts.KINDS:
        with pytest.raises(FlagError, match=r"path/to/file\.py:NAME"):
            experiment(**{kind: "avb"})
    with pytest.raises(FlagError) as caught:
        Experiment(engine="stan")
    assert "file.py" not in str(caught.value)


def test_a_path_that_no_file_can_have_is_a_flag_error(tmp_path: Path) -> None:
    for text in ("a\0/b.py:f", "d" * 5000 + "/b.py:f"):
        with pytest.raises(FlagError, match=r"cannot be read|missing"):
            find("model", text)


# What runs, and when


@pytest.mark.fault("an experiment read back from a manifest that names a file", "refused; nothing of it is run")
def test_a_plain_string_is_never_loaded(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings read back from a manifest hold plain strings: no file is found through them, let alone run."""
    (files / "trap.py").write_text("raise SystemError('was run')\n")
    monkeypatch.chdir(files)
    settings = asdict(experiment(model=part("model", files / "toy.py", "Ruler")))
    for text in ("trap.py:f", "./trap.py:f", str(files / "trap.py:f")):
        for kind in ("model", "backend"):
            with pytest.raises(FlagError, match="unknown"):
                Experiment(**json.loads(json.dumps({**settings, kind: text})))
            with pytest.raises(FlagError, match="because of a flag"):
                getattr(parts, kind)(text)


def test_naming_a_file_does_not_run_it(files: Path) -> None:
    (files / "trap.py").write_text("raise SystemError('was run')\n")
    chosen = experiment(model=part("model", files / "trap.py", "f"))
    assert name_of(chosen, DIGEST) and method(chosen) and pickle.loads(pickle.dumps(chosen)) == chosen
    with pytest.raises(FlagError, match="was run"):
        on(chosen, ROWS)


def test_a_file_is_run_once_and_leaves_no_trace(files: Path) -> None:
    count = f"import sys\nsys.counted = getattr(sys, 'counted', '') + {str(files)!r}\n"
    (files / "once.py").write_text(MODEL.replace("from dataclasses", f"{count}from dataclasses"))
    before, chosen = list(sys.path), part("model", files / "once.py", "Ruler")
    assert parts.model(chosen)(6, 2, 5) == parts.model(chosen)(6, 2, 5)
    assert parts.model(copy.copy(chosen))(6, 2, 5) == parts.model(chosen)(6, 2, 5)
    assert sys.__dict__.pop("counted") == str(files)
    assert sys.path == before and "once" not in sys.modules and not (files / "__pycache__").exists()


def test_a_file_that_changes_while_a_command_runs_is_refused(files: Path) -> None:
    (files / "toy.py").write_text(MODEL + "# one\n")
    chosen = part("model", files / "toy.py", "Ruler")
    (files / "toy.py").write_text(MODEL + "# another\n")
    with pytest.raises(FlagError, match="changed since"):
        parts.model(chosen)


def test_a_changed_file_is_loaded_anew(files: Path) -> None:
    for value in (1, 2):
        (files / "toy.py").write_text(f"def f(*sizes):\n    raise ValueError('version {value}')\n")
        with pytest.raises(FlagError, match=f"version {value}"):
            parts.model(part("model", files / "toy.py", "f"))(6, 2, 5)


def test_two_files_of_one_name_do_not_meet(files: Path, tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text(MODEL.replace("number = 3", "class Ruler(Ruler):\n    pass"))
    one, two = (parts.model(part("model", folder / "toy.py", "Ruler"))(6, 2, 5) for folder in (files, tmp_path))
    assert type(one) is not type(two) and type(one).__module__ != type(two).__module__ and one != two


def test_another_process_loads_from_the_experiment_alone(files: Path, tmp_path: Path) -> None:
    chosen = experiment(
        model=part("model", files / "toy.py", "Ruler"), backend=part("backend", files / "fit.py", "mine")
    )
    (tmp_path / "experiment.pickle").write_bytes(pickle.dumps(chosen))
    code = (
        "import pickle; from comparisons.cli import parts; from comparisons.runner.experiment import identity\n"
        "e = pickle.load(open('experiment.pickle', 'rb'))\n"
        "print(parts.model(e.model)(10, 2, 5), parts.backend(e.backend).build.__name__, identity(e, '0' * 64))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert ended.stdout.split() == ["Ruler(n_x=10,", "n_latent=2,", "n_hidden=5)", "build", name_of(chosen, DIGEST)]


def test_registries_are_read_in_one_place() -> None:
    for path in (ROOT / "comparisons").rglob("*.py"):
        if path.name != "parts.py":
            assert not re.search(r"\b(MODELS|BACKENDS)(\[|\.get)", path.read_text()), path


# Through the command


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of an own model under a registered and an own backend, judged two ways; and the ruler's own."""
    folder = tmp_path_factory.mktemp("private_place")
    (folder / "toy.py").write_text(MODEL)
    (folder / "fit.py").write_text(BACKEND)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        own = ["--model", str(folder / "toy.py:Ruler"), "--backend", "aevb", str(folder / "fit.py:mine")]
        patch.setattr(sys, "argv", ["marginal_likelihood.py", *own])
        common = [*SMALL, "--data", "synthetic", "--out", "out"]
        judged = ["--evidence", "quadrature", "importance", "--proposal", "q", "--importance-samples", "1000"]
        assert marginal_likelihood.main([*common, *own, *judged, "--tolerance", "0.01"]) == 0
        ruler = ["--model", "linear_gaussian", "--backend", "aevb", "monte_carlo_em", "--evidence", "exact"]
        assert marginal_likelihood.main([*common, *ruler]) == 0
    return folder / "out"


def test_an_own_model_and_backend_run_beside_registered_ones(finished: Path) -> None:
    rows = pd.read_csv(finished / "rows.csv")
    own = rows[rows.model == "toy.py:Ruler"]
    assert set(own.backend) == {"aevb", "fit.py:mine"} and set(own.status) == {"ok"}
    assert {"log_px_quadrature_nats", "log_px_importance_nats", "elbo_nats"} <= set(own.metric)
    last = rows[rows.n_seen == rows.n_seen.max()]
    for split in ("train", "test"):
        here = last[(last.backend == "aevb") & (last.split == split)].set_index(["model", "metric"]).value
        truth = here["linear_gaussian", "log_px_exact_nats"]
        assert here["toy.py:Ruler", "log_px_quadrature_nats"] == pytest.approx(truth, abs=0.02)
        assert here["toy.py:Ruler", "log_px_importance_nats"] == pytest.approx(truth, abs=0.5)
    values = own[own.metric == "elbo_nats"].set_index(["backend", "n_seen", "split"]).value
    np.testing.assert_array_equal(values["aevb"], values["fit.py:mine"])  # which is AEVB under another name


def test_results_hold_no_path(finished: Path) -> None:
    files = [path for path in finished.rglob("*") if path.is_file()]
    assert len(files) > 8
    for path in files:
        assert b"private_place" not in path.read_bytes(), path
    for folder in (finished / "cells").iterdir():
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,200}", folder.name)
    (manifest,) = (finished / "cells").glob("*fit-mine*/manifest.json")
    content = json.loads(manifest.read_text())
    assert (content["settings"]["model"], content["settings"]["backend"]) == ("toy.py:Ruler", "fit.py:mine")
    assert "--model toy.py:Ruler --backend aevb fit.py:mine" in content["command"]
    with pytest.raises(FlagError):
        Experiment(**content["settings"])


def test_results_are_reported_when_the_file_is_gone(finished: Path) -> None:
    (finished.parent / "toy.py").unlink()
    rows = store.collect(finished)
    assert "toy.py:Ruler" in table_of(rows) and "fit.py:mine" in figures.learning_curves(rows)


def test_two_versions_of_a_file_are_two_lines(finished: Path) -> None:
    rows = pd.read_csv(finished / "rows.csv", keep_default_na=False, na_values={"value": [""], "stderr": [""]})
    own = rows[rows.backend == "fit.py:mine"]
    newer = own.assign(
        method=own.method.str.replace("backend_sha256=....", "backend_sha256=beef", regex=True), cell="x"
    )
    table = tables.summary(pd.concat([rows, newer]))
    assert (table.backend == "fit.py:mine").sum() == 2


def test_figures_have_a_colour_for_any_number_of_backends(finished: Path) -> None:
    rows = store.collect(finished)
    own = rows[rows.backend == "fit.py:mine"]
    many = pd.concat([own.assign(backend=f"fit.py:b{i}", cell=f"c{i}") for i in range(9)])
    assert "fit.py:b8" in figures.learning_curves(many)


def test_a_note_names_the_backends_without_a_q(finished: Path) -> None:
    rows = store.collect(finished)
    table = tables.summary(rows[rows.backend == "monte_carlo_em"])
    both = pd.concat([table, table.assign(backend="fit.py:without_q")])
    assert "fit.py:without_q and monte_carlo_em have no q, hence no bound." in tables.note(both, "synthetic")
    assert "no q" not in tables.note(table.assign(status="diverged"), "synthetic")


def test_all_takes_the_registered_ones_beside_a_file(files: Path) -> None:
    arguments = ["--backend", "all", f"{files}/fit.py:mine", f"{files}/../own/fit.py:mine", "--engine", "pyro"]
    cells = parse("marginal_likelihood", "", {}, arguments).experiments
    assert [e.backend for e in cells] == ["aevb", "mean_field", "monte_carlo_em", "wake_sleep", "fit.py:mine"]


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        ("/home/me/toy.py:Toy", "toy.py:Toy"),
        ("--model=/home/me/my files/toy.py:Toy", "--model=toy.py:Toy"),
        ("../toy.py:Toy", "toy.py:Toy"),
        ("C:\\me\\toy.py:Toy", "toy.py:Toy"),
        ("toy.py:Toy", "toy.py:Toy"),
        ("--backend", "--backend"),
        ("1e6", "1e6"),
    ],
)
def test_a_command_is_shown_without_folders(argument: str, shown: str) -> None:
    assert parts.shown(argument) == shown


# What parts lean on


def test_the_line_at_fault_is_the_users(files: Path) -> None:
    (files / "deep.py").write_text("import json\n\ndef f(*sizes):\n    return json.loads('nonsense')\n")
    with pytest.raises(FlagError, match=r"Expecting value: .*\(deep\.py, line 4\)"):
        parts.model(part("model", files / "deep.py", "f"))(6, 2, 5)
    assert in_one_line(ValueError("two\nlines")) == "ValueError: two lines"
    assert len(in_one_line(ValueError("x" * 10_000))) < 330


def test_a_model_may_have_scalar_parameters_alone() -> None:
    class Scalars(LinearGaussian):
        @property
        def theta_shapes(self) -> dict[str, tuple[int, ...]]:
            return {"scale": ()}

    assert pairs_within(1e6, Scalars(6, 2)) == int(1e6 // (4 * 10 * 6))


# The examples of docs/extending.md

TEXT = (ROOT / "docs" / "extending.md").read_text()
EXAMPLES = dict(re.findall(r"`(\w+\.py)`\. NAME.*?```python\n(.*?)```", TEXT, re.DOTALL))
COMMANDS = [
    shlex.split(line)
    for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
    if line
]


def test_the_examples_are_short() -> None:
    assert EXAMPLES.keys() == {"factor_analysis.py", "iwae.py"}
    assert all(len(text.splitlines()) < 40 for text in EXAMPLES.values())


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[2])
def test_the_commands_of_the_examples_run(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in EXAMPLES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    assert command[:2] == ["python", "-m"]
    more = ["--engine", "pyro"] if command[2] == "comparisons.check" else SMALL
    assert importlib.import_module(command[2]).main([*command[3:], *more]) == 0
    assert "iwae.py:iwae" in capsys.readouterr().out


def test_a_network_that_torch_trained_is_judged_as_the_page_says() -> None:
    """Against importance sampling by hand, of the torch modules themselves."""
    (example,) = re.findall(r"## Judge a network.*?```python\n(.*?)```", TEXT, re.DOTALL)
    torch.manual_seed(0)
    images = (torch.rand(4, 784) < 0.3).float().numpy()
    names: dict[str, Any] = {"images": images}
    exec(example, names)
    x, draws = torch.from_numpy(images), 20_000
    with torch.no_grad():
        mean, log_variance = names["encoder"](x).chunk(2, -1)
        q = torch.distributions.Normal(mean, torch.exp(0.5 * log_variance))
        z = q.sample((draws,))
        log_px_z = torch.distributions.Bernoulli(logits=names["decoder"](z)).log_prob(x).sum(-1)
        log_w = log_px_z + (torch.distributions.Normal(0.0, 1.0).log_prob(z) - q.log_prob(z)).sum(-1)
        weights = torch.softmax(log_w, 0)
        expected = torch.logsumexp(log_w, 0) - np.log(draws)
        error = torch.sqrt((weights**2).sum(0))
    found = names["found"]
    off = np.abs(found.value - expected.numpy()) / np.hypot(found.stderr, error.numpy())
    assert off.max() < 4.0
    assert not found.flagged.any()
