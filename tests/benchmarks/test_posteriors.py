"""The distances of q and of draws from the posterior, where they are known in closed form."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from comparisons.benchmarks import planes, posteriors
from comparisons.benchmarks.bounds import Normal
from comparisons.benchmarks.planes import Plane, divergence
from comparisons.benchmarks.posteriors import CELLS, Plan
from comparisons.errors import UnfitError
from comparisons.evidence.base import Target
from inference.base import Engine, Posterior, arrays
from models.linear_gaussian import LinearGaussian, posterior

THETA = {"w": np.array([[1.0, 0.5, -0.5], [0.8, 0.6, -0.3]]), "b": np.zeros(3), "log_scale": np.array(np.log(0.6))}
PHI = {"w": 0.2 * THETA["w"].T, "b": np.array([0.2, -0.1]), "log_scale": np.log([0.6, 0.5])}
X = np.random.default_rng(0).standard_normal((3, 3))


def plane() -> tuple[Plane, Normal]:
    """A grid on an oblique normal, whose q is another."""
    z = planes.grid(np.full((1, 2), -5.0), np.full((1, 2), 5.0), 257)
    p = Normal(np.array([0.5, -0.3]), np.array([[0.5, 0.3], [0.3, 0.4]]))
    return Plane(z, p.log_prob(z), Normal(np.zeros(2), np.eye(2)).log_prob(z), np.array([2 * np.log(10 / 256)])), p


def test_draws_of_the_posterior_are_as_far_as_their_noise() -> None:
    """Twice S times the divergence is chi-squared with a degree of freedom fewer than there are cells."""
    known, p = plane()
    rng, draws, repeats = np.random.default_rng(0), 2000, 200
    z = rng.multivariate_normal(p.mean, p.covariance, (repeats, draws))
    found = 2 * draws * np.array([posteriors.of_draws(known, one[:, None])[0] for one in z])
    expected = CELLS**2 - 1
    assert abs(found.mean() - expected) < 4.5 * np.sqrt(2 * expected / repeats)


def test_draws_of_half_the_posterior_are_log_2_away() -> None:
    """Cut between two columns of cells, of which the middle edge is as near to the median as the nodes lie."""
    known, p = plane()
    side, z1 = 257, known.z[::257, 0, 0]
    edge = posteriors._edges(z1, np.exp(known.log_p[:, 0]).reshape(side, side).sum(1))[1]
    z = np.random.default_rng(0).multivariate_normal(p.mean, p.covariance, 200_000)
    share = norm.sf(edge, p.mean[0], np.sqrt(p.covariance[0, 0]))
    assert share == pytest.approx(0.5, abs=0.02)
    assert posteriors.of_draws(known, z[z[:, 0] > edge][:, None])[0] == pytest.approx(-np.log(share), abs=1e-3)


def test_the_distances_of_q_are_those_of_the_closed_form(engine: Engine) -> None:
    model, x = LinearGaussian(3, 2), engine.array(X)
    q = Posterior(model.recognition, (arrays(engine, PHI), x))
    target = Target(engine, model, arrays(engine, THETA), x, q)
    known, off = planes.of_both(target)
    mean, covariance = posterior(THETA, X)
    z = np.random.default_rng(1).multivariate_normal(np.zeros(2), covariance, 4000)[:, None] + mean
    fine = planes.grid(np.full((1, 2), -7.0), np.full((1, 2), 7.0), 401)[:, 0]
    for i, row in enumerate(posteriors.distances(target, known, off, z)):
        p = Normal(mean[i], covariance).log_prob(fine)
        loc = X[i] @ PHI["w"] + PHI["b"]
        log_q = Normal(loc, np.diag(np.exp(2 * PHI["log_scale"]))).log_prob(fine)
        assert row["kl_reverse"] == pytest.approx(divergence(log_q, p), abs=3e-4)
        assert row["kl_forward"] == pytest.approx(divergence(p, log_q), abs=3e-4)
        prior = 0.5 * (np.trace(covariance) + mean[i] @ mean[i] - 2 - np.linalg.slogdet(covariance)[1])
        assert row["kl_prior"] == pytest.approx(prior, abs=3e-4)
        assert row["kl_draws"] < 0.01 and row["off"] < 1e-3


def test_without_q_the_grid_is_the_posteriors(engine: Engine) -> None:
    model, x = LinearGaussian(3, 2), engine.array(X)
    target = Target(engine, model, arrays(engine, THETA), x)
    known, off = planes.of_both(target)
    assert known.log_px == pytest.approx(model.log_px(THETA, X), abs=1e-4)
    z = np.zeros((10, 3, 2))
    assert all(np.isnan(row["kl_reverse"]) for row in posteriors.distances(target, known, off, z))


def test_a_run_leaves_rows_a_figure_and_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan(backend=("monte_carlo_em", "aevb"), n_hidden=5, samples=500, eval_points=3)
    assert posteriors.compare(plan, tmp_path, None) == 0
    rows = pd.read_csv(tmp_path / "rows.csv")
    assert list(rows.backend) == ["monte_carlo_em"] * 3 + ["aevb"] * 3
    assert rows.kl_reverse.isna().sum() == 3 and rows.off.max() < 1e-3
    printed = capsys.readouterr().out
    assert "no q" in printed and "nan" not in printed
    assert (tmp_path / "figure.svg").read_text().startswith("<?xml")


def test_a_model_that_is_no_plane_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnfitError, match="'hierarchical_vae' has 4 latent coordinates"):
        posteriors.compare(Plan(model="hierarchical_vae"), tmp_path, None)
