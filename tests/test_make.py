"""The Makefile's targets that no other test runs: what they say, and that their commands are commands."""

import importlib
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from comparisons.errors import FlagError

ROOT = Path(__file__).parents[1]


def make(*arguments: str) -> str:
    # Nothing is installed: this Python is the one to run on.
    command = ["make", "--silent", "--assume-old=.venv/installed", f"BIN={Path(sys.executable).parent}", *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return ended.stdout


def test_without_a_card_one_line_says_so(tmp_path: Path) -> None:
    assert make("gpu", "DEVICE=tpu", f"GPU_OUT={tmp_path / 'gpu'}") == "gpu: jax finds no tpu here, so nothing is run\n"
    assert not list(tmp_path.iterdir())


def test_what_runs_on_a_card_are_commands_with_their_flags() -> None:
    printed = make("--dry-run", "gpu").replace("\\\n", " ")
    commands = [part for part in printed.replace(">", ";").split(";") if "-m comparisons." in part]
    assert len(commands) == 4
    for command in commands:
        words = shlex.split(command)
        name, *flags = words[words.index("-m") + 1 :]
        assert words[:2] == ["timeout", "--signal=INT"] and int(words[3]) > 0
        with pytest.raises(FlagError) as error:  # of all these flags, one is unknown
            importlib.import_module(name).main([*flags, "--nonesuch"])
        assert "--nonesuch" in str(error.value) and not [word for word in flags if word in str(error.value).split()]


# What is installed

STUB = """#!/bin/sh
echo "$*" >> "$LOG"
case "$*" in
  *"venv .venv") mkdir -p .venv;;
  *+cpu) exit "$WITHOUT_CPU";;
esac
"""


def installs(folder: Path, *targets: str, driver: str = "", without_cpu: int = 0) -> list[str]:
    """Make targets in an empty checkout with a Python that only writes down what it is asked; return what pip is."""
    programs = folder / "programs"
    programs.mkdir(parents=True)
    for name in ("grep", "mkdir", "rm", "touch"):
        (programs / name).symlink_to(shutil.which(name) or name)
    for name in ("python", *(["nvidia-smi"] if driver == "nvidia-smi" else [])):
        (programs / name).write_text(STUB)
        (programs / name).chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    version = folder / ("Makefile" if driver == "version" else "missing")
    told = {"PATH": str(programs), "LOG": str(folder / "log"), "WITHOUT_CPU": str(without_cpu)}
    command = [shutil.which("make") or "make", "--silent", "PYTHON=python", f"BIN={programs}", f"NVIDIA={version}"]
    for target in targets:
        subprocess.run([*command, target], cwd=folder, env=told, check=True, capture_output=True)
    asked = [line for line in (folder / "log").read_text().splitlines() if " pip install " in f" {line}"]
    assert all("--constraint constraints.txt" in line for line in asked)
    return [line.partition("constraints.txt ")[2] for line in asked]


PINNED = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))


def test_without_a_driver_torch_is_the_build_for_the_cpu_where_there_is_one(tmp_path: Path) -> None:
    assert installs(tmp_path / "served", "install") == [f"{PINNED}+cpu", "--editable ."]
    assert installs(tmp_path / "not", "install", without_cpu=1) == [f"{PINNED}+cpu", "torch", "--editable ."]


@pytest.mark.parametrize("driver", ["nvidia-smi", "version"])
def test_with_a_driver_torch_is_what_is_served(tmp_path: Path, driver: str) -> None:
    assert installs(tmp_path, "install", driver=driver) == ["torch", "--editable ."]


def test_tools_are_installed_where_they_are_used_and_each_thing_once(tmp_path: Path) -> None:
    tools = "--editable .[dev]"
    assert tools not in installs(tmp_path / "compare", "install", "report", "compare", "install")
    assert installs(tmp_path / "test", "install", "test", "test", "report").count(tools) == 1
    assert len(installs(tmp_path / "tortured", "torture")) == 3


def test_packages_come_from_wherever_pip_is_told_to_look() -> None:
    for name in ("Makefile", ".ci/run", "constraints.txt"):
        text = (ROOT / name).read_text()
        assert not [word for word in ("://", "--index", "--extra-index", "--find-links") if word in text]
