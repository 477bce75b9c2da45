"""The command line: what it accepts, and how a mistake ends: one line on stderr and the exit code of its kind."""

import argparse
import gzip
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pooch
import pytest

from comparisons import cli, full_vb, lower_bound, marginal_likelihood
from comparisons.errors import DataError, FlagError, NumericsError, StorageError, UserError
from comparisons.runner import grid
from comparisons.runner.experiment import Experiment
from comparisons.runner.grid import Request, parse, parse_preset
from inference import BACKENDS, ENGINES
from inference.base import Settings

ROOT = Path(__file__).parents[2]
COMPARISONS = {"full_vb": full_vb, "lower_bound": lower_bound, "marginal_likelihood": marginal_likelihood}
# Whose flags are not those of an experiment.
PLANS = (
    "bounds", "calibration", "check", "closed_form", "embedding", "gradient_variance", "guide_families",
    "inference_gap", "manifold", "paper.attempts", "paper.judge_again", "posteriors", "pytorch_example", "report",
    "restoration", "samples", "speed",
)  # fmt: skip


class ComputedError(Exception):
    """Raised in place of the first thing that a command computes."""


@pytest.fixture
def fails(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run a command that must fail before it computes anything; return its one line on stderr."""

    def compute(*_: object) -> None:
        raise ComputedError

    monkeypatch.setattr("comparisons.runner.run.run", compute)

    def run(code: int, *arguments: str, module: ModuleType = marginal_likelihood) -> str:
        given = list(arguments) if "--out" in arguments else [*arguments, "--out", str(tmp_path / "out")]
        with pytest.raises(SystemExit) as caught:
            cli.main(lambda: module.main(given))
        out, err = capfd.readouterr()
        assert caught.value.code == code, err
        assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n")
        assert "Traceback" not in err and "\0" not in err
        return err

    return run


def experiments(*arguments: str) -> list[Experiment]:
    return parse("marginal_likelihood", "", marginal_likelihood.DEFAULTS, arguments).experiments


# Flags that are accepted


def test_all_expands_and_flags_with_several_values_span_a_grid() -> None:
    cells = experiments("--engine", "all", "--backend", "all", "--seeds", "0", "1", "--n-latent", "2", "3")
    found = [(e.backend, e.engine, e.n_latent, e.seed) for e in cells]
    assert found == [(b, e, k, s) for b in BACKENDS for e in ENGINES for k in (2, 3) for s in (0, 1)]


def test_the_defaults_of_a_comparison_are_its_own() -> None:
    assert {(e.backend, e.engine) for e in experiments()} == {(b, e) for b in BACKENDS for e in ENGINES}
    cells = parse("lower_bound", "", lower_bound.DEFAULTS, []).experiments
    assert {e.backend for e in cells} == {"aevb", "wake_sleep"}
    assert [e.n_latent for e in cells if e.backend == "aevb"] == [3, 5, 10, 20, 200]
    assert {(e.evidence, e.data, e.samples) for e in cells} == {((), "mnist", 1_000_000)}
    cells = parse("full_vb", "", full_vb.DEFAULTS, []).experiments
    assert [(e.theta, e.n_train) for e in cells] == [(t, n) for t in ("ml", "map", "vb") for n in (1000, 50_000)]


def test_treatments_of_theta_and_sizes_of_the_data_span_the_grid() -> None:
    cells = experiments("--backend", "aevb", "--engine", "pyro", "--theta", "all", "--n-train", "300", "1e3")
    assert [(e.theta, e.n_train) for e in cells] == [(t, n) for t in ("ml", "map", "vb") for n in (300, 1000)]
    assert {e.n_train for e in experiments()} == {None}


def test_a_value_given_twice_is_run_once() -> None:
    assert len(experiments("--backend", "aevb", "aevb", "--engine", "pyro", "--seeds", "1", "01", "1e0")) == 1


@pytest.mark.parametrize(
    ("text", "samples"), [("1e6", 10**6), ("1E6", 10**6), ("1e+6", 10**6), ("2.5e5", 250_000), ("700", 700)]
)
def test_points_may_be_written_as_powers_of_ten(text: str, samples: int) -> None:
    assert {e.samples for e in experiments("--samples", text)} == {samples}


def test_step_sizes_are_numbers_or_auto() -> None:
    assert experiments("--step-size", "1e-3")[0].step_size == 0.001
    assert experiments("--step-size", "auto")[0].step_size == "auto"


OTHERWISE = {"chains": ("--evidence", "appendix_d"), "estimator": ("--backend", "aevb")}  # else they are no setting


def test_every_field_is_a_flag_that_reaches_the_experiment() -> None:
    values: dict[str, Any] = {"n_train": 1000, "step_size": 0.5, "evidence": ("none",), "model": "vae_gaussian"}
    values |= {"theta": "ml", "backend": "wake_sleep"}  # vb is not for every backend, em not for every model
    values |= {"hidden": (20, 10), "stops": (1000,)}  # of which there are none by default
    values |= {"prior_family": "laplace"}  # where the usual q(z|x) lives, too
    for f in fields(Experiment):
        value = values.get(f.name)
        if value is None:
            value = f.metadata["choices"][-1] if "choices" in f.metadata else f.default
        if f.name == "data":
            value = "frey"
        flag = f.metadata.get("flag", "--" + f.name.replace("_", "-"))
        if flag is False:  # a setting of an estimator that no grid is asked for
            with pytest.raises(FlagError, match="unrecognized"):
                experiments("--" + f.name.replace("_", "-"), str(value))
            continue
        asked = OTHERWISE.get(f.name, ())
        cells = experiments(*asked, flag, *(map(str, value) if isinstance(value, tuple) else (str(value),)))
        assert {getattr(e, f.name) for e in cells} == {() if f.name == "evidence" else value}, flag


# Flags that are refused


@pytest.mark.fault(
    "wrong flags: types, ranges, names, NUL, 1e9 latent variables", "one line, exit code 2, nothing written"
)
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--backend", "avb"], ["'avb'", *BACKENDS]),
        (["--engine", "stan"], ["'stan'", *ENGINES]),
        (["--theta", "bayes"], ["'bayes'", "map", "ml", "vb"]),
        (["--backend", "aevb", "wake_sleep", "--theta", "vb"], ["'vb'", "aevb and mean_field", "not wake_sleep"]),
        (["--backend", "monte_carlo_em", "--theta", "ml", "vb"], ["'vb'", "not monte_carlo_em"]),
        (["--n-train", "500", "5000"], ["n_train 5000", "1297"]),
        (["--n-train", "all"], ["n_train 'all'", "whole number"]),
        (["--theta-draws", "1"], ["theta_draws 1", "at least 2"]),
        (["--engine", "pyro", "ALL"], ["'ALL'", *ENGINES]),
        (["--data", "cifar"], ["'cifar'", "digits", "mnist_binary"]),
        (["--model", "gan"], ["'gan'", "vae_bernoulli"]),
        (["--n-latent", "0"], ["n_latent 0", "at least 1", "1000"]),
        (["--n-latent", "1e9"], ["n_latent 1000000000", "1000"]),
        (["--n-latent", "3", "2.5"], ["n_latent '2.5'", "whole number"]),
        (["--n-latent", "all"], ["n_latent 'all'", "whole number"]),
        (["--seeds", "-1"], ["seeds -1", "at least 0"]),
        (["--seeds", "all"], ["seeds 'all'", "whole number"]),
        (["--samples", "50"], ["samples 50", "minibatch", "100"]),
        (["--samples", "1e-3"], ["samples '1e-3'", "whole number"]),
        (["--samples", "1.5e0"], ["samples '1.5e0'", "whole number"]),
        (["--samples", "1e999"], ["samples '1e999'", "whole number"]),
        (["--samples", "inf"], ["samples 'inf'", "whole number"]),
        (["--samples", "9" * 5000], ["samples", "whole number"]),
        (["--samples", ""], ["samples ''", "whole number"]),
        (["--minibatch", "2000"], ["minibatch 2000", "1297"]),
        (["--n-train", "0"], ["n_train 0", "at least 1"]),
        (["--n-train", "5000"], ["n_train 5000", "1297"]),
        (["--step-size", "nan"], ["step_size nan", "above 0.0"]),
        (["--step-size", "inf"], ["step_size inf", "above 0.0"]),
        (["--step-size", "0"], ["step_size 0.0", "above 0.0"]),
        (["--step-size", "fast"], ["step_size 'fast'", "auto"]),
        (["--target-acceptance", "1"], ["target_acceptance 1.0", "0.999"]),
        (["--target-acceptance", "auto"], ["target_acceptance 'auto'"]),
        (["--local-step-size", "auto"], ["local_step_size 'auto'"]),
        (["--evidence", "quadrature", "--n-latent", "3", "4"], ["quadrature", "n_latent <= 3", "4"]),
        (["--evidence", "exact"], ["exact", "closed form"]),
        (["--data", "synthetic", "--n-latent", "10"], ["n_latent 10", "10 columns"]),
        (["--data", "synthetic", "--model", "vae_bernoulli"], ["vae_bernoulli", "synthetic"]),
        (["--e-step", "full", "--backend", "monte_carlo_em", "--samples", "1000"], ["1000", "1297"]),
        (["--threads", "0"], ["threads 0", "at least 1"]),
        (["--bakend", "aevb"], ["--bakend", "--help"]),
        (["--back", "aevb"], ["--back", "--help"]),
        (["aevb"], ["aevb", "--help"]),
        (["--backend"], ["--backend", "--help"]),
        (["--samples"], ["--samples", "--help"]),
        (["--out", ""], ["out ''", "folder"]),
        (["--out", "a\0b"], ["folder"]),
        (["--backend", "two\nlines"], ["'two\\nlines'", *BACKENDS]),
        (["--two\nlines"], ["--help"]),
    ],
)
def test_a_wrong_flag_ends_with_code_2(fails: Callable[..., str], arguments: list[str], words: list[str]) -> None:
    text = fails(2, *arguments)
    assert all(word in text for word in words), text


@pytest.mark.parametrize("name", COMPARISONS)
def test_every_comparison_refuses_alike(fails: Callable[..., str], name: str) -> None:
    assert "'avb'" in fails(2, "--backend", "avb", module=COMPARISONS[name])


def test_nothing_is_written_for_a_wrong_flag(fails: Callable[..., str], tmp_path: Path) -> None:
    fails(2, "--samples", "0")
    assert not list(tmp_path.iterdir())


# Engines and devices


@pytest.mark.fault("an engine that is not installed", "one line that says how to install it")
@pytest.mark.parametrize(("name", "module"), [("pyro", "pyro_torch"), ("numpyro", "numpyro_jax")])
def test_an_engine_that_is_not_installed_says_what_to_install(
    fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch, name: str, module: str
) -> None:
    monkeypatch.setenv("NPROC", "1")
    monkeypatch.setitem(sys.modules, "pyro" if name == "pyro" else "jax", None)
    monkeypatch.delitem(sys.modules, f"inference.engines.{module}", raising=False)
    # another number of threads: an engine that was built before is kept for good
    text = fails(2, "--engine", name, "--threads", "3")
    assert repr(name) in text and f"pip install {ENGINES[name].packages}" in text


@pytest.mark.parametrize("name", ENGINES)
def test_a_device_that_is_not_there_is_a_wrong_flag(fails: Callable[..., str], name: str) -> None:
    if name == "pyro" and import_module("torch").cuda.is_available():
        pytest.skip("this machine has CUDA")
    if name == "numpyro" and any(device.platform != "cpu" for device in import_module("jax").devices()):
        pytest.skip("this machine has an accelerator")
    text = fails(2, "--engine", name, "--device", "cuda")
    assert "'cuda'" in text and repr(name) in text and "--device cpu" in text


# Data and storage


def offline(*_: object, **__: object) -> None:
    raise OSError(101, "Network is unreachable")


@pytest.mark.fault("damaged data under a command", "one line, exit code 3")
@pytest.mark.parametrize("content", [None, b"", b"cut short", gzip.compress(bytes(16), mtime=0)[:-4]])
def test_data_that_are_missing_or_damaged_end_with_code_3(
    fails: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    monkeypatch.setattr(pooch, "retrieve", offline)
    file = tmp_path / "data" / "mnist" / "train-images-idx3-ubyte.gz"
    file.parent.mkdir(parents=True)
    if content is not None:
        file.write_bytes(content)
    text = fails(3, "--data", "mnist", "--data-dir", str(tmp_path / "data"))
    assert str(file) in text and ("SHA-256" in text or "missing" in text)


def test_data_in_a_folder_that_cannot_be_one_end_with_code_3(fails: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert str(tmp_path / "file") in fails(3, "--data", "frey", "--data-dir", str(tmp_path / "file" / "below"))


@pytest.mark.fault("an output folder that cannot be written", "found before anything is computed, exit code 5")
def test_a_folder_that_cannot_be_written_ends_with_code_5(fails: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    text = fails(5, "--out", str(tmp_path / "file" / "below"))
    assert str(tmp_path / "file" / "below") in text and "--out" in text
    assert (tmp_path / "file").read_text() == "kept"


def test_storage_is_tried_before_anything_is_computed(
    fails: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(grid, "load", None)
    fails(5, "--out", str(tmp_path / "file"))


@pytest.mark.parametrize("content", [b"", b"value\n1\n", b"model,data,n_train,split,n_points,value\na\n", b"\xff\xfe"])
def test_damaged_baselines_end_with_code_5_before_anything_is_computed(
    fails: Callable[..., str], tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "out" / "baselines.csv"
    file.parent.mkdir()
    file.write_bytes(content or b"model,data,n_train,split,n_points,value\na,b,1,test,2,x\n")
    assert str(file) in fails(5)


# Exit codes


@pytest.mark.parametrize(
    ("error", "code"),
    [(FlagError, 2), (DataError, 3), (NumericsError, 4), (StorageError, 5), (UserError, 1), (KeyboardInterrupt, 130)],
)
def test_a_failure_has_the_exit_code_of_its_kind(
    error: type[BaseException], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> int:
        raise error("what happened")

    with pytest.raises(SystemExit) as caught:
        cli.main(command)
    assert caught.value.code == code
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("code", [0, 1])
def test_a_command_that_ends_by_itself_decides_its_code(code: int) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(lambda: code)
    assert caught.value.code == code


def test_a_mistake_of_ours_keeps_its_traceback() -> None:
    def command() -> int:
        raise ComputedError

    with pytest.raises(ComputedError):
        cli.main(command)


# Help


@cache
def asked_for_help(name: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-X", "importtime", "-m", f"comparisons.{name}", "--help"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)


@pytest.mark.parametrize("name", COMPARISONS)
def test_help_names_every_flag_with_its_default(name: str) -> None:
    text = " ".join(asked_for_help(name).stdout.split())
    flags = re.split(r" (?=--[a-z])", text.split("options:")[1].split("Examples:")[0])[
        1:
    ]  # each with its help; the first is --help
    found = {flag.split()[0]: flag for flag in flags if not re.match(r"--help", flag)}
    for f in fields(Experiment):
        flag = f.metadata.get("flag", "--" + f.name.replace("_", "-"))
        if flag is False:
            assert f.name.replace("_", "-") not in found
            continue
        assert flag in text and "(default: " in found[flag], flag
        default = COMPARISONS[name].DEFAULTS.get(f.name, f.default)
        values = (
            default
            if isinstance(default, tuple)
            else ("all" if default is None else "off" if default is False else default,)
        )
        assert f"(default: {' '.join(map(str, values)) or 'none'})" in found[flag]
    for flag in ("--out", "--data-dir"):
        assert "(default: " in found[flag]


@pytest.mark.parametrize("name", [*COMPARISONS, *PLANS])
def test_help_imports_no_library(name: str) -> None:
    """Each takes seconds, and help comes at once."""
    imported = {line.split("|")[-1].strip().split(".")[0] for line in asked_for_help(name).stderr.splitlines()}
    assert "comparisons" in imported
    assert not imported & {"torch", "jax", "pyro", "numpyro", "optax", "pandas", "scipy", "sklearn", "matplotlib"}


def test_the_package_lists_its_comparisons() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "comparisons"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    listed = {line.split()[0] for line in ended.stdout.splitlines() if re.match("  [a-z]", line)}
    assert max(map(len, ended.stdout.splitlines())) <= 80
    assert listed == {*COMPARISONS, *PLANS, "status", "export"}


# Presets


@pytest.mark.parametrize("name", [name for name, command in COMPARISONS.items() if hasattr(command, "PRESETS")])
def test_presets_are_grids_that_flags_change(name: str) -> None:
    command = COMPARISONS[name]

    def requests(*arguments: str) -> list[Request]:
        return parse_preset(name, "", command.DEFAULTS, command.PRESETS, list(arguments))

    assert set(command.PRESETS) == {"quick", "standard", "paper"} and len(requests()) == 1
    for preset, panels in command.PRESETS.items():
        found = requests("--preset", preset, "--seeds", "7", "--threads", "2")
        assert [one.experiments[0].data for one in found] == [panel["data"] for panel in panels]
        assert all(e.seed == 7 and e.threads == 2 for one in found for e in one.experiments)
    assert {e.samples for one in requests("--preset=paper") for e in one.experiments} == (
        {100_000_000} if name == "lower_bound" else {60_000_000}
    )
    assert {e.data for one in requests("--preset", "standard", "--data", "mnist") for e in one.experiments} == {"mnist"}


def test_the_standard_figure_2_is_the_papers() -> None:
    found = parse_preset("", "", lower_bound.DEFAULTS, lower_bound.PRESETS, ["--preset", "standard"])
    cells = {(e.data, e.n_hidden, e.n_latent, e.backend) for one in found for e in one.experiments}
    sizes = {"mnist": (500, (3, 5, 10, 20, 200)), "frey": (200, (2, 5, 10, 20))}
    backends = ("aevb", "wake_sleep")
    assert cells == {(data, h, k, b) for data, (h, ks) in sizes.items() for k in ks for b in backends}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--preset", "all"], ["'all'", "quick, standard, paper"]),
        (["--preset", "standard", "--data", "synthetic"], ["'synthetic'", "mnist"]),
        (["--preset"], ["--preset"]),
    ],
)
def test_a_wrong_preset_is_one_line(fails: Callable[..., str], arguments: list[str], words: list[str]) -> None:
    text = fails(2, *arguments)
    assert all(word in text for word in words)


class ParsedError(Exception):
    """Raised in place of reading a command's flags; holds its parser."""


@pytest.fixture
def parsers(monkeypatch: pytest.MonkeyPatch) -> dict[str, cli.Parser]:
    """The parser of every command."""

    def parse_args(parser: cli.Parser, _: object = None) -> None:
        raise ParsedError(parser)

    found = {}
    with monkeypatch.context() as patched:
        patched.setattr(cli.Parser, "parse_args", parse_args)
        for name in (*COMPARISONS, *PLANS, "status"):
            with pytest.raises(ParsedError) as caught:
                import_module(f"comparisons.{name}").main([])
            found[name] = caught.value.args[0]
    return found


# Flags whose field has another name in some command: rows and manifests keep the field's.
SAME = {
    "seeds": "seed", "latents": "n_latent", "backends": "backend", "points": "eval_points", "draws": "elbo_draws",
}  # fmt: skip

# Of the part grid a number, and of judge_again a folder; those of a chain, and not of a bound.
OWN = {("speed", "cells"): "n_cells", ("restoration", "draws"): "chain_draws"}


def test_one_meaning_has_one_name_in_every_command(parsers: dict[str, cli.Parser]) -> None:
    meanings: dict[str, set[str]] = {}
    names: dict[str, set[str]] = {}
    for command, parser in parsers.items():
        for action in parser._actions:
            meaning = OWN.get((command, action.dest), SAME.get(action.dest, action.dest))
            for name in action.option_strings:
                meanings.setdefault(name, set()).add(meaning)
            if action.option_strings and action.help != argparse.SUPPRESS:
                names.setdefault(meaning, set()).add(action.option_strings[-1])
    names["seed"].remove("--seeds")  # of a command that takes several; each takes the other's name too
    assert {name for name, found in meanings.items() if len(found) > 1} <= {"--cells", "--draws"}  # of one hidden now
    assert {meaning: found for meaning, found in names.items() if len(found) > 1} == {}


def test_old_names_are_taken_and_not_shown(parsers: dict[str, cli.Parser]) -> None:
    old = {"calibration": "--points --latents --seeds", "inference_gap": "--backends --latents --points --draws"}
    for name, flags in {**old, "samples": "--latents", "speed": "--cells", "lower_bound": "--seed"}.items():
        for one in flags.split():
            assert one in parsers[name]._option_string_actions
            assert one not in parsers[name].format_help().replace(",", " ").split()


def test_every_flag_stands_in_a_group_and_every_example_can_be_read(parsers: dict[str, cli.Parser]) -> None:
    for name, parser in parsers.items():
        assert [action.dest for action in parser._optionals._group_actions if action.help != argparse.SUPPRESS] in (
            ["help"], ["help", "folders"]
        )  # fmt: skip
        examples = [line.split() for line in (parser.epilog or "").splitlines() if line.startswith("    ")]
        assert examples or name.startswith("paper.")
        for words in examples:
            assert words[:3] == ["python", "-m", f"comparisons.{name}"]
            parser.parse_args(words[3:])


def test_a_backends_own_flags_stand_under_its_title(parsers: dict[str, cli.Parser]) -> None:
    for card in BACKENDS.values():
        own = {f.name for f in fields(card.settings)} - {f.name for f in fields(Settings)}
        title = f"how it is fitted: {card.title}"
        groups = {
            group.title: {one.dest for one in group._group_actions} for group in parsers["full_vb"]._action_groups
        }
        assert groups.get(title, set()) == own


def test_every_command_names_the_nearest_flag(parsers: dict[str, cli.Parser]) -> None:
    for parser in parsers.values():
        flag = "--out" if "--out" in parser._option_string_actions else "--engine"
        with pytest.raises(FlagError, match=f"did you mean {flag}"):
            parser.parse_args([f"{flag}x"])


@pytest.mark.parametrize(
    ("command", "meant"),
    [
        ("comparisons.lower_bond", "lower_bound"),
        ("comparisons lower_bond", "lower_bound"),
        ("comparisons zzz", "full_vb"),
    ],
)
def test_a_misspelt_command_is_one_line(command: str, meant: str) -> None:
    done = subprocess.run([sys.executable, "-m", *command.split()], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and meant in done.stderr and not done.stdout


def test_a_platform_without_locks_is_told_in_a_line() -> None:
    hidden = "import sys; sys.modules['fcntl'] = None; from comparisons import cli, status; cli.main(status.main)"
    done = subprocess.run([sys.executable, "-c", hidden], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 5 and "Linux and macOS" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(("typed", "meant"), [("--sampels", "--samples"), ("--n-latents=3", "--n-latent")])
def test_a_misspelt_flag_gets_the_nearest_name(typed: str, meant: str) -> None:
    with pytest.raises(FlagError, match=rf"unrecognized arguments: {typed}.*; did you mean {meant}\? See --help$"):
        parse("fit", "", {}, [typed])
    with pytest.raises(FlagError, match=r"unrecognized arguments: --zzzzzz; see --help$"):
        parse("fit", "", {}, ["--zzzzzz"])


ANYWHERE = """
import sys
from comparisons import cli
from comparisons.reporting import drawing
def command():
    print(len(drawing.svg((1, 1), lambda figure: figure.suptitle("50 % ± 1_2"))) > 500, "± 0.1 †")
    return 0
cli.main(command)
"""


def test_a_terminal_and_a_matplotlib_of_any_kind_get_the_report(tmp_path: Path) -> None:
    """One of ASCII alone; a matplotlibrc with TeX and a style; a notebook's backend that is not installed."""
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.family: no-such-font\nbackend: QtAgg\n")
    told = {"PYTHONIOENCODING": "ascii", "MATPLOTLIBRC": str(tmp_path), "MPLBACKEND": "module://not_installed.here"}
    environment = {**os.environ, **told}
    done = subprocess.run([sys.executable, "-c", ANYWHERE], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True +- 0.1 (!)\n", "")
