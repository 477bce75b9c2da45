"""The families of q(z | x) and p(z): SciPy's laws, their gradients by numerical integration, and what is refused."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
from scipy import integrate, stats

from comparisons.errors import FlagError, UnfitError
from comparisons.evidence.base import Target
from comparisons.evidence.elbo import elbo
from comparisons.evidence.judge import JudgeSettings, estimate
from comparisons.runner.experiment import Experiment, built, refuse
from inference import BACKENDS
from inference.base import Batch, Engine, Posterior, Settings, arrays
from inference.latents import latents
from models import MODELS
from models.base import Array, Ppl
from models.families import FAMILIES, PRIORS, suited
from models.paths import erlang, triangle
from models.vae import OneHiddenLayer, VaeBernoulli


class Mixture:
    """Two normals on the line, as SciPy would have them."""

    def __init__(self, *parameters: float) -> None:
        one, two, scale, other, self.share = parameters
        self.parts = stats.norm(one, scale), stats.norm(two, other)

    def _mixed(self, values: list[Any]) -> Any:
        return self.share * values[0] + (1 - self.share) * values[1]

    def cdf(self, z: Any) -> Any:
        return self._mixed([part.cdf(z) for part in self.parts])

    def pdf(self, z: Any) -> Any:
        return self._mixed([part.pdf(z) for part in self.parts])

    def logpdf(self, z: Any) -> Any:
        return np.log(self.pdf(z))

    def ppf(self, u: Any) -> Any:
        grid = np.linspace(-30, 30, 2_000_001)
        return np.interp(u, self.cdf(grid), grid)

    def support(self) -> tuple[float, float]:
        return -np.inf, np.inf


# A law of SciPy's for each family of one variable, as a function of its parameters, and parameters that are none's
# standard ones.
LAWS: dict[str, tuple[Callable[..., Any], tuple[float, ...]]] = {
    "normal": (stats.norm, (0.3, 0.7)),
    "laplace": (stats.laplace, (0.3, 0.7)),
    "logistic": (stats.logistic, (0.3, 0.7)),
    "logistic_by_inverse": (stats.logistic, (0.3, 0.7)),
    "student_t": (lambda loc, scale, df: stats.t(df, loc, scale), (0.3, 0.7, 3.5)),
    "uniform": (stats.uniform, (-0.4, 1.7)),
    "triangular": (lambda loc, scale: stats.triang(0.5, loc - scale, 2 * scale), (0.3, 0.7)),
    "cauchy": (stats.cauchy, (0.3, 0.7)),
    "gumbel": (stats.gumbel_r, (0.3, 0.7)),
    "exponential": (lambda rate: stats.expon(scale=1 / rate), (1.6,)),
    "rayleigh": (lambda scale: stats.rayleigh(scale=scale), (0.7,)),
    "weibull": (lambda scale, shape: stats.weibull_min(shape, scale=scale), (0.7, 1.6)),
    "pareto": (lambda scale, alpha: stats.pareto(alpha, scale=scale), (0.4, 2.3)),
    "reciprocal": (lambda low, ratio: stats.loguniform(low, low * ratio), (0.2, 9.0)),
    "gompertz": (lambda rate, shape: stats.gompertz(shape, scale=1 / rate), (1.6, 0.4)),
    "erlang": (lambda rate: stats.gamma(2, scale=1 / rate), (1.6,)),
    "log_normal": (lambda loc, scale: stats.lognorm(scale, scale=np.exp(loc)), (0.3, 0.7)),
    "gamma": (lambda shape, rate: stats.gamma(shape, scale=1 / rate), (1.7, 1.6)),
    "chi_squared": (stats.chi2, (2.4,)),
    "f": (stats.f, (3.0, 5.0)),
    "beta": (stats.beta, (1.7, 0.8)),
    "normal_mixture": (Mixture, (-1.1, 0.9, 0.5, 0.8, 0.3)),
}
JOINT = tuple(name for name, family in FAMILIES.items() if family.joint)
NODES, WEIGHTS = np.polynomial.legendre.leggauss(4000)
U, WEIGHTS = (NODES + 1) / 2, WEIGHTS / 2  # of an integral over (0, 1)


def of(engine: Engine, name: str, parameters: Any) -> Any:
    """A family's distribution at these parameters, [..., 1] each."""
    return FAMILIES[name].of(engine.ppl, *(engine.array(np.atleast_1d(value)) for value in parameters))


N = 20_000


def bounded(xp: Any, z: Any) -> Any:
    """f(z), whose slope falls as 1 / z^2: then no tail is so heavy that the gradient's draws have no variance."""
    return xp.arctan(z + 0.4) + 1.0 / (1.0 + z * z)


@cache
def drawn(engine: Engine, name: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """N draws z, and for each parameter the gradient of f(z), draw by draw: each has parameters of its own."""

    def program(ppl: Ppl, values: dict[str, Array]) -> None:
        with ppl.plate("data", N):
            ppl.sample("z", FAMILIES[name].of(ppl, *values.values()))

    def total(values: dict[str, Array]) -> tuple[Array, Array]:
        z = engine.draw(engine.key(5), program, values)["z"]
        return bounded(engine.ppl.xp, z).sum(), z

    values = {str(i): engine.array(np.full((N, 1), value)) for i, value in enumerate(LAWS[name][1])}
    (_, z), found = engine.compile(engine.value_and_grad(total, has_aux=True))(values)
    flat = (np.asarray(engine.numpy(each), np.float64)[:, 0] for each in (z, *(found[name] for name in values)))
    z, *found = flat
    return z, found


def test_there_is_an_oracle_for_every_family() -> None:
    assert FAMILIES.keys() == LAWS.keys() | {*JOINT}
    routes = [family.route for family in FAMILIES.values()]
    assert len({*routes}) == 4 and all(routes.count(route) >= 5 for route in {*routes} - {"approximated inverse CDF"})


@pytest.mark.parametrize("name", LAWS)
def test_draws_are_of_scipys_law(name: str, engine: Engine) -> None:
    law, parameters = LAWS[name]
    z, _ = drawn(engine, name)
    assert np.isfinite(z).all() and stats.kstest(z, law(*parameters).cdf).pvalue > 1e-4


@pytest.mark.parametrize("name", LAWS)
def test_the_density_is_scipys_and_integrates_to_one(name: str, engine: Engine) -> None:
    make, parameters = LAWS[name]
    law = make(*parameters)
    some = law.ppf(np.linspace(0.001, 0.999, 201)).astype(np.float32)
    low, high = law.support()
    if np.isfinite(high):
        edge = 1e-6 * (high - low)
        t = np.linspace(low + edge, high - edge, 100_001)
        z, slope = t, np.ones_like(t)
    elif np.isfinite(low):
        t = np.linspace(-30.0, 25.0, 100_001)
        z, slope = low + np.exp(t), np.exp(t)
    else:
        t = np.linspace(-13.0, 13.0, 100_001)
        z, slope = np.sinh(t), np.cosh(t)
    z = np.where(z.astype(np.float32) > low, z, np.median(some))  # where float32 tells them apart

    def log_prob(z: Array) -> Array:
        return of(engine, name, parameters).log_prob(z)

    with engine.pinned():
        found = engine.numpy(engine.at_once(log_prob, engine.array(np.concatenate([some, z])[:, None])))
    np.testing.assert_allclose(found[:201], law.logpdf(some.astype(np.float64)), rtol=2e-5, atol=5e-5)
    density = np.where(z == np.median(some), 0.0, np.exp(found[201:].astype(np.float64)))
    assert integrate.simpson(density * slope, x=t) == pytest.approx(1.0, abs=5e-4)


@pytest.mark.parametrize("name", LAWS)
def test_the_gradient_of_an_expectation_is_that_of_its_integral(name: str, engine: Engine) -> None:
    make, parameters = LAWS[name]
    for i, (value, each) in enumerate(zip(parameters, drawn(engine, name)[1], strict=True)):
        ends = []
        for moved in (value - 1e-3, value + 1e-3):
            law = make(*(moved if j == i else other for j, other in enumerate(parameters)))
            ends.append((WEIGHTS * bounded(np, law.ppf(U))).sum())
        expected, error = (ends[1] - ends[0]) / 2e-3, each.std() / np.sqrt(N)
        assert np.isfinite(each).all()
        assert abs(each.mean() - expected) < 5 * error + 1e-5, (FAMILIES[name].parameters[i].name, expected)


def test_two_normals_far_apart_keep_a_finite_gradient(engine: Engine) -> None:
    """Between them the density is 0 in float32, and no gradient of a draw is 0 / 0."""
    far = [engine.array(np.full((1000, 1), value)) for value in (-40.0, 40.0, 0.1, 0.1, 0.5)]

    def program(ppl: Ppl, loc: Array) -> None:
        with ppl.plate("data", 1000):
            ppl.sample("z", FAMILIES["normal_mixture"].of(ppl, loc, *far[1:]))

    total = engine.value_and_grad(lambda loc: engine.draw(engine.key(0), program, loc)["z"].sum())
    _, slope = engine.compile(total)(far[0])
    each = engine.numpy(slope)  # a draw of the first normal moves with it
    assert np.isfinite(each).all() and np.allclose(np.minimum(each, 1 - each), 0.0, atol=2e-3)
    assert abs(each.mean() - 0.5) < 5 * 0.5 / np.sqrt(1000)


def test_an_erlang_of_any_whole_shape_is_a_sum_of_exponentials(engine: Engine) -> None:
    law = stats.gamma(4, scale=1 / 1.6)

    def program(ppl: Ppl) -> None:
        with ppl.plate("data", 10_000):
            ppl.sample("z", erlang(ppl, engine.array(1.6), 4))

    z = engine.numpy(engine.at_once(lambda: engine.draw(engine.key(1), program)["z"]))
    assert stats.kstest(z, law.cdf).pvalue > 1e-4


# Of all latent variables together


def test_a_triangle_holds_each_number_once(engine: Engine) -> None:
    for k in (1, 2, 5):
        raw = np.arange(1.0, k * (k + 1) / 2 + 1) / 10
        found = engine.numpy(engine.at_once(partial(triangle, engine.ppl), engine.array(np.stack([raw, raw]))))
        assert found.shape == (2, k, k) and (np.triu(found, 1) == 0).all()
        below = [*found[0][np.tril_indices(k, -1)], *(2 * np.log(np.diagonal(found[0])))]
        np.testing.assert_allclose(np.sort(below), raw, rtol=1e-5)


def joint_cases(engine: Engine) -> dict[str, tuple[tuple[Array, ...], Any, list[Any]]]:
    """Parameters, SciPy's law, and the law of each variable by itself."""
    loc, tril = np.array([0.3, -0.5, 1.0]), np.array([[0.7, 0, 0], [0.4, 0.5, 0], [-0.6, 0.2, 0.9]])
    covariance, shape = tril @ tril.T, np.array([0.8, 1.7, 2.5])
    normal = [stats.norm(at, scale) for at, scale in zip(loc, np.sqrt(np.diag(covariance)), strict=True)]
    beta = [stats.beta(each, shape.sum() - each) for each in shape]
    return {
        "full_normal": ((loc, tril), stats.multivariate_normal(loc, covariance), normal),
        "dirichlet": ((shape,), stats.dirichlet(shape), beta),
    }


@pytest.mark.parametrize("name", JOINT)
def test_a_law_of_all_variables_is_scipys(name: str, engine: Engine) -> None:
    parameters, law, each = joint_cases(engine)[name]

    def program(ppl: Ppl, *parameters: Array) -> None:
        with ppl.plate("data", 10_000):
            ppl.sample("z", FAMILIES[name].of(ppl, *parameters))

    def log_prob(z: Array, *parameters: Array) -> Array:
        return FAMILIES[name].of(engine.ppl, *parameters).log_prob(z)

    parameters = tuple(map(engine.array, parameters))
    found = engine.at_once(lambda *parameters: engine.draw(engine.key(2), program, *parameters)["z"], *parameters)
    z = np.asarray(engine.numpy(found), np.float64)
    for i, one in enumerate(each):
        assert stats.kstest(z[:, i], one.cdf).pvalue > 1e-4
    some = z[:50] / z[:50].sum(-1, keepdims=True) if name == "dirichlet" else z[:50]
    expected = law.logpdf(some.T if name == "dirichlet" else some)
    scores = engine.numpy(engine.at_once(log_prob, engine.array(some), *parameters))
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)
    if name == "full_normal":
        error = np.sqrt(np.outer(np.diag(law.cov_object.covariance), np.diag(law.cov_object.covariance)) * 2 / 10_000)
        assert (np.abs(np.cov(z.T) - law.cov_object.covariance) < 5 * error).all()


@pytest.mark.parametrize("name", JOINT)
def test_gradients_of_all_variables_are_those_of_the_moments(name: str, engine: Engine) -> None:
    """E[z' A z] of a normal, and E[z_1 z_2] of a Dirichlet, are known for all parameters."""
    (first, *rest), *_ = joint_cases(engine)[name]
    n, weights = 20_000, np.array([[1.0, 0.5, -0.3], [0.5, 2.0, 0.7], [-0.3, 0.7, 0.4]])

    def moment(*parameters: np.ndarray) -> float:
        if name == "full_normal":
            loc, tril = parameters
            return float(np.trace(weights @ tril @ tril.T) + loc @ weights @ loc)
        shape, total = parameters[0], parameters[0].sum()
        return float(shape[0] * shape[1] / (total * (total + 1)))

    def program(ppl: Ppl, values: dict[str, Array]) -> None:
        with ppl.plate("data", n):
            ppl.sample("z", FAMILIES[name].of(ppl, *values.values()))

    def total(values: dict[str, Array]) -> Array:
        z = engine.draw(engine.key(5), program, values)["z"]
        if name == "full_normal":
            return (engine.ppl.xp.matmul(z, engine.array(weights)) * z).sum()
        return (z[:, 0] * z[:, 1]).sum()

    parameters = [first, *rest]
    values = {str(i): engine.array(np.broadcast_to(v, (n, *v.shape))) for i, v in enumerate(parameters)}
    _, found = engine.compile(engine.value_and_grad(total))(values)
    for i, value in enumerate(parameters):
        each = np.asarray(engine.numpy(found[str(i)]), np.float64)
        for index in np.ndindex(value.shape):
            if value.ndim == 2 and index[1] > index[0]:
                continue
            ends = [moment(*(nudged(v, index, s) if j == i else v for j, v in enumerate(parameters))) for s in (-1, 1)]
            error = each[:, *index].std() / np.sqrt(n)
            assert abs(each[:, *index].mean() - (ends[1] - ends[0]) / 2e-4) < 5 * error + 1e-5


def nudged(value: np.ndarray, index: Any, sign: int) -> np.ndarray:
    value = value.copy()
    value[index] += 1e-4 * sign
    return value


# Against a prior


@pytest.mark.parametrize("prior", [name for name in PRIORS if name not in JOINT])
def test_a_divergence_in_closed_form_is_that_of_its_integral(prior: str, engine: Engine) -> None:
    """What a library has none of it says by an error, and estimator B then draws."""
    p = FAMILIES[prior].standard(engine.ppl, 1)
    start = LAWS[prior][0](*(parameter.start for parameter in FAMILIES[prior].parameters))
    closed = 0
    for name in suited(prior):
        if name in JOINT or (prior == "uniform" and not FAMILIES[name].covers):
            continue
        make, parameters = LAWS[name]
        try:
            found = float(engine.numpy(engine.ppl.kl_divergence(of(engine, name, parameters), p)))
        except NotImplementedError:
            continue
        law, closed = make(*parameters), closed + 1
        z = law.ppf(U)
        expected = (WEIGHTS * (law.logpdf(z) - start.logpdf(z))).sum()
        assert found == pytest.approx(expected, rel=3e-3, abs=1e-3), name
    assert closed or prior != "normal"


PAIRS = [(name, prior) for prior in PRIORS for name in suited(prior) if prior in ("normal", "exponential", "uniform")]
SOON = ("full_normal", "uniform", "normal_mixture", "dirichlet")  # each with more of its own code
PAIRS += [("dirichlet", "dirichlet"), ("cauchy", "student_t"), ("laplace", "laplace"), ("gamma", "log_normal")]


@pytest.mark.thorough(engine="numpyro", guide=tuple({guide for guide, _ in PAIRS} - {*SOON}))
@pytest.mark.parametrize(("guide", "prior"), PAIRS)
def test_a_step_of_aevb_is_finite_and_moves_every_weight(guide: str, prior: str, engine: Engine) -> None:
    k = 3
    model = VaeBernoulli(6, k, 4, guide_family=guide, prior_family=prior)
    assert not model.refusal() and latents(engine, model).plain == (prior == "normal")
    assert latents(engine, model).size == model.n_coordinates
    x = engine.array(np.random.default_rng(0).random((8, 6)))
    backend = BACKENDS["aevb"].build(engine, model, Settings(warmup=0, particles=2))
    theta, phi = model.init(0)
    phi = {name: value + 0.05 for name, value in phi.items()}
    state = backend.init(engine.key(0), arrays(engine, theta), arrays(engine, phi), x, engine.array(0.01))
    step = engine.compile(lambda state: backend.step(engine.key(1), state, Batch(x, engine.array(np.arange(8)), 1.0)))
    after, info = step(state)
    assert np.isfinite(float(info.objective))
    for name, value in state["params"].items():
        moved = engine.numpy(after["params"][name]) - engine.numpy(value)
        assert np.isfinite(moved).all() and (name.startswith("theta") or moved.any()), name


@pytest.mark.thorough(engine="numpyro", prior=("laplace", "uniform", "exponential"))
@pytest.mark.parametrize("prior", ["laplace", "exponential", "uniform", "dirichlet"])
def test_bound_and_evidence_under_another_prior_are_those_of_the_integral(prior: str, engine: Engine) -> None:
    guide = {"laplace": "full_normal", "exponential": "f", "uniform": "beta", "dirichlet": "dirichlet"}[prior]
    k = 2 if prior == "dirichlet" else 1
    model = VaeBernoulli(6, k, 4, guide_family=guide, prior_family=prior)
    rng = np.random.default_rng(1)
    theta, phi = ({n: v + rng.normal(0, 0.7, v.shape) for n, v in group.items()} for group in model.init(0))
    x = (rng.random((5, 6)) < 0.5).astype(np.float64)
    law = stats.uniform() if k == 2 else LAWS[prior][0](*(one.start for one in FAMILIES[prior].parameters))
    z = law.ppf(U)[:, None] if k == 1 else np.stack([U, 1 - U], -1)
    logits = np.tanh(z @ theta["w1"] + theta["b1"]) @ theta["w2"] + theta["b2"]
    log_likelihood = (x[:, None] * logits - np.logaddexp(0, logits)).sum(-1)
    expected = np.log((WEIGHTS * np.exp(log_likelihood)).sum(-1))
    rows = engine.array(x)
    q = Posterior(model.recognition, (arrays(engine, phi), rows))
    target = Target(engine, model, arrays(engine, theta), rows, q)
    found = estimate("quadrature", target, JudgeSettings(), 0)
    np.testing.assert_allclose(found.value, expected, atol=5e-3)
    bound = elbo(target, engine.key(2), 2000)
    assert (bound.value < expected + 5 * bound.stderr).all()


# What is refused


def test_a_family_that_lives_elsewhere_is_refused_by_name() -> None:
    with pytest.raises(FlagError, match=r"'exponential' lives on positive numbers, and z ~ normal on all real"):
        built(Experiment(data="digits", guide_family="exponential"), 64)
    with pytest.raises(FlagError, match=r"choose exponential, .*gamma.*, or --prior-family normal or laplace"):
        built(Experiment(data="digits", prior_family="gamma"), 64)
    with pytest.raises(FlagError, match=r"'cauchy' has no finite E\|z\|\^2, .*choose normal, full_normal"):
        built(Experiment(data="digits", guide_family="cauchy"), 64)
    with pytest.raises(FlagError, match="simplex of 1 has no inside"):
        built(Experiment(data="digits", guide_family="dirichlet", prior_family="dirichlet", n_latent=1), 64)
    with pytest.raises(FlagError, match="unknown guide family 'gama'; did you mean gamma"):
        Experiment(guide_family="gama")
    with pytest.raises(FlagError, match="unknown prior family 'gumbel'"):
        Experiment(prior_family="gumbel")
    with pytest.raises(ValueError, match="unknown guide_family 'gama'; choose from normal"):
        VaeBernoulli(4, 2, 3, guide_family="gama")


def test_a_model_without_the_two_heads_or_with_a_prior_of_its_own_refuses_them() -> None:
    with pytest.raises(FlagError, match="has no guide_family; drop --guide-family"):
        built(Experiment(data="synthetic", model="linear_gaussian", guide_family="laplace"), 5)
    with pytest.raises(FlagError, match="prior is its own, and not 'laplace'; drop --prior-family"):
        built(Experiment(data="digits", model="hierarchical_vae", prior_family="laplace"), 64)


def test_weights_are_not_taken_of_a_guide_that_leaves_a_part_out() -> None:
    moving = {"data": "digits", "guide_family": "uniform"}
    for settings, named in (
        ({"evidence": ("importance",), "proposal": "q"}, "choose --proposal hmc"),
        ({"evidence": ("annealed",), "start": "recognition"}, "choose --start prior"),
    ):
        e = Experiment(**moving, **settings)  # type: ignore[arg-type]
        with pytest.raises(UnfitError, match=named):
            refuse(e, built(e, 64))


def test_wake_sleep_does_not_dream_outside_the_guide(engine: Engine) -> None:
    with pytest.raises(ValueError, match="choose another guide_family, or aevb"):
        BACKENDS["wake_sleep"].build(engine, VaeBernoulli(4, 2, 3, guide_family="triangular"), Settings())


@pytest.mark.parametrize("name", [name for name, build in MODELS.items() if isinstance(build(6, 2, 5), OneHiddenLayer)])
def test_the_default_is_the_papers_normal(name: str) -> None:
    model = MODELS[name](6, 2, 5)
    assert (model.guide_family, model.prior_family) == ("normal", "normal") and model.covers  # type: ignore[attr-defined]
