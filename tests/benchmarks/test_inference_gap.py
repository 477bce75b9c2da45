"""The two gaps: in closed form where there is one, adding up where there is none, and of whom they are asked."""

from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pandas as pd
import pytest

from comparisons.benchmarks import inference_gap
from comparisons.benchmarks.inference_gap import Plan, amortized, apart, gaps, take_apart
from comparisons.benchmarks.truths import best_factorised
from comparisons.data import Data
from comparisons.errors import FlagError
from comparisons.evidence.base import Estimate
from comparisons.reporting import markdown
from comparisons.runner.experiment import Experiment
from comparisons.runner.fits import Fit, fitted
from inference.base import arrays, join
from models.linear_gaussian import log_px, posterior

PLAN = Plan(data="digits", latents=(2,), points=20, draws=400, fit_steps=300, importance_samples=100)


def small() -> Data:
    rng = np.random.default_rng(0)
    train, test = rng.random((60, 6), np.float32), rng.random((40, 6), np.float32)
    return Data("digits", train, test, (1, 6), "unit", "", False)


def fit(folder: Path, **changes: Any) -> Fit:
    sizes = {"samples": 200, "minibatch": 20, "n_hidden": 4, "n_latent": 2, "step_size": 0.05, "warmup": 0}
    return fitted(Experiment(**{**sizes, "eval_points": 20, "evidence": ("none",), **changes}), small(), folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fits")


# In closed form


@pytest.fixture(scope="module")
def theta() -> dict[str, np.ndarray]:
    """A linear_gaussian whose posterior is far from factorised."""
    w = np.array([[1.0, 0.5, -0.5, 0.2, 0.8, 0.1], [0.8, 0.6, -0.3, 0.4, 0.9, -0.2]])
    return {"w": w, "b": np.full(6, 0.4), "log_scale": np.array(np.log(0.6))}


@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_the_gaps_of_linear_gaussian_are_those_of_the_closed_form(
    shift: float, theta: dict[str, np.ndarray], folder: Path
) -> None:
    """KL(best factorised || posterior) lies open for the first; the second is zero where q is the best one."""
    trained = fit(folder, model="linear_gaussian")
    engine, x = trained.engine, np.concatenate([small().train[:20], small().test[:20]])
    best = best_factorised(engine, theta, x).args[0]
    best = {name: engine.numpy(value).astype(np.float64) for name, value in best.items()}
    phi = {**best, "b": best["b"] + shift, "log_scale": best["log_scale"] - shift}
    there = trained._replace(state={**trained.state, "params": arrays(engine, join(theta=theta, phi=phi))})
    precision = np.linalg.inv(posterior(theta, x)[1])
    approximation = 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1])
    assert approximation > 0.3
    for row, mine in zip(gaps(PLAN, there, small()), (x[:20], x[20:]), strict=True):
        lost = oracles.linear_gaussian_elbo(theta, best, mine) - oracles.linear_gaussian_elbo(theta, phi, mine)
        for name, expected in (("approximation_gap", approximation), ("amortization_gap", lost.mean())):
            assert abs(row[name] - expected) < 5 * row[f"{name}_stderr"] + 0.01, name
        assert (lost.mean() > 0.5) == (shift > 0)
        assert row["log_px"] == pytest.approx(log_px(theta, mine).mean(), abs=1e-5)
        assert row["elbo"] < row["iwae"] < row["log_px"] + 5 * row["iwae_stderr"]
        assert row["evidence"] == "exact" and row["n_points"] == 20 and row["flagged"] == 0


# Of a decoder


@pytest.mark.parametrize(("backend", "k"), [("aevb", 2), ("wake_sleep", 4)])
def test_the_gaps_add_up(backend: str, k: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By quadrature up to three latent variables; above, importance sampling is asked, and stood in for here."""
    if k > 3:
        told = Estimate(np.zeros(20), np.zeros(20))
        monkeypatch.setattr(inference_gap, "estimate", lambda name, *_: told if name == "importance" else None)
    for row in gaps(PLAN, fit(folder, backend=backend, n_latent=k, samples=2000), small()):
        total = row["approximation_gap"] + row["amortization_gap"]
        assert total == pytest.approx(row["log_px"] - row["elbo"], abs=1e-9)
        noise = 4 * np.hypot(row["approximation_gap_stderr"], row["amortization_gap_stderr"])
        assert row["approximation_gap"] > -noise and row["amortization_gap"] > -noise
        assert row["evidence"] == ("quadrature" if k <= 3 else "importance")
        table = markdown.printed(inference_gap.blocks(pd.DataFrame([row])))
        assert "cross-entropy" in table and backend in table


def test_the_errors_of_a_gap_are_those_of_both_its_ends() -> None:
    found = {
        name: Estimate(np.full(4, value), np.full(4, error))
        for name, value, error in (("log_px", -1.0, 0.6), ("local_elbo", -2.0, 0.8), ("elbo", -5.0, 0.0))
    }
    row = apart(found)
    assert row["approximation_gap"] == 1.0 and row["amortization_gap"] == 3.0
    assert row["approximation_gap_stderr"] == pytest.approx(0.5)  # 0.6 and 0.8, over four points
    assert row["amortization_gap_stderr"] == pytest.approx(0.4)


# From flags to files


def test_those_with_a_recognition_network_are_taken_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"elbo": -3.0, "local_elbo": -2.0, "log_px": -1.5, "approximation_gap": 0.5, "amortization_gap": 1.0}
    errors = {f"{name}_stderr": 0.1 for name in (*row, "iwae")}

    def known(plan: Plan, fit: Experiment, data: Data) -> Any:
        of = {"backend": fit.backend, "n_latent": fit.n_latent, "split": "test", "evidence": "exact"}
        yield {**of, "data": plan.data, "n_points": 10, **told}

    told = {**row, **errors, "iwae": -2.5}
    monkeypatch.setattr(inference_gap, "fitted", lambda experiment, *_: experiment)
    monkeypatch.setattr(inference_gap, "gaps", known)
    assert take_apart(Plan(data="digits", latents=(2, 3)), tmp_path, None) == 0
    lines = (tmp_path / "rows.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in lines[1:]] == [
        [name, k] for k in ("2", "3") for name in ("aevb", "wake_sleep")
    ]
    printed = capsys.readouterr().out
    assert "the bound lies 1.50 nats" in printed and printed.endswith(f"report --out {tmp_path.parent}\n")
    assert (tmp_path / "manifest.json").exists()


def test_where_nobody_has_one_it_is_refused() -> None:
    with pytest.raises(FlagError, match="mean_field monte_carlo_em: no recognition network"):
        amortized(Plan(backends=("mean_field", "monte_carlo_em")))
