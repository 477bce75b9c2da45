"""States of any shape in a file: what comes back is what was kept, and what cannot is refused by its place."""

from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from comparisons import marginal_likelihood
from comparisons.errors import StorageError, UnfitError
from comparisons.runner import checkpoint, store
from inference.aevb import aevb
from inference.base import Backend, Engine, State
from inference.nested import flat, flaw, nested
from models.base import Model

Pair = namedtuple("Pair", "mean spread")

kinds = (
    stn.boolean_dtypes() | stn.integer_dtypes(endianness="?") | stn.floating_dtypes(endianness="?", sizes=(16, 32, 64))
)
leaves = stn.arrays(kinds, stn.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)).map(
    lambda value: value if value.ndim < 2 else value.swapaxes(0, 1)  # not contiguous
)
keys = st.sampled_from(["a", "b/c", "a/b", "%", "%2F", "", "/", "__metadata__", "θ", "\0"]) | st.text(max_size=5)
trees = st.recursive(
    st.dictionaries(keys, leaves, max_size=3), lambda inner: st.dictionaries(keys, inner | leaves, max_size=3)
)


def same(one: Any, other: Any) -> None:
    """Names, groups, shapes, types and bits; the order of bytes is the file's."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            same(one[name], other[name])
    else:
        assert (one.shape, one.dtype) == (other.shape, other.dtype.newbyteorder("="))
        assert one.tobytes() == other.astype(one.dtype).tobytes()


@pytest.mark.fault("states with any words for keys, empty dicts and arrays of any kind", "come back to the bit")
@given(tree=trees)
@example(tree={"a": {}, "b": {"": {"": np.ones(1, np.float32)}, "/": {}}})
@example(tree={"a/b": np.zeros(1), "a": {"b": np.ones(1)}})
@settings(derandomize=True, max_examples=150, deadline=None)
def test_a_state_comes_back_to_the_bit(tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    assert not flaw(tree)
    path = tmp_path_factory.getbasetemp() / "tree.safetensors"
    path.write_bytes(checkpoint.pack(tree, {"step": 1}))
    found, facts = checkpoint.read(path)
    same(found, tree)
    assert facts == {"step": 1} and checkpoint.misfit(found, tree) in ("", *_not_finite(tree))


def _not_finite(tree: dict[str, Any]) -> list[str]:
    return [f"{name} is not finite" for name in flat(tree)]


def test_names_of_older_files_are_read_as_they_were() -> None:
    older = {"state/params/theta.w": 1, "state/50% of/it": 2, "keeping/θ": 3, "told": 4}
    expected = {"state": {"params": {"theta.w": 1}, "50% of": {"it": 2}}, "keeping": {"θ": 3}, "told": 4}
    assert nested(older) == expected
    plain = {"params": {"theta.w": 1, "auto_loc$$$": 2}, "chain z": {"z-1": 3}}
    assert list(flat(plain)) == ["params/theta.w", "params/auto_loc$$$", "chain z/z-1"]


REFUSED: dict[str, tuple[Any, str]] = {
    "None": ({"a": None}, "state['a'] is a NoneType"),
    "a tuple": ({"a": {"b": (np.zeros(1), np.zeros(1))}}, "state['a']['b'] is a tuple;"),
    "a list": ({"a": [1.0, 2.0]}, "state['a'] is a list;"),
    "a named tuple": ({"q": Pair(np.zeros(1), np.ones(1))}, "state['q'] is a Pair;"),
    "an integer key": ({"a": {3: np.zeros(1)}}, "state['a'] has the key 3;"),
    "words": ({"a": "adam"}, "state['a'] is a str"),
    "an array of objects": ({"a": np.array([None, {}])}, "state['a'] is a ndarray of object;"),
    "an array of words": ({"a": np.array(["x"])}, "state['a'] is a ndarray of <U1;"),
    "complex numbers": ({"a": np.zeros(2, np.complex64)}, "state['a'] is a ndarray of complex64;"),
    "long doubles": ({"a": np.zeros(2, np.longdouble)}, "state['a'] is a ndarray of float128;"),
    "a mask": ({"a": np.ma.masked_array([1.0], [True])}, "state['a'] is a MaskedArray;"),
    "a set": ({"a": {1.0}}, "state['a'] is a set;"),
    "a date": ({"a": np.zeros(1, "M8[s]")}, "state['a'] is a ndarray of datetime64[s];"),
    "a function": ({"a": len}, "state['a'] is a builtin_function_or_method of object;"),
}  # fmt: skip


@pytest.mark.fault("a state that no file would give back", "refused where it is kept, naming the leaf")
@pytest.mark.parametrize("name", REFUSED)
def test_what_would_not_come_back_is_refused(name: str) -> None:
    tree, told = REFUSED[name]
    assert flaw(tree).startswith(told) and "\n" not in flaw(tree)
    with pytest.raises(StorageError, match="the checkpoint"):
        checkpoint.pack(tree, {})


@pytest.mark.parametrize("state", [None, Pair(1, 2), np.zeros(2)], ids=["None", "a named tuple", "an array"])
def test_a_state_is_a_dict(state: Any) -> None:
    assert flaw(state).startswith(f"state is a {type(state).__name__}; a state holds")


def with_more(**more: Any) -> Any:
    """Return AEVB whose state holds more."""

    def build(engine: Engine, model: Model, settings: Any) -> Backend:
        built = aevb(engine, model, settings)

        def init(*args: Any) -> State:
            return {**built.init(*args), **more}

        def step(key: Any, state: State, batch: Any) -> Any:
            after, info = built.step(key, {name: value for name, value in state.items() if name not in more}, batch)
            return {**after, **{name: state[name] for name in more}}, info

        return built._replace(init=init, step=step)

    return build


@pytest.mark.parametrize("name", ["a tuple", "None", "an integer key"])
def test_check_names_the_leaf(name: str, engine: Engine) -> None:
    from comparisons.checks import backend

    tree, told = REFUSED[name]
    case = backend.Case(backend.Method(with_more(**tree), settings=backend.AllSettings), engine)
    (outcome,) = backend.base.run([backend.state_is_nested_dicts_of_arrays], case)
    assert outcome.status == "FAIL" and told.rstrip(";") in outcome.text


OWN = """
import numpy as np
from inference.aevb import aevb


def more(added):
    def build(engine, model, settings):
        built = aevb(engine, model, settings)
        extra = {n: engine.array(v) if isinstance(v, np.ndarray) else v for n, v in added.items()}

        def init(*args):
            return {**built.init(*args), **extra}

        def step(key, state, batch):
            after, info = built.step(key, {n: v for n, v in state.items() if n not in added}, batch)
            return {**after, **{name: state[name] for name in added}}, info

        return built._replace(init=init, step=step)

    return build


empty = more({"nothing": {}, "a/b": np.zeros(2), "50%": np.array(1.0)})
pair = more({"pair": (np.zeros(2), np.ones(2))})
"""
SMALL = ("--samples", "200", "--n-latent", "2", "--n-hidden", "4", "--eval-points", "10", "--step-size", "0.05")


def command(out: Path, name: str, engine: str) -> int:
    (out / "own.py").write_text(OWN)
    words = ["--backend", f"{out / 'own.py'}:{name}", "--engine", engine, "--warmup", "0", "--keep-stops", "--out"]
    return marginal_likelihood.main([*words, str(out), *SMALL, "--evidence", "none"])


@pytest.mark.parametrize("engine", ["pyro", "numpyro"])
def test_a_backends_empty_dict_and_slashes_go_through_a_run(tmp_path: Path, engine: str) -> None:
    assert command(tmp_path, "empty", engine) == 0
    (cell,) = (path.name for path in (tmp_path / "cells").iterdir())
    state = store.load_state(tmp_path, cell)
    assert state["nothing"] == {} and state["a/b"].shape == (2,) and state["50%"].shape == ()
    stop = max((tmp_path / "cells" / cell / "stops").iterdir(), key=lambda path: int(path.stem))
    held, _ = checkpoint.read(stop)
    same(held["state"], state)


@pytest.mark.fault("a file's backend with a tuple in its state", "refused before a step, naming the leaf; exit code 2")
def test_a_backend_with_a_tuple_is_refused_before_a_step(tmp_path: Path) -> None:
    with pytest.raises(UnfitError, match=r"own.py:pair' on pyro: state\['pair'\] is a tuple; a state holds arrays"):
        command(tmp_path, "pair", "pyro")
    assert not [*tmp_path.rglob("*.safetensors")]
