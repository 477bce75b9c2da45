"""Run cells in other processes: on this machine, or on the workers of a Dask cluster that is running already.

Dask carries jobs there and their outcome back, and gives a job whose worker died to another one, which goes on from the
cell's checkpoint. Everything else goes through the folder of results, which all of them see.
"""

import logging
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from comparisons.cells import Job, give_up, work
from comparisons.errors import FlagError, UserError

LIVES = 3  # workers that a cell may kill before it is given up
SILENCE = "60s"  # a worker not heard of for as long is taken for dead


def work_on_workers(jobs: list[Job], n_train: int, workers: int, scheduler: str, watch: Callable[[], None]) -> None:
    """Run jobs, in their order, on `workers` processes of our own or on those of a scheduler; call `watch` meanwhile.

    A cell that has killed its worker three times is given up. Raises FlagError where there is no scheduler, and
    UserError where one job says what would stop the others too.
    """
    import dask
    from distributed import Client, KilledWorker, LocalCluster

    settings = {
        "distributed.scheduler.allowed-failures": LIVES - 1,
        "distributed.scheduler.worker-ttl": SILENCE,
        "distributed.scheduler.worker-saturation": 1.0,  # no job waits on a worker, to be blamed for its death
        "distributed.worker.daemon": True,
        "distributed.comm.retry.count": 3,
        "distributed.admin.low-level-log-length": 0,
    }
    with dask.config.set(settings), ExitStack() as stack:
        # Dask tells of every lost connection, with tracebacks; what matters of it is said here in a line.
        stack.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.CRITICAL)
        try:
            if scheduler:
                client = stack.enter_context(Client(scheduler, timeout="10s"))
            else:
                os.environ["OMP_NUM_THREADS"] = "1"
                cluster = LocalCluster(
                    n_workers=min(workers, len(jobs)), threads_per_worker=1, processes=True, dashboard_address=None,
                    silence_logs=50, memory_limit=0,
                )  # fmt: skip
                stack.enter_context(cluster)
                client = stack.enter_context(Client(cluster))
        except (OSError, TimeoutError) as error:
            raise FlagError(
                f"no scheduler answers at {scheduler} ({type(error).__name__}); start one with dask scheduler"
            ) from error
        unique = os.urandom(4).hex()
        waiting = {
            client.submit(work, job, key=f"{job.cell}-{unique}", pure=False, priority=-number): job
            for number, job in enumerate(jobs)
        }
        try:
            while waiting:
                watch()
                for future in [each for each in waiting if each.done()]:
                    _ended(future, waiting.pop(future), n_train, KilledWorker)
                time.sleep(0.2)
        except BaseException:
            # Whoever waits for a worker to end politely waits for its cell; what it has done is in its checkpoint.
            for process in _children():
                process.kill()
            raise


def _children() -> list[Any]:
    """Return the worker processes that this one started."""
    import psutil

    return [each for each in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(each.cmdline())]


def _ended(future: Any, job: Job, n_train: int, killed: type[BaseException]) -> None:
    """Take note of how a job ended. Raises UserError."""
    if future.status == "finished":
        return
    if future.status in ("cancelled", "lost"):
        raise UserError("the scheduler has gone; start it again, and the same command goes on from the checkpoints")
    error = future.exception() if future.status == "error" else None
    if isinstance(error, UserError):
        raise error
    if isinstance(error, killed):
        give_up(job, n_train, f"killed its worker {LIVES} times")
        return
    reason = f"{type(error).__name__}: {error}".splitlines()[0][:300] if error else f"the job was {future.status}"
    print(f"{job.name}: {reason}", file=sys.stderr)
    give_up(job, n_train, reason)
