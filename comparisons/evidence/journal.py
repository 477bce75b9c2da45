"""What an estimate under way has worked out so far, so that a run that is broken off goes on where it stood.

An estimator is a pure function of its arguments, and does its work in the same order every time. So each piece of work
has a place in that order, and its result can be looked up by it: `once` and `pieces` return what the journal holds for
their place, and work out the rest. Nothing else of an estimator changes, and outside of `kept_in` nothing is kept.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import numpy as np

from inference.base import Array, Engine

PIECE = 50  # moves of a chain that are compiled as one
Arrays = dict[str, np.ndarray]
Columns = tuple[np.ndarray, ...]  # of a piece of work, by datapoint


class Journal:
    """Results by place: "2" is the third piece of an estimate's work, "2.0" the first piece of that one's own.

    `paused` is called after each piece: what it raises ends the estimate with all finished work in the journal.
    """

    def __init__(self, records: Mapping[str, Arrays] | None = None, paused: Callable[[], None] = lambda: None) -> None:
        self._records: dict[str, Callable[[], Arrays]] = {}
        for place, arrays in (records or {}).items():
            self.put(place, partial(dict, arrays))
        self._path = [0]
        self.paused = paused

    def records(self) -> dict[str, Arrays]:
        """Return everything worked out so far, as arrays by place."""
        return {place: arrays() for place, arrays in self._records.items()}

    def get(self, place: str) -> Arrays | None:
        """Return what is known of a place."""
        found = self._records.get(place)
        return found() if found else None

    def put(self, place: str, arrays: Callable[[], Arrays]) -> None:
        """Keep the result of a place, which is asked for when the journal is written; forget the parts it came from."""
        self._records = {p: made for p, made in self._records.items() if not p.startswith(place + ".")}
        self._records[place] = arrays

    @contextmanager
    def place(self) -> Iterator[str]:
        """Take the next place; what is worked out inside has its own places below it."""
        here = ".".join(map(str, self._path))
        self._path.append(0)
        yield here
        self._path.pop()
        self._path[-1] += 1


_journal: ContextVar[Journal | None] = ContextVar("journal", default=None)


@contextmanager
def kept_in(journal: Journal) -> Iterator[None]:
    """Let the estimates inside look their work up in a journal, and write it there."""
    token = _journal.set(journal)
    try:
        yield
    finally:
        _journal.reset(token)


def once(work: Callable[[], Columns]) -> Columns:
    """Return the arrays that `work` returns, from the journal where they are known."""
    journal = _journal.get() or Journal()
    with journal.place() as here:
        known = journal.get(here)
        if known is not None:
            return tuple(known[str(i)] for i in range(len(known)))
        found = tuple(work())
        journal.put(here, lambda: {str(i): np.asarray(array) for i, array in enumerate(found)})
    journal.paused()
    return found


def pieces(
    engine: Engine, run: Any, carry: tuple[Array, ...], items: tuple[Array, ...], kept: bool = True
) -> tuple[tuple[Array, ...], list[np.ndarray]]:
    """Fold run(count, carry, *items) -> (carry, outcome) over items, 50 at a time.

    `run` takes the first `count` of them: one compiled program, whatever the number of items.

    Returns the last carry, and the outcome's columns, each with the items' length as first axis; none unless `kept`.
    """
    journal = _journal.get() or Journal()
    columns: list[list[np.ndarray]] = []
    done = 0
    with journal.place() as here:
        known = journal.get(here)
        if known is not None:
            done = int(known["done"])
            carry = tuple(engine.array(known[f"carry{i}"]) for i in range(len(carry)))
            columns = [[known[f"column{i}"]] for i in range(sum(name.startswith("column") for name in known))]
        for start in range(done, len(items[0]), PIECE):
            count = min(PIECE, len(items[0]) - start)
            rows = engine.array(np.minimum(np.arange(start, start + PIECE), len(items[0]) - 1))  # the last fills it up
            carry, outcome = run(engine.array(count), carry, *(item[rows] for item in items))
            if kept:
                arrays = [engine.numpy(column)[:count] for column in outcome]
                columns = [[*before, new] for before, new in zip(columns or [[] for _ in arrays], arrays, strict=True)]
            journal.put(here, partial(_folded, engine, min(start + PIECE, len(items[0])), carry, columns))
            journal.paused()
        return carry, [np.concatenate(column) for column in columns]


def _folded(engine: Engine, done: int, carry: tuple[Array, ...], columns: list[list[np.ndarray]]) -> Arrays:
    return {
        "done": np.array(done),
        **{f"carry{i}": np.asarray(engine.numpy(array)) for i, array in enumerate(carry)},
        **{f"column{i}": np.concatenate(column) for i, column in enumerate(columns)},
    }
