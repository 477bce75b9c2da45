"""The judge against closed forms and against brute force in float64: each estimate is within its error of the truth."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

import inference
from comparisons.evidence import elbo as elbo_module
from comparisons.evidence import quadrature as quadrature_module
from comparisons.evidence.base import Estimate, Target
from comparisons.evidence.elbo import elbo
from comparisons.evidence.exact import exact
from comparisons.evidence.quadrature import QuadratureSettings, quadrature
from inference import ENGINES
from inference.base import Engine, Posterior
from models.base import Array, Model, Params, Ppl, standard_normal_latents
from models.linear_gaussian import LinearGaussian, log_px, posterior
from models.vae import VaeBernoulli, VaeGaussian

LOG_2PI = np.log(2 * np.pi)
LogLikelihood = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (x [n, d], z [g, k]) -> log p(x | z) [n, g], float64


@pytest.fixture(params=list(ENGINES))
def judge(request: pytest.FixtureRequest) -> Engine:
    """Each engine in turn, on one thread."""
    return inference.engine(request.param, "cpu", 1)


@dataclass(frozen=True)
class _HandWritten(Model):
    """A model with parameters w [n_latent, n_x] and a scale, and nothing else."""

    n_x: int
    n_latent: int

    @property
    def theta_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {"w": (self.n_latent, self.n_x), "scale": ()}

    def init(self, seed: int) -> tuple[Params, Params]:
        return {name: np.ones(shape, np.float32) for name, shape in self.theta_shapes.items()}, {}

    def recognition(self, ppl: Ppl, phi: Params, x: Array) -> None:
        raise NotImplementedError


class Folded(_HandWritten):
    """x ~ N(z^2 w, scale^2): z and -z explain x equally well, so p(z | x) has up to 2^k modes."""

    def generative(self, ppl: Ppl, theta: Params, n: int) -> None:
        with ppl.plate("data", n):
            z = standard_normal_latents(ppl, self.n_latent)
            loc = ppl.xp.matmul(z**2, theta["w"])
            ppl.sample("x", ppl.dist.Normal(loc, theta["scale"]).to_event(1))


class Outliers(_HandWritten):
    """x ~ Laplace(z w, scale): neither a Bernoulli nor a normal decoder."""

    def generative(self, ppl: Ppl, theta: Params, n: int) -> None:
        with ppl.plate("data", n):
            z = standard_normal_latents(ppl, self.n_latent)
            ppl.sample("x", ppl.dist.Laplace(ppl.xp.matmul(z, theta["w"]), theta["scale"]).to_event(1))


def on(engine: Engine, model: Model, theta: Mapping[str, Any], x: np.ndarray) -> Target:
    return Target(engine, model, {name: engine.array(value) for name, value in theta.items()}, engine.array(x))


def judged(
    engine: Engine, model: Model, theta: Mapping[str, Any], x: np.ndarray, tolerance: float = 0.01, **changes: float
) -> Estimate:
    return quadrature(on(engine, model, theta, x), QuadratureSettings(tolerance=tolerance, **changes))


def rounded(theta: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Parameters as an engine holds them, so that rounding to float32 is no part of the error."""
    return {name: np.asarray(value, np.float32) for name, value in theta.items()}


def fine_grid(x: np.ndarray, k: int, log_likelihood: LogLikelihood, half_width: float, spacing: float) -> np.ndarray:
    """log p(x) by the trapezoid rule in float64; twice the spacing must give the same."""
    axis = np.arange(-2 * round(half_width / spacing / 2), 2 * round(half_width / spacing / 2) + 1)
    nodes = np.stack([a.ravel() for a in np.meshgrid(*[axis] * k, indexing="ij")], 1)
    values, coarser = [], []
    for part in np.array_split(nodes, max(1, len(nodes) // 50_000)):
        z = part * spacing
        score = log_likelihood(x.astype(np.float64), z) - 0.5 * (np.square(z).sum(1) + k * LOG_2PI)
        values.append(np.logaddexp.reduce(score, 1))
        coarser.append(np.logaddexp.reduce(score[:, (part % 2 == 0).all(1)], 1))
    fine = np.logaddexp.reduce(values, 0) + k * np.log(spacing)
    np.testing.assert_allclose(np.logaddexp.reduce(coarser, 0) + k * np.log(2 * spacing), fine, atol=1e-4)
    return fine


def normal(x: np.ndarray, loc: np.ndarray, scale: Any) -> np.ndarray:
    """Sum over d of log N(x [n, d]; loc [g, d], scale [g, d] or []), [n, g]."""
    precision = np.broadcast_to(1 / np.square(np.float64(scale)), loc.shape)
    quadratic = np.square(x) @ precision.T - 2 * x @ (loc * precision).T + (np.square(loc) * precision).sum(1)
    return -0.5 * (quadratic - np.log(precision).sum(1) + x.shape[1] * LOG_2PI)


def linear(k: int, noise: float, n: int = 20) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """theta and n points drawn from linear_gaussian with 8 columns."""
    rng = np.random.default_rng([k, int(1000 * noise)])
    w, b, z = rng.standard_normal((k, 8)), rng.standard_normal(8), rng.standard_normal((n, k))
    x = z @ w + b + noise * rng.standard_normal((n, 8))
    return rounded({"w": w, "b": b, "log_scale": np.log(noise)}), x.astype(np.float32)


# Quadrature against the closed form


@pytest.mark.parametrize("noise", [1.0, 0.3, 0.1, 0.02])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_quadrature_finds_the_closed_form(judge: Engine, k: int, noise: float) -> None:
    """Posteriors from as wide as the prior to a hundredth of the first grid's spacing."""
    theta, x = linear(k, noise)
    found = judged(judge, LinearGaussian(8, k), theta, x)
    error = np.abs(found.value - log_px(theta, x))
    assert error.max() < 0.005 and error.mean() < 0.001
    assert np.all(error <= found.stderr + 0.005)
    assert found.systematic and np.all(found.stderr <= 0.01)


@pytest.mark.parametrize("k", [1, 2])
def test_a_posterior_outside_the_first_grid_is_found(judge: Engine, k: int) -> None:
    theta, x = linear(k, 0.1, n=4)
    z = np.array([[7.0] * k, [-20.0] * k])  # the prior's standard deviations
    far = np.concatenate([x[:2], (z @ theta["w"] + theta["b"]).astype(np.float32), x[2:]])
    found = judged(judge, LinearGaussian(8, k), theta, far)
    error = np.abs(found.value - log_px(theta, far))
    assert error.max() < 0.02 and np.all(error[[0, 1, 4, 5]] < 0.005)


def test_the_blocks_that_memory_allows_do_not_change_the_result(judge: Engine) -> None:
    theta, x = linear(2, 0.3, n=5)
    whole, one_by_one = (
        judged(judge, LinearGaussian(8, 2), theta, x, tolerance=0.1, max_memory=memory) for memory in (1e9, 1.0)
    )
    np.testing.assert_allclose(one_by_one.value, whole.value, atol=1e-3)


def test_a_tighter_tolerance_asks_for_more(judge: Engine) -> None:
    theta, x = linear(2, 0.1)
    loose, tight = (judged(judge, LinearGaussian(8, 2), theta, x, tolerance=tolerance) for tolerance in (0.5, 1e-3))
    assert loose.diagnostics is not None and tight.diagnostics is not None
    assert np.all(tight.diagnostics["nodes"] >= loose.diagnostics["nodes"])
    assert np.abs(tight.value - log_px(theta, x)).max() < 1e-3


def test_with_more_cells_than_are_halved_the_highest_are(judge: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A very narrow posterior asks for all of a coarse grid; with a limit it is found all the same."""
    monkeypatch.setattr(quadrature_module, "MAX_CELLS", 300)
    theta, x = linear(3, 0.02)
    found = judged(judge, LinearGaussian(8, 3), theta, x, tolerance=0.1)
    assert found.diagnostics is not None and np.all(found.diagnostics["nodes"] < 21**3 + 10 * 8 * 300)
    assert np.abs(found.value - log_px(theta, x)).max() < 0.1
    assert np.all(found.stderr <= 0.1)


def test_quadrature_refuses_four_dimensions(judge: Engine) -> None:
    with pytest.raises(ValueError, match="n_latent <= 3, not 4"):
        judged(judge, LinearGaussian(8, 4), {}, np.zeros((2, 8)))


# Quadrature against brute force


@cache
def folded(k: int, scale: float) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(k)
    theta = rounded({"w": rng.standard_normal((k, 4)), "scale": scale})
    z = np.array([[1.3, 0.8], [0.05, 1.9], [0.0, 0.0]])[:, :k]  # four modes, two, and one with a flat top
    x = (np.square(z) @ theta["w"] + scale * rng.standard_normal((3, 4))).astype(np.float32)
    truth = fine_grid(
        x, k, lambda x, z: normal(x, np.square(z) @ theta["w"].astype(np.float64), theta["scale"]), 5.0, 0.008
    )
    return theta, x, truth


@pytest.mark.parametrize(("k", "scale"), [(1, 0.05), (1, 0.5), (2, 0.1), (2, 0.5)])
def test_every_mode_of_a_posterior_counts(judge: Engine, k: int, scale: float) -> None:
    theta, x, truth = folded(k, scale)
    found = judged(judge, Folded(4, k), theta, x)
    assert np.all(np.abs(found.value - truth) <= found.stderr + 0.005)
    assert np.abs(found.value - truth).max() < 0.01


@cache
def vae(kind: str, k: int) -> tuple[Model, dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """A decoder with weights as large as after long training, points drawn from it, and their log p(x)."""
    rng = np.random.default_rng([k, len(kind)])
    d, h = 30, 8
    theta = {"w1": 1.5 * rng.standard_normal((k, h)), "b1": rng.standard_normal(h)}
    theta |= {"w2": 2.0 * rng.standard_normal((h, d)), "b2": rng.standard_normal(d)}
    if kind == "gaussian":
        theta |= {"w3": 0.3 * rng.standard_normal((h, d)), "b3": np.full(d, -3.0)}
    theta = rounded(theta)
    wide = {name: value.astype(np.float64) for name, value in theta.items()}

    def decode(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        hidden = np.tanh(z @ wide["w1"] + wide["b1"])
        return hidden, hidden @ wide["w2"] + wide["b2"]

    def log_likelihood(x: np.ndarray, z: np.ndarray) -> np.ndarray:
        hidden, activation = decode(z)
        if kind == "bernoulli":
            return x @ activation.T - np.logaddexp(0, activation).sum(1)
        return normal(x, expit(activation), np.exp(0.5 * (hidden @ wide["w3"] + wide["b3"])))

    hidden, activation = decode(rng.standard_normal((5, k)))
    if kind == "bernoulli":
        x = (rng.random((5, d)) < expit(activation)).astype(np.float32)
    else:
        scale = np.exp(0.5 * (hidden @ wide["w3"] + wide["b3"]))
        x = (expit(activation) + scale * rng.standard_normal((5, d))).astype(np.float32)
    model = VaeBernoulli(d, k, h) if kind == "bernoulli" else VaeGaussian(d, k, h)
    return model, theta, x, fine_grid(x, k, log_likelihood, 7.0, {1: 0.001, 2: 0.02}[k])


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("kind", ["bernoulli", "gaussian"])
def test_quadrature_of_a_trained_decoder(judge: Engine, kind: str, k: int) -> None:
    model, theta, x, truth = vae(kind, k)
    found = judged(judge, model, theta, x)
    assert np.all(np.abs(found.value - truth) <= found.stderr + 0.005)
    assert np.abs(found.value - truth).max() < 0.01


@pytest.mark.parametrize("k", [1, 2])
def test_a_decoder_of_another_family_is_scored_pair_by_pair(judge: Engine, k: int) -> None:
    rng = np.random.default_rng(k)
    theta = rounded({"w": rng.standard_normal((k, 4)), "scale": 0.4})
    x = (rng.standard_normal((4, k)) @ theta["w"] + rng.laplace(0.0, 0.4, (4, 4))).astype(np.float32)

    def laplace(x: np.ndarray, z: np.ndarray) -> np.ndarray:
        scale, loc = float(theta["scale"]), z @ theta["w"].astype(np.float64)
        return -np.abs(x[:, None] - loc).sum(2) / scale - 4 * np.log(2 * scale)

    truth = fine_grid(x, k, laplace, 6.0, {1: 0.001, 2: 0.01}[k])
    found = judged(judge, Outliers(4, k), theta, x)
    assert np.all(np.abs(found.value - truth) <= found.stderr + 0.005)


def test_the_engines_agree() -> None:
    for model, theta, x in (
        (LinearGaussian(8, 2), *linear(2, 0.3)),
        vae("bernoulli", 2)[:3],
        vae("gaussian", 1)[:3],
        (Folded(4, 2), *folded(2, 0.1)[:2]),
    ):
        values = [
            judged(engine, model, theta, x).value for engine in (inference.engine(name, "cpu", 1) for name in ENGINES)
        ]
        for one, other in pairwise(values):
            np.testing.assert_allclose(one, other, atol=1e-3)


# The closed form


def test_exact_has_no_error(judge: Engine) -> None:
    theta, x = linear(3, 0.3)
    found = exact(on(judge, LinearGaussian(8, 3), theta, x))
    np.testing.assert_allclose(found.value, log_px(theta, x), rtol=1e-12)
    assert found.systematic and np.all(found.stderr == 0)


def test_exact_refuses_other_models(judge: Engine) -> None:
    with pytest.raises(TypeError, match="VaeBernoulli"):
        exact(on(judge, VaeBernoulli(8, 2, 3), {}, np.zeros((2, 8))))


# The bound


def gaussian(ppl: Ppl, loc: Array, scale_tril: Array) -> None:
    with ppl.plate("data", loc.shape[0]):
        ppl.sample("z", ppl.dist.MultivariateNormal(loc, scale_tril=scale_tril))


def bounded(engine: Engine, theta: dict[str, np.ndarray], x: np.ndarray, shift: float = 0.0) -> Target:
    """The closed form's problem with a q(z | x) that is the exact posterior, or lies beside it."""
    mean, covariance = posterior(theta, x)
    q = Posterior(gaussian, (engine.array(mean + shift), engine.array(np.linalg.cholesky(covariance))))
    return on(engine, LinearGaussian(8, 2), theta, x)._replace(q=q)


def test_the_bound_of_the_exact_posterior_is_the_evidence(judge: Engine) -> None:
    """log p(x, z) - log p(z | x) = log p(x) for every z: the estimate has no variance."""
    theta, x = linear(2, 0.5, n=100)
    found = elbo(bounded(judge, theta, x), judge.key(0), 20)
    np.testing.assert_allclose(found.value, log_px(theta, x), atol=1e-3)
    assert not found.systematic and found.stderr.max() < 1e-4


@pytest.mark.parametrize("shift", [0.1, -0.5])
def test_a_wrong_q_loses_its_divergence(judge: Engine, shift: float) -> None:
    """The bound is log p(x) - KL(q || p(z | x)), and the KL of two normals with one covariance is in closed form."""
    theta, x = linear(2, 0.5, n=100)
    found = elbo(bounded(judge, theta, x, shift), judge.key(1), 400)
    divergence = 0.5 * shift**2 * np.linalg.inv(posterior(theta, x)[1]).sum()
    evidence = log_px(theta, x)
    assert np.all(found.value <= evidence + 5 * found.stderr)
    assert np.all(np.abs(found.value - (evidence - divergence)) < 5 * found.stderr)
    value, stderr = found.mean()
    assert abs(value - (evidence.mean() - divergence)) < 5 * stderr


def test_the_error_of_a_bound_falls_with_the_root_of_the_draws(judge: Engine) -> None:
    theta, x = linear(2, 0.5, n=100)
    target = bounded(judge, theta, x, 0.2)
    few, many = (elbo(target, judge.key(2), draws).mean()[1] for draws in (50, 800))
    # a standard error of m draws has a relative error of 1 / sqrt(2 m), here averaged over 100 points
    assert few / many == pytest.approx(4.0, rel=0.05)


def test_a_bound_in_parts_is_the_same_within_its_error(judge: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    theta, x = linear(2, 0.5, n=100)
    arguments = bounded(judge, theta, x, 0.2), judge.key(3)
    whole = elbo(*arguments, 820)
    monkeypatch.setattr(elbo_module, "CHUNK", 800 * x.size)  # parts of 800 and 20 draws
    parts = elbo(*arguments, 820)
    z = (parts.value - whole.value) / np.hypot(parts.stderr, whole.stderr)
    assert np.abs(z).max() < 5 and np.any(z != 0)
    np.testing.assert_allclose(parts.stderr, whole.stderr, rtol=0.5)
    monkeypatch.setattr(elbo_module, "CHUNK", 1)  # less than one draw of all points
    assert np.all(np.isfinite(elbo(*arguments, 3).stderr))


def test_a_key_decides_the_draws(judge: Engine) -> None:
    theta, x = linear(2, 0.5, n=100)
    target = bounded(judge, theta, x, 0.2)
    first, again, other = (elbo(target, judge.key(seed), 20).value for seed in (4, 4, 5))
    np.testing.assert_array_equal(first, again)
    assert np.all(first != other)


# Means


def test_independent_errors_add_in_quadrature() -> None:
    assert Estimate(np.array([1.0, 5.0]), np.array([3.0, 4.0])).mean() == (3.0, 2.5)


def test_systematic_errors_add_linearly() -> None:
    assert Estimate(np.array([1.0, 5.0]), np.array([3.0, 4.0]), systematic=True).mean() == (3.0, 3.5)
