"""Which job a worker is handed next; what workers survive is in test_faults."""

from pathlib import Path
from typing import Any

from comparisons.runner.cell import Cell
from comparisons.runner.experiment import Experiment
from comparisons.runner.jobs import Job
from comparisons.runner.watching import cost
from comparisons.runner.workers import Queue


def job(**changes: Any) -> Job:
    experiment = Experiment(samples=1000, **changes)
    return Job("test", Cell(experiment, 100, 64, ""), Path("out"), {})


def grid() -> list[Job]:
    """Two backends of like cost and a long one, three seeds of each, in the order a grid has them."""
    jobs = [job(backend=backend, seed=s) for backend in ("aevb", "wake_sleep", "monte_carlo_em") for s in range(3)]
    return sorted(jobs, key=lambda one: -cost(one.cell.experiment))


def test_every_job_is_handed_out_once() -> None:
    jobs, queue = grid(), Queue(grid())
    taken = [queue.take(f"worker {i % 2}") for i in range(len(jobs))]
    assert not queue.waiting and sorted(one.cell.name for one in taken) == sorted(one.cell.name for one in jobs)


def test_the_long_ones_come_first() -> None:
    queue = Queue(grid())
    assert {queue.take(f"worker {i}").cell.experiment.backend for i in range(3)} == {"monte_carlo_em"}


def test_a_worker_goes_on_with_what_it_has_compiled() -> None:
    queue = Queue([one for one in grid() if one.cell.experiment.backend != "monte_carlo_em"])
    first, second = queue.take("a").cell.experiment.backend, queue.take("b").cell.experiment.backend
    assert first != second  # what nobody has compiled, rather than what another one has
    assert [queue.take("a").cell.experiment.backend for _ in range(2)] == [first, first]
    # Nothing of its own is left: it helps.
    assert [queue.take("a").cell.experiment.backend for _ in range(2)] == [second, second]
