"""log p(x) of the models with other latent sites than z ~ N(0, I), or covariates, against what the suite's judges say.

The truths are SciPy's normals, a Kalman filter, an enumeration, and sums over a fine grid of the oracles' densities.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import oracles
import pytest
from scipy import special, stats

from comparisons.evidence.annealed import simulate
from comparisons.evidence.base import Target
from comparisons.evidence.elbo import elbo
from comparisons.evidence.judge import ESTIMATORS, JudgeSettings
from inference import BACKENDS
from inference.base import Batch, Engine, Posterior, arrays, join, numpys
from inference.rows import recognition, width
from inference.theta import joint_program
from models import MODELS
from models.base import Model
from models.gaussian_mixture import GaussianMixture, em
from models.group_effects import GroupEffects
from models.state_space import StateSpace

N = 4  # datapoints
Values = dict[str, np.ndarray]


def kalman(theta: Values, x: np.ndarray) -> np.ndarray:
    """Return log p(x) [n] of a state space of autoregressions, one time after the other."""
    a, c, noise = np.tanh(theta["raw"]), theta["c"], np.exp(2 * theta["log_scale"])
    mean, covariance = np.zeros((len(x), len(a))), np.eye(len(a))
    total = np.zeros(len(x))
    for seen in x.T:
        spread = c @ covariance @ c + noise
        surprise = seen - mean @ c - theta["b"]
        total += stats.norm.logpdf(surprise, 0, np.sqrt(spread))
        gain = covariance @ c / spread
        mean, covariance = mean + np.outer(surprise, gain), covariance - np.outer(gain, c) @ covariance
        mean, covariance = a * mean, np.outer(a, a) * covariance + np.diag(1 - a**2)
    return total


def repeated_measurements(theta: Values, x: np.ndarray) -> np.ndarray:
    """Return log p(x) [n] of group effects: each effect's columns by themselves, about its mean."""
    (k,), total = theta["mu"].shape, np.zeros(len(x))
    for effect in range(k):
        variance = np.exp(2 * theta["log_sigma"][effect::k])
        covariance = np.exp(2 * theta["log_tau"][effect]) + np.diag(variance)
        mean = np.full(len(variance), theta["mu"][effect])
        total += stats.multivariate_normal(mean, covariance).logpdf(x[:, effect::k])
    return total


def enumerated(theta: Values, x: np.ndarray) -> np.ndarray:
    """Return log p(x) [n] of a mixture: one normal after the other."""
    noise = np.exp(2 * theta["log_scale"]) * np.eye(x.shape[1])
    each = [
        log_pi
        + stats.multivariate_normal(mu @ theta["w"] + theta["b"], theta["w"].T * v @ theta["w"] + noise).logpdf(x)
        for log_pi, mu, v in zip(special.log_softmax(theta["logits"]), theta["mu"], np.exp(2 * theta["s"]), strict=True)
    ]
    return np.asarray(special.logsumexp(each, axis=0))


def on_a_grid(name: str, sites: tuple[str, ...]) -> Callable[[Values, np.ndarray], np.ndarray]:
    """Return what sums p(x, z) over a grid of the sites, of one number each, from -9 to 9."""

    def truth(theta: Values, x: np.ndarray) -> np.ndarray:
        axis = np.linspace(-9, 9, 901)
        grid = np.stack(np.meshgrid(*[axis] * len(sites), indexing="ij"), -1).reshape(-1, 1, len(sites))
        values = {site: grid[..., i : i + 1] for i, site in enumerate(sites)}
        one_by_one = [oracles.log_joint(name, theta, values, row[None])[:, 0] for row in x]
        return np.asarray(special.logsumexp(one_by_one, axis=1) + len(sites) * np.log(axis[1] - axis[0]))

    return truth


# n_x, n_latent and log p(x) by other means: as many coordinates as quadrature takes
TRUTHS: dict[str, tuple[int, int, Callable[[Values, np.ndarray], np.ndarray]]] = {
    "hierarchical_vae": (4, 1, on_a_grid("hierarchical_vae", ("z2", "z1"))),
    "state_space": (3, 1, kalman),
    "supervised": (2, 1, on_a_grid("supervised", ("z",))),
    "group_effects": (5, 2, repeated_measurements),
    "gaussian_mixture": (3, 1, enumerated),
    "vae_negative_binomial_sized": (3, 1, on_a_grid("vae_negative_binomial_sized", ("z",))),
}
each = pytest.mark.parametrize("name", TRUTHS)


def problem(name: str, engine: Engine, seed: int = 0) -> tuple[Target, np.ndarray]:
    """Return datapoints drawn from a model some way from its start, with its q, and their log p(x)."""
    n_x, n_latent, truth = TRUTHS[name]
    model, rng = MODELS[name](n_x, n_latent, 3), np.random.default_rng(seed)
    theta, phi = (
        {key: np.asarray(0.6 * rng.standard_normal(np.shape(v)), np.float32) for key, v in group.items()}
        for group in model.init(0)
    )
    placed, like = arrays(engine, theta), engine.array(rng.uniform(2.0, 9.0, (N, width(model))))
    with engine.pinned():
        x, _ = simulate(engine, model, placed, N, engine.key(seed), like)
    target = Target(engine, model, placed, x, Posterior(recognition(model), (arrays(engine, phi), x)))
    return target, truth(oracles.float64(theta), engine.numpy(x).astype(np.float64))


@each
def test_quadrature_reaches_log_px_and_the_bound_does_not(name: str, engine: Engine) -> None:
    target, truth = problem(name, engine)
    with engine.pinned():
        grid = ESTIMATORS["quadrature"].estimate(target, JudgeSettings(tolerance=1e-3), 0)
        bound = elbo(target, engine.key(2), 200)
    assert np.abs(grid.value - truth).max() < 2e-3 and not grid.flagged
    assert (bound.value < truth + 5 * bound.stderr + 1e-3).all()


# Its programs take jax up to 40 s a model.
@pytest.mark.thorough(
    engine="numpyro", name=("state_space", "supervised", "group_effects", "vae_negative_binomial_sized")
)
@each
def test_importance_sampling_reaches_log_px(name: str, engine: Engine) -> None:
    target, truth = problem(name, engine)
    with engine.pinned():
        drawn = ESTIMATORS["importance"].estimate(target, JudgeSettings(importance_samples=1000), 0)
    assert (np.abs(drawn.value - truth) < 5 * drawn.stderr + 3e-3).all()


@each
def test_what_is_known_before_a_run_of_its_coordinates_is_so(name: str, engine: Engine) -> None:
    target, _ = problem(name, engine)
    assert target.latents.size == target.model.n_coordinates


@pytest.mark.parametrize("name", ["state_space", "group_effects", "gaussian_mixture"])
def test_the_closed_form_is_the_truth(name: str) -> None:
    rng = np.random.default_rng(1)
    model = MODELS[name](7, 2, 3)
    theta = {key: rng.standard_normal(np.shape(v)) for key, v in model.init(0)[0].items()}
    x = 2.0 * rng.standard_normal((N, 7))
    assert model.log_px is not None
    np.testing.assert_allclose(model.log_px(theta, x), TRUTHS[name][2](theta, x), rtol=1e-9)


def exact_q(model: Model, theta: Values) -> Values:
    """Return the phi whose q(z | x) is the posterior of group effects, or of one autoregression."""
    if isinstance(model, GroupEffects):
        member = np.equal.outer(model.effects, np.arange(model.n_latent)) / np.exp(2 * theta["log_sigma"])[:, None]
        precision = member.sum(0) + np.exp(-2 * theta["log_tau"])
        b = theta["mu"] * np.exp(-2 * theta["log_tau"]) / precision
        return {"w": member / precision, "b": b, "log_scale": -0.5 * np.log(precision)}
    t, c, noise = model.n_x, theta["c"][0], np.exp(2 * theta["log_scale"])
    prior = np.tanh(theta["raw"][0]) ** np.abs(np.subtract.outer(np.arange(t), np.arange(t)))
    covariance = np.linalg.inv(np.linalg.inv(prior) + c**2 / noise * np.eye(t))
    factor, gain = np.linalg.cholesky(covariance), covariance * c / noise
    log_scale = np.log(np.diag(factor))
    return {"w": gain.T, "b": -(gain.sum(1) * theta["b"])[None], "factor": factor[None], "log_scale": log_scale[None]}


@pytest.mark.parametrize("model", [GroupEffects(5, 2), StateSpace(4, 1)], ids=lambda model: type(model).__name__)
def test_recognition_can_be_the_posterior(model: Any, engine: Engine) -> None:
    """Then the log weight of every draw is log p(x), with no variance left; and so is the bound, its KL term closed."""
    rng = np.random.default_rng(3)
    theta = {key: np.asarray(0.6 * rng.standard_normal(np.shape(v)), np.float32) for key, v in model.init(0)[0].items()}
    phi = exact_q(model, oracles.float64(theta))
    x = rng.standard_normal((N, model.n_x)).astype(np.float32)
    placed = arrays(engine, theta), arrays(engine, phi), engine.array(x)
    target = Target(engine, model, placed[0], placed[2], Posterior(model.recognition, placed[1:]))
    with engine.pinned():
        found = elbo(target, engine.key(0), 20)
    truth = model.log_px(theta, x)
    np.testing.assert_allclose(found.value, truth, rtol=2e-5, atol=2e-5)
    assert found.stderr.max() < 1e-4


@pytest.mark.parametrize("name", ["hierarchical_vae", "state_space", "gaussian_mixture"])
def test_both_estimators_of_the_bound_have_one_mean(name: str, engine: Engine) -> None:
    """Statistical, 5 standard errors: B, with the KL term closed within each site, and A, all sampled."""
    target, _ = problem(name, engine)
    model = target.model
    (phi, x), batches = target.posterior.args, 10

    def guide(ppl: Any, params: Any, x: Any, fraction: Any) -> None:
        recognition(model)(ppl, {key.removeprefix("phi."): v for key, v in params.items() if key[:3] == "phi"}, x)

    params, losses = join(theta=target.theta, phi=phi), {}
    for kind in ("A", "B"):
        svi = engine.svi(joint_program(model, "ml"), guide, still(engine), kind, 40)
        state, update = svi.init(params, engine.array(0.0)), engine.compile(svi.update)
        keys = engine.split(engine.key(7 + (kind == "B")), batches)
        losses[kind] = np.array([float(engine.numpy(update(key, state, x, 1.0)[1])) for key in keys])
    errors = [loss.std(ddof=1) / np.sqrt(batches) for loss in losses.values()]
    assert abs(losses["A"].mean() - losses["B"].mean()) < 5 * np.hypot(*errors) + 1e-3, losses


def still(engine: Engine) -> Any:
    """An optimiser that moves nothing."""
    from inference.base import Optimizer

    def update(xp: Any, grads: Any, state: Any) -> Any:
        return {key: xp.zeros_like(value) for key, value in grads.items()}, state

    return Optimizer(lambda xp, params, step_size: {}, update)


# The mixture's exact EM


def mixture(seed: int, n: int = 300) -> tuple[GaussianMixture, Values, np.ndarray]:
    """Return a mixture of two clear components in one dimension of four, its theta, and rows drawn from it."""
    rng = np.random.default_rng(seed)
    model = GaussianMixture(4, 1, 4, components=2)
    theta = {
        "logits": np.array([0.5, -0.3]), "mu": np.array([[-2.0], [2.5]]), "s": np.array([[-0.5], [0.1]]),
        "w": rng.standard_normal((1, 4)), "b": rng.standard_normal(4), "log_scale": np.array(-0.7),
    }  # fmt: skip
    c = rng.choice(2, n, p=special.softmax(theta["logits"]))
    z = theta["mu"][c] + np.exp(theta["s"][c]) * rng.standard_normal((n, 1))
    return model, theta, z @ theta["w"] + theta["b"] + np.exp(-0.7) * rng.standard_normal((n, 4))


@pytest.mark.parametrize("seed", range(3))
def test_em_raises_the_exact_log_px_at_each_step(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model, x = (
        GaussianMixture(5, 2, 4),
        rng.standard_normal((60, 5)) * [3.0, 1.0, 0.5, 1.0, 2.0] + rng.choice(3, (60, 1)),
    )
    theta: Values = model.init(seed)[0]
    reached = [model.log_px(theta, x).mean()]
    for _ in range(60):
        theta = em(theta, x, 1)
        reached.append(model.log_px(theta, x).mean())
    assert {key: np.shape(value) for key, value in theta.items()} == dict(model.theta_shapes)
    assert (np.diff(reached) > -1e-9).all() and reached[-1] > reached[0] + 0.5


def test_em_ends_where_the_likelihood_is_flat_and_above_the_theta_that_made_the_data() -> None:
    model, theta, x = mixture(0)
    best = em(theta, x, 3000)
    gradient = oracles.finite_differences(lambda at: float(model.log_px(at, x).mean()), best)
    for name, value in gradient.items():
        np.testing.assert_allclose(value, 0, atol=2e-4, err_msg=name)
    assert model.log_px(theta, x).mean() < model.log_px(best, x).mean()


STEPS = {"aevb": 1200, "monte_carlo_em": 400}


def trained(model: Model, backend: str, engine: Engine, x: np.ndarray, steps: int, **told: Any) -> tuple[Any, Any]:
    """Return a backend and its state after so many steps of Adam on all rows, from the model's own start."""
    method, rows = BACKENDS[backend], np.arange(len(x))
    extra: dict[str, Any] = {"local_steps": 5} if backend == "mean_field" else {}
    settings: Any = method.settings(optimizer="adam", warmup=0, minibatch=len(x), **extra, **{"theta": "ml", **told})
    built = method.build(engine, model, settings)
    theta, phi = (arrays(engine, group) for group in model.init(0))
    with engine.pinned():
        at, indices = engine.array(x), engine.array(rows)
        state = built.init(engine.key(0), theta, phi, at, engine.array(0.02))

        def step(state: Any, key: tuple[Any]) -> tuple[Any, None]:
            return built.step(key[0], state, Batch(at, indices, 1.0))[0], None

        keys = engine.split(engine.key(1), steps)
        return built, engine.compile(lambda state, keys: engine.scan(step, state, (keys,))[0])(state, keys)


@pytest.mark.thorough(engine="pyro", backend="monte_carlo_em")
@pytest.mark.parametrize("backend", STEPS)
def test_methods_come_as_far_as_em(backend: str, engine: Engine) -> None:
    """The truth is where EM ends, from the theta that made the data; a few hundredths of a nat are the optimiser's."""
    model, theta, x = mixture(0)
    best = model.log_px(em(theta, x, 500), x).mean()
    built, state = trained(model, backend, engine, x, STEPS[backend])
    reached = model.log_px(numpys(engine, built.theta(state)), x).mean()
    assert best - 0.05 < reached < best + 1e-3


@pytest.mark.thorough(engine="pyro", backend="mean_field")
@pytest.mark.parametrize("backend", ["aevb", "mean_field"])
def test_the_population_of_groups_has_a_posterior(backend: str, engine: Engine) -> None:
    """--theta vb, where its truth is known: mu given tau and sigma, which many rows leave no doubt about, is normal."""
    rng, n = np.random.default_rng(5), 400
    model = GroupEffects(3, 1)
    x = 0.5 + 0.8 * rng.standard_normal((n, 1)) + 0.6 * rng.standard_normal((n, 3))
    built, state = trained(model, backend, engine, x, 800, theta="vb")
    assert built.theta_posterior is not None
    mean, log_scale = (numpys(engine, group) for group in built.theta_posterior(state).args)
    # The rows' means are N(mu, tau^2 + sigma^2 / 3), each an observation of mu.
    error = np.sqrt((0.8**2 + 0.6**2 / 3) / n)
    assert abs(mean["mu"][0] - x.mean()) < 3 * error
    assert abs(mean["log_tau"][0] - np.log(0.8)) < 0.2 and np.abs(mean["log_sigma"] - np.log(0.6)).max() < 0.2
    # q(theta) and q(z) are independent: given all z, mu is as sure as n draws of N(mu, tau^2) make it.
    assert 0.5 * 0.8 / np.sqrt(n) < np.exp(log_scale["mu"][0]) < 1.5 * error
