"""The house's plan, read off the syntax trees: who may import whom, and which files name an array library."""

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

from inference import BACKENDS, ENGINES, METHODS

ROOT = Path(__file__).parents[1]
FILES = sorted(path for room in ("models", "inference", "comparisons") for path in (ROOT / room).rglob("*.py"))
TORCH = {"torch", "pyro"}
JAX = {"jax", "jaxlib", "numpyro", "optax"}
LIBRARIES = {
    "inference/engines/pyro_torch.py": TORCH,
    "inference/engines/compiled_elbo.py": TORCH,
    "inference/engines/torch_graphs.py": TORCH,
    "inference/engines/torch_settings.py": TORCH,
    "inference/engines/torch_module.py": TORCH,
    "inference/engines/pyro_pair.py": TORCH,
    "inference/engines/torch_files.py": TORCH,
    "inference/engines/numpyro_jax.py": JAX,
    "inference/engines/jax_settings.py": JAX,
    "inference/engines/jax_apply.py": JAX,
    "inference/engines/numpyro_pair.py": JAX,
    "comparisons/benchmarks/peers.py": TORCH | JAX,  # what the libraries do without us
    "comparisons/benchmarks/scans.py": JAX,  # what is written by hand in place of them
}

# What each room may import besides itself. A door is a file directly under comparisons/: a command, and nobody's room.
ROOMS: dict[str, set[str]] = {
    "models": set(),
    "errors": set(),
    "inference": {"models"},
    "disk": {"errors"},
    "data": {"disk", "errors"},
    "evidence": {"inference", "models"},
    "cli": {"errors", "inference", "models"},
    "checks": {"cli", "evidence", "errors", "inference", "models"},
    "runner": {"checks", "cli", "evidence", "data", "disk", "errors", "inference", "models"},
    "reporting": {"runner", "evidence", "data", "disk", "errors", "inference"},
    "paper": {"reporting", "runner", "cli", "evidence", "data", "disk", "errors", "inference", "models"},
    "benchmarks": {"reporting", "runner", "cli", "evidence", "data", "disk", "errors", "inference", "models"},
    "library": {"reporting", "runner", "checks", "cli", "evidence", "data", "disk", "errors", "inference", "models"},
    "door": {
        "library",
        "paper",
        "benchmarks",
        "reporting",
        "runner",
        "checks",
        "cli",
        "data",
        "disk",
        "errors",
        "inference",
        "models",
    },
}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def room(module: str) -> str:
    """The room that a dotted name lies in; "" for what is not of this house."""
    top, _, rest = module.partition(".")
    if top in ("models", "inference"):
        return top
    if top != "comparisons":
        return ""
    inner = rest.partition(".")[0]
    return inner if inner in ROOMS else "door"


def module(path: Path) -> str:
    return relative(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@cache
def nodes(path: Path) -> list[ast.AST]:
    """Return what a file's syntax tree consists of."""
    return [*ast.walk(ast.parse(path.read_text(encoding="utf-8")))]


@cache
def imported(path: Path) -> frozenset[str]:
    """Return the modules that a file imports, wherever in it, by their dotted names."""
    found = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            # `from comparisons import cli` imports the room, `from inference import engine` a name of the package.
            found |= {f"{node.module}.{alias.name}" for alias in node.names} & MODULES or {node.module or ""}
    return frozenset(found)


MODULES = {module(path) for path in FILES}


def names(path: Path) -> set[str]:
    """Return every identifier of a file: variables, attributes, arguments and imports, not words in strings."""
    found = {name.partition(".")[0] for name in imported(path)}
    for node in nodes(path):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
    return found


def test_there_is_something_to_walk() -> None:
    assert {room(module(path)) for path in FILES} == set(ROOMS)
    assert LIBRARIES.keys() <= {relative(path) for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_a_room_imports_what_stands_below_it_and_no_door_a_door(path: Path) -> None:
    here = room(module(path))
    allowed = ROOMS[here] | ({here} if here != "door" else set())
    assert {other for name in imported(path) if (other := room(name))} <= allowed


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_only_its_engine_names_an_array_library(path: Path) -> None:
    others = set().union(*LIBRARIES.values()) - LIBRARIES.get(relative(path), set())
    assert not names(path) & others


@pytest.mark.parametrize("path", [path for path in FILES if relative(path).startswith("models/")], ids=relative)
def test_models_need_numpy_and_the_standard_library_alone(path: Path) -> None:
    assert {name.partition(".")[0] for name in imported(path)} <= {"numpy", "models"} | set(sys.stdlib_module_names)


@pytest.mark.parametrize("name", METHODS)
def test_no_backend_imports_a_backend(name: str) -> None:
    others = {f"inference.{other}" for other in METHODS} - {f"inference.{name}"}
    assert not imported(ROOT / "inference" / f"{name}.py") & others


def test_no_file_imports_itself_in_a_circle() -> None:
    """Importing is a tree's business: a file that needs one that needs it is one file, or three."""
    arrows = {module(path): imported(path) & MODULES - {module(path)} for path in FILES}
    while leaves := {name for name, needs in arrows.items() if not needs & arrows.keys()}:
        arrows = {name: needs for name, needs in arrows.items() if name not in leaves}
    assert not arrows


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_a_function_is_read_at_a_glance(path: Path) -> None:
    larger: set[str] = set()
    limits = {ast.FunctionDef: 60, ast.AsyncFunctionDef: 60, ast.ClassDef: 120}
    for node in nodes(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert node.name in larger or lines <= limits[type(node)], (
                f"{node.name} in {relative(path)} has {lines} lines"
            )


def test_a_file_directly_under_comparisons_is_a_command() -> None:
    doors = [path for path in FILES if room(module(path)) == "door" and not path.stem.startswith("__")]
    assert doors
    assert all("\n    cli.main(" in path.read_text() for path in doors)
    assert len([*(ROOT / "comparisons").glob("*.py")]) <= 24


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_no_file_is_named_after_a_cell(path: Path) -> None:
    """The product backend x engine exists in the registries and in two flags, not in the file system."""
    libraries = set(ENGINES).union(*LIBRARIES.values())
    name = relative(path)
    assert not (any(backend in name for backend in BACKENDS) and any(library in name for library in libraries))


def test_every_backend_is_one_file_of_its_name() -> None:
    for name, card in METHODS.items():
        assert (card.build.__module__, getattr(card.build, "__name__", "")) == (f"inference.{name}", name)
