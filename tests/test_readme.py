"""Every command of README.md and docs/ is run: comparisons on a few points, `make` dry.

Those that start no process of their own are run in this one, which has the libraries loaded.
"""

import os
import re
import runpy
import shlex
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from comparisons.benchmarks import pytorch_example, scoring, speed
from comparisons.benchmarks.peers import Shape

ROOT = Path(__file__).parent.parent
TEXT = "".join(path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))))
BLOCKS = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
LINES = [line.split("#")[0].strip() for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]
LINES += re.findall(r"`((?:python -m|make) [^`]+)`", "".join(re.findall(r"^\|.*\n", TEXT, re.MULTILINE)))  # of tables
OWN = ".py:"  # `test_parts` and `test_your_model` run the commands on the files that the pages hold
COMMANDS = [line for line in dict.fromkeys(LINES) if line and OWN not in line]
KEPT = "results/kept"  # where one command keeps what the next one judges again
# Appended to a comparison's own flags, of which the last one counts.
FIT = "--samples 200 --n-hidden 5 --engine pyro"
GRID = f"{FIT} --seeds 0 --eval-points 4 --elbo-draws 2 --fit-steps 5 --step-size 0.01"
SMALL = {
    "comparisons.calibration": "--parts linear --latents 1 --repeats 2 --levels 0 --engine pyro",
    "comparisons.bounds": "--samples 1000 --n-hidden 5 --engine pyro --eval-points 2 --elbo-draws 2 --prior-draws 1000",
    "comparisons.posteriors": "--samples 200 --n-hidden 5 --engine pyro --eval-points 2",
    "comparisons.closed_form": "--engine pyro --steps 10 --monte-carlo-steps 10 --fit-steps 10 --repeats 2",
    "comparisons.gradient_variance": "--parts exact trained --engine pyro --n-hidden 3 --n-train 100 "
    "--stages 0 --particles 1 --minibatches 2 --repeats 20",
    "comparisons.status": "",
    "comparisons.export": "",
    "comparisons.paper.judge_again": "",
    "comparisons.report": "",
    "comparisons.manifold": "--data frey --samples 200 --frey-hidden 5 --grid 2 --engine pyro",
    "comparisons.pytorch_example": (
        "--n-train 128 --samples 1280 --stops 512 896 --seeds 0 --eval-points 4 --engine pyro"
    ),
    "comparisons.samples": f"{FIT} --data digits --latents 2 --grid 2",
    "comparisons.speed": "--parts bound --repeats 1 --seconds 0.01 --threads 1",
    "comparisons.full_vb": f"{GRID} --data digits --n-train 300 --evidence none",
    "comparisons.guide_families": (
        f"{FIT} --data digits --families normal laplace --eval-points 4 --elbo-draws 2 --step-size 0.01"
    ),
    "comparisons.inference_gap": f"{FIT} --data digits --latents 2 --points 10 --draws 2 --fit-steps 5",
    "comparisons.restoration": f"{FIT} --tasks inpainting --eval-points 4 --chains 2 --warmup 10 --draws 4",
    "comparisons.embedding": f"{FIT} --n-latent 2 --labels 50 --label-draws 2 --eval-points 50 --backend aevb",
}
LOOKS = ("comparisons.status", "comparisons.export")  # with no folder of results to write to
ALONE = {"--workers", "--scheduler"}  # start processes


BACKGROUND: list["subprocess.Popen[bytes]"] = []  # commands that end in &


@pytest.fixture(scope="module", autouse=True)
def port() -> Iterator[str]:
    """A free port for the scheduler, which is stopped with its workers in the end."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        number = str(found.getsockname()[1])
    yield number
    for process in BACKGROUND:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make small what no flag does, and put back the variables that a command sets."""
    monkeypatch.setattr(speed, "SHAPES", (Shape(5, 2, n_train=150, minibatch=10, n_x=6),))
    monkeypatch.setattr(pytorch_example, "POINTS", 4)
    cheap = ("importance, q", "annealed, prior", "appendix_d, paper")
    monkeypatch.setattr(scoring, "SWEEP", {name: scoring.SWEEP[name] for name in cheap})
    for name in ("OMP_NUM_THREADS", "TORCHINDUCTOR_CACHE_DIR"):
        known = os.environ.get(name)
        monkeypatch.setenv(name, known or "")
        if known is None:
            monkeypatch.delenv(name)


def test_the_readme_has_commands() -> None:
    assert any(command.startswith("make") for command in COMMANDS)
    assert any("comparisons.marginal_likelihood" in command for command in COMMANDS)
    assert any("--scheduler" in command for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_runs(
    command: str, tmp_path: Path, port: str, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = dict(os.environ)
    there = re.sub("(status|export) results/", r"\1 reports/", command)  # in a new checkout those alone are there
    words = shlex.split(there.replace("8786", port).replace(KEPT, str(kept)))
    if words[-1] == "&":
        BACKGROUND.append(subprocess.Popen([sys.executable, "-m", *words[:-1]], cwd=ROOT, stderr=subprocess.DEVNULL))
        return
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        environment.setdefault(name, value)
    if words[0] in ("git", "cd"):
        pytest.skip("fetches the checkout that this test runs in")
    if words[0] == "make":
        subprocess.run([*words, "--dry-run"], cwd=ROOT, check=True, capture_output=True)
        return
    assert words[0] in ("python", ".venv/bin/python") and words[1] == "-m", command
    if (
        "--preset" in words
        or "comparisons.pytorch_example" in words
        or ("--data" in words and words[words.index("--data") + 1] not in ("digits", "synthetic"))
    ):
        folder = Path(environment.get("AEVB_DATA") or ROOT.parent / "shared" / "data")
        if not folder.is_dir():
            pytest.skip("needs the MNIST and Frey files; set AEVB_DATA")
        environment["AEVB_DATA"] = str(folder.resolve())
    words = words[2:]
    if words[0] != "comparisons" and "--help" not in words:
        words += shlex.split(SMALL.get(words[0], GRID))
        words += ["--backend", "aevb"] if {"--workers", "--scheduler", "--preset", "--n-latent"} & {*words} else []
        words += ["--out", str(tmp_path)] if words[0] not in LOOKS and "--out" not in words else []
    if ALONE & {*words}:
        alone = [sys.executable, "-m", *words]
        done = subprocess.run(alone, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    else:
        run_here(words, environment, monkeypatch)


def run_here(words: list[str], environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run `python -m` with these words in this process; it has to end well."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", words)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    try:
        with warnings.catch_warnings(action="ignore"):  # as in a process of its own
            runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        assert not end.code


def test_the_disk_that_it_takes() -> None:
    """What the README says: two gigabytes, and a quarter of one for tests and lint."""
    environment = Path(sys.prefix)
    size = sum(path.lstat().st_size for path in environment.rglob("*") if not path.is_dir())
    assert environment != ROOT / ".venv" or size < 2.3e9
