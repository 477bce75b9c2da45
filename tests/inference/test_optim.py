"""Adagrad, Adam and SGD against torch's and optax's own, every constant spelled out."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from inference.base import Engine, Optimizer, arrays, numpys
from inference.optim import OPTIMIZERS, STEP_SIZES, apply

STEPS = 50
STEP_SIZE = 0.1
# Adam's 1 - 0.999^t is taken in float32 (as optax does): it loses 4 digits in the first steps, worth 3e-5 of an update.
TOLERANCE = {"adagrad": 1e-5, "adam": 1e-4, "sgd": 1e-5}
START = {"a": np.array([1.0, -2.0, 0.5], np.float32), "b": np.array(3.0, np.float32)}

Gradient = Callable[[dict[str, Any], int], dict[str, Any]]


def gradient(params: dict[str, Any], step: int) -> dict[str, Any]:
    """Differentiate a quadratic whose curvatures span two orders; a term of the step number stands for noise."""
    return {
        "a": params["a"] * 0.1 + 0.3 * (-1.0) ** step,
        "b": 10.0 * params["b"] - 0.5 * (step % 3),
    }


def trajectory(optimizer: Optimizer, xp: Any, params: dict[str, Any], steps: int = STEPS) -> list[dict[str, Any]]:
    """Return the parameters after each step."""
    state, path = optimizer.init(xp, params, STEP_SIZE), []
    for step in range(steps):
        updates, state = optimizer.update(xp, gradient(params, step), state)
        params = apply(params, updates)
        path.append(params)
    return path


def assert_same(actual: list[dict[str, Any]], expected: list[dict[str, Any]], tolerance: float) -> None:
    for step, (one, other) in enumerate(zip(actual, expected, strict=True)):
        for name in other:
            found, wanted = np.asarray(one[name]), np.asarray(other[name])
            np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance, err_msg=f"{name}, step {step}")


def torch_trajectory(build: Callable[..., torch.optim.Optimizer]) -> list[dict[str, Any]]:
    params = {name: torch.tensor(value, requires_grad=True) for name, value in START.items()}
    optimizer, path = build(list(params.values())), []
    for step in range(STEPS):
        for name, value in gradient({name: value.detach() for name, value in params.items()}, step).items():
            params[name].grad = value
        optimizer.step()
        path.append({name: value.detach().numpy().copy() for name, value in params.items()})
    return path


def optax_trajectory(optimizer: optax.GradientTransformation) -> list[dict[str, Any]]:
    params: Any = {name: jnp.asarray(value) for name, value in START.items()}
    state, path = optimizer.init(params), []
    for step in range(STEPS):
        updates, state = optimizer.update(gradient(params, step), state, params)
        params = optax.apply_updates(params, updates)
        path.append(params)
    return path


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_against_torch(name: str) -> None:
    """Adagrad's epsilon is inside the root here and outside in torch's: at 1e-8 and 1e-10 neither shows."""
    build = {
        "adagrad": lambda params: torch.optim.Adagrad(
            params, lr=STEP_SIZE, lr_decay=0, weight_decay=0, initial_accumulator_value=0, eps=1e-10
        ),
        "adam": lambda params: torch.optim.Adam(params, lr=STEP_SIZE, betas=(0.9, 0.999), eps=1e-8, weight_decay=0),
        "sgd": lambda params: torch.optim.SGD(params, lr=STEP_SIZE, momentum=0, weight_decay=0),
    }[name]
    path = trajectory(OPTIMIZERS[name](), torch, {key: torch.tensor(value) for key, value in START.items()})
    assert_same(path, torch_trajectory(build), TOLERANCE[name])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_against_optax(name: str) -> None:
    theirs = {
        "adagrad": optax.adagrad(STEP_SIZE, initial_accumulator_value=0.0, eps=1e-8),
        "adam": optax.adam(STEP_SIZE, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0),
        "sgd": optax.sgd(STEP_SIZE),
    }[name]
    path = trajectory(OPTIMIZERS[name](), jnp, {key: jnp.asarray(value) for key, value in START.items()})
    assert_same(path, optax_trajectory(theirs), 1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("warmup", [0, 10])
def test_engines_take_the_same_trajectory(name: str, warmup: int, engines: dict[str, Engine]) -> None:
    """In float64 too: the same formula, so that what the engines differ by is rounding."""
    optimizer = OPTIMIZERS[name](warmup)
    paths = []
    for engine in engines.values():
        path = trajectory(optimizer, engine.ppl.xp, arrays(engine, START))
        paths.append([numpys(engine, params) for params in path])
    assert_same(paths[0], paths[1], 1e-6)
    exact = trajectory(optimizer, np, {key: value.astype(np.float64) for key, value in START.items()})
    assert_same(paths[0], exact, TOLERANCE[name])


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "sgd"])
def test_warmup_accumulates_without_moving(name: str) -> None:
    """After `warmup` steps the state, and so the next update, is that of an optimiser that moved all along."""
    params = {key: value.astype(np.float64) for key, value in START.items()}
    warm, cold = OPTIMIZERS[name](3), OPTIMIZERS[name]()
    warm_state, cold_state = warm.init(np, params, STEP_SIZE), cold.init(np, params, STEP_SIZE)
    for step in range(6):
        warm_updates, warm_state = warm.update(np, gradient(params, step), warm_state)
        cold_updates, cold_state = cold.update(np, gradient(params, step), cold_state)
        for key in params:
            assert (np.abs(cold_updates[key]) > 0).all()
            np.testing.assert_array_equal(warm_updates[key], cold_updates[key] if step >= 3 else 0.0 * params[key])
    np.testing.assert_equal(warm_state, cold_state)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_zero_gradient_moves_nothing(name: str) -> None:
    params = {"a": np.zeros(3)}
    optimizer = OPTIMIZERS[name]()
    updates, _ = optimizer.update(np, params, optimizer.init(np, params, STEP_SIZE))
    np.testing.assert_array_equal(updates["a"], np.zeros(3))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_update_leaves_its_input_state_unchanged(name: str, engine: Engine) -> None:
    optimizer, params = OPTIMIZERS[name](), arrays(engine, START)
    state = optimizer.update(engine.ppl.xp, params, optimizer.init(engine.ppl.xp, params, STEP_SIZE))[1]
    before = {key: numpys(engine, value) for key, value in state.items() if isinstance(value, dict)}
    optimizer.update(engine.ppl.xp, params, state)
    after = {key: numpys(engine, value) for key, value in state.items() if isinstance(value, dict)}
    assert before or name == "sgd"
    np.testing.assert_equal(after, before)


def test_sgd_has_nothing_to_accumulate_and_moves_from_its_first_step() -> None:
    optimizer = OPTIMIZERS["sgd"](warmup=100)
    updates, state = optimizer.update(np, {"a": np.array([1.0, -4.0])}, optimizer.init(np, {}, STEP_SIZE))
    np.testing.assert_array_equal(updates["a"], [-STEP_SIZE, 4.0 * STEP_SIZE])
    assert state == {"step_size": STEP_SIZE}
    assert set(STEP_SIZES) == set(OPTIMIZERS)
