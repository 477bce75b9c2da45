"""What is said of gradients, against closed forms, finite differences and plain Monte Carlo."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from comparisons.benchmarks import gradients_closed, gradients_exact, gradients_report
from comparisons.benchmarks.gradient_moments import mean_and_error, moments
from comparisons.benchmarks.gradients import MEASURE
from comparisons.benchmarks.gradients_exact import COSTS, PARAMETERS, ROUTES
from comparisons.gradient_variance import main
from inference.base import Engine, Params
from inference.gradients import ESTIMATORS
from models.linear_gaussian import log_px

DRAWS = 400_000


# In one dimension


def test_every_gradient_of_one_dimension_has_the_mean_that_the_closed_form_gives() -> None:
    rows = pd.DataFrame(gradients_exact.rows())
    told = rows[rows.k.notna()]
    assert len(told) == len(COSTS) * len(gradients_exact.KS) * len(PARAMETERS) * len(ROUTES)
    np.testing.assert_allclose(told["mean"], told.exact, rtol=1e-9, atol=1e-9)
    mu, sigma, step = 0.7, 1.3, 1e-5
    eps, width = np.linspace(-12, 12, 4001, retstep=True)
    normal = np.exp(-0.5 * eps**2) / np.sqrt(2 * np.pi) * width
    for cost in COSTS.values():  # and that is the derivative of the expectation, by differences of an integral

        def mean(mu: float, sigma: float, cost: gradients_exact.Cost = cost) -> float:
            return float((cost.f(mu + sigma * eps, 2.0) * normal).sum())

        by_mu = (mean(mu + step, sigma) - mean(mu - step, sigma)) / (2 * step)
        by_sigma = (mean(mu, sigma + step) - mean(mu, sigma - step)) / (2 * step)
        np.testing.assert_allclose(cost.gradient(mu, sigma, 2.0), (by_mu, by_sigma), rtol=1e-6)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("parameter", PARAMETERS)
def test_its_variance_is_that_of_draws(parameter: str, route: str) -> None:
    """At another mu and sigma than the tables': the sample variance within 5 of its own standard errors."""
    mu, sigma, k = -0.4, 1.7, 0.8
    rng = np.random.default_rng(0)
    for cost in COSTS.values():
        eps, weibull = rng.standard_normal(DRAWS), np.sqrt(2) * rng.weibull(2, (2, DRAWS))
        maxwell = np.sqrt(rng.chisquare(3, DRAWS)) * rng.choice((-1, 1), DRAWS)

        def f(eps: np.ndarray, cost: gradients_exact.Cost = cost) -> np.ndarray:
            return cost.f(mu + sigma * eps, k)

        slope, coupled = cost.slope(mu + sigma * eps, k), route.endswith("coupled")
        if route == "score function":
            draws = f(eps) * (eps if parameter == "mu" else eps**2 - 1) / sigma
        elif route == "pathwise":
            draws = slope * (1.0 if parameter == "mu" else eps)
        elif parameter == "mu":
            draws = (f(weibull[0]) - f(-weibull[0 if coupled else 1])) / (sigma * np.sqrt(2 * np.pi))
        else:
            draws = (f(maxwell) - f(maxwell * rng.random(DRAWS) if coupled else eps)) / sigma
        _, variance = gradients_exact.moments(cost, k, parameter, route, mu, sigma)
        squares = (draws - draws.mean()) ** 2
        assert abs(squares.mean() - variance) < 5 * squares.std() / np.sqrt(DRAWS)


@pytest.mark.parametrize("dimension", [1, 4])
def test_the_score_functions_variance_grows_with_the_dimension_as_said(dimension: int) -> None:
    mu, sigma = 0.5, 0.8
    x = mu + sigma * np.random.default_rng(1).standard_normal((DRAWS, dimension))
    score = (x[:, 0] - mu) / sigma**2
    costs = {"constant 100": np.full(DRAWS, 100.0), "sum of x": x.sum(1)}
    said = gradients_exact.score_variance(dimension, mu, sigma)
    assert set(said) == set(costs)
    for name, cost in costs.items():
        squares = (cost * score - (cost * score).mean()) ** 2
        assert abs(squares.mean() - said[name]) < 5 * squares.std() / np.sqrt(DRAWS)


# On a linear Gaussian model


def test_the_closed_forms_gradients_are_those_of_differences() -> None:
    _, params, x = gradients_closed.problem(3)
    exact: Params = {name: np.float64(value) for name, value in params.items()}
    rng = np.random.default_rng(4)
    way, step = {name: rng.standard_normal(value.shape) for name, value in exact.items()}, 1e-5

    def at(distance: float) -> Params:
        return {name: value + distance * way[name] for name, value in exact.items()}

    def evidence(params: Params) -> float:
        theta = {name.removeprefix("theta."): value for name, value in params.items() if name.startswith("theta.")}
        return float(log_px(theta, x).mean())

    for function, gradient in (
        (lambda params: gradients_closed.bound(params, x), gradients_closed.bound_gradient(exact, x)),
        (evidence, gradients_closed.evidence_gradient(exact, x)),
    ):
        difference = (function(at(step)) - function(at(-step))) / (2 * step)
        np.testing.assert_allclose(sum((gradient[name] * way[name]).sum() for name in gradient), difference, rtol=1e-6)
    assert gradients_closed.bound(exact, x) < evidence(exact)


def test_estimators_are_unbiased_and_their_variance_falls_as_the_draws(engine: Engine) -> None:
    rows = pd.DataFrame(gradients_closed.rows(engine, (2, 20), 40, 5))
    told, slopes = rows[rows.draws.notna()], rows[rows.draws.isna()]
    assert set(told.estimator) == set(ESTIMATORS) and set(told.group) == {"theta", "phi"}
    biased = told.estimator.isin(["iwae", "dreg"]) & (told.group == "theta")  # the K-sample bound is not log p(x)
    assert (told[~biased].t.abs() < 4.5).all(), told[~biased]
    assert (told[biased & (told.draws == 2)].bias < 0).all()
    for name in ("A", "B", "stl", "score"):
        of = told[(told.estimator == name) & (told.group == "phi")].set_index("draws")
        ratio, errors = of.variance[2] / of.variance[20], of.variance_stderr / of.variance
        assert abs(ratio - 10) < 5 * 10 * np.hypot(errors[2], errors[20])
    assert slopes.slope.isna().all()  # of one K above ten there is none


def test_the_variance_is_parted_into_minibatches_and_draws(engine: Engine) -> None:
    """With all rows nothing is over minibatches; with very many draws the rest is what rows' exact gradients give."""
    model, params, x = gradients_closed.problem(6)
    whole = moments(engine, model, "A", 2, params, x, len(x), 60, 7)
    for group in ("theta", "phi"):
        apart = whole.total("variance", group) - whole.total("noise", group)
        mean, error = mean_and_error(apart)
        assert abs(mean) < 5 * error
    size = 4
    parts = moments(engine, model, "B", 400, params, x, size, 100, 8)
    each = [gradients_closed.bound_gradient(params, row[None]) for row in x]
    for group in ("theta", "phi"):
        rows = np.stack([gradients_closed._flat(one, group) for one in each])
        spread = rows.var(0, ddof=1).sum() / size * (1 - size / len(x))  # of a mean of so many, drawn without return
        mean, error = mean_and_error(parts.total("variance", group) - parts.total("noise", group))
        assert abs(mean - spread) < 5 * error
        assert parts.total("noise", group).mean() < 0.2 * spread


def test_a_bias_is_seen(engine: Engine) -> None:
    """Against a truth that is 20 % larger, a mean is 1 - 1 / 1.2 short along it."""
    model, params, x = gradients_closed.problem(9)
    one = moments(engine, model, "stl", 50, params, x, len(x), 40, 10)
    exact = gradients_closed.bound_gradient(params, x)
    told = gradients_closed.against(one, 1.2 * gradients_closed._flat(exact, "phi"), "phi")
    assert abs(told["bias"] - (1 / 1.2 - 1)) < 5 * told["bias_stderr"] and told["t"] < -5


# The command


def test_the_command_measures_what_it_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--n-latent", "2", "--n-hidden", "4", "--n-train", "200", "--repeats", "20", "--fit-seeds", "0", "1"]
    trained = ["--stages", "0", "200", "--particles", "1", "2", "--minibatches", "2", "10", "--samples", "1000"]
    flags = [*sizes, *trained, "--counts", "2", "10", "20", "--engine", "pyro", "--out", str(tmp_path)]
    assert main([*flags, "--parts", *MEASURE]) == 0
    shown = capsys.readouterr().out
    rows = pd.read_csv(tmp_path / "rows.csv")
    assert set(rows.part) == set(gradients_report.TABLES) and (tmp_path / "table.md").read_text() in shown
    assert {path.stem for path in tmp_path.glob("*.svg")} == set(gradients_report.FIGURES)
    measured = rows[(rows.part == "trained") & (rows.block == "phi")]
    assert len(measured) == 2 * 2 * (2 * 5 - 1)  # stages, minibatches, and L = 1, 2 of each but leave-one-out's 1
    ends = rows[rows.part == "optimizers"]
    assert set(ends.optimizer) == {"adagrad", "adam", "sgd"} and set(ends.seed) == {0, 1}
    assert main([*flags, "--parts", "exact"]) == 0  # what lies there of others stays
    assert len(pd.read_csv(tmp_path / "rows.csv")) == len(rows)


def test_a_model_that_does_not_fit_is_refused_before_anything_is_measured(
    tmp_path: Path,
) -> None:
    from comparisons.errors import UserError

    with pytest.raises(UserError, match=r"vae_poisson.*cannot score"):
        main(["--model", "vae_poisson", "--data", "synthetic", "--parts", "trained", "--out", str(tmp_path)])
    for flags, words in (
        (["--n-train", "100", "--minibatches", "10", "101"], "minibatches 101 exceeds the 100 training points"),
        (["--stages", "0", "50"], "samples 50 is below the minibatch of 100"),
    ):
        with pytest.raises(UserError, match=words):
            main([*flags, "--out", str(tmp_path)])
    assert not (tmp_path / "rows.csv").exists()
