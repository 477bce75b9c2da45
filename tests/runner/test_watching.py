"""The status line: what counts comes first, and no terminal is too narrow for it."""

import io
import sys
from contextlib import redirect_stderr
from types import ModuleType
from typing import Any

import pytest

from comparisons.runner.watching import Look, line, remaining, shortened, told


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_a_line_is_cut_from_the_right_to_a_terminal_and_stays_whole_elsewhere(
    monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    seen = [Look("cell", "running", "digits " + "long" * 40, 0.5, 5, 10, "training", "")]
    text = f" 42% {remaining(0.42, 0.58, 42.0)}, {told(seen)}"
    assert text.startswith(" 42% 0:00:58 left, 0/1 done, 1 running; training digits")
    short = shortened(text, Terminal())
    assert len(short) < min(columns, 80) and short.endswith("...") and text.startswith(short[:-3])
    assert shortened(text, io.StringIO()) == text and shortened("short", Terminal()) == "short"


def test_nothing_done_leaves_the_time_unknown() -> None:
    assert remaining(0.0, 1.0, 10.0) == "?:??:?? left"


def test_a_line_says_share_time_left_and_words_and_ends_with_a_new_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("sys.stderr", screen := Terminal())
    with line() as show:
        show(lambda: (0.0, "long " * 40))
        show(lambda: pytest.fail("not due"))
        show(lambda: (1.0, "training digits"), now=True)
    shown = [one.removesuffix("\x1b[K") for one in screen.getvalue().removesuffix("\n").split("\r")[1:]]
    assert shown[0].startswith("  0% ?:??:?? left, long ") and max(map(len, shown)) < 80
    assert shown[1] == "100% 0:00:00 left, training digits" and screen.getvalue().endswith("\n")


def test_in_a_file_a_line_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", file := io.StringIO())
    with line() as show:
        show(lambda: (0.5, "long " * 40))
    assert file.getvalue() == f" 50% ?:??:?? left, {'long ' * 40}\n"


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[list[dict[str, str]]]:
    """What a notebook's cells have shown: of each place the texts that stood there."""
    places: list[list[dict[str, str]]] = []

    class Handle:
        def __init__(self, text: dict[str, str]) -> None:
            places.append([text])
            self.place = places[-1]

        def update(self, text: dict[str, str], raw: bool) -> None:
            assert raw
            self.place.append(text)

    def display(text: dict[str, str], raw: bool, display_id: bool) -> Handle:
        assert raw and display_id
        return Handle(text)

    module: Any = ModuleType("IPython.display")
    module.display = display
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return places


class Kernel(io.StringIO):
    """A stream like a kernel's."""

    __module__ = "ipykernel.iostream"


def test_in_a_notebook_one_text_is_replaced(shown: list[list[dict[str, str]]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", screen := Kernel())
    with line() as show:
        show(lambda: (0.0, "long " * 40))
        show(lambda: pytest.fail("not due"))
        show(lambda: (1.0, "training"), now=True)
    with line() as show:
        show(lambda: (1.0, "another"))
    first, second = ([text["text/plain"] for text in place] for place in shown)
    assert first == [f"  0% ?:??:?? left, {'long ' * 40}", "100% 0:00:00 left, training"]
    assert second == ["100% ?:??:?? left, another"]
    assert screen.getvalue() == ""


def test_who_is_quiet_in_a_notebook_shows_nothing_there(
    shown: list[list[dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", Kernel())
    with redirect_stderr(io.StringIO()), line() as show:
        show(lambda: (0.5, "training"))
    assert not shown
