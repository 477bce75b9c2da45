"""A check: a function with its contract as docstring, which returns, or says why it fails or has nothing to look at."""

import inspect
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from comparisons.errors import in_one_line

Check = Callable[[Any], None]

PASS, FAIL, SKIPPED = "pass", "FAIL", "skipped"


class Outcome(NamedTuple):
    """How a check ended: its name, `pass`, `FAIL` or `skipped`, its contract, and why it failed or was skipped."""

    name: str
    status: str
    contract: str
    text: str


class BrokenError(Exception):
    """The contract does not hold; the message says what was found, what is expected and how to mend it."""


class NothingToCheckError(Exception):
    """The contract does not apply, or what it is about could not be had; the message says why."""


@contextmanager
def needed(what: str) -> Iterator[Callable[[Any], None]]:
    """Raise NothingToCheckError where anything within fails, or what it holds: `what` names the check that is of it."""

    def hold(condition: Any) -> None:
        if not condition:
            raise NothingToCheckError(what)

    try:
        yield hold
    except NothingToCheckError:
        raise
    except (Exception, SystemExit):
        raise NothingToCheckError(what) from None


def checks_of(module: str) -> tuple[Check, ...]:
    """Return the checks of a module: its public functions of one `case`, in the order in which they stand there."""
    return tuple(
        function
        for name, function in vars(sys.modules[module]).items()
        if inspect.isfunction(function)
        and not name.startswith("_")
        and [*inspect.signature(function).parameters] == ["case"]
    )


def run(checks: Sequence[Check], case: Any) -> list[Outcome]:
    """Run every check on a case; none stops the others, and an exception in one is its failure."""
    return [_outcome(check, case) for check in checks]


def expect(holds: Any, found: str, expected: str, mend: str) -> None:
    """Raise BrokenError, in sentences, unless a condition holds."""
    if not holds:
        raise BrokenError(f"Found {found}; expected {expected}. To mend it, {mend}.")


@contextmanager
def attempt(expected: str, mend: str) -> Iterator[None]:
    """Raise BrokenError, with the exception as what was found, where anything within fails."""
    try:
        yield
    except (Exception, SystemExit) as error:
        expect(False, in_one_line(error), expected, mend)


def expect_shapes(found: Mapping[str, Any], shaped: Mapping[str, Sequence[int]], mend: str, where: str = "") -> None:
    """Raise BrokenError unless arrays have these names and shapes, in any order."""
    same = {name: np.shape(value) for name, value in found.items()} == {name: tuple(s) for name, s in shaped.items()}
    expect(same, shapes(found), listed(shaped) + where, mend)


def expect_close(found: Any, expected: Any, what: str, words: str, mend: str) -> None:
    """Raise BrokenError unless arrays agree to float32: `what` they are, and what is expected of them in words."""
    expect(close(found, expected), f"{what} with {distance(found, expected)}", words, mend)


def close(found: Any, expected: Any, rtol: float = 1e-4) -> bool:
    """Say whether arrays agree to float32, relative to the largest number in them; NaN agrees with nothing."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if found.shape != expected.shape:
        return False
    scale = 1.0 + np.abs(expected).max(initial=0.0)
    return bool((np.abs(found - expected) <= rtol * scale).all())


def same_bits(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    """Say whether two flat dicts hold the same names, types and bits."""
    return one.keys() == other.keys() and all(
        value.dtype == other[name].dtype
        and value.shape == other[name].shape
        and value.tobytes() == other[name].tobytes()
        for name, value in one.items()
    )


def distance(one: Any, other: Any) -> str:
    """Return the largest difference of two arrays as words, or their shapes where those differ."""
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if one.shape != other.shape:
        return f"shapes {list(one.shape)} and {list(other.shape)}"
    return f"a difference of up to {np.abs(one - other).max(initial=0.0):.3g}"


def shapes(values: Mapping[str, Any]) -> str:
    """Return names and shapes of arrays as words."""
    return listed({name: np.shape(value) for name, value in values.items()})


def listed(named: Mapping[str, Sequence[int]]) -> str:
    """Return names and shapes as words."""
    return ", ".join(f"{name} {list(shape)}" for name, shape in named.items()) or "nothing"


def random_like(values: Mapping[str, Any], seed: int) -> dict[str, np.ndarray]:
    """Return normal float32 arrays of these shapes, of a size that keeps a network's layers from saturating."""
    rng = np.random.default_rng(seed)
    result = {}
    for name, value in values.items():
        shape = np.shape(value)
        fan_in = float(np.prod(shape[:-1])) if len(shape) > 1 else 1.0
        scale = 0.5 / np.sqrt(max(1.0, fan_in / 4))
        result[name] = np.asarray(scale * rng.standard_normal(shape), np.float32)
    return result


def _outcome(check: Check, case: Any) -> Outcome:
    name, contract = check.__name__, " ".join((check.__doc__ or "").split())
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is not finite is the check's to judge
            check(case)
    except NothingToCheckError as reason:
        return Outcome(name, SKIPPED, contract, str(reason))
    except BrokenError as reason:
        return Outcome(name, FAIL, contract, str(reason))
    except (Exception, SystemExit) as error:
        return Outcome(name, FAIL, contract, f"Found an exception; expected none. It is {in_one_line(error)}.")
    return Outcome(name, PASS, contract, "")
