"""The parts of a calibration: what is pointed at what, and held against which truth."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import inference
from comparisons.benchmarks import calibration, scoring
from comparisons.benchmarks.calibration import PIECES
from comparisons.benchmarks.pieces import PARTS, Plan, Row
from comparisons.benchmarks.scoring import DEFAULTS, SWEEP, Judged
from comparisons.data import Data
from comparisons.errors import FlagError
from comparisons.evidence.base import Estimate, Target
from comparisons.runner.experiment import Experiment
from comparisons.runner.fits import Fit, fitted
from inference import BACKENDS
from inference.base import Engine

PLAN = Plan(points=10, simulated=10, repeats=3, latents=(2,), decoders=(2,), levels=(0, 2), samples=1000)
N = 10


def small() -> Data:
    rng = np.random.default_rng(0)
    return Data("mnist", rng.random((60, 6), np.float32), rng.random((40, 6), np.float32), (1, 6), "unit", "", False)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return inference.engine("numpyro", "cpu", 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fits")


def tiny(**changes: Any) -> Experiment:
    sizes = {"samples": 100, "minibatch": 10, "n_hidden": 4, "n_latent": 3, "step_size": 0.01, "warmup": 0}
    return Experiment(**{**sizes, "eval_points": N, "evidence": ("none",), "data": "mnist", **changes})


@pytest.fixture(scope="module")
def fit(folder: Path) -> Fit:
    return fitted(tiny(), small(), folder)


@pytest.fixture
def shifted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Every estimator says 1 nat below the truth of 0, but quadrature at its finest; returns what was asked."""
    asked: list[tuple[str, dict[str, Any]]] = []

    def estimated(target: Target, seed: int, name: str, **changes: Any) -> Estimate:
        asked.append((name, changes))
        n = len(target.x)
        return Estimate(np.zeros(n) if changes.get("tolerance", 1.0) < 0.1 else np.full(n, -1.0), np.full(n, 0.01))

    for module in (scoring, calibration):
        monkeypatch.setattr(module, "estimated", estimated)
    return asked


def rows_of(part: str, engine: Engine, out: Path, data: Data | None = None) -> Iterator[Row]:
    for piece in PIECES[part](PLAN, engine, data, out):
        yield from piece.rows()


def test_every_part_has_pieces_of_names_of_their_own_and_reads_the_plan(engine: Engine) -> None:
    assert tuple(PIECES) == PARTS
    for part in PARTS:
        pieces = list(PIECES[part](Plan(), engine, small(), Path("nowhere")))
        assert pieces and len({piece.file for piece in pieces}) == len(pieces)
        assert all(hasattr(PLAN, name) and piece.part == part for piece in pieces for name in piece.reads)


# Linear


def test_the_closed_form_scores_itself_without_error(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """`exact` through the whole of the part; importance sampling from the best q within its errors."""
    few = {"importance, q": [{"proposal": "q", "importance_samples": k} for k in (100, 200, 300)]}
    monkeypatch.setattr(scoring, "SWEEP", {"exact": 3 * [{}], **few})
    rows = pd.DataFrame(rows_of("linear", engine, Path("nowhere"))).set_index(["estimator", "level"])
    assert set(rows.index) == {(name, level) for name in ("exact", "importance, q") for level in (0, 2)}
    exact, importance = rows.loc["exact"], rows.loc["importance, q"]
    assert (exact.rmse < 1e-5).all() and (exact.bad == 0).all() and (exact.n_points == 15).all()
    assert (importance.bias.abs() < 5 * importance.bias_stderr + 0.01).all() and (importance.sd > 0).all()
    assert importance.settings.tolist() == [f"proposal=q importance_samples={k}" for k in (100, 300)]


# MNIST, and data drawn from a decoder


def test_mnist_is_held_against_the_finest_quadrature(
    engine: Engine, fit: Fit, shifted: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "fit_of", lambda *told: fit)
    rows = pd.DataFrame(rows_of("mnist", engine, Path("nowhere"), small()))
    assert shifted[0] == ("quadrature", {"tolerance": 0.01})
    assert len(rows) == 2 * (3 + 2 * len(SWEEP))
    fine = rows.settings == "tolerance=0.03"
    assert (rows.bias[fine] == 0).all() and (rows.bias[~fine] == -1).all() and (rows.bad[~fine] == 1).all()


def test_simulated_data_are_held_against_the_tighter_bound(
    engine: Engine, fit: Fit, shifted: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def bounded(value: float, error: float) -> Any:
        return lambda *_, **__: Estimate(np.full(N, value), np.full(N, error), False, {"gap": np.full(N, 2 * error)})

    monkeypatch.setattr(calibration, "fit_of", lambda *told: fit)
    monkeypatch.setattr(calibration, "sandwich", bounded(-1.0, 0.01))
    monkeypatch.setattr(calibration, "bidirectional", bounded(7.0, 0.04))
    rows = pd.DataFrame(rows_of("simulated", engine, Path("nowhere"), small()))
    bounds, judged = rows[rows.gap.notna()], rows[rows.gap.isna()]
    assert bounds.gap.tolist() == pytest.approx(2 * [0.02, 0.08, 0.08]) and bounds.bias.isna().all()
    assert len(judged) == 2 * 2 * len(SWEEP) and (judged.bias == 0).all() and (judged.unknown == 0).all()
    monkeypatch.setattr(calibration, "sandwich", bounded(-1.0, 0.06))
    monkeypatch.setattr(calibration, "bidirectional", bounded(7.0, 0.07))
    rows = pd.DataFrame(rows_of("simulated", engine, Path("nowhere"), small()))
    assert (rows.unknown == 1).all() and rows.bias.isna().all()  # what nobody knows judges nobody


# The paper's estimator


@pytest.mark.parametrize(("backend", "has_q"), [("aevb", True), ("monte_carlo_em", False)])
def test_the_papers_estimator_stands_beside_the_bound_where_there_is_one(
    backend: str, has_q: bool, folder: Path, shifted: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = small()
    mine = fitted(tiny(backend=backend), data, folder)
    monkeypatch.setattr(calibration, "followed", lambda *told: (mine, {"train": "its chains", "test": "its chains"}))
    monkeypatch.setattr(calibration, "appendix_d_kept", lambda *told: (Estimate(np.ones(N), np.ones(N)), told[-1]))
    monkeypatch.setattr(inference, "BACKENDS", {backend: BACKENDS[backend]})
    monkeypatch.setattr(calibration, "SIZES", (40,))
    rows = pd.DataFrame(rows_of("paper", mine.engine, folder, data))
    by = rows.groupby("split").estimator.apply(set)
    from_q = {"lower bound", "appendix_d, started at q"}
    expected = {calibration.KEPT, *calibration.ANEW, "lower bound"} - (set() if has_q else from_q)
    assert by["train"] == by["test"] == expected
    assert (rows.backend == backend).all() and (rows.truth == 0).all() and (rows.n_train == 40).all()
    assert (rows.bias[rows.estimator.isin(calibration.ANEW)] == -1).all()
    assert (rows.bias[rows.estimator == calibration.KEPT] == 1).all()
    if has_q:
        assert (rows.bias[rows.estimator == "lower bound"] < -1).all()  # six columns cost more than a nat


# Engines


def test_every_two_engines_are_compared(
    fit: Fit, engine: Engine, shifted: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two give one piece; a third, which is one of ours by another name, two more."""
    monkeypatch.setattr(calibration, "fit_of", lambda *told: fit)
    monkeypatch.setattr(calibration, "POINTS", N)
    (pair,) = PIECES["engines"](PLAN, engine, small(), Path("nowhere"))
    assert pair.file == "engines-numpyro-pyro-3"
    monkeypatch.setitem(inference.ENGINES, "third", inference.ENGINES["numpyro"])
    three = list(PIECES["engines"](PLAN, engine, small(), Path("nowhere")))
    assert [piece.name for piece in three] == ["numpyro-pyro-3", "numpyro-third-3", "pyro-third-3"]
    rows = pd.DataFrame(row for piece in three for row in piece.rows())
    assert set(rows.engines) == {"numpyro minus pyro", "numpyro minus third", "pyro minus third"}
    assert len(rows) == 3 * len(calibration.VARIANTS) and (rows.difference == 0).all()
    assert (rows.worst_in_errors == 0).all()
    assert len(shifted) == 2 * 2 * len(rows)  # what is short is run twice, on both


def test_one_engine_has_nobody_to_be_compared_with(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(inference.ENGINES, "pyro")
    with pytest.raises(FlagError, match="numpyro is alone"):
        list(PIECES["engines"](PLAN, engine, small(), Path("nowhere")))


def test_engines_differ_in_errors_of_the_points_that_both_trust() -> None:
    def judged(value: list[float], flagged: list[bool]) -> Judged:
        told = {"flagged": np.array(flagged)}
        return Judged(Estimate(np.array(value), np.full(3, 0.3), False, told), 1.0, 0.0)

    here = judged([1.0, 2.0, 99.0], [False, False, True])
    row = calibration.apart(here, judged([0.5, 2.0, 3.0], [False, False, False]))
    each = np.hypot(0.3, 0.3)
    assert row["worst_in_errors"] == pytest.approx(0.5 / each)
    assert row["mean_in_errors"] == pytest.approx(0.5 / (each * np.sqrt(2)))
    assert row["difference"] == pytest.approx((0.5 + 96.0) / 3)
    nobody = calibration.apart(here, judged([0.5, 2.0, 3.0], [True, True, False]))
    assert np.isnan(nobody["worst_in_errors"]) and np.isnan(nobody["mean_in_errors"])  # nothing is no agreement


# Defaults


def test_at_defaults_every_decoder_is_judged_by_what_is_known_of_it(
    engine: Engine, folder: Path, shifted: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    models = {"vae_bernoulli": {"trained", "weights x 5", "weights x 20"}, "vae_gaussian": {"log variance -12"}}
    fits = {model: fitted(tiny(model=model), small(), folder) for model in models}
    noise = engine.array(np.zeros((N, 3)))
    known = np.array([0.0] * 6 + [np.nan] * 4)
    monkeypatch.setattr(calibration, "fitted", lambda experiment, *told: fits[experiment.model])
    monkeypatch.setattr(calibration, "simulate", lambda *told: (engine.array(small().test[:N]), noise))
    monkeypatch.setattr(calibration, "best_known", lambda *told: (known, np.full(N, 0.01)))
    rows = pd.DataFrame(rows_of("defaults", engine, folder))
    assert rows.groupby("model").decoder.apply(set).to_dict() == models
    assert (rows.groupby("decoder").size() == len(DEFAULTS)).all()
    assert (rows.n_points == 6).all() and (rows.unknown == 0.4).all() and (rows.bias == -1).all()


def test_a_decoder_is_made_harder_in_its_last_layer_alone() -> None:
    theta = {name: np.full(2, 3.0) for name in ("w1", "b1", "w2", "b2")}
    found = calibration.harder(theta)
    np.testing.assert_array_equal(found["weights x 5"]["w2"], 15.0)
    np.testing.assert_array_equal(found["weights x 20"]["b2"], 60.0)
    assert all((each["w1"] == 3.0).all() for each in found.values()) and (found["trained"]["w2"] == 3.0).all()
    (narrow,) = calibration.harder({**theta, "w3": np.full(2, 3.0), "b3": np.full(2, 3.0)}).values()
    assert (narrow["w3"] == 0).all() and (narrow["b3"] == -12).all() and (narrow["w2"] == 3).all()


# From flags to files


def test_a_calibration_runs_its_parts_and_writes_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without MNIST's files where no part asks for them; a second run finds everything done."""
    monkeypatch.setattr(scoring, "SWEEP", {"importance, q": SWEEP["importance, q"]})
    monkeypatch.setattr(calibration, "load", lambda *told: pytest.fail("no part asks for data"))
    plan = Plan(parts=("linear",), repeats=2, latents=(2,), levels=(0,))
    assert calibration.calibrate(plan, tmp_path, None) == 0
    assert "linear_gaussian, 2 latent variables" in capsys.readouterr().out
    monkeypatch.setattr(scoring, "estimated", lambda *told: pytest.fail("run twice"))
    before = (tmp_path / "rows.csv").read_bytes()
    assert calibration.calibrate(plan, tmp_path, None) == 0
    assert (tmp_path / "rows.csv").read_bytes() == before and (tmp_path / "figure.svg").exists()
