"""What a fit is worth that ignores z: against SciPy, and as the best that theta without z can do."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import inference
from comparisons.data import load
from comparisons.evidence.baseline import NARROWEST, baseline
from comparisons.runner import baselines
from comparisons.runner.cell import on, points
from comparisons.runner.experiment import Experiment
from inference.base import arrays
from models import MODELS


def test_bernoulli_columns_are_scipys() -> None:
    rng = np.random.default_rng(0)
    train, x = rng.random((500, 3)) < [0.1, 0.5, 0.9], rng.random((40, 3)) < 0.5
    expected = stats.bernoulli(train.mean(0)).logpmf(x).sum(1).mean()
    for support in ("unit", "binary"):
        assert baseline(train, x, support) == pytest.approx(expected, rel=1e-12)


def test_normal_columns_are_scipys() -> None:
    rng = np.random.default_rng(0)
    train, x = rng.normal([1.0, -2.0], [0.1, 3.0], (500, 2)), rng.normal(0.0, 1.0, (40, 2))
    expected = stats.norm(train.mean(0), train.std(0)).logpdf(x).sum(1).mean()
    assert baseline(train, x, "real") == pytest.approx(expected, rel=1e-12)


def test_other_columns_are_scipys() -> None:
    rng = np.random.default_rng(0)
    train, x = rng.poisson([0.5, 40.0], (500, 2)), rng.poisson(3.0, (40, 2))
    expected = stats.poisson(train.mean(0)).logpmf(x).sum(1).mean()
    assert baseline(train, x, "count") == pytest.approx(expected, rel=1e-12)
    expected = stats.norm(train.mean(0), 1.0).logpdf(x).sum(1).mean()
    assert baseline(train, x, "unit normal") == pytest.approx(expected, rel=1e-12)


def test_a_column_of_levels_has_their_shares_and_is_a_bernoulli_where_there_are_two() -> None:
    rng = np.random.default_rng(0)
    train, x = rng.integers(0, [4, 7], (500, 2)), rng.integers(0, [4, 7], (40, 2))
    shares = [np.bincount(column) / 500 for column in train.T]
    expected = np.log(np.stack([share[column] for share, column in zip(shares, x.T, strict=True)])).sum(0).mean()
    assert baseline(train, x, "categorical") == pytest.approx(expected, rel=1e-12)
    assert baseline(train, np.array([[9, 0]]), "categorical") == pytest.approx(np.log(1 / 1000) + np.log(shares[1][0]))
    assert baseline(train > 1, x > 1, "categorical") == pytest.approx(baseline(train > 1, x > 1, "binary"), rel=1e-12)


def test_a_negative_binomial_s_shape_is_found_and_no_other_is_better() -> None:
    rng = np.random.default_rng(0)
    train = np.stack([rng.negative_binomial(r, r / (r + m), 20_000) for r, m in ((0.5, 2.0), (4.0, 30.0))], 1)
    found = baseline(train, train, "negative binomial")
    for factor in (0.8, 0.9, 1.0, 1.1, 1.3):
        r = factor * np.array([0.5, 4.0])
        assert stats.nbinom.logpmf(train, r, r / (r + train.mean(0))).sum(1).mean() <= found
    truth = stats.nbinom.logpmf(train, [0.5, 4.0], [0.2, 4.0 / 34.0]).sum(1)
    assert found - truth.mean() < 3e-4  # two means and two shapes: 4 / 2 parameters / N = 1e-4
    counts = rng.poisson(3.0, (2000, 1))
    assert baseline(counts, counts, "negative binomial") == pytest.approx(baseline(counts, counts, "count"), abs=2e-3)


def test_what_training_never_showed_is_dear_and_finite() -> None:
    train = np.zeros((100, 1))
    assert baseline(train, np.ones((1, 1)), "binary") == pytest.approx(-np.log(200))
    assert baseline(train, np.zeros((1, 1)), "real") == pytest.approx(stats.norm(0, NARROWEST).logpdf(0))


def test_no_theta_that_ignores_z_is_better_on_train() -> None:
    """A decoder whose weights on z are zero, at the columns' means, has just this log p(x)."""
    data = load("digits", None)
    engine, model = inference.engine("numpyro", "cpu", 1), MODELS["vae_bernoulli"](64, 2, 5)
    theta, _ = model.init(0)
    mean = np.clip(data.train.mean(0), 0.5 / len(data.train), 1 - 0.5 / len(data.train))
    last = max((name for name in theta if theta[name].shape == (64,)), key=str)
    flat = {name: np.zeros_like(value) for name, value in theta.items()} | {last: np.log(mean / (1 - mean))}
    x = data.train[:300].astype(np.float32)
    values = arrays(engine, {"z": np.zeros((300, 2), np.float32), "x": x})
    joint = engine.numpy(engine.log_prob(model.generative, values, arrays(engine, flat), 300))
    assert joint.mean() + np.log(2 * np.pi) == pytest.approx(baseline(data.train, x, "unit"), abs=1e-3)


def test_digits_on_test_is_the_known_number() -> None:
    data = load("digits", None)
    assert baseline(data.train, data.test, "unit") == pytest.approx(-27.21, abs=0.005)


def test_a_folder_keeps_them_by_what_rows_say(tmp_path: Path) -> None:
    data = load("digits", None)
    cell = on(Experiment(data="digits", eval_points=50), data)
    baselines.keep(tmp_path, [(cell, data)])
    before = (tmp_path / baselines.FILE).read_text()
    known = baselines.read(tmp_path)
    found = baselines.of(known, "vae_bernoulli", "digits", cell.n_train, "test", 50)
    assert found == baseline(data.train, points(data, "test", 50)[0], "unit")
    assert np.isnan(baselines.of(known, "vae_bernoulli", "digits", cell.n_train, "test", 51))
    baselines.keep(tmp_path, [(cell, data)])
    assert (tmp_path / baselines.FILE).read_text() == before
