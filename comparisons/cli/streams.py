"""Standard streams that never end a run: what a command is worth is its work, not who listens.

The reader of a pipe may go, a log's disk may be full, a shell may have closed a stream before anything began.
"""

import codecs
import errno
import os
import sys
from io import BufferedWriter, FileIO, TextIOWrapper
from select import select
from typing import Any

SPELT_OUT = {"±": "+-", "†": "(!)", "█": "#"}


def _spelt_out(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    return "".join(SPELT_OUT.get(one, "?") for one in text), error.end


codecs.register_error("spelt_out", _spelt_out)


class Lasting(FileIO):
    """The end of a stream that is written to: once that fails, what is written goes nowhere, and nothing is raised."""

    def write(self, data: Any) -> int:
        try:
            while (count := super().write(data)) is None:  # a full pipe that says so, in place of waiting
                select([], [self], [])
            return count
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            if self.fileno() == 1 and error.errno != errno.EPIPE:
                print(f"standard output is lost from here on ({error.strerror}); the work goes on", file=sys.stderr)
            return memoryview(data).nbytes


def outlast() -> None:
    """Make the standard streams such that no failure to write to them ends the process, or changes its exit code."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file that is opened would get its number, and a stranger's words
            os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 - it lasts as long as the process
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None or (stream is getattr(sys, f"__{name}__") and isinstance(stream, TextIOWrapper)):
            setattr(sys, name, _lasting(number, stream))
        elif isinstance(stream, TextIOWrapper):  # another's, such as a test's
            stream.reconfigure(errors="spelt_out")


def _lasting(number: int, stream: TextIOWrapper | None) -> TextIOWrapper:
    """Return a stream like the given one; what an encoding cannot show is no reason to lose a finished run's table."""
    raw: Any = Lasting(number, "w", closefd=False)
    unbuffered = bool(stream and stream.write_through)
    return TextIOWrapper(
        raw if unbuffered else BufferedWriter(raw),
        stream.encoding if stream else "utf-8",
        "spelt_out",
        line_buffering=bool(stream and stream.line_buffering),
        write_through=unbuffered,
    )
