"""End on a signal: at once where nothing is lost by it, else after what is under way has been written down.

Compiled code cannot be interrupted, and a step or a compilation can take long. So a thread of its own waits for the
signal, and ends the process after GRACE seconds, whatever it is at: files are written whole or not at all.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

GRACE = 3.5  # seconds between a signal and the end
INTERRUPTED = 130  # the exit code
MESSAGE = "interrupted; nothing that was written is lost, and the same command goes on from there"

_requested = threading.Event()
_deferred = False


def requested() -> bool:
    """Say whether a signal has asked the process to end."""
    return _requested.is_set()


@contextmanager
def taken_over() -> Iterator[None]:
    """Take over SIGINT and SIGTERM while a command runs, in the main thread."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    over = threading.Event()
    threading.Thread(target=_end_after_grace, args=(reading, over), daemon=True).start()
    before = {number: signal.signal(number, _handle) for number in (signal.SIGINT, signal.SIGTERM)}
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)  # written to as a signal comes, whatever runs
    try:
        yield
    finally:
        if not _requested.is_set():  # else what is still to be shut down has no longer than the rest
            over.set()
            signal.set_wakeup_fd(wakeup)
            os.close(writing)
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def deferred() -> Iterator[None]:
    """Let signals inside wait until the next `pause`."""
    global _deferred
    before, _deferred = _deferred, True
    try:
        yield
    finally:
        _deferred = before


def pause() -> None:
    """Raise KeyboardInterrupt where a signal has come: here, nothing is lost."""
    if _requested.is_set():
        raise KeyboardInterrupt


def _handle(number: int, frame: Any) -> None:
    if _requested.is_set() or not _deferred:
        _requested.set()
        raise KeyboardInterrupt
    _requested.set()


def _end_after_grace(reading: int, over: threading.Event) -> None:
    number = 0
    while number not in (signal.SIGINT, signal.SIGTERM):
        told = os.read(reading, 1)
        if not told:  # the command has ended
            os.close(reading)
            return
        number = told[0]
    if not over.wait(GRACE):
        print(MESSAGE, file=sys.stderr, flush=True)
        os._exit(INTERRUPTED)
