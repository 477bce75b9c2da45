"""Run cells in other processes: on this machine, or on the workers of a Dask cluster that is running already.

Dask carries jobs there and their outcome back. Everything else goes through the folder of results, which all of them
see. A worker is handed one job at a time, of those that it has compiled already where there are any: of a short cell
most is compilation. A job whose worker died is handed to another, which goes on from the cell's checkpoint.

A worker that would give other numbers is handed nothing: each is asked, as it joins, what its numbers depend on.
"""

import asyncio
import hashlib
import logging
import multiprocessing.spawn
import os
import resource
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from comparisons.errors import FlagError, UserError, in_one_line
from comparisons.runner import store
from comparisons.runner.experiment import Experiment
from comparisons.runner.jobs import Job, give_up, work
from comparisons.runner.watching import cost

LIVES = 3  # workers that a cell may kill before it is given up
SILENCE = "60s"  # a worker not heard of for as long is taken for dead
GONE = "the scheduler has gone; start it again, and the same command goes on from the checkpoints"


class Queue:
    """Jobs that wait, in their order, and what each worker has run."""

    def __init__(self, jobs: list[Job]) -> None:
        self.waiting = list(jobs)
        self.known: dict[Experiment, set[str]] = {}  # who has run a kind of experiment: all of one seed apart

    def take(self, worker: str) -> Job:
        """Return the next job for a worker: of the long ones one that it knows, or that nobody does; else the first."""
        longest = cost(self.waiting[0].cell.experiment)
        long = [job for job in self.waiting if cost(job.cell.experiment) >= longest / 2]
        job = min(long, key=lambda job: (worker not in self._who(job), bool(self._who(job))))
        self.waiting.remove(job)
        self._who(job).add(worker)
        return job

    def _who(self, job: Job) -> set[str]:
        return self.known.setdefault(replace(job.cell.experiment, seed=0), set())


ALONE = threading.Lock()  # a worker may have several threads; settings of torch, jax and Pyro are of a process


def work_alone(job: Job) -> str:
    """Run a job in a worker, while no other job runs in its process. Raises UserError."""
    with ALONE:
        return work(job)


def standing(out: Path) -> dict[str, str]:
    """Return what this process's numbers depend on that the jobs do not say, and whether it sees the results."""
    place = {"the folder of results": "seen" if out.is_dir() else "not seen"}
    return {"code": f"{_code()} (commit {store.environment()['commit'][:12]})", **store.versions(), **place}


@cache
def _code() -> str:
    """Return the beginning of the SHA-256 of the suite's own files: a commit does not tell of changes."""
    sha256 = hashlib.sha256()
    for path in sorted(
        path for room in ("models", "inference", "comparisons") for path in (store.ROOT / room).rglob("*.py")
    ):
        sha256.update(path.relative_to(store.ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return sha256.hexdigest()[:12]


class Fitting:
    """Which workers may be handed jobs: those that stand as this process does. Each is asked once, as it joins."""

    def __init__(self, client: Any, out: Path) -> None:
        self.client, self.out, self.here = client, out, standing(out)
        self.asked: dict[str, Any] = {}  # the futures of their answers
        self.why: dict[str, str] = {}  # each does not fit; "" where it does

    def among(self, workers: set[str]) -> set[str]:
        """Return those of the workers that fit. Raises FlagError where none of them does, and none may yet."""
        for gone in self.asked.keys() - workers:
            del self.asked[gone]
            self.why.pop(gone, None)
        for worker in sorted(workers - self.asked.keys()):
            self.asked[worker] = self.client.submit(standing, self.out, pure=False, workers=[worker])
        for worker, future in self.asked.items():
            if worker not in self.why and future.done():
                with suppress(TimeoutError):  # it lies on a worker that has died meanwhile, and is gone the next time
                    self.why[worker] = self._misfit(future)
                if self.why.get(worker):
                    print(f"the worker {worker} is left out: {self.why[worker]}", file=sys.stderr)
        if workers and workers == {worker for worker, why in self.why.items() if why}:
            worker = min(workers)
            raise FlagError(f"no worker fits; the worker {worker} is left out: {self.why[worker]}")
        return {worker for worker, why in self.why.items() if not why}

    def _misfit(self, future: Any) -> str:
        remedy = "start it in this checkout, with the same libraries"
        if future.status != "finished":
            error = future.exception() if future.status == "error" else RuntimeError(f"the answer was {future.status}")
            return f"it cannot run this code ({in_one_line(error)}); {remedy}"
        there = future.result(timeout=5)
        # A commit is told and not compared: one may be made while workers run, of the same code.
        names = [name for name in self.here if str(there.get(name)).split(" (")[0] != self.here[name].split(" (")[0]]
        told = ", ".join(f"{name} {there.get(name, 'missing')} there, {self.here[name]} here" for name in names)
        return f"{told}; {remedy}" if told else ""


SETTINGS = {
    "distributed.scheduler.allowed-failures": 0,  # they are counted here, whosever scheduler it is
    "distributed.scheduler.worker-ttl": SILENCE,
    "distributed.scheduler.worker-saturation": 1.0,  # no job waits on a worker, to be blamed for its death
    "distributed.worker.daemon": True,
    "distributed.comm.retry.count": 3,
    "distributed.admin.low-level-log-length": 0,
}


def work_on_workers(jobs: list[Job], workers: int, scheduler: str, watch: Callable[[], None]) -> None:
    """Run jobs, the longest first, on `workers` processes of our own or on a scheduler's; call `watch` meanwhile.

    A cell that has killed its worker three times is given up. Raises FlagError where there is no scheduler or no worker
    that fits, and UserError where one job says what would stop the others too.
    """
    import dask

    with dask.config.set(SETTINGS), ExitStack() as stack:
        # Dask tells of every lost connection, with tracebacks; what matters of it is said here in a line.
        stack.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.CRITICAL)
        client = stack.enter_context(_connected(stack, min(workers, len(jobs)), scheduler))
        try:
            _hand_out(client, Queue(jobs), Fitting(client, jobs[0].out), watch)
        except BaseException:
            import psutil

            # Whoever waits for a worker to end politely waits for its cell; what it has done is in its checkpoint.
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):  # a signal to the group has ended it meanwhile
                    if "spawn_main" in " ".join(process.cmdline()):  # a worker that this process started
                        process.kill()
            raise


def _connected(stack: ExitStack, workers: int, scheduler: str) -> Any:
    """Return a client of the scheduler, or of one of our own with so many workers, which ends with the stack.

    Raises FlagError where no scheduler answers, or the system lets a process open too few files.
    """
    from distributed import Client, LocalCluster

    if scheduler:
        reach(scheduler)
        try:
            return Client(scheduler, timeout=f"{PATIENCE}s")
        except (OSError, TimeoutError) as error:
            raise UserError(GONE) from error
    _allow_files(FILES + FILES_OF_A_WORKER * workers)
    os.environ["OMP_NUM_THREADS"] = "1"
    # A process that is spawned would run the caller's script again, or look for a file called <stdin>.
    prepare = multiprocessing.spawn.get_preparation_data
    stack.callback(setattr, multiprocessing.spawn, "get_preparation_data", prepare)
    multiprocessing.spawn.get_preparation_data = lambda name: {
        key: value for key, value in prepare(name).items() if not key.startswith("init_main")
    }
    quiet = {"dashboard_address": None, "silence_logs": 50, "memory_limit": 0}
    return Client(stack.enter_context(LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, **quiet)))


PATIENCE = 10.0  # seconds that a scheduler has to say what it is
FILES, FILES_OF_A_WORKER = 64, 24  # that a process opens: libraries, pipes and connections


def reach(scheduler: str) -> None:
    """See that a Dask scheduler answers at an address, in a time that ends. Raises FlagError."""
    from distributed.comm import connect
    from distributed.security import Security

    async def ask() -> Any:
        async with asyncio.timeout(PATIENCE):  # a client would wait for ever for whatever only takes the connection
            comm = await connect(scheduler, timeout=PATIENCE, **how)
            try:
                await comm.write({"op": "identity", "reply": True})
                return await comm.read()
            finally:
                comm.abort()

    answers: list[Any] = []

    def asking() -> None:
        try:
            answers.append(asyncio.run(ask()))
        except Exception as error:  # what a stranger answers can break the reading of it in any way
            answers.append(error)

    try:
        how = Security().get_connection_args("client")
    except (OSError, ValueError) as error:
        raise FlagError(f"Dask's certificates cannot be read ({in_one_line(error, False)}); {CERTIFICATES}") from error
    if scheduler.startswith(("tls://", "wss://")) and how["ssl_context"] is None:
        raise FlagError(f"scheduler {scheduler!r} asks for certificates, and there are none; {CERTIFICATES}")
    thread = threading.Thread(target=asking, daemon=True)  # a notebook's own thread has a loop that runs already
    thread.start()
    thread.join(PATIENCE + 5.0)
    answer = answers[0] if answers else TimeoutError()
    if not isinstance(answer, dict) or answer.get("type") != "Scheduler":
        kind = type(answer).__name__ if isinstance(answer, Exception) else "it is something else"
        raise FlagError(f"no scheduler answers at {scheduler} ({kind}); start one with dask scheduler")


CERTIFICATES = (
    "set distributed.comm.tls.ca-file, distributed.comm.tls.client.cert and distributed.comm.tls.client.key in Dask's "
    "configuration, as docs/running.md has it"
)


def _allow_files(count: int) -> None:
    """Have the system let this process open so many files at once. Raises FlagError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise FlagError(
            f"so many workers need {count} open files, and {hard} are allowed; lower --workers or raise ulimit -n"
        )
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def _hand_out(client: Any, queue: Queue, fitting: Fitting, watch: Callable[[], None]) -> None:
    """Hand jobs to workers as these are free, until all have ended."""
    from distributed import KilledWorker

    handed: dict[Any, tuple[Job, str]] = {}  # futures, and who has them
    deaths: Counter[str] = Counter()
    while queue.waiting or handed:
        watch()
        there, idle = _look(client)
        free = sorted(idle & fitting.among(there) - {worker for _, worker in handed.values()})
        for future, (job, worker) in list(handed.items()):
            if not future.done() and worker in there:
                continue
            del handed[future]
            done = future.done()  # before its status is read, which is final then
            error = future.exception() if future.status == "error" else None
            if done and not isinstance(error, KilledWorker):
                _ended(job, future.status, error)
                continue
            future.cancel()
            deaths[job.cell.name] += 1
            if deaths[job.cell.name] < LIVES:
                queue.waiting.append(job)  # last: if it is the cell that kills, the others are through
            else:
                give_up(job, f"killed its worker {LIVES} times")
        for worker in free[: len(queue.waiting)]:
            job = queue.take(worker)
            key = f"{job.cell.name}-{os.urandom(4).hex()}"
            handed[client.submit(work_alone, job, key=key, pure=False, workers=[worker])] = job, worker
        time.sleep(0.1)


def _look(client: Any) -> tuple[set[str], set[str]]:
    """Return all workers, and those that have nothing to do, for us or for others. Raises UserError."""
    try:
        threads, busy = client.nthreads(), client.processing()
    except (OSError, TimeoutError) as error:
        raise UserError(GONE) from error
    return {*threads}, {worker for worker in threads if not busy.get(worker)}


def _ended(job: Job, status: str, error: BaseException | None) -> None:
    """Take note of how a job ended, other than with its worker. Raises UserError."""
    if status == "finished":
        return
    if status in ("cancelled", "lost"):
        raise UserError(GONE)
    if isinstance(error, UserError):
        raise error
    reason = f"{type(error).__name__}: {error}".splitlines()[0][:300] if error else f"the job was {status}"
    print(f"{job.name}: {reason}", file=sys.stderr)
    give_up(job, reason)
