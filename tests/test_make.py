"""The Makefile's targets that no other test runs: what they say, and that their commands are commands."""

import importlib
import shlex
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
