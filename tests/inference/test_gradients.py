"""Estimators of the bound's gradient: each by hand on a linear Gaussian model, and against the libraries' own."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np
import pytest

from inference import gradients
from inference.aevb import aevb
from inference.base import Array, Batch, Engine, Params, Posterior, Settings, arrays, join, numpys, pick
from inference.gradients import ESTIMATORS, Ascent, Draws, Estimator, estimator
from inference.latents import latents
from inference.local import LocalSettings
from inference.mean_field import mean_field
from inference.optim import sgd
from inference.theta import joint_program
from models.linear_gaussian import LinearGaussian
from models.vae import VaeBernoulli

N, D, K, L = 4, 5, 3, 6
MODEL = LinearGaussian(D, K)
RNG = np.random.default_rng(0)
THETA = {"w": RNG.standard_normal((K, D)), "b": RNG.standard_normal(D), "log_scale": np.array(-0.3)}
LOCAL = {"loc": RNG.standard_normal((N, K)), "log_scale": 0.3 * RNG.standard_normal((N, K)) - 0.5}
X = RNG.standard_normal((N, D))
EPS = RNG.standard_normal((L, N, K))


def local_normal(ppl: Any, local: Params) -> None:
    with ppl.plate("data", N):
        ppl.sample("z", ppl.dist.Normal(local["loc"], ppl.xp.exp(local["log_scale"])).to_event(1))


class ByHand:
    """log w of the draws z = m + s eps, and its derivatives, all in float64: [L, N] and [L, N, K]."""

    def __init__(self) -> None:
        m, s = LOCAL["loc"], np.exp(LOCAL["log_scale"])
        self.eps, self.s, self.z = EPS, s, m + s * EPS
        self.precision = float(np.exp(-2 * THETA["log_scale"]))
        self.r = X - self.z @ THETA["w"] - THETA["b"]
        log_px = -0.5 * (self.precision * self.r**2 + np.log(2 * np.pi / self.precision)).sum(-1)
        log_pz = -0.5 * (self.z**2 + np.log(2 * np.pi)).sum(-1)
        log_q = -0.5 * (EPS**2 + np.log(2 * np.pi) + 2 * LOCAL["log_scale"]).sum(-1)
        self.log_px, self.log_w = log_px, log_px + log_pz - log_q
        self.divergence = 0.5 * (m**2 + s**2 - 1 - 2 * np.log(s)).sum(-1)
        self.slope = self.precision * self.r @ THETA["w"].T - self.z  # of log p(x, z) by z
        self.score = {"loc": EPS / s, "log_scale": EPS**2 - 1}  # of log q by its parameters, z held fast
        weight = np.exp(self.log_w - self.log_w.max(0))
        self.weight = weight / weight.sum(0)

    def theta(self, weight: Any) -> Params:
        """Return sum_k weight_k d log p(x, z_k | theta) / d theta, of weights [L, N]."""
        r = self.precision * np.asarray(weight)[..., None] * self.r
        squares = np.asarray(weight) * ((self.precision * self.r**2).sum(-1) - D)
        return {"w": np.einsum("lnk,lnd->kd", self.z, r), "b": r.sum((0, 1)), "log_scale": squares.sum()}

    def through(self, weight: Any, slope: np.ndarray) -> Params:
        """Return sum_k weight_k slope_k dz_k / d parameter."""
        moved = np.asarray(weight)[..., None] * slope
        return {"loc": moved.sum(0), "log_scale": (moved * self.s * self.eps).sum(0)}

    def scored(self, weight: Any) -> Params:
        """Return sum_k weight_k d log q(z_k) / d parameter."""
        return {name: (np.asarray(weight)[..., None] * score).sum(0) for name, score in self.score.items()}


def gradients_by_hand(name: str) -> tuple[np.ndarray, Params]:
    """Return the bound [N], and the gradient of its sum by theta and by q's parameters."""
    h, even = ByHand(), np.full((L, N), 1 / L)
    of_q = h.eps / h.s  # minus the slope of log q by z
    bound, theta = h.log_w.mean(0), h.theta(even)
    if name == "A":
        local = added(h.through(even, h.slope + of_q), h.scored(-even))
    elif name == "B":
        bound = h.log_px.mean(0) - h.divergence
        local = h.through(even, h.slope + h.z)  # of log p(x | z)
        local = added(local, {"loc": -LOCAL["loc"], "log_scale": 1 - h.s**2})
    elif name == "stl":
        local = h.through(even, h.slope + of_q)
    elif name == "score":
        local = h.scored(h.log_w / L)
    elif name == "score_loo":
        others = (h.log_w.sum(0) - h.log_w) / (L - 1)
        local = h.scored((h.log_w - others) / L)
    else:
        bound = np.log(np.exp(h.log_w - h.log_w.max(0)).mean(0)) + h.log_w.max(0)
        theta = h.theta(h.weight)
        if name == "iwae":
            local = added(h.through(h.weight, h.slope + of_q), h.scored(-h.weight))
        else:
            local = h.through(h.weight**2, h.slope + of_q)
    return bound, join(theta=theta, local=local)


def added(one: Params, other: Params) -> Params:
    return {name: value + other[name] for name, value in one.items()}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_each_estimator_is_what_its_formula_says(engine: Engine, name: str) -> None:
    """At given draws its bound and all its gradients are those worked out by hand in float64."""
    sites = latents(engine, MODEL)

    def surrogate(params: Params, eps: Array, x: Array) -> tuple[Array, Array]:
        local = pick(params, "local")
        z = local["loc"] + engine.ppl.xp.exp(local["log_scale"]) * eps
        draws = Draws(sites, pick(params, "theta"), x, Posterior(local_normal, (local,)), {"z": z})
        bound, terms = ESTIMATORS[name].terms(draws)
        return terms.sum(), bound

    params = arrays(engine, join(theta=THETA, local=LOCAL))
    with engine.pinned():
        (_, bound), found = engine.value_and_grad(surrogate, has_aux=True)(params, engine.array(EPS), engine.array(X))
    expected_bound, expected = gradients_by_hand(name)
    np.testing.assert_allclose(engine.numpy(bound), expected_bound, rtol=1e-5)
    for key, value in numpys(engine, found).items():
        np.testing.assert_allclose(value, expected[key], rtol=2e-4, atol=2e-4, err_msg=key)


def mean_and_error(engine: Engine, one: Callable[[Any], Params], count: int) -> tuple[Params, Params]:
    """Return the mean of one(key), a flat dict of arrays, over keys, and its standard error."""
    if engine.name == "numpyro":
        each = numpys(engine, jax.jit(jax.vmap(one))(engine.split(engine.key(1), count)))
    else:
        found = [numpys(engine, one(key)) for key in engine.split(engine.key(1), count)]
        each = {name: np.stack([value[name] for value in found]) for name in found[0]}
    each = {name: value.astype(np.float64) for name, value in each.items()}
    means = {name: value.mean(0) for name, value in each.items()}
    return means, {name: value.std(0, ddof=1) / np.sqrt(count) for name, value in each.items()}


def stepped(svi: Any, state: Any, x: Array, key: Any) -> Any:
    return svi.update(key, state, x, 1.0)[0]["params"]


@pytest.mark.parametrize("name", ["A", "B"])
def test_what_the_libraries_have_is_the_same_there(engine: Engine, name: str) -> None:
    """One step of SGD by Trace_ELBO or TraceMeanField_ELBO: on Pyro from the same draws, on NumPyro in the mean."""
    model = VaeBernoulli(D, 2, 3)
    params = arrays(engine, join(**dict(zip(("theta", "phi"), model.init(0), strict=True))))
    x = engine.array(np.random.default_rng(1).random((N, D)) < 0.5)

    def guide(ppl: Any, params: Params, x: Array, fraction: Array) -> None:
        model.recognition(ppl, pick(params, "phi"), x)

    estimate = estimator(engine, model, name, 1)

    def objective(key: Any, params: Params, x: Array, fraction: Array) -> tuple[Array, Array]:
        q = Posterior(model.recognition, (pick(params, "phi"), x))
        value, surrogate = estimate(key, pick(params, "theta"), x, q)
        return value.sum(), surrogate.sum()

    steps: list[Any] = []
    for svi in (
        engine.svi(joint_program(model, "ml"), guide, sgd(), name, 1),
        Ascent(engine, sgd(), objective),
    ):
        steps.append(partial(stepped, svi, svi.init(params, engine.array(1.0)), x))
    if engine.name == "pyro":
        theirs, ours = (numpys(engine, step(engine.key(3))) for step in steps)
        for key in theirs:
            np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-5, atol=1e-5, err_msg=key)
        return
    (theirs, error), (ours, other) = (mean_and_error(engine, step, 2000) for step in steps)
    for key in theirs:
        spread = np.hypot(error[key], other[key]) + 1e-6
        assert (np.abs(ours[key] - theirs[key]) < 5 * spread).all(), key


def test_the_score_function_is_that_of_pyro_and_of_numpyro(engine: Engine) -> None:
    """TraceGraph_ELBO of a q(z | x) without a reparameterisation, and of Pyro Trace_ELBO too.

    Theirs have the term -d log q / d phi, whose mean is zero, and Pyro's the same draws from one seed.
    """
    x, theta = engine.array(X), arrays(engine, THETA)
    local = arrays(engine, LOCAL)
    estimate = estimator(engine, MODEL, "score", 1)

    def ours(key: Any) -> Params:
        def surrogate(local: Params) -> Array:
            return estimate(key, theta, x, Posterior(local_normal, (local,)))[1].sum()

        found: Params = engine.value_and_grad(surrogate)(local)[1]
        return found

    if engine.name == "pyro":
        import pyro
        import torch
        from pyro.distributions.testing.fakes import NonreparameterizedNormal
        from pyro.infer import Trace_ELBO, TraceGraph_ELBO

        def model(local: Params) -> None:
            joint = engine.ppl.condition(MODEL.generative, {"x": x})
            joint(engine.ppl, theta, N)

        def guide(local: Params) -> None:
            named = {name: pyro.param(name, value.clone()) for name, value in local.items()}
            with pyro.plate("data", N):
                scale = torch.exp(named["log_scale"])
                pyro.sample("z", NonreparameterizedNormal(named["loc"], scale).to_event(1))

        def library(elbo: Any, seed: int) -> Params:
            with pyro.get_param_store().scope():
                torch.manual_seed(seed)
                elbo.loss_and_grads(model, guide, local)
                return {name: -pyro.param(name).grad.clone() for name in local}

        means = [mean_and_error(engine, partial(library, elbo), 200) for elbo in (Trace_ELBO(), TraceGraph_ELBO())]
    else:
        import numpyro
        from numpyro.distributions import Normal
        from numpyro.infer import TraceGraph_ELBO as Graph

        class Opaque(Normal):  # type: ignore[misc]
            reparametrized_params: list[str] = []  # noqa: RUF012

        def jax_model(theta: Params) -> None:
            joint = engine.ppl.condition(MODEL.generative, {"x": x})
            joint(engine.ppl, theta, N)

        def jax_guide(theta: Params) -> None:
            loc, log_scale = (numpyro.param(name, local[name]) for name in ("loc", "log_scale"))
            with numpyro.plate("data", N):
                numpyro.sample("z", Opaque(loc, jax.numpy.exp(log_scale)).to_event(1))

        graph = Graph()
        gradient = jax.grad(lambda local, key: -graph.loss(key, local, jax_model, jax_guide, theta))
        means = [mean_and_error(engine, lambda key: gradient(local, key), 4000)]
    mean, error = mean_and_error(engine, ours, 4000 if engine.name == "numpyro" else 200)
    for theirs, other in means:
        for key in mean:
            assert (np.abs(mean[key] - theirs[key]) < 5 * np.hypot(error[key], other[key])).all(), key


# In training


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if name not in gradients.LIBRARIES])
@pytest.mark.parametrize("build", [aevb, mean_field])
def test_a_backend_climbs_by_it(engine: Engine, build: Any, name: str) -> None:
    """On a linear Gaussian model both methods' bound comes up from where they begin, whatever they climb by.

    The plain score function needs many draws for it: with 4 a q of one datapoint goes astray.
    """
    how: dict[str, Any] = {"optimizer": "adam", "warmup": 0, "local_steps": 3, "local_step_size": 0.05}
    settings = LocalSettings(estimator=name, particles=200 if name == "score" else 4, **how)
    x = np.random.default_rng(3).standard_normal((60, K)) @ THETA["w"] + THETA["b"]
    x = (x + 0.5 * np.random.default_rng(4).standard_normal(x.shape)).astype(np.float32)
    backend = build(engine, MODEL, settings)
    with engine.pinned():
        theta, phi = (arrays(engine, group) for group in MODEL.init(0))
        state = backend.init(engine.key(0), theta, phi, engine.array(x), engine.array(0.05))
        step, rows = engine.compile(backend.step), engine.array(np.arange(60))
        bounds = []
        for i in range(50):
            state, info = step(engine.fold_in(engine.key(5), i), state, Batch(engine.array(x), rows, 1.0))
            bounds.append(float(engine.numpy(engine.array(info.objective))))
    assert np.isfinite(bounds).all()
    assert np.mean(bounds[-10:]) > np.mean(bounds[:10]) + 1.0


@pytest.mark.parametrize(
    ("told", "named"),
    [
        ({"estimator": "score_loo"}, "has particles 1, and estimator 'score_loo' needs 2 draws"),
        ({"estimator": "stl", "theta": "vb"}, "takes theta as a point by estimator 'stl'"),
        ({"estimator": "dreg", "theta": "vb"}, "choose --theta map or ml, or --estimator A or B"),
    ],
)
def test_what_does_not_go_together_is_refused_before_training(engine: Engine, told: dict[str, Any], named: str) -> None:
    for build in (aevb, mean_field):
        with pytest.raises(ValueError, match="estimator") as refused:
            build(engine, MODEL, LocalSettings(**told))
        assert named in str(refused.value)


def test_the_settings_name_what_there_is() -> None:
    declared = Settings.__dataclass_fields__["estimator"].metadata["choices"]
    assert declared == tuple(ESTIMATORS)
    for name in ESTIMATORS:
        assert gradients.refusal(MODEL, replace(Settings(), estimator=name, particles=2)) == ""
        assert bool(gradients.unread(MODEL, replace(Settings(), estimator=name))) == (name != "B")
    assert all(isinstance(card, Estimator) for card in ESTIMATORS.values())


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_support_that_moves_biases_what_takes_the_mean_score_for_zero(engine: Engine, name: str) -> None:
    """A uniform q(z | x): the mean gradient by its width is that of the integral, or the estimator is refused."""
    model = replace(VaeBernoulli(D, 1, 3), guide_family="uniform")
    reason = gradients.refusal(model, Settings(estimator=name, particles=2))
    assert bool(reason) == ESTIMATORS[name].zero_mean
    if reason:
        assert "choose --estimator A, B, iwae" in reason
        with pytest.raises(ValueError, match="support moves"):
            aevb(engine, model, Settings(estimator=name, particles=2))
    if name not in ("A", "B", "stl", "score"):
        return
    rng = np.random.default_rng(8)
    theta = {key: rng.standard_normal(shape).astype(np.float32) for key, shape in model.theta_shapes.items()}
    phi = {
        key: 0.3 * rng.standard_normal(np.shape(value)).astype(np.float32) for key, value in model.init(0)[1].items()
    }
    x, at = engine.array(np.ones((1, D))), arrays(engine, theta)
    estimate = estimator(engine, model, name, 1)

    def one(key: Any) -> Params:
        def surrogate(phi: Params) -> Array:
            return estimate(key, at, x, Posterior(model.recognition, (phi, x)))[1].sum()

        return {"b5": engine.value_and_grad(surrogate)(arrays(engine, phi))[1]["b5"]}

    def exact(shift: float) -> float:
        """Return E_q[log p(x, z)] + log width, by the midpoint rule, with the width's raw number moved."""
        moved = {**phi, "b5": phi["b5"] + np.float32(shift)}
        q = engine.conditional(model.recognition, "z", {"z": engine.array([[0.0]])}, arrays(engine, moved), x)
        low, high = (
            float(engine.numpy(edge).item())
            for edge in (q.support.base_constraint.lower_bound, q.support.base_constraint.upper_bound)
        )
        z = (np.arange(20_000) + 0.5) / 20_000 * (high - low) + low
        score = latents(engine, model).score(at, x, {"z": engine.array(z[:, None, None])})
        return float(engine.numpy(score).astype(np.float64).mean() + np.log(high - low))

    expected = (exact(0.05) - exact(-0.05)) / 0.1
    mean, error = mean_and_error(engine, one, 3000 if engine.name == "numpyro" else 600)
    off = abs(mean["b5"].item() - expected) / error["b5"].item()
    assert off > 8 if ESTIMATORS[name].zero_mean else off < 5
