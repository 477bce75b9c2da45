"""Compiled on torch: the library's own ELBOs and our eager steps are the oracles, from the same draws."""

import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO

import inference
from comparisons.runner.run import training as training_loop
from inference import BACKENDS
from inference.base import Engine, Settings, arrays, join, numpys, pick
from inference.engines import torch_graphs
from inference.engines.compiled_elbo import CompiledELBO
from inference.engines.torch_graphs import Compiled, Draws, TraceError
from models import MODELS
from models.base import Model

N, D, K, H, M = 13, 6, 2, 4, 5  # no parameter has N entries
VAE = MODELS["vae_bernoulli"](D, K, H)
RULER = MODELS["linear_gaussian"](D, K, H)  # half as many kernels, each of which takes the compiler seconds
PPL: Any = inference.engine("pyro", "cpu", 1).ppl

Values = dict[str, np.ndarray]


@pytest.fixture(autouse=True)
def own_store() -> Iterator[None]:
    """Give each test Pyro's store and torch's generator as they were."""
    with pyro.get_param_store().scope(), torch.random.fork_rng(devices=[]):
        yield


@pytest.fixture(scope="module")
def engine() -> Engine:
    return inference.engine("pyro", "cpu", 1, compiled=True)


def images(n: int = M, seed: int = 0) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(seed).random((n, D)), dtype=torch.float32)


# The drop-in: a model in Pyro's own words, theta a point with a prior that counts for a fraction of the data


@cache
def start() -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(1)
    theta, phi = RULER.init(0)
    return {
        name: torch.tensor(0.3 * rng.standard_normal(value.shape), dtype=torch.float32)
        for name, value in join(theta=theta, phi=phi).items()
    }


def parameter(name: str) -> torch.Tensor:
    return pyro.param(f"at.{name}", start()[name].clone())


def model(x: torch.Tensor, fraction: torch.Tensor) -> None:
    with poutine.scale(scale=fraction):
        theta = RULER.prior(PPL)
    poutine.condition(RULER.generative, data={"x": x})(PPL, theta, x.shape[0])


def guide(x: torch.Tensor, fraction: torch.Tensor) -> None:
    with poutine.scale(scale=fraction):
        for name, shape in RULER.theta_shapes.items():
            pyro.sample(name, dist.Delta(parameter(f"theta.{name}"), event_dim=len(shape)))
    phi = {name: parameter(f"phi.{name}") for name in pick(start(), "phi")}
    RULER.recognition(PPL, phi, x)


KINDS = {"A": Trace_ELBO, "B": TraceMeanField_ELBO}
COMPILED = [("A", 2), ("B", 1)]  # each takes seconds


@cache
def compiled_elbo(kind: str, particles: int) -> CompiledELBO:
    return CompiledELBO(KINDS[kind](num_particles=particles))


def evaluated(elbo: Any, seed: int, *args: Any) -> tuple[float, Values, torch.Tensor]:
    """Return loss and gradients, and the next draw."""
    torch.manual_seed(seed)
    pyro.get_param_store().clear()
    guide(*args)  # makes the parameters
    torch.manual_seed(seed)
    loss = elbo.loss_and_grads(model, guide, *args)
    store = pyro.get_param_store()
    return loss, {name: p.grad.numpy().copy() for name, p in store._params.items()}, torch.rand(3)


def assert_same(actual: Any, expected: Any) -> None:
    assert actual[0] == pytest.approx(expected[0], rel=1e-6)
    largest = max(np.abs(value).max() for value in expected[1].values())
    for name, value in expected[1].items():
        np.testing.assert_allclose(actual[1][name], value, rtol=1e-5, atol=1e-6 * largest, err_msg=name)
    assert torch.equal(actual[2], expected[2])  # as many draws were taken


@pytest.mark.parametrize(("kind", "particles"), COMPILED)
def test_loss_and_gradients_are_the_librarys(kind: str, particles: int) -> None:
    elbo, stock = compiled_elbo(kind, particles), KINDS[kind](num_particles=particles)
    for seed in range(5):
        args = images(seed=seed), torch.tensor(0.1 * (1 + seed))
        assert_same(evaluated(elbo, seed, *args), evaluated(stock, seed, *args))
    assert len(elbo.graphs) == 1


def test_only_new_shapes_compile_again() -> None:
    """Nor does what is seen but once; values of tensors are data, and numbers are code."""

    def model(x: torch.Tensor, number: float) -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(z, number), obs=x)

    def guide(x: torch.Tensor, number: float) -> None:
        pyro.sample("z", dist.Normal(pyro.param("location", torch.tensor(0.3)), 1.0))

    def both(*args: Any) -> tuple[float, Any]:
        losses = []
        for each in (elbo, Trace_ELBO()):
            torch.manual_seed(0)
            losses.append(each.loss_and_grads(model, guide, *args))
        return losses[0], pytest.approx(losses[1], rel=1e-6)

    elbo = CompiledELBO(Trace_ELBO())
    for value, number, compiled in ((0, 1.0, 0), (1, 1.0, 1), (2, 1.0, 1), (2, 2.0, 1), (2, 2.0, 2)):
        actual, expected = both(torch.full((4,), float(value)), number)
        assert actual == expected
        assert len(elbo.graphs) == compiled
    for compiled in (2, 3, 3):
        actual, expected = both(torch.ones(5), 1.0)
        assert actual == expected
        assert len(elbo.graphs) == compiled


def test_loss_alone_and_differentiable_loss() -> None:
    elbo, args = compiled_elbo("B", 1), (images(), torch.tensor(0.5))
    for seed in range(2):
        loss, gradients, _ = evaluated(elbo, seed, *args)
    torch.manual_seed(1)
    assert elbo.loss(model, guide, *args) == loss
    for parameter in pyro.get_param_store()._params.values():
        parameter.grad = None
    torch.manual_seed(1)
    found = elbo.differentiable_loss(model, guide, *args)
    assert found.item() == loss
    (2.0 * found).backward()
    for name, parameter in pyro.get_param_store()._params.items():
        np.testing.assert_allclose(parameter.grad, 2.0 * gradients[name], rtol=1e-6)


def test_svi_takes_the_same_steps() -> None:
    """Also where a plate draws its subsample, a parameter is constrained and a number outside changes in place."""
    data, beta = torch.randn(30, generator=torch.Generator().manual_seed(0)), torch.tensor(1.0)

    def model() -> None:
        with poutine.scale(scale=beta):
            mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(data), subsample_size=7) as rows:
            pyro.sample("x", dist.Normal(mean, 1.0), obs=data[rows])

    def guide() -> None:
        location = pyro.param("location", lambda: torch.randn(()))
        scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
        with poutine.scale(scale=beta):
            pyro.sample("mean", dist.Normal(location, scale))

    def steps(wrap: Callable[[Any], Any]) -> list[float]:
        pyro.clear_param_store()
        torch.manual_seed(4)
        elbo = wrap(Trace_ELBO(num_particles=2, vectorize_particles=True, max_plate_nesting=1))
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), loss=elbo)
        losses = []
        for step in range(6):
            beta.fill_(0.5 + 0.1 * step)
            losses.append(svi.step())
        return [*losses, pyro.param("location").item(), pyro.param("scale").item()]

    np.testing.assert_allclose(steps(CompiledELBO), steps(lambda elbo: elbo), rtol=1e-5)


# What cannot be a graph


def sampled(look: Callable[[torch.Tensor], Any]) -> Callable[[], None]:
    def program() -> None:
        look(pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0)))

    return program


def test_a_program_that_looks_at_a_value_is_refused() -> None:
    elbo, program = CompiledELBO(Trace_ELBO()), sampled(lambda z: bool(z > 0))
    elbo.loss_and_grads(program, program)
    with pytest.raises(TraceError, match=r"torch\.where"):
        elbo.loss_and_grads(program, program)


def test_sites_that_come_and_go_are_refused() -> None:
    calls = []

    def model() -> None:
        calls.append(1)
        pyro.sample("z", dist.Normal(0.0, 1.0))
        if len(calls) > 2:
            pyro.sample("late", dist.Normal(0.0, 1.0), obs=torch.tensor(0.0))

    elbo, guide = CompiledELBO(Trace_ELBO()), sampled(lambda z: None)
    elbo.loss_and_grads(model, guide)
    with pytest.raises(TraceError, match="late"):
        elbo.loss_and_grads(model, guide)


def test_arguments_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(TypeError, match="ndarray"):
        CompiledELBO(Trace_ELBO()).loss_and_grads(model, guide, np.zeros((M, D)), 1.0)


def test_other_estimators_are_refused() -> None:
    with pytest.raises(TypeError, match="TraceGraph_ELBO"):
        CompiledELBO(TraceGraph_ELBO())


def test_a_draw_without_a_key_is_refused() -> None:
    with pytest.raises(TraceError, match="without a key"):
        Compiled(lambda x: x + torch.rand(3))(torch.zeros(3))


NO_COMPILER = """
import torch, pyro
from pyro import distributions as dist
from inference.engines.compiled_elbo import CompiledELBO
import inference

def program():
    pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.5)), 1.0))

def losses(elbo):
    torch.manual_seed(0)
    return [elbo.loss_and_grads(program, program) for _ in range(3)]

elbo = CompiledELBO(pyro.infer.Trace_ELBO())
assert losses(elbo) == losses(pyro.infer.Trace_ELBO())
assert not elbo.graphs
try:
    inference.engine("pyro", "cpu", 1, compiled=True)
except RuntimeError as error:
    assert "torch cannot compile here: " in str(error) and "\\n" not in str(error), error
else:
    raise AssertionError("a compiled engine without a compiler")
"""


def test_without_a_compiler_the_librarys_own_runs(tmp_path: Path) -> None:
    """And one warning says so. The caches are new: what was built before would do without a compiler."""
    environment = {**os.environ, "CXX": "/nonexistent/c++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        [sys.executable, "-c", NO_COMPILER],
        env={**environment, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr.count("RuntimeWarning: torch cannot compile here") == 1


# Graphs and noise


def test_noise_as_data_is_the_generators_own() -> None:
    """Each kind of draw, in place or not, and torch's own generator is left alone."""
    probs = torch.rand(40, 30)

    def draws() -> list[torch.Tensor]:
        return [
            torch.normal(torch.zeros(3), torch.ones(3)),
            torch.rand(5),
            torch.empty(2000).normal_(),
            torch.bernoulli(probs),
            torch.bernoulli(probs.T),
            torch.randperm(9),
            dist.Exponential(torch.ones(4)).sample(),
            dist.Gamma(torch.ones(4), torch.ones(4)).sample(),
            torch.randint(0, 100, (7,)),
        ]

    torch.manual_seed(11)
    expected = draws()
    before = torch.get_rng_state()
    with pyro.validation_enabled(False), Draws(torch_graphs.seeded(torch.tensor(11))):
        actual = draws()
    assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(actual, expected, strict=True):
        assert torch.equal(one, other)


def test_compiled_keys_are_the_eager_ones(engine: Engine) -> None:
    eager = inference.engine("pyro", "cpu", 1)
    derive = engine.compile(lambda key, data: (engine.fold_in(key, data), engine.split(key, 3)))
    for seed in range(200):
        key = eager.key(seed)
        fold, split = derive(key, torch.tensor(7 * seed))
        assert fold == eager.fold_in(key, 7 * seed)
        assert split.tolist() == eager.split(key, 3)


def test_a_graph_serves_all_values_of_one_shape(engine: Engine) -> None:
    function = Compiled(lambda values, factor: {"sum": values["a"] * factor + values["b"], "same": values["b"]})
    a, b = torch.arange(3.0), torch.ones(3)
    for value in (2.0, 3.0):
        result = function({"a": a * value, "b": b}, torch.tensor(10.0))
        np.testing.assert_array_equal(result["sum"], a * value * 10 + 1)
        np.testing.assert_array_equal(result["same"], b)
    assert len(function.graphs) == 1
    function({"a": torch.zeros(4), "b": torch.zeros(4)}, torch.tensor(10.0))
    assert len(function.graphs) == 2


def test_loops_within_loops(engine: Engine) -> None:
    """What is carried on, replaced by a row, left alone, or read from outside; the inner loop is too long to unroll."""

    def function(start: Any, factors: Any, key: Any) -> Any:
        def outer(carry: Any, row: Any) -> Any:
            def inner(carry: Any, row: Any) -> Any:
                return {"sum": carry["sum"] + factors.sum() * row[0], "last": row[0], "same": carry["same"]}, None

            state, _ = engine.scan(inner, carry, (torch.arange(400.0) * row[0],))
            noise = engine.draw(engine.fold_in(key, row[1]), lambda ppl: ppl.sample("z", ppl.dist.Normal(0.0, 1.0)))
            return state, (state["sum"], 3, noise["z"])

        return engine.scan(outer, start, (factors, torch.arange(len(factors))))

    args = {name: torch.tensor(value) for name, value in {"sum": 1.0, "last": 2.0, "same": 5.0}.items()}
    factors, key = torch.tensor([1.0, 3.0]), engine.key(0)
    state, (sums, threes, noise) = engine.compile(function)(args, factors, key)
    np.testing.assert_allclose(sums, 1.0 + 4.0 * np.cumsum([79800.0, 3 * 79800.0]), rtol=1e-6)
    assert threes.tolist() == [3, 3]
    assert (state["sum"], state["last"], state["same"]) == (sums[1], 399.0 * 3.0, 5.0)
    eager = inference.engine("pyro", "cpu", 1)
    for i, value in enumerate(noise):
        program = eager.draw(eager.fold_in(key, i), lambda ppl: ppl.sample("z", ppl.dist.Normal(0.0, 1.0)))
        assert program["z"] == value


# The engine: whole steps, in the loop that trains


class Training(NamedTuple):
    engine: Engine
    init: Any
    run: Any


# Of whichever backend reads them: loops of a turn or two compile in seconds.
FEW: dict[str, Any] = {"local_steps": 1, "leapfrog_steps": 2, "weight_updates": 1}


@cache
def training(backend: str, compiled: bool, model: Model = RULER, theta: str = "map") -> Training:
    engine = inference.engine("pyro", "cpu", 1, compiled)
    settings = Settings(**FEW, theta=theta, optimizer="adagrad", warmup=1, minibatch=M)
    built, train = training_loop(engine, model, backend, settings, False)
    x = engine.array(images(N).numpy())

    def init() -> Any:
        rng = np.random.default_rng(2)
        theta, phi = (
            {name: np.asarray(0.3 * rng.standard_normal(value.shape), np.float32) for name, value in group.items()}
            for group in model.init(0)
        )
        return built.init(engine.key(0), arrays(engine, theta), arrays(engine, phi), x, engine.array(0.05))

    def run(state: Any, first: int, last: int) -> tuple[Any, Any]:
        steps = np.arange(first, last)
        rows = np.stack([np.random.default_rng(step).choice(N, M, replace=False) for step in steps])
        state, info = train(state, x, engine.key(3), engine.array(steps), engine.array(rows))
        return state, info

    return Training(engine, init, run)


def flat(state: Any, prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in state.items():
        result.update(flat(value, f"{prefix}{name}/") if isinstance(value, dict) else {prefix + name: value})
    return result


@pytest.mark.parametrize(
    ("backend", "model", "theta"), [*((name, RULER, "map") for name in BACKENDS), ("aevb", VAE, "vb")]
)
def test_compiled_steps_are_the_eager_ones(backend: str, model: Model, theta: str) -> None:
    """The same draws, so the same numbers but for rounding; a run in parts is the whole run, bit for bit."""
    eager, fast = training(backend, False, model, theta), training(backend, True, model, theta)
    before = torch.get_rng_state()
    start = fast.init()
    copy = numpys(fast.engine, flat(start))
    state, info = fast.run(start, 0, 6)
    np.testing.assert_equal(numpys(fast.engine, flat(start)), copy)
    assert torch.equal(torch.get_rng_state(), before)
    expected, expected_info = eager.run(eager.init(), 0, 6)
    for name, value in numpys(eager.engine, flat(expected)).items():
        actual = fast.engine.numpy(flat(state)[name])
        assert actual.dtype == value.dtype
        np.testing.assert_allclose(actual, value, rtol=1e-4, atol=1e-5, err_msg=name)
    for column, other in zip(info, expected_info, strict=True):
        np.testing.assert_allclose(column, other, rtol=1e-4)
    half, _ = fast.run(fast.init(), 0, 3)
    whole, _ = fast.run(half, 3, 6)
    np.testing.assert_equal(numpys(fast.engine, flat(whole)), numpys(fast.engine, flat(state)))


def backwards(state: Any) -> Any:
    """The same dicts, filled in the reverse order."""
    return {name: backwards(state[name]) for name in reversed(state)} if isinstance(state, dict) else state


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_order_in_which_a_state_was_filled_changes_nothing(backend: str) -> None:
    """A checkpoint names what it holds in an order of its own, and what goes on from it is bit for bit the same."""
    fast = training(backend, True)
    expected, _ = fast.run(fast.init(), 0, 3)
    known = len(torch_graphs._Loop.known)
    state, _ = fast.run(backwards(fast.init()), 0, 3)
    np.testing.assert_equal(numpys(fast.engine, flat(state)), numpys(fast.engine, flat(expected)))
    assert len(torch_graphs._Loop.known) == known


def test_a_step_may_return_its_carry_in_another_order() -> None:
    engine = inference.engine("pyro", "cpu", 1, compiled=True)

    def fold(state: Any, xs: Any) -> Any:
        return engine.scan(lambda carry, x: ({"b": carry["b"] * x[0], "a": carry["a"] + x[0]}, None), state, (xs,))[0]

    state = {"a": torch.tensor(0.0), "b": torch.tensor(1.0)}
    found = engine.compile(fold)(state, torch.tensor([2.0, 3.0]))
    assert (float(found["a"]), float(found["b"])) == (5.0, 6.0)


def test_parts_of_a_run_share_one_compiled_step() -> None:
    fast = training("aevb", True)
    fast.run(fast.init(), 0, 6)
    known = len(torch_graphs._Loop.known)
    for length in (2, 3, 6):
        fast.run(fast.init(), 0, length)
    assert len(torch_graphs._Loop.known) == known


@pytest.mark.parametrize("backend", ["mean_field", "monte_carlo_em"])
def test_rows_of_a_large_state_are_changed_in_place(backend: str) -> None:
    """A step costs the same at any N: nothing in its graph has N rows, but what it is given."""
    fast = training(backend, True)
    fast.run(fast.init(), 0, 6)
    turns = [each for each in torch_graphs._Loop.known.values() if each._puts]
    assert turns
    made = [node.meta["val"] for each in turns for node in each.graph.module.graph.nodes if node.op == "call_function"]
    assert not [value for value in made if torch.is_tensor(value) and value.shape[:1] == (N,)]


def test_engines_are_told_apart_by_what_they_compile(engine: Engine) -> None:
    eager = inference.engine("pyro", "cpu", 1)
    assert engine is not eager

    def function(x: Any) -> Any:
        return x

    assert eager.compile(function).__wrapped__ is function  # type: ignore[attr-defined]
    assert isinstance(engine.compile(function).__wrapped__, Compiled)  # type: ignore[attr-defined]


def test_hmc_differentiates_with_respect_to_z_alone(engine: Engine) -> None:
    """Each gradient of a Bernoulli decoder's log density is two products back, none of them for theta."""
    from inference.hmc import leapfrog

    theta = {name: torch.tensor(value) for name, value in VAE.init(0)[0].items()}
    x, steps = images(), 3

    def density(z: Any) -> Any:
        return engine.log_prob(VAE.generative, {"z": z, "x": x}, theta, M)

    integrate = leapfrog(inference.engine("pyro", "cpu", 1), density, steps)
    with warnings.catch_warnings(), torch.profiler.profile() as profile:
        integrate(torch.zeros(M, K), torch.ones(M, K), torch.tensor(0.1))
    products = sum(event.count for event in profile.key_averages() if event.key == "aten::mm")
    assert products == 4 * (steps + 1)
