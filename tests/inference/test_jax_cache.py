"""What jax compiles is kept on disk for other processes: without a trace in the numbers, and as its user wants it."""

import csv
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import inference
from inference.engines import jax_settings

ROOT = Path(__file__).parents[2]
CLOCKS = ("seconds", "eval_seconds", "compile_seconds")
FLAGS = (
    "--backend aevb --engine numpyro --samples 2000 --warmup 0 --n-hidden 8 --eval-points 20 --step-size 0.05 "
    "--evidence none"
)

Told = dict[str, Any]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Told]:
    """Ask for the cache in a process that has it as told, and return what jax is told then."""
    told: Told = {}

    def ask(threads: int = 1, folder: str | None = None, enabled: bool = True) -> Told:
        config = SimpleNamespace(jax_compilation_cache_dir=folder, jax_enable_compilation_cache=enabled)
        config.update = told.__setitem__
        monkeypatch.setattr(jax_settings, "jax", SimpleNamespace(config=config, lib=jax_settings.jax.lib))
        told.clear()
        jax_settings.keep_programs(threads)
        return dict(told)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(*jax_settings.QUIET)
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", raising=False)
    return ask


def run(out: Path, **changes: str) -> list[Told]:
    """Run a cell in a process of its own, on a machine without settings of jax but these; return rows, less clocks."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "TF_"))}
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "comparisons.marginal_likelihood",
        *FLAGS.split(),
        "--out",
        str(out),
    ]
    done = subprocess.run(command, cwd=ROOT, env={**environment, **changes}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    told = [line for line in done.stderr.splitlines() if " left, " not in line and " on test " not in line]
    assert not told, done.stderr  # the status, and no warning
    with (out / "rows.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if name not in CLOCKS} for row in csv.DictReader(file)]


def test_numbers_are_the_same_without_a_cache_with_a_new_one_a_full_one_and_a_damaged_one(tmp_path: Path) -> None:
    here = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    without = run(tmp_path / "without", JAX_ENABLE_COMPILATION_CACHE="false", **here)
    assert without and not (tmp_path / "cache" / "aevb-comparison").exists()
    assert run(tmp_path / "new", **here) == without
    programs = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*-cache")}
    assert len(programs) > 10
    assert run(tmp_path / "full", **here) == without
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*-cache")} == programs
    for path in programs:  # as a process leaves it that is killed in the middle of writing
        path.write_bytes(path.read_bytes()[:-20])
    assert run(tmp_path / "damaged", **here) == without


def test_a_folder_is_of_one_version_one_kind_of_processor_and_one_number_of_threads(
    asked: Callable[..., Told], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(asked()["jax_compilation_cache_dir"])
    assert folder.parent == tmp_path / "cache" / "aevb-comparison" / "jax" and folder.is_dir()
    assert asked()["jax_compilation_cache_dir"] == str(folder) != asked(threads=2)["jax_compilation_cache_dir"]
    monkeypatch.setattr(Path, "read_text", lambda _: "processor: 0\nflags: fewer\n\nprocessor: 1\n")
    fewer = asked()["jax_compilation_cache_dir"]
    monkeypatch.setattr(Path, "read_text", lambda _: "processor: 1\nflags: fewer\ncpu MHz: 1\n\n")
    assert asked()["jax_compilation_cache_dir"] == fewer != str(folder)


def test_the_users_own_settings_stand(asked: Callable[..., Told], monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked()["jax_persistent_cache_min_compile_time_secs"] == 0.0
    assert asked(folder="/mine") == asked(enabled=False) == {}
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "5")
    assert [*asked()] == ["jax_compilation_cache_dir"]
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")  # who wants to hear of the compiler, or is no command of ours
    assert asked() == {}


def test_where_nothing_can_be_written_or_known_there_is_no_cache(
    asked: Callable[..., Told], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert asked() == {}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(Path, "read_text", lambda _: (_ for _ in ()).throw(FileNotFoundError))
    assert asked() == {}


def test_programs_of_long_ago_go(asked: Callable[..., Told], tmp_path: Path) -> None:
    folder = Path(asked()["jax_compilation_cache_dir"])
    other = folder.with_name("0.9.0-another-1")
    other.mkdir()
    for old, new in ((one / "old-cache", one / "new-cache") for one in (folder, other)):
        old.touch()
        new.touch()
        os.utime(old, (time.time() - (jax_settings.DAYS + 1) * 86_400,) * 2)
    (other / "old-notes").touch()
    asked()
    assert sorted(path.name for path in folder.parent.glob("*/*-*")) == ["new-cache", "new-cache", "old-notes"]


def test_programs_are_let_go_of_before_the_system_kills_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past half of the maps that it may hold; not before, nor where the system does not tell."""
    engine = inference.engine("numpyro", "cpu", 1)
    cleared: list[int] = []
    monkeypatch.setattr(jax_settings.jax, "clear_caches", lambda: cleared.append(1))
    for held, limit, expected in ((10, "21\n", 0), (11, "21\n", 1), (11, "many", 1), (11, None, 1)):
        (tmp_path / "maps").write_text("a map\n" * held)
        (tmp_path / "limit").write_text(limit or "")
        monkeypatch.setattr(jax_settings, "MAPS", tmp_path / "maps")
        monkeypatch.setattr(jax_settings, "MAPS_AT_MOST", tmp_path / ("limit" if limit else "none"))
        twice = engine.compile(lambda x: 2.0 * x)
        assert engine.numpy(twice(engine.array(3.0))) == 6.0 and len(cleared) == expected


def test_what_was_let_go_of_gives_the_same_again() -> None:
    engine = inference.engine("numpyro", "cpu", 1)
    root = engine.compile(lambda x: x**0.5)
    before = engine.numpy(root(engine.array([2.0, 3.0])))
    jax_settings.jax.clear_caches()
    assert (engine.numpy(root(engine.array([2.0, 3.0]))) == before).all()
