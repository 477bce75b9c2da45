"""Who may work for a command: addresses that are no scheduler, workers that would give other numbers, more threads."""

import http.server
import multiprocessing.spawn
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comparisons.cli.stopping import MESSAGE
from comparisons.errors import FlagError
from comparisons.runner import workers
from comparisons.runner.cell import Cell
from comparisons.runner.experiment import Experiment
from comparisons.runner.jobs import Job
from comparisons.runner.workers import Fitting, reach

ROOT = Path(__file__).parents[2]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "PATIENCE", 0.4)


# Addresses


@pytest.fixture(scope="module")
def strangers() -> Iterator[dict[str, int]]:
    """Ports of what is no scheduler."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    server.RequestHandlerClass.log_message = lambda self, *args: None  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    silent, hanging_up = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))

    def hang_up() -> None:
        while True:
            try:
                hanging_up.accept()[0].close()
            except OSError:
                return

    threading.Thread(target=hang_up, daemon=True).start()
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = closed.getsockname()[1]
    named = {"web": server.server_address[1], "silent": silent.getsockname()[1], "nobody": nobody}
    yield {**named, "hangs up": hanging_up.getsockname()[1]}
    server.shutdown()
    server.server_close()
    silent.close()
    hanging_up.close()


@pytest.mark.fault(
    "an address that is no Dask scheduler: a web server, silent, closed, no port", "one line, exit code 2"
)
@pytest.mark.parametrize(
    "address",
    [
        "tcp://127.0.0.1:{web}", "tcp://127.0.0.1:{silent}", "tcp://127.0.0.1:{nobody}", "tcp://127.0.0.1:{hangs up}",
        "ws://127.0.0.1:{web}", "tcp://localhost:99999", "tcp://localhost:0", "tcp://[::1]x:3", "tcp://no.invalid:8786",
    ],
)  # fmt: skip
def test_an_address_that_is_no_scheduler(address: str, strangers: dict[str, int], impatient: None) -> None:
    start = time.monotonic()
    with pytest.raises(FlagError, match=r"no scheduler answers at .*; start one with dask scheduler$") as caught:
        reach(address.format(**strangers))
    assert "\n" not in str(caught.value) and time.monotonic() - start < 8


@pytest.mark.fault(
    "tls:// without certificates, or with some that cannot be read", "one line that names Dask's settings"
)
@pytest.mark.parametrize("scheme", ["tls", "wss"])
def test_certificates_that_are_missing(scheme: str, tmp_path: Path) -> None:
    with pytest.raises(FlagError, match=r"there are none; set distributed.comm.tls.ca-file"):
        reach(f"{scheme}://127.0.0.1:8786")
    absent = str(tmp_path / "absent.pem")
    with (
        dask.config.set({"distributed.comm.tls.ca-file": absent, "distributed.comm.tls.client.cert": absent}),
        pytest.raises(FlagError, match=r"cannot be read .*; set distributed.comm.tls.ca-file"),
    ):
        reach(f"{scheme}://127.0.0.1:8786")


# Workers that fit


HERE = {"code": "1a2b (commit 3c4d)", "torch": "2.6.0", "jax": "0.5.0", "the folder of results": "seen"}


class Client:
    """What asks workers, whose answers are known."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def submit(self, function: Any, out: Path, pure: bool, workers: list[str]) -> Any:
        (worker,) = workers
        self.asked.append(worker)
        answer, future = self.answers[worker], Future[Any]()
        if isinstance(answer, Exception):
            future.set_exception(answer)
        elif answer is not None:
            future.set_result(answer)
        status = {True: "error"}.get(isinstance(answer, Exception), "pending" if answer is None else "finished")
        return SimpleNamespace(
            done=future.done, result=lambda timeout: future.result(timeout), exception=future.exception, status=status
        )


@pytest.fixture
def as_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "standing", lambda out: dict(HERE))


DIFFERENT: dict[str, tuple[Any, str]] = {
    "another checkout": ({**HERE, "code": "9f (commit 0)"}, "code 9f (commit 0) there, 1a2b (commit 3c4d) here"),
    "another torch": ({**HERE, "torch": "2.5.1"}, "torch 2.5.1 there, 2.6.0 here"),
    "no jax": ({k: v for k, v in HERE.items() if k != "jax"}, "jax missing there, 0.5.0 here"),
    "another disk": ({**HERE, "the folder of results": "not seen"}, "the folder of results not seen there, seen here"),
    "no checkout": (ModuleNotFoundError("No module named 'comparisons'"), "ModuleNotFoundError: No module named"),
    "an older checkout": (AttributeError("no attribute 'standing'"), "it cannot run this code"),
}


@pytest.mark.fault("a worker of another checkout or other libraries", "left out in a line that says which and why")
@pytest.mark.parametrize("name", DIFFERENT)
def test_a_worker_that_differs_is_left_out(
    name: str, as_here: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer, why = DIFFERENT[name]
    client = Client({"tcp://a": HERE, "tcp://b": answer})
    fitting = Fitting(client, tmp_path)
    assert fitting.among({"tcp://a", "tcp://b"}) == fitting.among({"tcp://a", "tcp://b"}) == {"tcp://a"}
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("the worker tcp://b is left out: ") and why in line and "start it in this checkout" in line
    assert client.asked == ["tcp://a", "tcp://b"]
    with pytest.raises(FlagError, match="no worker fits; the worker tcp://b is left out"):
        fitting.among({"tcp://b"})


@given(joins=st.lists(st.sets(st.sampled_from("abcd"), max_size=4), max_size=6))
@settings(derandomize=True, max_examples=50, deadline=None)
def test_whoever_joins_is_asked_once_and_only_who_fits_is_handed_jobs(joins: list[set[str]]) -> None:
    answers = {"a": HERE, "b": {**HERE, "torch": "1"}, "c": None, "d": HERE}  # c has not answered
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "standing", lambda out: dict(HERE))
        client = Client(answers)
        fitting, known, asked = Fitting(client, Path()), set[str](), 0
        for there in joins:
            asked, known = asked + len(there - known), there
            if there == {"b"}:
                with pytest.raises(FlagError, match="no worker fits"):
                    fitting.among(there)
            else:
                assert fitting.among(there) == there & {"a", "d"}
            assert len(client.asked) == asked


def test_what_a_process_says_of_itself(tmp_path: Path) -> None:
    here, elsewhere = workers.standing(tmp_path), workers.standing(tmp_path / "absent")
    assert {"code", "torch", "jax", "numpy"} <= here.keys() and len(here["code"]) > 12
    assert {name for name in here if here[name] != elsewhere[name]} == {"the folder of results"}


# One cell at a time


@pytest.mark.fault("a worker with several threads, as dask worker starts one", "it is handed one cell at a time")
def test_a_worker_of_many_threads_runs_one_cell_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import Client as DaskClient
    from distributed import LocalCluster

    running, most, order = [], [], []

    def work(job: Job) -> str:
        running.append(job.name)
        most.append(len(running))
        time.sleep(0.05)
        order.append(running.pop())
        return "done"

    monkeypatch.setattr(workers, "work", work)
    jobs = [Job("t", Cell(Experiment(samples=1000, seed=s), 100, 64, ""), tmp_path, {}) for s in range(4)]
    quiet = {"dashboard_address": None, "silence_logs": 50}
    with LocalCluster(n_workers=1, threads_per_worker=4, processes=False, protocol="tcp", **quiet) as cluster:
        workers.work_on_workers(jobs, 1, cluster.scheduler_address, lambda: None)
        assert sorted(order) == sorted(job.name for job in jobs) and set(most) == {1}
        with DaskClient(cluster.scheduler_address) as client:  # as two commands on one scheduler would
            client.gather([client.submit(workers.work_alone, job, pure=False) for job in jobs])
        assert set(most) == {1}


def test_a_worker_is_no_scheduler(impatient: None) -> None:
    from distributed import LocalCluster

    quiet = {"dashboard_address": None, "silence_logs": 50}
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, protocol="tcp", **quiet) as cluster:
        reach(cluster.scheduler_address)
        (worker,) = cluster.scheduler_info["workers"]
        with pytest.raises(FlagError, match="it is something else"):
            reach(worker)


# Processes of our own


@pytest.mark.fault("--workers with few files allowed (ulimit -n)", "one line that names ulimit -n, exit code 2")
def test_too_few_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    limits, raised = [40, 40], list[tuple[int, int]]()
    monkeypatch.setattr(resource, "getrlimit", lambda which: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", lambda which, pair: raised.append(pair))
    with pytest.raises(FlagError, match=r"need 112 open files, and 40 are allowed; lower --workers or raise ulimit -n"):
        workers._allow_files(112)
    limits[1] = 4096
    workers._allow_files(112)
    assert raised == [(112, 4096)]


FLAGS = "--samples 100 --n-latent 2 --n-hidden 4 --eval-points 5 --evidence none --step-size 0.05 --backend aevb"
SMALL = f"{FLAGS} --engine pyro --compile off --seeds 0 1 --workers 2".split()


@pytest.mark.thorough
@pytest.mark.fault(
    "a script without a guard, and one on stdin, with --workers", "it runs once, and its cells on workers"
)
@pytest.mark.parametrize("how", ["script", "stdin"])
def test_a_script_without_a_guard(how: str, tmp_path: Path) -> None:
    script = "from comparisons import marginal_likelihood\nprint('once')\n"
    script += f"assert marginal_likelihood.main({[*SMALL, '--out', str(tmp_path / 'out')]!r}) == 0\n"
    (tmp_path / "script.py").write_text(script)
    words = [str(tmp_path / "script.py")] if how == "script" else ["-"]
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, input=script, text=True, capture_output=True, timeout=200,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stdout.count("once")) == (0, 1) and "Traceback" not in done.stderr, done.stderr


def test_what_workers_are_told_of_the_script_is_as_before_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlib import ExitStack

    before = multiprocessing.spawn.get_preparation_data
    monkeypatch.setattr("distributed.LocalCluster", lambda **how: ExitStack())
    monkeypatch.setattr("distributed.Client", lambda cluster: ExitStack())
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with ExitStack() as stack:
        workers._connected(stack, 1, "")
        assert not any(key.startswith("init_main") for key in multiprocessing.spawn.get_preparation_data("one"))
    assert multiprocessing.spawn.get_preparation_data is before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.thorough
@pytest.mark.fault("SIGTERM to the group of a command with workers", "one line and exit code 130, as without")
def test_the_group_is_told_to_end(number: signal.Signals, tmp_path: Path) -> None:
    words = [*SMALL, "--samples", "1000000", "--checkpoint-seconds", "0", "--out", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "comparisons.marginal_likelihood", *words], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    end = time.monotonic() + 120
    while process.poll() is None and not [*tmp_path.rglob("checkpoint.safetensors")] and time.monotonic() < end:
        time.sleep(0.2)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err.splitlines()[-1] == MESSAGE and "Traceback" not in err, err
