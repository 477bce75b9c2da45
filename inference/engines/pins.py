"""A library's global settings as an engine's numbers need them: around its verbs, and the caller's own again after."""

import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import Any, NamedTuple, TypeVar

import numpy as np

# What NumPy starts with: code between the verbs counts on it, and an overflow there is no error.
NUMPY_ERRORS = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}


class Setting(NamedTuple):
    """A global setting: how it is read and written, and what it has to be."""

    read: Callable[[], Any]
    write: Callable[[Any], Any]
    needed: Any


class Pins:
    """A context in which `enter(stack)` has set a library's settings; leaving it gives the caller's own back.

    Of contexts within one another, in one thread, the outermost alone does something: the others cost next to nothing.
    """

    def __init__(self, enter: Callable[[ExitStack], None]) -> None:
        self._enter = enter
        self._local = threading.local()

    def __enter__(self) -> None:
        depth = getattr(self._local, "depth", 0)
        if depth == 0:
            with ExitStack() as stack:
                stack.enter_context(np.errstate(**NUMPY_ERRORS))  # type: ignore[arg-type]
                self._enter(stack)
                self._local.stack = stack.pop_all()
        self._local.depth = depth + 1

    def __exit__(self, *error: object) -> None:
        self._local.depth -= 1
        if self._local.depth == 0:
            self._local.stack.close()

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, run within the context."""

        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return run


Method = TypeVar("Method", bound=Callable[..., Any])


def verb(method: Method) -> Method:
    """Run a method within its object's `_pins`."""

    @wraps(method)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self._pins:
            return method(self, *args, **kwargs)

    return run  # type: ignore[return-value]


def hold(stack: ExitStack, settings: tuple[Setting, ...]) -> None:
    """Set what is not as needed; leaving the stack brings back what was there, whoever changed it meanwhile."""
    for setting in settings:
        before = setting.read()
        stack.callback(_put_back, setting, before)
        if before != setting.needed:
            setting.write(setting.needed)


def _put_back(setting: Setting, before: Any) -> None:
    if setting.read() != before:
        setting.write(before)
