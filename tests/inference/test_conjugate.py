"""EM and coordinate ascent: closed forms in float64, both engines at them, and who is refused by name."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import oracles
import pandas as pd
import pytest
from scipy import stats

from comparisons.checks.backend import check_backend
from comparisons.checks.base import FAIL, SKIPPED
from comparisons.data import load
from comparisons.errors import UnfitError
from comparisons.runner.experiment import Experiment
from comparisons.runner.fits import fitted
from inference import BACKENDS, CLOSED_FORM, METHODS
from inference.base import Batch, Engine, Settings, arrays, numpys
from models.base import Model
from models.gaussian_mixture import GaussianMixture
from models.linear_gaussian import LinearGaussian, log_px, maximum_likelihood, posterior
from models.linear_updates import FACTORS, MIXTURE, bound, sweep
from models.vae import VaeBernoulli

N, D, K = 200, 6, 2
Values = dict[str, np.ndarray]


def rows(seed: int = 0) -> np.ndarray:
    """Rows of a linear_gaussian away from the origin."""
    rng = np.random.default_rng(seed)
    w, b = rng.standard_normal((K, D)), 3.0 + rng.random(D)
    return np.asarray(b + rng.standard_normal((N, K)) @ w + 0.5 * rng.standard_normal((N, D)))


def start(model: Model, seed: int = 0) -> Values:
    return oracles.float64(model.init(seed)[0])


@pytest.fixture(scope="module")
def slanted() -> Values:
    """A theta under which the coordinates of z are correlated given x."""
    rng = np.random.default_rng(4)
    w = rng.standard_normal(D) + 0.4 * rng.standard_normal((K, D))
    return {"w": w, "b": 3.0 + rng.random(D), "log_scale": np.array(-0.3)}


# In float64


def test_the_e_step_is_the_exact_posterior_and_its_bound_the_evidence(slanted: Values) -> None:
    x = rows()
    q, evidence = FACTORS.e_step(np, slanted, x)
    mean, covariance = posterior(slanted, x)
    np.testing.assert_allclose(q["loc"], mean, atol=1e-10)
    np.testing.assert_allclose(q["covariance"], covariance, atol=1e-10)
    np.testing.assert_allclose(evidence, log_px(slanted, x), atol=1e-9)


def test_em_rises_to_the_maximum_of_tipping_and_bishop() -> None:
    model, x, reached = LinearGaussian(D, K), rows(), []
    theta = start(model)
    for _ in range(400):
        q, evidence = FACTORS.e_step(np, theta, x)
        reached.append(evidence.mean())
        theta = FACTORS.m_step(np, theta, x, q)
    best = maximum_likelihood(x, K)
    assert (np.diff(reached) > -1e-12).all()
    assert reached[-1] == pytest.approx(log_px(best, x).mean(), abs=1e-9)
    np.testing.assert_allclose(theta["w"].T @ theta["w"], best["w"].T @ best["w"], atol=1e-4)


def test_with_a_prior_em_rises_to_where_the_posterior_of_theta_is_flat() -> None:
    x, reached = rows()[:40], []
    theta = start(LinearGaussian(D, K))

    def objective(at: Values) -> float:
        return float(log_px(at, x).sum() + sum(stats.norm.logpdf(value).sum() for value in at.values()))

    for _ in range(1500):
        reached.append(objective(theta))
        theta = FACTORS.m_step(np, theta, x, FACTORS.e_step(np, theta, x)[0], 1.0)
    assert (np.diff(reached) > -1e-9).all()
    for name, value in oracles.finite_differences(objective, theta).items():
        np.testing.assert_allclose(value, 0, atol=2e-3, err_msg=name)


def test_a_sweep_is_one_update_after_the_other_and_each_raises_the_bound(slanted: Values) -> None:
    x, rng = rows()[:20], np.random.default_rng(1)
    precision = np.linalg.inv(posterior(slanted, x)[1])
    target, loc = posterior(slanted, x)[0] @ precision, rng.standard_normal((20, K))
    swept, climbed = sweep(np, slanted, x, loc)
    covariance, reached = np.diag(1 / np.diag(precision)), []
    for j in range(K):
        reached.append(bound(np, slanted, x, {"loc": loc, "covariance": covariance}))
        others = [i for i in range(K) if i != j]
        loc = loc.copy()
        loc[:, j] = (target[:, j] - loc[:, others] @ precision[others, j]) / precision[j, j]
    reached.append(climbed)
    np.testing.assert_allclose(swept["loc"], loc, atol=1e-10)
    assert (np.diff(reached, axis=0) > 0).all()


def test_coordinate_ascent_ends_at_the_exact_mean_with_variances_that_are_too_small(slanted: Values) -> None:
    x, loc = rows(), np.zeros((N, K))
    mean, covariance = posterior(slanted, x)
    for _ in range(400):
        q, climbed = sweep(np, slanted, x, loc)
        loc = q["loc"]
    np.testing.assert_allclose(loc, mean, atol=1e-8)
    np.testing.assert_allclose(q["variance"], 1 / np.diag(np.linalg.inv(covariance)))
    assert (q["variance"] < 0.8 * np.diag(covariance)).all()
    kl = 0.5 * (np.log(np.linalg.det(covariance)) - np.log(q["variance"]).sum())
    np.testing.assert_allclose(climbed, log_px(slanted, x) - kl, atol=1e-9)


def test_the_mixtures_e_step_is_its_evidence_and_its_posterior() -> None:
    rng, model = np.random.default_rng(2), GaussianMixture(D, K, 1)
    theta = {name: rng.standard_normal(shape) / 2 for name, shape in model.theta_shapes.items()}
    x, z = rows()[:30], rng.standard_normal((30, K))
    q, evidence = MIXTURE.e_step(np, theta, x)
    np.testing.assert_allclose(evidence, model.log_px(theta, x), atol=1e-8)
    np.testing.assert_allclose(q["r"].sum(1), 1, atol=1e-12)
    each = [
        [stats.multivariate_normal(m, v).pdf(at) for m, v in zip(q["loc"][i], q["covariance"], strict=True)]
        for i, at in enumerate(z)
    ]
    exact = oracles.log_joint("gaussian_mixture", theta, z, x) - evidence
    np.testing.assert_allclose(np.log((q["r"] * np.array(each)).sum(1)), exact, atol=1e-8)


# On the engines


def trained(backend: str, engine: Engine, model: Model, x: np.ndarray, steps: int, **told: Any) -> Any:
    """Return a backend, its state after so many steps on all rows, and the objectives."""
    built = METHODS[backend].build(engine, model, Settings(theta="ml", **told))
    at, rows = engine.array(x), engine.array(np.arange(len(x)))
    state = built.init(engine.key(0), *(arrays(engine, one) for one in model.init(0)), at, engine.array(1.0))
    with engine.pinned():
        train = engine.compile(
            lambda state, keys: engine.scan(lambda s, key: built.step(key[0], s, Batch(at, rows, 1.0)), state, (keys,))
        )
        state, info = train(state, engine.split(engine.key(1), steps))
    return built, state, engine.numpy(info.objective)


@pytest.mark.parametrize("backend", CLOSED_FORM)
def test_both_engines_rise_to_the_maximum_likelihood(backend: str, engine: Engine) -> None:
    """CAVI too: w turns until the exact posterior is factorised (see `LinearGaussian`)."""
    model, x = LinearGaussian(D, K), rows()
    built, state, objectives = trained(backend, engine, model, x, 300)
    best = log_px(maximum_likelihood(x, K), x).mean()
    assert (np.diff(objectives) > -2e-5).all()
    assert log_px(numpys(engine, built.theta(state)), x).mean() == pytest.approx(best, abs=1e-4)
    assert objectives[-1] == pytest.approx(best, abs=2e-3)


def test_em_on_the_mixture_goes_as_it_does_in_float64(engine: Engine) -> None:
    x = rows() + 2.0 * np.random.default_rng(3).choice(3, (N, 1))
    model = GaussianMixture(D, K, 1)
    built, state, objectives = trained("em", engine, model, x, 60)
    theta = start(model)
    for _ in range(60):
        q, evidence = MIXTURE.e_step(np, theta, x)
        theta = MIXTURE.m_step(np, theta, x, q)
    assert objectives[-1] == pytest.approx(evidence.mean(), abs=2e-3) and (np.diff(objectives) > -2e-5).all()
    reached = model.log_px(numpys(engine, built.theta(state)), x).mean()
    assert reached == pytest.approx(model.log_px(theta, x).mean(), abs=2e-3)


@pytest.mark.parametrize("name", ["linear_gaussian", "gaussian_mixture"])
def test_ems_q_is_the_posterior(name: str, engine: Engine) -> None:
    """log q(z | x) = log p(x, z) - log p(x) at any z, and its draws are of the right shape."""
    model: Any = {"linear_gaussian": LinearGaussian(D, K), "gaussian_mixture": GaussianMixture(D, K, 1)}[name]
    x, z = rows(), np.random.default_rng(5).standard_normal((3, 7, K))
    built, state, _ = trained("em", engine, model, x, 5)
    theta = oracles.float64(numpys(engine, built.theta(state)))
    order = np.array([4, 0, 2, 6, 1, 5, 3])
    q = built.posterior(engine.key(2), state, engine.array(x[:7]), None).take(engine.array(order))
    exact = oracles.log_joint(name, theta, z, x[order]) - model.log_px(theta, x[order])
    scores = engine.numpy(engine.log_prob(q.program, {"z": engine.array(z)}, *q.args))
    np.testing.assert_allclose(scores, exact, rtol=1e-3, atol=5e-3)
    assert engine.draw(engine.key(3), q.program, *q.args)["z"].shape == (7, K)


def test_cavis_q_of_new_rows_is_where_its_sweeps_end(engine: Engine) -> None:
    x = rows()
    built, state, _ = trained("cavi", engine, LinearGaussian(D, K), x, 300)
    indices = engine.array(np.arange(9))
    new, kept = (
        numpys(engine, built.posterior(engine.key(2), state, engine.array(x[:9]), where).args[-1])
        for where in (None, indices)
    )
    for name, value in kept.items():
        np.testing.assert_allclose(new[name], value, atol=2e-3, err_msg=name)


@pytest.mark.parametrize("backend", CLOSED_FORM)
def test_they_keep_the_contracts_of_a_backend(backend: str, engine: Engine) -> None:
    outcomes = check_backend(CLOSED_FORM[backend], engine)
    assert not [outcome for outcome in outcomes if outcome.status == FAIL]
    skipped = {outcome.name for outcome in outcomes if outcome.status == SKIPPED}
    assert skipped == {"another_model_will_do"} | ({"other_rows_stay"} if backend == "em" else set())


# Who is refused, and what a run is


@dataclass(frozen=True)
class Subclass(LinearGaussian):
    """One that may sample otherwise than what its updates are of."""


@pytest.mark.parametrize(
    ("backend", "model", "theta", "words"),
    [
        (
            "cavi",
            VaeBernoulli(4, 2, 3),
            "ml",
            "(linear_gaussian), and vae_bernoulli is not; choose --backend mean_field",
        ),
        ("em", VaeBernoulli(4, 2, 3), "ml", "(linear_gaussian, gaussian_mixture), and vae_bernoulli is not"),
        ("cavi", GaussianMixture(4, 2, 1), "ml", "needs a conjugate model (linear_gaussian), and gaussian_mixture"),
        ("em", Subclass(4, 2), "ml", "and Subclass is not; choose --backend monte_carlo_em"),
        ("em", GaussianMixture(4, 2, 1), "map", "no closed form for theta 'map' here; choose --theta ml"),
        ("em", LinearGaussian(4, 2), "vb", "no closed form for theta 'vb' here; choose --theta ml or map"),
    ],
)
def test_what_has_no_closed_form_is_refused(
    backend: str, model: Model, theta: str, words: str, engines: dict[str, Engine]
) -> None:
    card, settings = CLOSED_FORM[backend], Settings(theta=theta)
    assert words in card.refuses(model, settings)
    with pytest.raises(ValueError) as raised:
        card.build(engines["numpyro"], model, settings)
    assert words in str(raised.value)


def test_an_experiment_refuses_before_it_runs() -> None:
    with pytest.raises(UnfitError, match=r"backend 'cavi' needs a conjugate model .* vae_bernoulli is not; choose"):
        Experiment(data="digits", backend="cavi")
    with pytest.raises(UnfitError, match=r"backend 'em' has no closed form for theta 'map'"):
        Experiment(data="synthetic", model="gaussian_mixture", backend="em")
    assert all(card.refuses(VaeBernoulli(4, 2, 3), Settings()) == "" for card in BACKENDS.values())


def test_a_run_has_no_step_size_and_the_exact_evidence(tmp_path: Any) -> None:
    """EM's bound is log p(x) itself, draw by draw."""
    e = Experiment(data="synthetic", backend="em", theta="ml", n_train=400, samples=80_000, eval_points=50)
    data = load("synthetic", None)
    fit = fitted(e, data, tmp_path)
    table = pd.read_csv(next(tmp_path.glob("cells/*/rows.csv")))
    assert table.step_size.isna().all()
    last = table[(table.n_seen == 80_000) & (table.metric == "elbo_nats")].set_index("split").value
    theta = numpys(fit.engine, fit.theta)
    for split, x in (("train", data.train[:50]), ("test", data.test[:50])):
        assert last[split] == pytest.approx(log_px(theta, x).mean(), abs=1e-4)
