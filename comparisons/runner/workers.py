"""Run cells in other processes: on this machine, or on the workers of a Dask cluster that is running already.

Dask carries jobs there and their outcome back. Everything else goes through the folder of results, which all of them
see. A worker is handed one job at a time, of those that it has compiled already where there are any: of a short cell
most is compilation. A job whose worker died is handed to another, which goes on from the cell's checkpoint.
"""

import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from comparisons.errors import FlagError, UserError
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

    A cell that has killed its worker three times is given up. Raises FlagError where there is no scheduler, and
    UserError where one job says what would stop the others too.
    """
    import dask

    with dask.config.set(SETTINGS), ExitStack() as stack:
        # Dask tells of every lost connection, with tracebacks; what matters of it is said here in a line.
        stack.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.CRITICAL)
        try:
            client = stack.enter_context(_connected(stack, min(workers, len(jobs)), scheduler))
        except (OSError, TimeoutError) as error:
            raise FlagError(
                f"no scheduler answers at {scheduler} ({type(error).__name__}); start one with dask scheduler"
            ) from error
        try:
            _hand_out(client, Queue(jobs), watch)
        except BaseException:
            import psutil

            # Whoever waits for a worker to end politely waits for its cell; what it has done is in its checkpoint.
            for process in psutil.Process().children(recursive=True):
                if "spawn_main" in " ".join(process.cmdline()):  # a worker that this process started
                    process.kill()
            raise


def _connected(stack: ExitStack, workers: int, scheduler: str) -> Any:
    """Return a client of the scheduler, or of one of our own with so many workers, which ends with the stack."""
    from distributed import Client, LocalCluster

    if scheduler:
        return Client(scheduler, timeout="10s")
    os.environ["OMP_NUM_THREADS"] = "1"
    quiet = {"dashboard_address": None, "silence_logs": 50, "memory_limit": 0}
    return Client(stack.enter_context(LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, **quiet)))


def _hand_out(client: Any, queue: Queue, watch: Callable[[], None]) -> None:
    """Hand jobs to workers as these are free, until all have ended."""
    from distributed import KilledWorker

    handed: dict[Any, tuple[Job, str]] = {}  # futures, and who has them
    deaths: Counter[str] = Counter()
    while queue.waiting or handed:
        watch()
        free, there = _look(client, [worker for _, worker in handed.values()])
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
            handed[client.submit(work, job, key=key, pure=False, workers=[worker])] = job, worker
        time.sleep(0.1)


def _look(client: Any, handed: list[str]) -> tuple[list[str], set[str]]:
    """Return each worker that has nothing to do, as often as it has threads for it, and all. Raises UserError."""
    try:
        threads, busy = client.nthreads(), client.processing()
    except (OSError, TimeoutError) as error:
        raise UserError(GONE) from error
    meant = Counter(handed)
    # A job takes a moment to show there.
    free = [one for one, n in threads.items() for _ in range(n - max(len(busy.get(one, ())), meant[one]))]
    return free, set(threads)


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
