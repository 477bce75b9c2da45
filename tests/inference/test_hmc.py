"""Hamiltonian Monte Carlo on `linear_gaussian`, whose posterior is known: dynamics, accept decisions, stationarity."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from inference.base import Array, Engine
from inference.hmc import hmc, leapfrog, tuned
from models.linear_gaussian import LinearGaussian, posterior

K, D = 2, 5
MODEL = LinearGaussian(D, K)


class Target(NamedTuple):
    """The posteriors of n datapoints: N(mean_i, root root') each."""

    log_density: Callable[[Array], Array]
    mean: np.ndarray
    root: np.ndarray
    draws: np.ndarray


def target(engine: Engine, n: int) -> Target:
    rng = np.random.default_rng(0)
    theta = {"w": 0.7 * rng.standard_normal((K, D)), "b": rng.standard_normal(D), "log_scale": np.array(-0.3)}
    x = rng.standard_normal((n, D))
    mean, covariance = posterior(theta, x)
    root = np.linalg.cholesky(covariance)
    on_engine, observed = {name: engine.array(value) for name, value in theta.items()}, engine.array(x)

    def log_density(z: Array) -> Array:
        return engine.log_prob(MODEL.generative, {"z": z, "x": observed}, on_engine, n)

    return Target(log_density, mean, root, mean + rng.standard_normal((n, K)) @ root.T)


class Counted:
    """An engine that counts the calls of what `value_and_grad` returns; its scan is a loop, so that each one shows."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.calls = engine, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def value_and_grad(self, function: Callable[..., Any], has_aux: bool = False) -> Callable[..., Any]:
        inner = self.engine.value_and_grad(function, has_aux)

        def call(*args: Any) -> Any:
            self.calls += 1
            return inner(*args)

        return call

    def scan(self, step: Callable[..., Any], carry: Any, xs: tuple[Array, ...], count: Any = None) -> tuple[Any, None]:
        for x in zip(*xs, strict=True):
            carry, _ = step(carry, x)
        return carry, None


def momentum(n: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((n, K))


def test_leapfrog_is_reversible(engine: Engine) -> None:
    """Flip the momentum, integrate again, and be back."""
    z, p = target(engine, 20).draws, momentum(20)
    integrate = engine.compile(leapfrog(engine, target(engine, 20).log_density, 15))
    step_size = engine.array(0.2)
    there, flipped, start, end = integrate(engine.array(z), engine.array(p), step_size)
    back, returned, start_again, end_again = integrate(there, -flipped, step_size)
    assert np.abs(engine.numpy(there) - z).max() > 0.5
    np.testing.assert_allclose(engine.numpy(back), z, atol=1e-5)
    np.testing.assert_allclose(-engine.numpy(returned), p, atol=1e-5)
    np.testing.assert_allclose(engine.numpy(start), engine.numpy(end_again), rtol=1e-5)
    np.testing.assert_allclose(engine.numpy(end), engine.numpy(start_again), rtol=1e-5)


def test_leapfrog_against_the_exact_flow(engine: Engine) -> None:
    """With the posterior as target each mode of z - mean is a pendulum: at small steps z(t) is a rotation."""
    known = target(engine, 20)
    integrate = engine.compile(leapfrog(engine, known.log_density, 200))
    p = momentum(20)
    z, _, _, _ = integrate(engine.array(known.draws), engine.array(p), engine.array(0.005))
    values, vectors = np.linalg.eigh(np.linalg.inv(known.root @ known.root.T))
    frequency = np.sqrt(values)
    u, v = (known.draws - known.mean) @ vectors, p @ vectors
    exact = known.mean + (u * np.cos(frequency) + v / frequency * np.sin(frequency)) @ vectors.T
    np.testing.assert_allclose(engine.numpy(z), exact, atol=1e-4)


def test_energy_error_is_second_order(engine: Engine) -> None:
    """Half the step size over the same trajectory: a quarter of the error."""
    known, p = target(engine, 200), momentum(200)
    errors = []
    for n_steps in (10, 20, 40):
        integrate = engine.compile(leapfrog(engine, known.log_density, n_steps))
        _, end_momentum, start, end = integrate(engine.array(known.draws), engine.array(p), engine.array(1.5 / n_steps))
        kinetic = 0.5 * (np.square(engine.numpy(end_momentum)).sum(-1) - np.square(p).sum(-1))
        errors.append(np.abs(kinetic - engine.numpy(end) + engine.numpy(start)).mean())
    assert errors[0] > 1e-3  # above float32's rounding
    assert 3.5 < errors[0] / errors[1] < 4.6
    assert 3.5 < errors[1] / errors[2] < 4.6


@pytest.mark.parametrize("exact_start", [True, False], ids=["from the posterior", "from zero"])
def test_posterior_is_stationary(engine: Engine, exact_start: bool) -> None:
    """Statistical: fixed seed, 5 standard errors, over the independent chains of 3000 datapoints.

    The step size leaves about one in four proposals rejected, so that a wrong accept decision would show.
    """
    n, moves = 3000, 40
    known = target(engine, n)
    move = engine.compile(hmc(engine, known.log_density, 3))
    z, acceptance = engine.array(known.draws if exact_start else np.zeros((n, K))), []
    for i in range(moves):
        z, info = move(engine.fold_in(engine.key(0), i), z, engine.array(0.75))
        acceptance.append(engine.numpy(info.acceptance).mean())
    assert 0.4 < np.mean(acceptance) < 0.9
    u = np.linalg.solve(known.root, (engine.numpy(z) - known.mean).T).T
    assert (np.abs(u.mean(0)) < 5 / np.sqrt(n)).all()
    assert (np.abs(u.T @ u / n - np.eye(K)) < 5 * np.sqrt((1 + np.eye(K)) / n)).all()


def test_info_is_that_of_the_returned_state(engine: Engine) -> None:
    """Log density at z, whichever way the decision fell; acceptance is min(1, exp(-energy error))."""
    known = target(engine, 50)
    before = engine.array(known.draws)
    z, info = engine.compile(hmc(engine, known.log_density, 3))(engine.key(0), before, engine.array(0.9))
    moved = (engine.numpy(z) != engine.numpy(before)).any(-1)
    assert 0 < moved.sum() < 50
    np.testing.assert_allclose(
        engine.numpy(info.log_density), engine.numpy(engine.compile(known.log_density)(z)), rtol=1e-5
    )
    energy_error = engine.numpy(info.energy_error)
    np.testing.assert_allclose(
        engine.numpy(info.acceptance), np.minimum(1, np.exp(-energy_error)), rtol=1e-5, atol=1e-30
    )


@pytest.mark.parametrize("wild", [3.0, 1e30], ids=["finite", "overflowing"])
def test_each_datapoint_decides_for_itself(engine: Engine, wild: float) -> None:
    """A hopeless step size for one datapoint: it stays, and the others move as if it were not there."""
    n = 8
    known = target(engine, n)
    move = engine.compile(hmc(engine, known.log_density, 10))
    sizes = np.full((n, 1), 0.05)
    z = engine.array(known.draws)
    calm, calm_info = move(engine.key(0), z, engine.array(sizes))
    sizes[3] = wild
    z_wild, info = move(engine.key(0), z, engine.array(sizes))
    others = np.arange(n) != 3
    assert (engine.numpy(calm) != engine.numpy(z)).all()
    np.testing.assert_array_equal(engine.numpy(z_wild)[3], engine.numpy(z)[3])
    np.testing.assert_array_equal(engine.numpy(z_wild)[others], engine.numpy(calm)[others])
    acceptance = engine.numpy(info.acceptance)
    assert acceptance[3] < 1e-6
    np.testing.assert_array_equal(acceptance[others], engine.numpy(calm_info.acceptance)[others])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_proposals_are_rejected(engine: Engine, bad: float) -> None:
    """Beyond |z| = 1 the density is not finite, even +inf: no chain goes there, and no NaN spreads."""
    xp = engine.ppl.xp

    def log_density(z: Array) -> Array:
        inside = -0.5 * (z**2).sum(-1)
        return xp.where((z**2).sum(-1) < 1.0, inside, xp.full_like(inside, bad))

    z = engine.array(np.random.default_rng(0).uniform(-0.6, 0.6, (200, K)))
    move = engine.compile(hmc(engine, log_density, 4))
    moved = 0
    for i in range(5):
        before = engine.numpy(z)
        z, info = move(engine.key(i), z, engine.array(0.3))
        assert np.isfinite(engine.numpy(z)).all()
        assert np.isfinite(engine.numpy(info.acceptance)).all()
        assert np.isfinite(engine.numpy(info.log_density)).all()
        stayed = (engine.numpy(z) == before).all(-1)
        moved += (~stayed).sum()
        assert stayed[engine.numpy(info.acceptance) == 0].all()
        assert (np.square(engine.numpy(z)).sum(-1) < 1).all()
    assert moved > 0


@pytest.mark.parametrize("initial", [0.01, 2.0])
def test_tuning_reaches_the_target_acceptance(engine: Engine, initial: float) -> None:
    known = target(engine, 200)
    move = hmc(engine, known.log_density, 5)

    def step(key: Any, z: Array, log_step_size: Array) -> tuple[Array, Array, Array]:
        z, info = move(key, z, engine.ppl.xp.exp(log_step_size))
        acceptance = info.acceptance.mean()
        return z, tuned(log_step_size, acceptance, 0.9), acceptance

    step = engine.compile(step)
    z, log_step_size, acceptance = engine.array(known.draws), engine.array(np.log(initial)), []
    for i in range(250):
        z, log_step_size, accepted = step(engine.fold_in(engine.key(0), i), z, log_step_size)
        acceptance.append(float(engine.numpy(accepted)))
    assert abs(np.mean(acceptance[-50:]) - 0.9) < 0.05


@pytest.mark.parametrize("n_steps", [1, 7])
def test_l_steps_cost_l_plus_one_gradients(engine: Engine, n_steps: int) -> None:
    known, counted = target(engine, 3), Counted(engine)
    move = engine.compile(hmc(counted, known.log_density, n_steps))  # compiled: a call is counted as it is traced
    move(engine.key(0), engine.array(known.draws), engine.array(0.1))
    assert counted.calls == n_steps + 1
