"""The comparisons that judge the judge: what they reuse, what they say, and what they refuse."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from comparisons.benchmarks import calibration, calibration_report, inference_gap
from comparisons.cli import parse_plan
from comparisons.data import Data
from comparisons.errors import FlagError
from comparisons.evidence.base import Estimate
from comparisons.reporting import markdown
from comparisons.runner import store
from comparisons.runner.experiment import Experiment
from comparisons.runner.fits import fitted, followed
from inference import ENGINES
from inference.base import Engine


def small() -> Data:
    rng = np.random.default_rng(0)
    train, test = rng.random((300, 6), np.float32), rng.random((100, 6), np.float32)
    return Data("digits", train, test, (1, 6), "unit", "", False)


def tiny(**changes: Any) -> Experiment:
    settings: dict[str, Any] = {"samples": 200, "n_hidden": 4, "n_latent": 2, "step_size": 0.01, "warmup": 0, **changes}
    return Experiment(**settings)


# Fits


def test_a_fit_is_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fitted(tiny(), small(), tmp_path)
    monkeypatch.setattr("comparisons.runner.fits.run_cell", lambda *args: pytest.fail("trained again"))
    for again in (fitted(tiny(), small(), tmp_path), fitted(tiny(), small(), tmp_path / "other", [tmp_path])):
        for name, value in first.theta.items():
            np.testing.assert_array_equal(again.engine.numpy(again.theta[name]), first.engine.numpy(value))


@pytest.mark.parametrize("name", ["state.safetensors", "rows.csv", "manifest.json"])
def test_a_damaged_fit_is_trained_again(name: str, tmp_path: Path) -> None:
    first = fitted(tiny(), small(), tmp_path)
    (tmp_path / "cells" / first.cell / name).write_bytes(b"damaged")
    assert not store.finished(tmp_path, first.cell, with_state=True)
    again = fitted(tiny(), small(), tmp_path)
    np.testing.assert_array_equal(again.engine.numpy(again.theta["w2"]), first.engine.numpy(first.theta["w2"]))
    assert store.finished(tmp_path, first.cell, with_state=True)


def test_an_unfinished_fit_is_not_taken_for_one(tmp_path: Path) -> None:
    fit = fitted(tiny(), small(), tmp_path)
    manifest = store.read_manifest(tmp_path, fit.cell)
    for status in ("running", "diverged", "failed", None):
        store.write_json(tmp_path / "cells" / fit.cell / "manifest.json", {**manifest, "status": status})
        assert not store.finished(tmp_path, fit.cell, with_state=True) or status == "diverged"


@pytest.mark.parametrize("backend", ["aevb", "mean_field", "monte_carlo_em"])
def test_a_fit_moves_to_the_other_engine(backend: str, tmp_path: Path, engines: dict[str, Engine]) -> None:
    fit = fitted(tiny(backend=backend), small(), tmp_path)
    for name in ENGINES:
        moved = fit.on(engines[name])
        x, indices = moved.points(small(), "train", 10)
        np.testing.assert_array_equal(moved.engine.numpy(moved.theta["w2"]), fit.engine.numpy(fit.theta["w2"]))
        q = moved.posterior(x, indices)
        assert (q is None) == (backend == "monte_carlo_em")
        if q is not None:
            z = moved.engine.numpy(moved.engine.draw(moved.engine.key(0), q.program, *q.args)["z"])
            assert z.shape == (10, 2) and np.isfinite(z).all()


# Inference gap


@pytest.mark.parametrize(("backend", "k"), [("aevb", 2), ("wake_sleep", 4)])
def test_the_gaps_add_up(backend: str, k: int, tmp_path: Path) -> None:
    plan = inference_gap.Plan(data="digits", latents=(k,), points=20, draws=50, fit_steps=200, importance_samples=100)
    fit = fitted(tiny(backend=backend, n_latent=k, samples=2000, step_size=0.05), small(), tmp_path)
    for row in inference_gap.gaps(plan, fit, small()):
        total = row["approximation_gap"] + row["amortization_gap"]
        assert total == pytest.approx(row["log_px"] - row["elbo"], abs=1e-9)
        noise = 4 * np.hypot(row["approximation_gap_stderr"], row["amortization_gap_stderr"])
        assert row["approximation_gap"] > -noise and row["amortization_gap"] > -noise
        assert row["evidence"] == ("quadrature" if k <= 3 else "importance")
        table = markdown.printed(inference_gap.blocks(pd.DataFrame([row])))
        assert "cross-entropy" in table and backend in table


# What is reported


def row(**changes: Any) -> dict[str, Any]:
    return {
        "part": "paper",
        "model": "vae_bernoulli",
        "n_latent": 3,
        "estimator": "appendix_d",
        "settings": "",
        "n_points": 100,
        "repeats": 1,
        "estimate": -10.0,
        "bias": 0.1,
        "bias_stderr": 0.01,
        "median": 0.1,
        "bias_trusted": 0.1,
        "sd": 0.2,
        "rmse": 0.2,
        "stderr": 0.2,
        "coverage": 0.95,
        "flagged": 0.1,
        "bad": 0.0,
        "bad_flagged": np.nan,
        "seconds_per_1000": 1.0,
        "peak_megabytes": 1.0,
        "n_train": 1000,
        "backend": "aevb",
        "split": "test",
        "truth": -10.1,
        "level": 1,
        **changes,
    }


def test_an_ordering_that_turns_is_named() -> None:
    rows = pd.DataFrame(
        [
            row(),
            row(backend="wake_sleep", estimate=-9.5, truth=-11.0),
            row(backend="mean_field", estimate=-9.0, truth=-9),
        ]
    )
    found = "\n".join(calibration_report.findings(rows))
    assert "Of 3 pairs of backends, 1 is ordered otherwise by appendix_d, chains anew than by log p(x)." in found
    table = markdown.printed(calibration_report.blocks(rows))
    assert "| aevb minus wake_sleep | +0.90 | -0.50 |" in table and "aevb minus mean_field" not in table


def test_the_report_has_a_table_for_each_part_and_a_figure() -> None:
    names = list(calibration.SWEEP)
    rows = pd.DataFrame(
        [
            row(
                part=part, n_latent=k, estimator=name, level=level, rmse=0.1 / (level + 1), seconds_per_1000=level + 1.0
            )
            for part, k in (("linear", 2), ("linear", 20), ("mnist", 3), ("simulated", 20))
            for name in names
            for level in (0, 1, 2)
        ]
        + [row(part="simulated", n_latent=20, estimator="bidirectional", gap=0.05)]
        + [row(), row(estimator="lower bound")]
        + [row(part="engines", difference=0.001, mean_in_errors=0.5, worst_in_errors=2.0)]
    )
    text = markdown.printed(calibration_report.blocks(rows))
    for title in (*calibration_report.TITLES.values(), "The paper's estimator", "Both engines"):
        assert title in text
    assert "0.050 nat apart" in text and set(names) <= set(calibration_report.STYLES)
    assert calibration_report.error_against_cost(rows) == calibration_report.error_against_cost(rows)


def test_it_is_said_how_each_estimator_speaks_of_itself() -> None:
    rows = pd.DataFrame(
        [
            row(part="defaults", decoder="a", estimator="annealed, q", coverage=0.9, bad=0.2, bad_flagged=0.5),
            row(
                part="defaults",
                decoder="b",
                estimator="annealed, q",
                coverage=1.0,
                n_points=300,
                bad=0.1,
                bad_flagged=1.0,
            ),
            row(part="defaults", decoder="a", estimator="importance, q", coverage=0.97),
        ]
    )
    found = "\n".join(calibration_report.findings(rows))
    assert "on 400 points of 2 decoders of digits, the 95 % intervals of annealed, q cover 98%; it is off" in found
    assert "it is off by more than 0.5 nat on 12.5%, and flags 80% of them." in found
    assert "importance, q cover 97%; it is off by more than 0.5 nat on 0.0%." in found
    assert "| a | 3 | annealed, q | 100 |" in markdown.printed(calibration_report.blocks(rows))


def test_what_was_run_is_kept_and_the_report_rebuilt(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    store.write_rows(tmp_path / "parts" / "paper.csv", [row(), row(estimator="lower bound", flagged=0.0)])
    calibration.report(tmp_path)
    assert (
        len(pd.read_csv(tmp_path / "rows.csv")) == 2 and "The paper's estimator" in (tmp_path / "table.md").read_text()
    )


def test_a_piece_is_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done is not run again, unless a setting that its rows depend on, or a version of the numbers, changed."""
    ran: list[str] = []

    def piece(name: str) -> calibration.Piece:
        def rows() -> Any:
            ran.append(name)
            yield row(part="linear", model="linear_gaussian", n_latent=int(name), estimator="importance, q")

        return calibration.Piece("linear", name, ("seed", "repeats"), rows)

    plan = calibration.Plan(parts=("linear",), repeats=2)
    for name in ("10", "2"):
        calibration.run(piece(name), plan, tmp_path)
    calibration.run(piece("2"), replace(plan, points=20, threads=2), tmp_path)
    assert ran == ["10", "2"]
    calibration.report(tmp_path)
    assert pd.read_csv(tmp_path / "rows.csv").n_latent.tolist() == [2, 10]  # by number, not by name
    calibration.run(piece("2"), replace(plan, repeats=3), tmp_path)
    monkeypatch.setattr(calibration, "JUDGE_VERSION", calibration.JUDGE_VERSION + 1)
    calibration.run(piece("10"), plan, tmp_path)
    assert ran == ["10", "2", "2", "10"]


def test_a_piece_that_was_cut_off_is_run_again(tmp_path: Path) -> None:
    def rows() -> Any:
        yield row()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibration.run(calibration.Piece("paper", "aevb-1000", (), rows), calibration.Plan(), tmp_path)
    done = calibration.Piece("paper", "aevb-1000", (), lambda: iter([row(), row(backend="wake_sleep")]))
    calibration.run(done, calibration.Plan(), tmp_path)
    assert len(pd.read_csv(tmp_path / "parts" / "paper-aevb-1000.csv")) == 2
    store.write_rows(tmp_path / "parts" / "paper.csv", [row(bias=9.0)])  # of a version that knew no pieces
    calibration.report(tmp_path)
    assert pd.read_csv(tmp_path / "rows.csv").bias.tolist() == [0.1, 0.1]


def test_a_damaged_piece_is_run_again(tmp_path: Path) -> None:
    piece = calibration.Piece("paper", "aevb-1000", ("seed",), lambda: iter([row()]))
    calibration.run(piece, calibration.Plan(), tmp_path)
    path = tmp_path / "parts" / "paper-aevb-1000.json"
    whole = path.read_text()
    for harm in ("", "[]", whole[:40]):
        path.write_text(harm)
        calibration.run(piece, calibration.Plan(), tmp_path)
        assert '"identity"' in path.read_text()


def test_the_truth_is_the_surest_that_there_is() -> None:
    """For each datapoint; one whose error is not a number is none, and none is taken where all are unsure."""
    one = Estimate(np.array([1.0, 2.0, 3.0]), np.array([0.01, np.nan, 0.2]))
    two = Estimate(np.array([1.5, 2.5, 3.5]), np.array([0.04, 0.03, 0.1]))
    value, error = calibration.tightest([one, two])
    np.testing.assert_array_equal(value, [1.0, 2.5, np.nan])
    np.testing.assert_array_equal(error, [0.01, 0.03, 0.1])


def test_every_part_names_settings_of_the_plan() -> None:
    plan = calibration.Plan()
    engine, data = calibration.inference.engine("numpyro", "cpu", 1), small()
    for part in calibration.PARTS:
        pieces = list(calibration.PIECES[part](plan, engine, data, Path("nowhere")))
        assert pieces and len({piece.file for piece in pieces}) == len(pieces)
        assert all(hasattr(plan, name) for piece in pieces for name in piece.reads)


# Flags


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--parts", "nonsense"], ["parts", "nonsense", "linear"]),
        (["--latents", "0"], ["latents", "0", "at least 1"]),
        (["--repeats", "1.5"], ["repeats", "1.5", "whole number"]),
        (["--engine", "stan"], ["engine", "stan", "numpyro"]),
    ],
)
def test_a_wrong_flag_is_named(arguments: list[str], words: list[str]) -> None:
    with pytest.raises(FlagError) as caught:
        parse_plan("calibration", "", calibration.Plan, arguments)
    text = str(caught.value)
    assert "\n" not in text and all(word in text for word in words)


# Chains kept along training


def test_a_fit_comes_with_the_chains_that_followed_it(tmp_path: Path) -> None:
    """Trained once, with the chains of both splits as they were before the last look; found again where it lies."""
    experiment, data = tiny(samples=400, minibatch=10, eval_points=10), small()
    fit, chains = followed(experiment, data, tmp_path)
    assert {split: kept.z.shape for split, kept in chains.items()} == {"train": (1, 10, 2), "test": (1, 10, 2)}
    (folder,) = (tmp_path / "cells").iterdir()
    written = (folder / "manifest.json").stat().st_mtime_ns
    again, same = followed(experiment, data, tmp_path)
    assert (folder / "manifest.json").stat().st_mtime_ns == written
    np.testing.assert_array_equal(same["test"].z, chains["test"].z)
    assert fit.cell == again.cell == folder.name
    (folder / "stops" / "40.safetensors").unlink()  # gone: trained again, to the same bits
    _, once_more = followed(experiment, data, tmp_path)
    np.testing.assert_array_equal(once_more["train"].z, chains["train"].z)
