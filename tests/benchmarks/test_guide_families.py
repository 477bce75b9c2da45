"""The comparison of families: its numbers are those of the fits, its table is sorted, and refusals come before fits."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from comparisons.benchmarks import guide_families
from comparisons.benchmarks.guide_families import Plan, blocks, compare, figure, judged, summary
from comparisons.data import Data
from comparisons.errors import FlagError
from comparisons.reporting import markdown
from models.families import FAMILIES

SMALL: dict[str, Any] = {"samples": 2000, "n_hidden": 4, "n_latent": 1, "step_size": 0.05, "eval_points": 10}


def small() -> Data:
    rng = np.random.default_rng(0)
    train, test = rng.random((200, 6), np.float32), rng.random((40, 6), np.float32)
    return Data("digits", train, test, (1, 6), "unit", "", False)


def test_the_same_law_by_two_paths_has_the_same_bound(tmp_path: Path) -> None:
    """The logistic is drawn by location and scale, and by its inverse distribution function."""
    plan = Plan(**SMALL, engine="pyro", elbo_draws=1000)
    one, other = (judged(plan, name, 0, small(), tmp_path) for name in ("logistic", "logistic_by_inverse"))
    assert one["elbo"] == pytest.approx(other["elbo"], abs=0.05)
    for row in (one, other):
        assert row["gap"] > -5 * row["gap_stderr"] - 1e-3 and row["evidence"] == "quadrature"
        assert row["seconds"] > 0 and row["step_size"] == 0.05


def test_a_refusal_comes_before_any_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guide_families, "fitted", lambda *_: pytest.fail("a fit was begun"))
    with pytest.raises(FlagError, match="guide_family 'gamma' lives on positive numbers"):
        compare(Plan(families=("normal", "gamma")), tmp_path, None)
    with pytest.raises(FlagError, match="'linear_gaussian': it has no guide_family"):
        compare(Plan(data="synthetic"), tmp_path, None)


def test_families_that_suit_the_prior_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(guide_families, "judged", lambda plan, family, seed, *_: row(family, seed, -1.0))
    plan = Plan(prior_family="exponential", runs=2)
    assert compare(plan, tmp_path, None) == 0
    rows = pd.read_csv(tmp_path / "rows.csv")
    assert [*rows.family[: len(rows) // 2]] == [name for name, one in FAMILIES.items() if one.support == "positive"]
    assert [*rows.seed.unique()] == [0, 1]
    printed = capsys.readouterr().out
    assert "Rayleigh" in printed and (tmp_path / "figure.svg").read_text().startswith("<?xml")
    assert (tmp_path / "table.md").exists() and (tmp_path / "manifest.json").exists()


def row(family: str, seed: int, bound: float) -> dict[str, Any]:
    card = FAMILIES[family]
    numbers = {"elbo": bound, "log_px": bound + 1.0, "gap": 1.0}
    errors = {f"{name}_stderr": 0.1 for name in numbers}
    told = {"title": card.title, "route": card.route, "path": card.path, "library": card.library, "prior": "normal"}
    more = {"evidence": "quadrature", "n_points": 10, "samples": 100, "n_latent": 2, "seconds": 1.0, "engine": "pyro"}
    return {"family": family, "seed": seed, "data": "digits", **told, **numbers, **errors, **more}


def test_the_highest_bound_comes_first_with_its_error_over_seeds() -> None:
    bounds = {"normal": (-3.0, -2.0), "triangular": (-1.0, -1.2), "full_normal": (-5.0, -5.0)}
    rows = pd.DataFrame([row(name, seed, each[seed]) for name, each in bounds.items() for seed in (0, 1)])
    lines = summary(rows)
    assert [*lines.family] == ["triangular", "normal", "full_normal"]
    assert [*lines.elbo] == pytest.approx([-1.1, -2.5, -5.0]) and lines.elbo_stderr.iloc[1] == pytest.approx(0.5)
    assert summary(rows[rows.seed == 0]).elbo_stderr.iloc[0] == 0.1  # the estimator's own
    printed = markdown.printed(blocks(rows))
    assert "over seeds" in printed and "cross-entropy" in printed
    assert "ours" in printed and "MultivariateNormal" in printed
    assert "triangular" in figure(rows)
    assert blocks(rows[:0]) == []
