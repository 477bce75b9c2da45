"""The terms of equation 1 on grids, two divergences and the errors of draws, where they are known in closed form."""

from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pandas as pd
import pytest
from scipy.optimize import minimize

from comparisons.benchmarks import bounds, bounds_report, planes
from comparisons.benchmarks.bounds import Normal, Plan
from comparisons.benchmarks.planes import divergence
from comparisons.data import load
from comparisons.errors import UnfitError
from comparisons.evidence.base import Target
from comparisons.runner import fits
from inference.base import Engine, Posterior, arrays
from models.linear_gaussian import LinearGaussian, log_px, posterior

W = np.array([[1.0, 0.5, -0.5, 0.2, 0.8, 0.1], [0.8, 0.6, -0.3, 0.4, 0.9, -0.2]])
THETA = {"w": W, "b": np.full(6, 0.4), "log_scale": np.array(np.log(0.6))}
X = 0.4 + np.random.default_rng(0).standard_normal((4, 6))
FAR = {"w": 0.1 * W.T, "b": np.array([1.5, -2.0]), "log_scale": np.log([0.05, 1.3])}  # from the posterior


def target(engine: Engine, theta: Any = THETA, phi: Any = FAR) -> Target:
    """A linear_gaussian whose posterior is oblique, and a q that is not."""
    model, x = LinearGaussian(6, 2), engine.array(X)
    return Target(engine, model, arrays(engine, theta), x, Posterior(model.recognition, (arrays(engine, phi), x)))


def normals(theta: Any = THETA, phi: Any = FAR) -> list[tuple[Normal, Normal]]:
    """Of each datapoint q and the posterior."""
    mean, covariance = posterior(theta, X)
    loc, scale = oracles.q_moments("linear_gaussian", phi, X)
    return [(Normal(loc[i], np.diag(scale[i] ** 2)), Normal(mean[i], covariance)) for i in range(len(X))]


def kl(a: Normal, b: Normal) -> float:
    """KL(a || b) in closed form."""
    precision, offset = np.linalg.inv(b.covariance), a.mean - b.mean
    log_det = np.linalg.slogdet(b.covariance)[1] - np.linalg.slogdet(a.covariance)[1]
    return float(0.5 * (np.trace(precision @ a.covariance) + offset @ precision @ offset - 2 + log_det))


def square(p: Normal, r: Normal) -> float:
    """E_r[(p / r)^2] in closed form; only where p is narrower than twice r."""
    a, b = np.linalg.inv(p.covariance), np.linalg.inv(r.covariance)
    joined = 2 * a - b
    at = 2 * a @ p.mean - b @ r.mean
    exponent = at @ np.linalg.solve(joined, at) - 2 * p.mean @ a @ p.mean + r.mean @ b @ r.mean
    log_dets = [np.linalg.slogdet(each)[1] for each in (a, b, joined)]
    return float(np.exp(0.5 * (exponent + 2 * log_dets[0] - log_dets[1] - log_dets[2])))


# Equation 1


@pytest.mark.parametrize("spread", [0.0, -1.5])
def test_the_terms_of_equation_1_are_those_of_the_closed_form(engine: Engine, spread: float) -> None:
    """Of a q far from the posterior, and of one that is narrow as well."""
    phi = {**FAR, "log_scale": FAR["log_scale"] + spread}
    rows = list(bounds.identity(target(engine, phi=phi), engine.key(0), 4000))
    exact, bound = log_px(THETA, X), oracles.linear_gaussian_elbo(THETA, phi, X)
    for row, (q, p), log_p, low in zip(rows, normals(phi=phi), exact, bound, strict=True):
        assert row["log_px"] == pytest.approx(log_p, abs=1e-4)
        assert row["bound"] == pytest.approx(low, abs=3e-4)
        assert row["kl"] == pytest.approx(kl(q, p), abs=3e-4)
        assert row["kl_forward"] == pytest.approx(kl(p, q), rel=1e-5)
        assert abs(row["discrepancy"]) < 5e-4
        assert row["off"] < (1e-3 if spread == 0.0 else 0.2)  # of every second node, which the narrow one needs all of
        assert abs(row["monte_carlo"] - low) < 4.5 * row["monte_carlo_stderr"]


def test_a_wrong_term_breaks_equation_1(engines: dict[str, Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    """The discrepancy is no zero by construction: no term is worked out from the two others."""
    engine = engines["numpyro"]
    found = planes.of_q
    moved = lambda *args: (found(*args)[0]._replace(log_cell=found(*args)[0].log_cell + 0.01), found(*args)[1])  # noqa: E731
    monkeypatch.setattr(planes, "of_q", moved)
    assert min(abs(row["discrepancy"]) for row in bounds.identity(target(engine), engine.key(0), 2)) > 0.01


def test_a_grid_that_does_not_resolve_q_says_so(engines: dict[str, Engine]) -> None:
    phi = {**FAR, "log_scale": np.log([1e-4, 1.0])}
    assert planes.of_both(target(engines["numpyro"], phi=phi))[1].min() > 0.1


def test_a_grid_follows_what_lies_outside_the_first_one(engines: dict[str, Engine]) -> None:
    phi = {**FAR, "b": np.array([14.0, 0.0]), "log_scale": np.log([0.5, 0.5])}
    plane, off = planes.of_both(target(engines["numpyro"], phi=phi))
    assert plane.z[..., 0].max() > 16.0 and off.max() < 1e-3
    assert plane.kl == pytest.approx([kl(q, p) for q, p in normals(phi=phi)], rel=1e-5)


# Two modes


def mixture() -> tuple[np.ndarray, np.ndarray, list[Normal]]:
    """Two normals of weights 0.7 and 0.3 that lie ten standard deviations apart."""
    z = planes.grid(np.full((1, 2), -6.0), np.full((1, 2), 6.0), 161)[:, 0]
    covariance = np.array([[0.12, 0.06], [0.06, 0.2]])
    parts = [Normal(np.array([2.0, -1.0]), covariance), Normal(np.array([-2.0, 1.5]), covariance)]
    logs = [np.log(weight) + one.log_prob(z) for weight, one in zip((0.7, 0.3), parts, strict=True)]
    return z, np.logaddexp(*logs), parts


def test_the_reverse_fit_takes_a_mode_and_pays_the_log_of_its_share() -> None:
    z, log_p, parts = mixture()
    for part, weight in zip(parts, (0.7, 0.3), strict=True):
        found = bounds.nearest(z, log_p, False, part.mean + 0.3)
        assert found.mean == pytest.approx(part.mean, abs=1e-3)
        assert found.covariance == pytest.approx(part.covariance, abs=1e-3)
        assert bounds.reverse_kl(z, log_p, found) == pytest.approx(-np.log(weight), abs=1e-6)
        diagonal = bounds.nearest(z, log_p, True, part.mean + 0.3)
        expected = 1 / np.diag(np.linalg.inv(part.covariance))  # one over the precision's diagonal
        assert np.diag(diagonal.covariance) == pytest.approx(expected, abs=1e-3)


def test_the_forward_fit_has_the_moments_and_nothing_lies_below_it() -> None:
    z, log_p, parts = mixture()
    for diagonal in (False, True):
        found = bounds.matched(z, log_p, diagonal)
        apart = parts[0].mean - parts[1].mean
        covariance = parts[0].covariance + 0.21 * np.outer(apart, apart)
        assert found.mean == pytest.approx(0.7 * parts[0].mean + 0.3 * parts[1].mean, abs=1e-6)
        assert found.covariance == pytest.approx(np.diag(np.diag(covariance)) if diagonal else covariance, abs=1e-6)

    def cost(values: np.ndarray) -> float:
        factor = np.array([[np.exp(values[2]), 0.0], [values[4], np.exp(values[3])]])
        return float(divergence(log_p, Normal(values[:2], factor @ factor.T).log_prob(z)))

    least = minimize(cost, np.array([0.0, 0.0, 0.5, 0.5, 0.0]), method="BFGS").fun
    full = bounds.matched(z, log_p, False)
    # The height is the normal's own, and not normalised over the grid, of which it leaves nothing.
    assert float(divergence(log_p, full.log_prob(z))) == pytest.approx(least, abs=1e-3)


def test_the_posterior_with_two_modes_is_the_programs(engine: Engine) -> None:
    plane = bounds.two_modes(engine)
    z, (x1, x2) = plane.z[:, 0], bounds.X_TWO_MODES
    loc = (z[:, 0] + 0.25) ** 2, z[:, 1] + 1.5 * z[:, 0]
    quadratic = (z**2).sum(1) + 4 * ((x1 - loc[0]) ** 2 + (x2 - loc[1]) ** 2)
    exact = -0.5 * quadratic - 2 * np.log(2 * np.pi) - 2 * np.log(0.5)
    assert plane.log_p[:, 0] == pytest.approx(exact, rel=1e-5, abs=1e-4)
    assert abs(plane.log_px - plane.coarser().log_px)[0] < 1e-6
    found = pd.DataFrame(bounds.fits(plane, 0))
    forward, reverse = (found[found.direction == name].iloc[0] for name in ("forward", "reverse"))
    assert 0.2 < forward.right_q < 0.8 and max(reverse.right_q, 1 - reverse.right_q) > 0.999
    assert reverse.kl_reverse < forward.kl_reverse and forward.kl_forward < reverse.kl_forward
    assert reverse.kl_reverse > -np.log(max(found.right_p[0], 1 - found.right_p[0]))
    assert found[found.covariance == "full"].starts.sum() == bounds.STARTS + 1


# Draws


def test_the_error_of_draws_is_the_expected_one(engine: Engine) -> None:
    """The variance of the weights is that of the closed form, and the error by repeats what follows from it."""
    wide = {"w": oracles.exact_recognition(THETA)["w"], "b": np.array([0.2, 0.0]), "log_scale": np.log([0.7, 0.7])}
    problem = target(engine, phi=wide)
    found = pd.DataFrame(bounds.by_draws(problem, engine.key(0), 100_000))
    pairs = normals(phi=wide)
    unit = Normal(np.zeros(2), np.eye(2))
    closed = {
        "prior": np.mean([square(p, unit) - 1 for _, p in pairs]),
        "q": np.mean([square(p, q) - 1 for q, p in pairs]),
    }
    for name, part in found.groupby("proposal"):
        assert part.variance.iloc[0] == pytest.approx(closed[name], rel=1e-3)
        forward = [kl(p, unit if name == "prior" else q) for q, p in pairs]
        assert part.kl_forward.iloc[0] == pytest.approx(np.mean(forward), abs=1e-3)
        small = part[part.expected < 0.15]
        assert len(small) >= 2
        assert (abs(small.rmse - small.expected) < 4.5 * small.rmse_stderr + 0.05 * small.expected).all()
        size, error = bounds_report.needed(part)
        assert abs(np.log(size / part.draws_expected.iloc[0])) < 4.5 * error / size + 0.2


def test_weights_of_a_q_too_narrow_have_no_variance(engines: dict[str, Engine]) -> None:
    plane, _ = planes.of_both(target(engines["numpyro"]))
    assert np.isinf(bounds.relative_variance(plane, plane.log_q)).all()


def test_the_draws_needed_are_read_off_between_two_sizes() -> None:
    sizes = np.array(bounds.rising(100_000))
    assert list(sizes[:4]) == [1, 3, 10, 30] and sizes[-1] == 100_000
    part = pd.DataFrame({"draws": sizes, "rmse": 3 / np.sqrt(sizes), "rmse_stderr": 0.03 / np.sqrt(sizes)})
    size, error = bounds_report.needed(part)
    assert size == pytest.approx(900) and error == pytest.approx(18)
    assert np.isnan(bounds_report.needed(part[part.draws < 900])[0])


# From flags to files


def test_a_model_that_is_no_plane_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnfitError, match="'hierarchical_vae' has 4 latent coordinates"):
        bounds.measure(Plan(model="hierarchical_vae"), tmp_path, None, bounds_report.report)
    assert not (tmp_path / "manifest.json").exists()


def test_a_run_leaves_rows_a_figure_and_a_table(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "STOPS", 3)
    plan = Plan(engine=engine.name, n_hidden=5, samples=2000, eval_points=3, elbo_draws=50, prior_draws=10_000)
    assert bounds.measure(plan, tmp_path, None, bounds_report.report) == 0
    rows = pd.read_csv(tmp_path / "rows.csv")
    own = rows[rows.part == "identity"]
    assert own.n_seen.nunique() == len(bounds.planned(plan).stops) and own.n_seen.max() == 2000
    assert own.discrepancy.abs().max() < 1e-3
    assert "largest discrepancy" in capsys.readouterr().out
    assert (tmp_path / "figure.svg").read_text().startswith("<?xml")
    monkeypatch.setattr(fits, "_train", None)  # it is there already
    again = [n_seen for n_seen, _ in fits.stages(bounds.planned(plan), load("digits"), tmp_path)]
    assert again == sorted(own.n_seen.unique())
