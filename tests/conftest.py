"""Fixtures: the engines, each built once for the session, on one CPU thread so that results repeat bit for bit.

Tests marked `fault(injection, expected)` do some harm to the suite. With `--reliability DIR` what they saw becomes a
table there (`make torture`).
"""

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import pytest
import reliability

import inference
from inference import BACKENDS, ENGINES
from inference.base import Engine
from models import MODELS

os.environ["NPROC"] = "1"  # whichever test is the first to let jax compute, it then has the engines' one thread


@pytest.fixture(autouse=True)
def registries_in_order() -> Iterator[None]:
    """What a test takes out of a registry comes back where it was: what is registered has an order."""
    registries: tuple[Any, ...] = (ENGINES, BACKENDS, MODELS)
    kept = [(registry, dict(registry)) for registry in registries]
    yield
    for registry, before in kept:
        if list(registry) != list(before):
            registry.clear()
            registry.update(before)


@pytest.fixture(scope="session", params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each registered engine in turn."""
    return inference.engine(request.param, "cpu", 1)


@pytest.fixture(scope="session")
def engines() -> dict[str, Engine]:
    """All registered engines, for tests that hold them against each other."""
    return {name: inference.engine(name, "cpu", 1) for name in ENGINES}


# What jax compiled once serves the whole session, and the next: tests that empty its memory, commands of their own,
# both workers. jax knows a program by its text, its versions and the compiler's flags: none is taken for another.

JAX_CACHE = "JAX_COMPILATION_CACHE_DIR"
JAX_CACHES_ALL = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    "TF_CPP_MIN_LOG_LEVEL": "3",  # else each program that is read back is called foreign, for two flags of the compiler
}
DAYS = 30  # that a program is kept
CACHE = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--reliability", metavar="DIR", help="write what the tests marked fault saw to DIR/table.md")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fault(injection, expected): does some harm; a row of reports/reliability")
    config.addinivalue_line("markers", "thorough(**params): what the other cases show too; make torture runs them")
    config.addinivalue_line("markers", "gpu: needs an engine that has a GPU; skipped where there is none")
    # Of a program that another process is just writing down; it is then compiled here.
    config.addinivalue_line("filterwarnings", "ignore:Error reading persistent compilation cache entry:UserWarning")
    if JAX_CACHE not in os.environ:  # workers find it set
        if kept := getattr(config, "cache", None):
            os.environ[JAX_CACHE] = str(kept.mkdir(f"jax-{platform.node()}"))  # code for its processor
            for path in Path(os.environ[JAX_CACHE]).iterdir():
                if path.stat().st_mtime < time.time() - 86_400 * DAYS:
                    path.unlink(missing_ok=True)
        else:  # -p no:cacheprovider
            config.stash[CACHE] = os.environ[JAX_CACHE] = tempfile.mkdtemp(prefix="jax-")
        os.environ |= JAX_CACHES_ALL


def pytest_unconfigure(config: pytest.Config) -> None:
    if CACHE in config.stash:
        shutil.rmtree(config.stash[CACHE], ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def programs_are_compiled_quickly() -> None:
    """Tests compile far more than they run: this level halves the one and hardly slows the other.

    The compiler reads the variable once. Commands that tests start do not see it, nor do the names of results.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=1".strip())
        jax.block_until_ready(jax.jit(lambda x: x + 1.0)(0.0))


@pytest.fixture(scope="module", autouse=True)
def programs_are_let_go() -> Iterator[None]:
    """What a file compiled is not held for the rest of the session: of all files it came to several GB a worker."""
    yield
    jax.clear_caches()


# Up to two minutes each: they come first, so that no worker is left with one of them while the other has nothing to do.
LONG = (
    "test_faults.py",
    "test_compiled.py",
    "test_check.py",
    "test_backends.py",
    "test_run.py",
    "test_rows_seen.py",
    "test_readme.py",
    "test_global_state.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not int(os.environ.get("TORTURE", "0")):
        skip = pytest.mark.skip(reason="other cases show it too; make torture runs it")
        for item in items:
            if any(_is(item, marker.kwargs) for marker in item.iter_markers("thorough")):
                item.add_marker(skip)
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


def _is(item: Any, params: Mapping[str, Any]) -> bool:
    """Say whether a test is one of the cases that a marker names by their parameters."""
    told = item.callspec.params
    return all(told[name] in (values if isinstance(values, tuple) else (values,)) for name, values in params.items())


# What becomes of each fault

FAULTS = pytest.StashKey[list[reliability.Case]]()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome: Any = yield
    report, marker = outcome.get_result(), item.get_closest_marker("fault")
    if marker and (report.when == "call" or report.skipped or report.failed):
        injection, expected = marker.args
        case = reliability.Case(injection, expected, report.outcome, dict[str, Any](item.user_properties))
        item.config.stash.setdefault(FAULTS, []).append(case)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    folder = session.config.getoption("--reliability")
    if folder:
        flags = " ".join(map(str, session.config.invocation_params.args))
        reliability.write(Path(folder), session.config.stash.get(FAULTS, []), flags)
