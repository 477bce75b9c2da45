"""Kill it, stop it, fill its disk: commands in processes of their own, and what is left of their work.

`make torture` runs the same with TORTURE=8: rounds of each kind of kill.
"""

import csv
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from comparisons import marginal_likelihood
from comparisons.cli.stopping import MESSAGE
from comparisons.disk import locking
from comparisons.runner import store
from inference import BACKENDS, ENGINES

ROOT = Path(__file__).parents[2]
ROUNDS = int(os.environ.get("TORTURE", "0"))
SMALL = {
    "--samples": 40_000, "--eval-points": 20, "--n-hidden": 8, "--fit-steps": 5, "--elbo-draws": 2, "--step-size": 0.05,
    "--tolerance": 1.0, "--checkpoint-seconds": 0, "--local-steps": 2, "--leapfrog-steps": 4, "--weight-updates": 2,
    "--engine": "pyro", "--backend": "aevb",
}  # fmt: skip
SECONDS = ("seconds", "eval_seconds", "compile_seconds")
long = pytest.mark.skipif(not ROUNDS, reason="takes a minute or two; make torture runs it")


def words(out: Path, **changes: Any) -> list[str]:
    flags = {**SMALL, "--out": out, **{f"--{name.replace('_', '-')}": value for name, value in changes.items()}}
    listed = [(name, value if isinstance(value, (list, tuple)) else [value]) for name, value in flags.items()]
    return ["-m", "comparisons.marginal_likelihood", *(str(w) for name, values in listed for w in (name, *values))]


def start(arguments: list[str], **options: Any) -> "subprocess.Popen[str]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # the killed would leave half a program in what others share
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, start_new_session=True, **options,
    )  # fmt: skip


def finish(arguments: list[str], **options: Any) -> tuple[int, str]:
    with start(arguments, **options) as process:
        _, err = process.communicate(timeout=600)
    return process.returncode, err


def rows(out: Path) -> list[dict[str, str]]:
    """All rows but for their clocks."""
    with (out / "rows.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in SECONDS} for row in csv.DictReader(file)]


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[dict[str, str]]]:
    """Return the rows of a run that nothing happens to; each is made once, in this process."""

    @cache
    def run(listed: tuple[str, ...]) -> list[dict[str, str]]:
        out = tmp_path_factory.mktemp("unbroken")
        assert marginal_likelihood.main([*listed, "--out", str(out)]) == 0
        return rows(out)

    return lambda **changes: run((*words(Path(), **changes)[2:],))


class Span(NamedTuple):
    """The seconds in which a command is killed: from the start of its process, or of its run."""

    of_process: float
    of_run: float


def timed(out: Path, **changes: Any) -> tuple[list[dict[str, str]], Span]:
    """Return the rows of a command that nothing happens to, and most of the time that it takes."""
    began = time.monotonic()
    process = start(words(out, **changes))
    wait_for(lambda: running(process, out))
    begun = time.monotonic()
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    ended = time.monotonic()
    return rows(out), Span(0.7 * (ended - began), 0.7 * (ended - begun))


def running(process: "subprocess.Popen[str]", out: Path) -> bool:
    """Say whether a run has begun, or is over."""
    return process.poll() is not None or any(out.rglob("progress.json"))


def wait_for(what: Callable[[], Any], seconds: float = 120.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if what():
            return True
        time.sleep(0.02)
    return False


def left_over(out: Path) -> list[Path]:
    """Files that should not be there once a command has ended well."""
    return [p for pattern in (".*.tmp", "checkpoint*", "progress*") for p in (out / "cells").rglob(pattern)]


# Kills


def kill_until_done(arguments: Callable[[Path], list[str]], tmp: Path, kills: int, span: Span, seed: int) -> list[Path]:
    """Kill commands at random times, and give each its command again, until so many were; return the folders.

    In most rounds the clock starts when the run has; in some it starts with the process.
    """
    rng, folders, killed = random.Random(seed), [tmp / "0"], 0
    while True:
        out = folders[-1]
        process = start(arguments(out))
        if killed >= kills:
            _, err = process.communicate(timeout=600)
            assert process.returncode == 0, err
            return folders
        of_run = rng.random() < 0.7
        if of_run:
            wait_for(lambda out=out, p=process: running(p, out))  # type: ignore[misc]
        try:
            process.wait(rng.uniform(0.0, span.of_run if of_run else span.of_process))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            killed += 1
        else:  # it was faster: begin again elsewhere, and be quicker
            assert process.returncode == 0, process.stderr.read() if process.stderr else ""
            folders.append(tmp / str(len(folders)))
            span = Span(0.7 * span.of_process, 0.7 * span.of_run)
        process.communicate()


@pytest.mark.fault("kill -9 while a backend is trained and judged", "the same command goes on; rows equal, bit for bit")
@pytest.mark.parametrize(
    ("engine", "backend"), [(e, b) for e in ENGINES for b in BACKENDS] if ROUNDS else [("pyro", "monte_carlo_em")]
)
def test_killed_in_training(engine: str, backend: str, tmp_path: Path, record_property: Any) -> None:
    changes = {"engine": engine, "backend": backend}
    expected, span = timed(tmp_path / "unbroken", **changes)
    kills = ROUNDS or 2
    for out in kill_until_done(lambda out: words(out, **changes), tmp_path, kills, span, len(backend)):
        assert rows(out) == expected and not left_over(out)
    record_property("rounds", kills)
    record_property("kills", kills)


@pytest.mark.fault("kill -9 while log p(x) is estimated", "the same command goes on; rows equal, bit for bit")
@pytest.mark.parametrize("judge", ["annealed", "appendix_d", "importance"] if ROUNDS else ["appendix_d"])
def test_killed_in_an_estimator(judge: str, tmp_path: Path, record_property: Any) -> None:
    changes = {
        "evidence": judge, "samples": 2000, "eval_points": 20, "hmc_draws": 80, "temperatures": 300, "max_memory": 1e7,
        "importance_samples": 20_000, "proposal": "q",
    }  # fmt: skip
    expected, span = timed(tmp_path / "unbroken", **changes)
    kills = min(ROUNDS, 4) or 1
    for out in kill_until_done(lambda out: words(out, **changes), tmp_path, kills, span, len(judge)):
        assert rows(out) == expected and not left_over(out)
    record_property("rounds", kills)
    record_property("kills", kills)


DIE_AT_EACH = """
import builtins, os, sys
from pathlib import Path
import numpy as np
from comparisons.runner import store
root, moment, count = Path(sys.argv[1]), 0, 0
def deadly(function):
    def run(*args, **kwargs):
        global count
        count += 1
        if count == moment:
            if function is write:
                function(args[0], args[1][: len(args[1]) // 2])
                args[0].flush()
            os._exit(9)
        return function(*args, **kwargs)
    return run
write = lambda file, data: file.write(data)
class File:
    def __init__(self, file): self.file = file
    def __enter__(self): self.file.__enter__(); return self
    def __exit__(self, *args): return self.file.__exit__(*args)
    def write(self, data): return deadly_write(self.file, data)
    def __getattr__(self, name): return getattr(self.file, name)
deadly_write = deadly(write)
opened = builtins.open
def deadly_open(path, mode="r", *args, **kwargs):
    file = opened(path, mode, *args, **kwargs)
    return File(file) if mode == "wb" else file
builtins.open = deadly_open
os.fsync, os.replace = deadly(os.fsync), deadly(os.replace)
state = {"w": np.full(1000, 2.0, np.float32)}
def save(out):
    global count
    count = 0
    store.save_checkpoint(out, "cell", {"state": state}, {"step": 2})
    store.save_cell(out, "cell", [], {"status": "done"}, state)
save(root / "all")
for last in range(1, count + 1):
    out = root / str(last)
    store.save_checkpoint(out, "cell", {"state": {"w": state["w"] / 2}}, {"step": 1})
    child = os.fork()
    if not child:
        moment = last
        save(out)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.fault(
    "kill -9 at every write, fsync and rename of a checkpoint and of results", "old or new, never between"
)
def test_killed_at_every_write(tmp_path: Path, record_property: Any) -> None:
    """One process, which has the libraries loaded, and a child of it for each of these moments."""
    done = subprocess.run(
        [sys.executable, "-c", DIE_AT_EACH, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    ended = done.stdout.split()
    assert len(ended) >= 16 and set(ended) == {"9"}
    for moment in range(1, len(ended) + 1):
        out = tmp_path / str(moment)
        found = store.load_checkpoint(out, "cell")
        assert found and float(found[0]["state"]["w"][0]) == float(found[1]["step"])
        if store.finished(out, "cell"):
            assert store.load_state(out, "cell")["w"][0] == 2.0
        with locking.locked(out, "cell"):
            pass
        assert not [path for path in out.rglob(".*.tmp") if path.parent.name == "cell"]
    record_property("rounds", len(ended))
    record_property("kills", len(ended))


# Workers


def workers_of(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    return []


@pytest.mark.fault("kill -9 of random workers of a grid", "another worker goes on; all rows equal, no process is left")
def test_workers_killed(tmp_path: Path, unbroken: Any, record_property: Any) -> None:
    cells, workers, kills = (30, 3, 8) if ROUNDS else (2, 2, 1)
    changes = {"seeds": tuple(range(cells))}
    expected = unbroken(**changes)
    rng = random.Random(1)
    process = start(words(tmp_path, workers=workers, **changes))
    for _ in range(kills):
        if not wait_for(lambda: process.poll() is not None or list(tmp_path.rglob("checkpoint.safetensors"))):
            break
        time.sleep(rng.uniform(0.0, 2.0))
        if process.poll() is None and (found := workers_of(process)):
            with suppress(psutil.NoSuchProcess):
                rng.choice(found).kill()
    children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    _, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    assert rows(tmp_path) == expected and not left_over(tmp_path)
    assert not psutil.wait_procs(children, timeout=10)[1]
    record_property("rounds", kills)
    record_property("kills", kills)


@pytest.mark.fault(
    "a cell that kills its worker three times", "given up with its reason, exit code 1; tried again later"
)
def test_a_poison_cell(tmp_path: Path, unbroken: Any, record_property: Any) -> None:
    expected = unbroken()
    process = start(words(tmp_path, workers=2))  # of which one cell needs one
    for _ in range(3):
        assert wait_for(lambda: process.poll() is not None or workers_busy(process, tmp_path))
        for worker in workers_of(process):
            with suppress(psutil.NoSuchProcess):
                worker.kill()
                worker.wait(10)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1 and "failed (killed its worker 3 times): aevb pyro seed 0 k=3" in err
    assert {row["status"] for row in rows(tmp_path)} == {"failed"} and {row["value"] for row in rows(tmp_path)} == {""}
    status = finish(["-m", "comparisons.status", str(tmp_path)])
    assert status[0] == 1
    assert finish(words(tmp_path))[0] == 0
    assert rows(tmp_path) == expected
    record_property("kills", 3)


def workers_busy(process: "subprocess.Popen[str]", out: Path) -> bool:
    return bool(workers_of(process)) and any(locking.busy(out, path.name) for path in (out / "cells").iterdir())


PATIENT = """
import comparisons.runner.workers as workers
from comparisons import cli, marginal_likelihood
workers.SILENCE = "4s"
cli.main(lambda: marginal_likelihood.main({arguments!r}))
"""


@long
@pytest.mark.fault("a worker stopped with SIGSTOP", "taken for dead; another one goes on, rows equal")
def test_a_worker_stopped(tmp_path: Path, unbroken: Any) -> None:
    changes = {"seeds": (0, 1, 2)}
    expected = unbroken(**changes)
    process = start(["-c", PATIENT.format(arguments=words(tmp_path, workers=2, **changes)[2:])])
    assert wait_for(lambda: process.poll() is not None or list(tmp_path.rglob("checkpoint.safetensors")))
    stopped = workers_of(process)[0]
    stopped.suspend()
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert rows(tmp_path) == expected
    assert not psutil.wait_procs([stopped], timeout=10)[1]


@contextmanager
def cluster(workers: int, port: int) -> Iterator[list["subprocess.Popen[str]"]]:
    """A Dask scheduler and its workers, started by hand as the README shows."""
    dask = ["-m", "dask"]
    address = f"tcp://127.0.0.1:{port}"
    processes = [start([*dask, "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"])]
    processes += [
        start([*dask, "worker", address, "--nworkers", "1", "--nthreads", "1", "--no-dashboard"])
        for _ in range(workers)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []:
                child.kill()
            process.kill()
            process.communicate()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.fault("a worker of a cluster killed", "another one goes on; rows equal those of one process")
def test_a_cluster_gives_the_same_rows(tmp_path: Path, unbroken: Any, record_property: Any) -> None:
    changes = {"seeds": (0, 1)}
    expected = unbroken(**changes)
    port = free_port()
    with cluster(2, port) as processes:
        process = start(words(tmp_path, scheduler=f"tcp://127.0.0.1:{port}", **changes))
        assert wait_for(lambda: process.poll() is not None or list(tmp_path.rglob("checkpoint.safetensors")))
        for child in psutil.Process(processes[1].pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
        processes[1].kill()
        _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert rows(tmp_path) == expected
    record_property("kills", 1)


@long
@pytest.mark.fault("the scheduler of a cluster killed", "one line and exit code 1; the same command finishes")
def test_the_scheduler_killed(tmp_path: Path, unbroken: Any, record_property: Any) -> None:
    expected = unbroken()
    port = free_port()
    with cluster(1, port) as processes:
        process = start(words(tmp_path, scheduler=f"tcp://127.0.0.1:{port}"))
        assert wait_for(lambda: process.poll() is not None or list(tmp_path.rglob("checkpoint.safetensors")))
        processes[0].kill()
        _, err = process.communicate(timeout=120)
        assert process.returncode == 1 and "the scheduler has gone" in err.splitlines()[-1] and "Traceback" not in err
    assert finish(words(tmp_path))[0] == 0
    assert rows(tmp_path) == expected
    record_property("kills", 1)


@pytest.mark.fault("no scheduler at the address", "one line and exit code 2, before anything is computed")
def test_no_scheduler(tmp_path: Path) -> None:
    code, err = finish(words(tmp_path, scheduler=f"tcp://127.0.0.1:{free_port()}"))
    assert code == 2 and err.splitlines()[-1].startswith("error: no scheduler answers at tcp://127.0.0.1:")


# Signals

PHASES: dict[str, Callable[[Path], bool]] = {
    "start": lambda out: True,
    "engine": lambda out: out.exists(),
    "training": lambda out: bool(list(out.rglob("checkpoint.safetensors"))),
    "judging": lambda out: any("judging" in path.read_text() for path in out.rglob("progress.json")),
}


@pytest.mark.fault("SIGINT or SIGTERM in each phase", "ends within 5 s, says how to go on; rows equal after it has")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM] if ROUNDS else [signal.SIGTERM])
@pytest.mark.parametrize("phase", PHASES if ROUNDS else ["training"])
@pytest.mark.parametrize("workers", [1, 2] if ROUNDS else [1])
def test_a_signal(phase: str, number: signal.Signals, workers: int, tmp_path: Path, unbroken: Any) -> None:
    out = tmp_path / "out"
    # Of a judge that is at work for a while, where the signal is to find it.
    slow = {"evidence": "annealed", "temperatures": 20, "annealed_chains": 2} if phase == "judging" else {}
    changes: dict[str, Any] = {"seeds": (0, 1), **slow}
    expected = unbroken(**changes)
    process = start(words(out, workers=workers, **changes))
    wait_for(lambda: process.poll() is not None or _quietly(PHASES[phase], out))
    time.sleep(1.0 if phase == "start" else 0.1)
    children = psutil.Process(process.pid).children(recursive=True)
    began = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    took = time.monotonic() - began
    assert process.returncode == 130 and took < 5.0, (process.returncode, took, err)
    assert err.splitlines()[-1] == MESSAGE and "Traceback" not in err
    assert not psutil.wait_procs(children, timeout=5)[1]
    assert finish(words(out, **changes))[0] == 0
    assert rows(out) == expected


def _quietly(look: Callable[[Path], bool], out: Path) -> bool:
    try:
        return look(out)
    except OSError:
        return False


# Disk

LIMITED = """
import resource, runpy, sys
limit = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
runpy.run_module("comparisons.marginal_likelihood", run_name="__main__", alter_sys=True)
"""


@pytest.mark.fault(
    "a disk that is full after so many bytes of a file", "exit code 5 and one line; nothing half written"
)
@pytest.mark.parametrize("limit", [0, 100, 1000, 3000, 10_000] if ROUNDS else [3000])
def test_a_full_disk(limit: int, tmp_path: Path, unbroken: Any) -> None:
    expected = unbroken()
    code, err = finish(["-c", LIMITED, str(limit), *words(tmp_path)[2:]])
    assert code == 5 and err.splitlines()[-1].startswith("error: cannot write") and "Traceback" not in err
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size > limit]
    assert finish(words(tmp_path))[0] == 0
    assert rows(tmp_path) == expected


@pytest.mark.fault("two commands on one folder at once", "each cell computed once; both end well with the same rows")
def test_two_commands_at_once(tmp_path: Path, unbroken: Any, record_property: Any) -> None:
    changes = {"seeds": (0, 1), "samples": 2000}
    expected = unbroken(**changes)
    rounds = 50 if ROUNDS else 1
    for number in range(rounds):
        out = tmp_path / str(number)
        both = [start(words(out, **changes)) for _ in range(2)]
        for process in both:
            _, err = process.communicate(timeout=300)
            assert process.returncode == 0, err
        assert rows(out) == expected and not left_over(out)
    record_property("rounds", rounds)
