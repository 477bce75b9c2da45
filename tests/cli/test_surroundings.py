"""What surrounds a command: variables, users without a name, git, files of one's own beside it."""

import getpass
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from comparisons.runner import store
from inference.engines import torch_settings

ROOT = Path(__file__).parents[2]


def python(*words: str, cwd: Path = ROOT, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, env=environment, text=True, capture_output=True, timeout=120
    )


# What a manifest says of how it came about


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        ([str(ROOT / "comparisons" / "samples.py"), "--seed", "1"], "python -m comparisons.samples --seed 1"),
        ([str(ROOT / "comparisons" / "checks" / "command.py")], "python -m comparisons.checks.command"),
        (["-c"], "python -c ..."),
        ([""], "python ..."),
        (["-"], "python - ..."),
        (["-m"], "python -m ..."),
        (["/somewhere/my_script.py", "--fast"], "python my_script.py --fast"),
        (["/usr/bin/pytest", "-q"], "python pytest -q"),
    ],
)
def test_a_command_is_what_was_typed(argv: list[str], command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    assert store.environment()["command"] == command


def git(folder: Path, *words: str) -> str:
    told = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false", *words]
    return subprocess.run(["git", *told], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of one commit, in the place of ours."""
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "file").write_text("one")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "one")
    monkeypatch.setattr(store, "ROOT", tmp_path)
    return tmp_path


def test_a_commit_is_that_of_the_checkout(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = git(checkout, "rev-parse", "HEAD")
    assert store._commit() == head
    (checkout / "inner" / "file").write_text("two")
    assert store._commit() == f"{head}+changes"
    monkeypatch.setenv("GIT_DIR", str(ROOT / ".git"))  # of a hook of another repository
    assert store._commit() == f"{head}+changes"


@pytest.mark.fault(
    "a checkout that git refuses, lacks, or takes for another's", "the commit is unknown, and never made up"
)
@pytest.mark.parametrize("how", ["no git", "refused", "another's", "no repository", "no commit"])
def test_a_commit_that_is_not_known_is_unknown(how: str, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "no git":
        monkeypatch.setenv("PATH", "/nonexistent")
    elif how == "refused":  # as git does where the folder is somebody else's
        monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    elif how == "another's":  # a copy within another repository
        monkeypatch.setattr(store, "ROOT", checkout / "inner")
    else:
        inner = checkout / "inner"
        monkeypatch.setattr(store, "ROOT", inner)
        if how == "no repository":
            monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(checkout))
        else:
            git(inner, "init", "-q")
    assert store.environment()["commit"] == "unknown"


# Users and variables


@pytest.mark.fault("a uid without a name, as in a container", "what torch compiles has a folder all the same")
@pytest.mark.parametrize("error", [KeyError("uid not found: 4242"), OSError("No username set")])
def test_a_user_without_a_name(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def getuser() -> str:
        raise error

    monkeypatch.setattr(getpass, "getuser", getuser)
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    torch_settings.name_cache()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == f"{tempfile.gettempdir()}/torchinductor_{os.getuid()}"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/mine")
    torch_settings.name_cache()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/mine"


@pytest.mark.fault("half a file in torch's cache, of a process killed while it compiled", "removed, and compiled again")
@pytest.mark.parametrize("why", ["file too short", "invalid ELF header"])
def test_half_a_compiled_file_is_compiled_again(why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from inference.engines import torch_graphs

    half = tmp_path / "cabc.main.so"
    half.write_bytes(b"\x7fELF")

    def compile(*args: Any) -> Any:
        if half.exists():
            raise OSError(f"{half}: {why}")
        return "compiled"

    monkeypatch.setattr("torch._inductor.compile", compile)
    graph = torch_graphs.trace(lambda x: [x + 1.0], [torch.zeros(())])
    graph.compile()
    assert str(graph._run) == "compiled" and not half.exists()
    assert not torch_settings.drop_half_written(RuntimeError("no C++ compiler"))


@pytest.mark.fault(
    "JAX_PLATFORMS that names what the machine has not", "jax runs on its CPU; a GPU is refused in a line"
)
@pytest.mark.parametrize("platforms", ["cuda", "gpu", "tpu", "nonsense"])
@pytest.mark.thorough(platforms=("gpu", "tpu", "nonsense"))
def test_platforms_that_are_not_there(platforms: str) -> None:
    script = (
        "import inference\n"
        "assert inference.engine('numpyro', 'cpu', 1).device.platform == 'cpu'\n"
        "try: inference.engine('numpyro', 'cuda', 1)\n"
        "except RuntimeError as error: print(error)\n"
    )
    done = python("-c", script, JAX_PLATFORMS=platforms, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"jax has no cuda here: JAX_PLATFORMS is {platforms!r}\n"


# Files of one's own


@pytest.mark.fault(
    "the user's own models.py or inference.py in the current folder", "the suite's are taken, as elsewhere"
)
@pytest.mark.parametrize("name", ["models.py", "inference.py", "models/__init__.py"])
def test_files_of_ones_own_beside_a_command(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("raise SystemExit('this is not the one')\n")
    done = python("-m", "comparisons.marginal_likelihood", "--help", cwd=tmp_path)
    assert done.returncode == 0 and "--backend" in done.stdout, done.stderr


def test_a_module_of_that_name_that_is_there_already(tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text("mine = 1\n")
    done = python("-c", "import models, comparisons", cwd=tmp_path)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.endswith("models.py is imported as 'models', which a package here is called; rename that file")


@pytest.mark.fault("no home, or one that cannot be written", "a run as with one")
@pytest.mark.parametrize("home", ["", "/proc/nowhere"])
@pytest.mark.thorough(home=("", "/proc/nowhere"))
def test_without_a_home(home: str, tmp_path: Path) -> None:
    flags = "--samples 100 --n-latent 2 --n-hidden 4 --eval-points 5 --evidence none --step-size 0.05 --backend aevb"
    words = [*flags.split(), "--engine", "numpyro", "--warmup", "0", "--out", str(tmp_path)]
    done = python("-m", "comparisons.marginal_likelihood", *words, HOME=home, XDG_CACHE_HOME="")
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
