"""The libraries' global settings: whatever a process has them at, numbers are the same, and the settings stay as set.

The oracle is the same work under default settings, bit for bit. Each setting alone meets the engine's verbs; all of
them at once meet whole runs of every backend, an estimator, and a run that was begun without them.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from copy import deepcopy
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import numpy as np
import numpyro
import pyro
import pytest
import torch
from numpyro.distributions.distribution import Distribution

import inference
from comparisons.cli import parts
from comparisons.data import Data
from comparisons.errors import FlagError
from comparisons.evidence import annealed, proposals
from comparisons.evidence.base import Target
from comparisons.evidence.judge import estimate
from comparisons.runner import grid, run
from comparisons.runner.cell import on
from comparisons.runner.experiment import Experiment
from inference import BACKENDS
from inference.base import Array, Engine, Params, arrays, join, numpys, pick
from inference.engines import torch_graphs
from inference.engines.jax_settings import matmul_precision
from inference.optim import adagrad
from models import MODELS
from models.base import Ppl

N, D, K = 40, 6, 2
MODEL = MODELS["vae_bernoulli"](D, K, 3)


class Switch(NamedTuple):
    """A global setting: how it is read and set, and a value that would change numbers or break a run."""

    read: Callable[[], Any]
    write: Callable[[Any], Any]
    hostile: Any


def option(name: str, hostile: Any) -> Switch:
    return Switch(partial(getattr, jax.config, name), partial(jax.config.update, name), hostile)


def precision(kind: Any) -> Switch:
    return Switch(lambda: kind.fp32_precision, lambda value: setattr(kind, "fp32_precision", value), "bf16")


def setting(name: str, hostile: Any) -> Switch:
    return Switch(partial(pyro.settings.get, name), lambda value: pyro.settings.set(**{name: value}), hostile)


def flushes() -> bool:
    with np.errstate(under="ignore"):
        return bool(np.finfo(np.float32).tiny * np.float32(0.5) == 0.0)


NUMPY = Switch(np.geterr, lambda how: np.seterr(**how), dict.fromkeys(np.geterr(), "raise"))
SWITCHES: dict[str, dict[str, Switch]] = {
    "numpyro": {
        "x64": option("jax_enable_x64", True),
        "threefry_partitionable": option("jax_threefry_partitionable", False),
        "prng_impl": option("jax_default_prng_impl", "rbg"),
        "custom_prng": option("jax_enable_custom_prng", True),
        "legacy_prng_key": option("jax_legacy_prng_key", "error"),
        "seed_offset": option("jax_random_seed_offset", 1),
        "rank_promotion": option("jax_numpy_rank_promotion", "raise"),
        "dtype_promotion": option("jax_numpy_dtype_promotion", "strict"),
        "matmul_precision": option("jax_default_matmul_precision", "bfloat16"),
        "optimization_level": option("jax_optimization_level", "O0"),
        "debug_nans": option("jax_debug_nans", True),
        "debug_infs": option("jax_debug_infs", True),
        "key_reuse": option("jax_debug_key_reuse", True),
        "disable_jit": option("jax_disable_jit", True),
        "transfer_guard": option("jax_transfer_guard", "disallow"),
        "validation": Switch(lambda: Distribution._validate_args, numpyro.enable_validation, True),
        "numpy_errors": NUMPY,
    },
    "pyro": {
        "dtype": Switch(torch.get_default_dtype, torch.set_default_dtype, torch.float64),
        "device": Switch(torch.get_default_device, torch.set_default_device, torch.device("meta")),
        "threads": Switch(torch.get_num_threads, torch.set_num_threads, 2),
        "no_grad": Switch(torch.is_grad_enabled, torch.set_grad_enabled, False),
        "deterministic": Switch(torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode, 2),
        "matmul_precision": Switch(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "medium"),
        "matmul_of_the_processor": precision(torch.backends.mkldnn.matmul),
        "anomaly": Switch(torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly, True),
        "autocast": Switch(partial(torch.is_autocast_enabled, "cpu"), partial(torch.set_autocast_enabled, "cpu"), True),
        "denormals": Switch(flushes, torch.set_flush_denormal, True),
        "validation": Switch(partial(pyro.settings.get, "validate_infer"), pyro.enable_validation, True),
        "validation_of_torch": setting("validate_distributions_torch", True),
        "local_params": setting("module_local_params", True),
        "numpy_errors": NUMPY,
    },
}
# Compiling takes seconds, so that few cases are had there: no two settings of one would undo each other.
ALONE = {
    "numpyro": (
        ("x64", "debug_nans"),
        ("threefry_partitionable", "rank_promotion", "legacy_prng_key", "debug_infs"),
        ("prng_impl", "dtype_promotion", "transfer_guard"),
        ("seed_offset", "custom_prng", "key_reuse", "validation"),
        ("matmul_precision", "numpy_errors"),
        ("optimization_level", "disable_jit"),
    ),
    "pyro": tuple((name,) for name in SWITCHES["pyro"]),
}
# What is in force around a call, where it is in force for the thread alone.
CONTEXTS: dict[str, dict[str, Callable[[], AbstractContextManager[Any]]]] = {
    "numpyro": {"x64": lambda: jax.enable_x64(True), "matmul": lambda: jax.default_matmul_precision("bfloat16")},
    "pyro": {
        "inference_mode": torch.inference_mode,
        "no_grad": torch.no_grad,
        "device": lambda: torch.device("meta"),
        "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    },
}


def together(name: str) -> list[Switch]:
    """Return all of an engine's, but for the one of torch that it refuses to be asked about beside another."""
    return [switch for key, switch in SWITCHES[name].items() if key != "matmul_of_the_processor"]


@contextmanager
def switched(*switches: Switch) -> Iterator[None]:
    """Set each to its hostile value, see that it is so at the end, and put back what was there."""
    before = [switch.read() for switch in switches]
    with ExitStack() as stack:
        for switch, value in zip(switches, before, strict=True):
            stack.callback(switch.write, value)
            switch.write(switch.hostile)
        jax.clear_caches()  # what was compiled before would not meet the settings
        seen = [switch.read() for switch in switches]
        yield
        assert [switch.read() for switch in switches] == seen
    assert [switch.read() for switch in switches] == before
    jax.clear_caches()


# Verbs


def verbs(engine: Engine) -> dict[str, Any]:
    """Return in NumPy what the verbs make of fixed inputs, with a step of SVI among them."""

    def guide(ppl: Ppl, params: Params, x: Array) -> None:
        MODEL.recognition(ppl, pick(params, "phi"), x)

    def joint(ppl: Ppl, params: Params, x: Array) -> None:
        ppl.condition(MODEL.generative, {"x": x})(ppl, pick(params, "theta"), x.shape[0])

    theta, phi = (arrays(engine, group) for group in MODEL.init(0))
    x = engine.array(images()[:8])
    svi = engine.svi(joint, guide, adagrad(), "B", 1)
    state = svi.init(join(theta=theta, phi=phi), engine.array(0.1))

    def work(key: Any, state: Any, x: Array) -> tuple[Any, ...]:
        one, two = engine.split(engine.fold_in(key, 3))
        z = engine.draw(one, MODEL.recognition, phi, x)["z"]
        score = engine.log_prob(MODEL.generative, {"z": z, "x": x}, theta, 8)
        state, loss = svi.update(two, state, x)
        (total, _), gradient = engine.value_and_grad(
            lambda z: (engine.log_prob(MODEL.generative, {"z": z, "x": x}, theta, 8).sum(), float("nan")), has_aux=True
        )(z)
        last, _ = engine.scan(lambda c, row: (c + row[0] * 0.1, None), z[0] * 0.0, (z,))
        return z, score, loss, total, gradient, last, *state["params"].values()

    key = engine.key(2)
    found = [engine.numpy(value) for value in engine.compile(work)(key, state, x)]
    rows = engine.put(x, engine.array([1, 0]), engine.array(np.ones((2, D))))
    keys = [engine.numpy(each) for each in engine.split(engine.fold_in(key, 5), 3)]
    # Large enough for threads and for reduced precision, and a number below the smallest normal one.
    large = engine.array(np.random.default_rng(1).standard_normal((300, 300)))
    product, total, tiny = engine.compile(lambda a, b: (a @ a, (a * a).sum(), b * 0.5))(large, engine.array(1e-38))
    others = {"rows": rows, "product": product, "total": total, "tiny": tiny, "number": engine.array(0.1)}
    return {"made": found, "keys": keys, **numpys(engine, others)}


@cache
def expected_verbs(engine: Engine) -> dict[str, Any]:
    return verbs(engine)


def images() -> np.ndarray:
    return (0.2 + 0.6 * np.random.default_rng(0).random((N + 8, D))).astype(np.float32)


@pytest.mark.parametrize(("name", "settings"), [(name, each) for name in ALONE for each in ALONE[name]])
def test_no_setting_changes_what_a_verb_returns(
    name: str, settings: tuple[str, ...], engines: dict[str, Engine]
) -> None:
    expected = expected_verbs(engines[name])
    with switched(*(SWITCHES[name][each] for each in settings)):
        assert_identical(verbs(engines[name]), expected)


def test_no_hostile_setting_holds_within_a_pin(engine: Engine) -> None:
    """Also those that change none of the numbers above: on a GPU, in another model or after a NaN they would."""
    kept = {"seed_offset", "transfer_guard"}  # no key of ours looks at the one; the other's three parts are what counts
    switches = {name: switch for name, switch in SWITCHES[engine.name].items() if name not in kept}
    for name, switch in switches.items():
        with switched(switch), engine.pinned():
            assert switch.read() != switch.hostile, name


def test_every_setting_is_met_alone_or_beside_few() -> None:
    for name, switches in SWITCHES.items():
        assert sorted(switches) == sorted(each for settings in ALONE[name] for each in settings)


@pytest.mark.parametrize(("name", "context"), [(name, each) for name in CONTEXTS for each in CONTEXTS[name]])
def test_no_context_changes_what_a_verb_returns(name: str, context: str, engines: dict[str, Engine]) -> None:
    engine = engines[name]
    expected = expected_verbs(engine)
    jax.clear_caches()
    with CONTEXTS[name][context]():
        found = verbs(engine)
    assert_identical(found, expected)


def test_settings_come_back_after_an_error(engine: Engine) -> None:
    def failing(ppl: Ppl) -> None:
        raise ArithmeticError

    with switched(*together(engine.name)), pytest.raises(ArithmeticError):
        engine.draw(engine.key(0), failing)


def test_what_a_program_sets_holds_until_the_verb_is_left(engine: Engine) -> None:
    def program(ppl: Ppl) -> None:
        torch.set_default_dtype(torch.float64)
        ppl.sample("z", ppl.dist.Normal(0.0, 1.0))

    engine.draw(engine.key(0), program)
    if engine.name == "numpyro":
        torch.set_default_dtype(torch.float32)
    assert torch.get_default_dtype() == torch.float32


def test_a_pin_within_a_pin_changes_nothing(engine: Engine) -> None:
    with engine.pinned():
        with engine.pinned():
            engine.array(1.0)
        torch_dtype = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        jax.config.update("jax_enable_x64", False)
        assert not jax.config.jax_enable_x64
    torch.set_default_dtype(torch_dtype)


def test_a_product_of_matrices_is_worked_out_in_32_bits_wherever_it_is() -> None:
    """Cards round to 10 bits unless told; on a CPU nothing is told, so that its programs stay what they were."""
    assert matmul_precision("cpu") is None
    for platform in ("gpu", "tpu", "METAL"):
        with jax.default_matmul_precision(matmul_precision(platform)):
            text = jax.jit(lambda a: a @ a).lower(np.ones((2, 2), np.float32)).as_text()
        assert "precision = [HIGHEST, HIGHEST]" in text


def test_a_key_is_the_librarys(engines: dict[str, Engine]) -> None:
    for seed in (0, 1, 2**31 - 1):
        np.testing.assert_array_equal(engines["numpyro"].key(seed), jax.random.PRNGKey(seed))


# Whole runs

DATA = Data("digits", images()[:N], images()[N:], (D, 1), "unit", "", fresh=False)
SHORT: dict[str, Any] = {
    "data": "digits", "model": "vae_bernoulli", "n_latent": K, "n_hidden": 3, "minibatch": 10, "samples": 30,
    "step_size": 0.05, "warmup": 0, "local_steps": 2, "fit_steps": 3, "leapfrog_steps": 2, "weight_updates": 2,
    "eval_points": 4, "elbo_draws": 2, "importance_samples": 25, "proposal": "q",
}  # fmt: skip


def trained(
    engine: str, backend: str, kept: Any = None, keep: Any = None, model: str = "vae_bernoulli"
) -> dict[str, Any]:
    """Return the rows' numbers and the state of a run of three steps, judged and kept after each."""
    evidence = ("importance",) if backend == "aevb" else ("none",)
    settings = {**SHORT, "model": model, "engine": engine, "backend": backend, "evidence": evidence}
    *_, last = run.run("test", on(Experiment(**settings), DATA), DATA, keep=keep, kept=kept, every=0.0)
    numbers = [(row["split"], row["metric"], row["value"], row["stderr"]) for row in last.rows]
    return {"status": last.status, "rows": numbers, "state": last.state}


@cache
def expected_run(engine: str, backend: str) -> tuple[dict[str, Any], list[Any]]:
    """Return what a run under default settings gives, and its checkpoints."""
    snapshots: list[Any] = []
    return trained(engine, backend, keep=lambda *kept: snapshots.append(deepcopy(kept))), snapshots


@pytest.mark.parametrize("name", SWITCHES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_no_setting_changes_a_run_or_its_continuation(backend: str, name: str) -> None:
    """All at once, on a run that goes on from the first checkpoint of one that was begun without them; AEVB's anew."""
    expected, snapshots = expected_run(name, backend)
    assert snapshots[0][1]["step"] == 1 and expected["status"] == "done"
    with switched(*together(name)):
        assert_identical(trained(name, backend, kept=snapshots[0]), expected)
        if backend == "aevb":
            assert_identical(trained(name, backend), expected)


@pytest.mark.parametrize("name", ["quadrature", "importance"])
def test_no_setting_changes_an_estimate(name: str, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Importance sampling from a mixture that is fitted to HMC draws, as it is by default, but of fewer moves."""
    monkeypatch.setattr(proposals, "WARMUP", 5)
    monkeypatch.setattr(annealed, "SETTLING", 5)
    theta, _ = (arrays(engine, group) for group in MODEL.init(0))
    target = Target(engine, MODEL, theta, engine.array(images()[:3]))

    def found() -> dict[str, Any]:
        told = estimate(name, target, Experiment(**{**SHORT, "proposal": "hmc"}), 0)
        return {"value": np.asarray(told.value), "stderr": np.asarray(told.stderr)}

    expected = found()
    with switched(*together(engine.name)):
        assert_identical(found(), expected)


FILE = """
import jax, numpyro, torch
from models import MODELS

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_default_matmul_precision", "bfloat16")
numpyro.set_host_device_count(2)
torch.set_default_dtype(torch.float64)
torch.set_float32_matmul_precision("medium")
mine = MODELS["vae_bernoulli"]
"""


def test_what_a_users_file_sets_changes_no_number(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is it undone: it is the user's, who may count on it elsewhere."""
    monkeypatch.setenv("XLA_FLAGS", "")
    (tmp_path / "mine.py").write_text(f"{FILE}\n# for {engine.name}: another content, which is run again")
    expected, _ = expected_run(engine.name, "wake_sleep")
    part = parts.find("model", f"{tmp_path / 'mine.py'}:mine")
    touched = [SWITCHES["numpyro"]["x64"], SWITCHES["numpyro"]["matmul_precision"], SWITCHES["pyro"]["dtype"]]
    before = [switch.read() for switch in touched]
    jax.clear_caches()
    try:
        assert_identical(trained(engine.name, "wake_sleep", model=part), expected)
        assert [switch.read() for switch in touched] == [switch.hostile for switch in touched]
    finally:
        for switch, value in zip(touched, before, strict=True):
            switch.write(value)
        torch.set_float32_matmul_precision("highest")


# What cannot be pinned


def test_another_number_of_threads_than_jax_started_with_is_refused(engines: dict[str, Engine]) -> None:
    nproc = os.environ.get("NPROC")
    with pytest.raises(RuntimeError, match="jax has started with 1 threads in this process and cannot take 3"):
        inference.engine("numpyro", "cpu", 3)
    assert os.environ.get("NPROC") == nproc


def test_a_process_variable_that_rounds_otherwise_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2 --xla_dump_to=x")
    assert inference.unpinned("numpyro") == {}
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x  --xla_cpu_enable_fast_math=true")
    monkeypatch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "BF16")
    assert inference.unpinned("numpyro") == {"XLA_FLAGS": "--xla_cpu_enable_fast_math=true"}
    assert inference.unpinned("pyro") == {"ONEDNN_DEFAULT_FPMATH_MODE": "BF16"}


# Compiled means compiled


def test_a_graph_that_cannot_be_compiled_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise OSError("no such file: c++\nmore of it")

    monkeypatch.setattr("torch._inductor.compile", broken)
    with pytest.raises(torch_graphs.CompilerError, match=r"torch cannot compile here: no such file: c\+\+$"):
        torch_graphs.Compiled(lambda x: x * 2.0)(torch.ones(3))


def test_a_compiled_cell_without_a_compiler_is_refused_before_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_graphs, "lack", lambda: "torch cannot compile here: no c++")
    job: Any = SimpleNamespace(cell=SimpleNamespace(experiment=Experiment(engine="pyro", compile="on", threads=7)))
    with pytest.raises(FlagError, match=r"no c\+\+.*--compile off"):
        grid._start_engines([job], look_only=False)
    job = SimpleNamespace(cell=SimpleNamespace(experiment=Experiment(engine="pyro", compile="off", threads=7)))
    grid._start_engines([job], look_only=False)


def assert_identical(found: Any, expected: Any) -> None:
    """Numbers, types and shapes, bit for bit: NaN is NaN."""
    assert digests(found) == digests(expected)


def digests(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: digests(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [digests(value) for value in tree]
    if isinstance(tree, str):
        return tree
    value = np.asarray(tree)
    return str(value.dtype), value.shape, value.ravel()[:3].tolist(), hashlib.sha256(value.tobytes()).hexdigest()
