"""On a GPU, where an engine has one: the numbers of the CPU, and every array on the device."""

from typing import Any

import numpy as np
import pytest

import inference
from comparisons.evidence.base import Target
from comparisons.evidence.elbo import elbo
from comparisons.evidence.quadrature import QuadratureSettings, quadrature
from comparisons.runner.run import arrays as nested_arrays
from comparisons.runner.run import numpys as nested_numpys
from comparisons.runner.run import training
from inference import BACKENDS, ENGINES
from inference.base import Engine, Posterior, Settings, arrays, numpys
from models.vae import VaeBernoulli

pytestmark = pytest.mark.gpu

N, D, K, H, M = 200, 12, 2, 8, 20
MODEL = VaeBernoulli(D, K, H)
SETTINGS = Settings(minibatch=M, warmup=0, local_steps=3, leapfrog_steps=3, weight_updates=2)


@pytest.fixture(params=list(ENGINES))
def gpu(request: pytest.FixtureRequest) -> Engine:
    """An engine on the GPU, that of test_cli's error where it has none."""
    try:
        return inference.engine(request.param, "cuda", 1)
    except (RuntimeError, AssertionError) as error:
        pytest.skip(f"{request.param} has no GPU here: {str(error).splitlines()[0]}")


def images() -> np.ndarray:
    return np.random.default_rng(0).random((N, D), dtype=np.float32)


def parameters() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    theta, phi = (
        {name: np.asarray(0.3 * rng.standard_normal(value.shape), np.float32) for name, value in group.items()}
        for group in MODEL.init(0)
    )
    return theta, phi


def leaves(state: dict[str, Any]) -> list[Any]:
    return [leaf for value in state.values() for leaf in (leaves(value) if isinstance(value, dict) else [value])]


def on_device(engine: Engine, value: Any) -> bool:
    return value.is_cuda if engine.name == "pyro" else next(iter(value.devices())).platform == "gpu"


def test_densities_and_gradients_are_the_cpus(gpu: Engine) -> None:
    theta, _ = parameters()
    z = np.random.default_rng(2).standard_normal((N, K)).astype(np.float32)
    found = []
    for engine in (gpu, inference.engine(gpu.name, "cpu", 1)):

        def total(theta: Any, engine: Engine = engine) -> Any:
            x, latent = engine.array(images()), engine.array(z)
            return engine.log_prob(MODEL.generative, {"z": latent, "x": x}, theta, N).sum()

        value, gradients = engine.value_and_grad(total)(arrays(engine, theta))
        found.append({"value": engine.numpy(value), **numpys(engine, gradients)})
    for name, value in found[1].items():
        np.testing.assert_allclose(found[0][name], value, rtol=1e-3, atol=1e-3, err_msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_trains_on_the_device(gpu: Engine, backend: str) -> None:
    built, train = training(gpu, MODEL, backend, SETTINGS, False)
    groups = [arrays(gpu, group) for group in parameters()]
    x = gpu.array(images())
    state = built.init(gpu.key(0), *groups, x, gpu.array(0.05))
    state = nested_arrays(gpu, nested_numpys(gpu, state))
    objectives = []
    for chunk in range(4):
        steps = np.arange(10 * chunk, 10 * chunk + 10)
        rows = np.stack([np.random.default_rng(step).choice(N, M, replace=False) for step in steps])
        state, info = train(state, x, gpu.key(1), gpu.array(steps), gpu.array(rows))
        objectives.append(float(gpu.numpy(info.objective).mean()))
    assert all(on_device(gpu, leaf) for leaf in leaves(state))
    assert np.isfinite(objectives).all() and objectives[-1] > objectives[0]


def test_the_judge_gives_the_cpus_numbers(gpu: Engine) -> None:
    theta, phi = parameters()
    found = []
    for engine in (gpu, inference.engine(gpu.name, "cpu", 1)):
        on, x = arrays(engine, theta), engine.array(images()[:20])
        q = Posterior(MODEL.recognition, (arrays(engine, phi), x))
        target = Target(engine, MODEL, on, x, q)
        found.append((quadrature(target, QuadratureSettings()).value, elbo(target, engine.key(0), 500)))
    np.testing.assert_allclose(found[0][0], found[1][0], atol=1e-3)
    (one, error_one), (two, error_two) = (bound.mean() for _, bound in found)
    assert abs(one - two) < 5 * np.hypot(error_one, error_two)
