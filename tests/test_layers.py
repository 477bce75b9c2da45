"""The house's plan, read off the syntax trees: who may import whom, and which files name an array library."""

import ast
import sys
from pathlib import Path

import pytest

from inference import BACKENDS, ENGINES

ROOT = Path(__file__).parents[1]
ROOMS = ("models", "inference", "comparisons")
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
TORCH = {"torch", "pyro"}
JAX = {"jax", "jaxlib", "numpyro", "optax"}
LIBRARIES = {
    "inference/engines/pyro_torch.py": TORCH,
    "inference/engines/compiled_elbo.py": TORCH,
    "inference/engines/torch_graphs.py": TORCH,
    "inference/engines/torch_settings.py": TORCH,
    "inference/engines/numpyro_jax.py": JAX,
    "inference/engines/jax_settings.py": JAX,
    "comparisons/peers.py": TORCH | JAX,  # what the libraries do without us
}


def imported(path: Path) -> set[str]:
    """Return the top-level packages that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found.add((node.module or "").partition(".")[0])
    return found


def names(path: Path) -> set[str]:
    """Return every identifier of a file: variables, attributes, arguments and imports, not words in strings."""
    found = imported(path)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
    return found


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_there_is_something_to_walk() -> None:
    assert {relative(path).partition("/")[0] for path in FILES} == set(ROOMS)
    assert LIBRARIES.keys() <= {relative(path) for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_imports_never_run_back(path: Path) -> None:
    room = relative(path).partition("/")[0]
    above = set(ROOMS[ROOMS.index(room) + 1 :])
    assert not imported(path) & above


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_only_its_engine_names_an_array_library(path: Path) -> None:
    others = set().union(*LIBRARIES.values()) - LIBRARIES.get(relative(path), set())
    assert not names(path) & others


@pytest.mark.parametrize("path", [path for path in FILES if relative(path).startswith("models/")], ids=relative)
def test_models_need_numpy_and_the_standard_library_alone(path: Path) -> None:
    assert imported(path) <= {"numpy", "models"} | set(sys.stdlib_module_names)


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_no_file_is_named_after_a_cell(path: Path) -> None:
    """The product backend x engine exists in the registries and in two flags, not in the file system."""
    libraries = set(ENGINES).union(*LIBRARIES.values())
    name = relative(path)
    assert not (any(backend in name for backend in BACKENDS) and any(library in name for library in libraries))


def test_every_backend_is_one_file_of_its_name() -> None:
    for name, build in BACKENDS.items():
        assert build.__module__ == f"inference.{name}"
        assert build.__name__ == name
