"""What draws and follows gradients comes to the closed forms, to 0.02 nat, on both engines."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from comparisons import closed_form as door
from comparisons.benchmarks import closed_form_report as report
from comparisons.benchmarks.closed_form import (
    Found,
    Plan,
    Problem,
    climbed,
    draws,
    factorised_bound,
    held_fast,
    mixture,
)
from comparisons.benchmarks.conjugate_pairs import pair
from comparisons.errors import FlagError, NumericsError
from inference.base import Engine
from models.linear_gaussian import LinearGaussian, log_px, maximum_likelihood, posterior

PLAN = Plan(n_latent=2, steps=200, monte_carlo_steps=300, fit_steps=300, repeats=2)


def problem() -> Problem:
    rng = np.random.default_rng(0)
    w = np.array([[1.0, 0.5, -0.5, 0.2, 0.8], [0.9, 0.8, -0.3, 0.4, 0.9]])
    x = 1.0 + rng.standard_normal((300, 2)) @ w + 0.5 * rng.standard_normal((300, 5))
    return Problem("five columns", LinearGaussian(5, 2), x.astype(np.float32))


@pytest.mark.thorough(engine="pyro")
def test_monte_carlo_em_comes_to_em_and_em_to_the_maximum(engine: Engine) -> None:
    told = problem()
    with engine.pinned():
        theta, objectives = climbed(engine, "em", told, PLAN.steps)
        reached, best = log_px(theta, told.x).mean(), log_px(maximum_likelihood(told.x, 2), told.x).mean()
        (row,) = draws(PLAN, engine, told, float(reached))
    assert len(objectives) == PLAN.steps and reached == pytest.approx(best, abs=1e-4)
    assert abs(row["difference"]) < report.WITHIN and row["difference"] < 1e-4  # nothing is above the maximum


def test_mean_field_comes_to_coordinate_ascent_theta_held_fast(engine: Engine) -> None:
    told, found = problem(), Found([], {}, [])
    theta = {"w": np.array([[1.0, 0.5, -0.5, 0.2, 0.8], [0.9, 0.8, -0.3, 0.4, 0.9]]), "b": np.ones(5)}
    theta["log_scale"] = np.array(np.log(0.5))
    with engine.pinned():
        rows = pd.DataFrame(held_fast(PLAN, engine, told, theta, found)).set_index("pair")
    exact, precision = posterior(theta, told.x)[1], np.linalg.inv(posterior(theta, told.x)[1])
    equal = rows[rows.relation == "equal"]
    assert len(equal) == 3 and (equal.difference.abs() < report.WITHIN).all()
    for j in range(2):
        each = rows.loc[f"CAVI's, exact variance of z{j + 1} given x"]
        assert each["first"] == pytest.approx(1 / precision[j, j], rel=1e-5)
        assert each.second == pytest.approx(exact[j, j]) and each["first"] < 0.5 * each.second
    kl = 0.5 * (np.linalg.slogdet(exact)[1] + np.log(precision.diagonal()).sum())
    assert rows.loc["CAVI's bound, log p(x), theta held fast"].difference == pytest.approx(-kl, abs=1e-4)
    assert len(found.shown) == 3


def test_the_bound_of_a_factorised_q_is_that_of_its_kl() -> None:
    """Of the exact posterior, where it is factorised, it is log p(x)."""
    told = problem()
    theta = maximum_likelihood(told.x, 2)
    mean, covariance = posterior(theta, told.x)
    bound = factorised_bound(theta, told.x, {"loc": mean, "variance": np.tile(covariance.diagonal(), (300, 1))})
    assert bound == pytest.approx(log_px(theta, told.x).mean(), abs=1e-9)
    assert factorised_bound(theta, told.x, {"loc": mean + 0.1, "variance": covariance.diagonal()}) < bound


def test_a_pair_has_the_error_of_its_seeds() -> None:
    row = pair("a, b", "data", [1.0, 3.0], 1.5)
    assert (row["first"], row["difference"], row["stderr"], row["relation"]) == (2.0, 0.5, 1.0, "equal")
    assert pair("a, b", "data", [4.0], 8.0, below=True, n=4)["difference"] == -1.0


def test_a_step_size_that_diverges_is_said(engines: dict[str, Engine]) -> None:
    told = problem()
    broken = told._replace(x=np.full_like(told.x, np.nan))
    with pytest.raises(NumericsError, match="lower --step-size"):
        climbed(engines["numpyro"], "em", broken, 10)


def test_too_many_latents_are_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(FlagError, match="n_latent 10 is out of range"):
        door.main(["--n-latent", "10", "--out", str(tmp_path)])
    assert mixture(0).x.shape == (1000, 5)


def test_the_whole_command_writes_its_table_and_figure(tmp_path: Path) -> None:
    small = [
        "--engine",
        "pyro",
        "--steps",
        "20",
        "--monte-carlo-steps",
        "20",
        "--fit-steps",
        "20",
        "--repeats",
        "2",
        "--n-train",
        "500",
    ]
    assert door.main([*small, "--out", str(tmp_path)]) == 0
    rows = pd.read_csv(tmp_path / "rows.csv")
    assert {"synthetic", "digits"} < set(rows.data) and set(rows.relation) == {"equal", "below"}
    assert rows.notna().all(axis=None)
    below = rows[rows.relation == "below"]
    assert (below.difference < 1e-4).all()
    text = (tmp_path / "table.md").read_text()
    assert "pairs that should be equal" in text and "Monte Carlo EM, EM" in text
    assert (tmp_path / "figure.svg").read_text().startswith("<?xml")
    assert set(pd.read_csv(tmp_path / "steps.csv").curve) >= {"EM, digits", "CAVI, synthetic", "latent Dirichlet"}
