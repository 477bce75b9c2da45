"""The embedding: labels that belong to their images, means that are q's, a classifier against a known best one."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pandas as pd
import pytest
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from comparisons.benchmarks import embedding
from comparisons.benchmarks.embedding import PIXELS, Plan
from comparisons.data import DATA, labels, load
from comparisons.errors import DataError, FlagError, NumericsError
from comparisons.runner.experiment import Experiment
from comparisons.runner.fits import fitted
from inference.base import Engine

FOLDER = Path(os.environ.get("AEVB_DATA") or Path(__file__).parents[3] / "shared" / "data")
COUNTS = (  # of each digit among the first 50,000 and the test images, as the literature has them
    [4932, 5678, 4968, 5101, 4859, 4506, 4951, 5175, 4842, 4988],
    [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
)


# Labels


def test_a_digits_label_is_that_of_its_image() -> None:
    known = load_digits()
    of = {image.tobytes(): int(digit) for image, digit in zip(known.data.astype(np.float32), known.target, strict=True)}
    for images, digits in zip(load("digits")[1:3], labels("digits"), strict=True):
        assert [of[(16 * image).tobytes()] for image in images] == digits.tolist()


@pytest.mark.parametrize("name", ["mnist", "mnist_binary"])
def test_mnist_has_as_many_of_each_digit_as_it_should(name: str) -> None:
    if not (FOLDER / "mnist").is_dir():
        pytest.skip(f"no folder mnist in {FOLDER}: set AEVB_DATA")
    for digits, counts, n in zip(labels(name, FOLDER), COUNTS, (50_000, 10_000), strict=True):
        assert np.bincount(digits).tolist() == counts and len(digits) == n


def test_sets_without_labels_are_refused_by_name_and_damaged_files_too(tmp_path: Path) -> None:
    able = [name for name, card in DATA.items() if card.labels]
    assert able == ["digits", "mnist", "mnist_255", "mnist_binary"]
    for name in set(DATA) - {*able}:
        with pytest.raises(FlagError, match=f"data '{name}' has no labels; choose from digits, mnist"):
            labels(name)
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "train-labels-idx1-ubyte.gz").write_bytes(b"0")
    with pytest.raises(DataError, match="SHA-256 is"):
        labels("mnist", tmp_path)


# What is classified


def test_means_are_those_of_the_recognition_network(tmp_path: Path, engines: dict[str, Engine]) -> None:
    told: Any = {"n_latent": 3, "n_hidden": 5, "samples": 2000, "step_size": 0.1, "warmup": 0, "evidence": ("none",)}
    data = load("digits")
    trained = fitted(Experiment(engine="pyro", **told), data, tmp_path)
    state = trained.state["params"]
    phi = {key.removeprefix("phi."): trained.engine.numpy(a) for key, a in state.items() if key.startswith("phi.")}
    expected = oracles.q_moments("vae_bernoulli", phi, data.test)[0]
    assert expected.std() > 0.01
    for engine in engines.values():
        np.testing.assert_allclose(embedding.means(trained.on(engine), data.test), expected, atol=1e-5)


def test_the_classifier_is_about_as_good_as_the_best_that_there_is() -> None:
    """Two classes N(+-m, I) in 5 dimensions, |m| = 1: no rule is right more often than Phi(1)."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 6000)
    x = rng.standard_normal((6000, 5)) + (2 * y - 1)[:, None] / np.sqrt(5)
    found = embedding._accuracy(x[:1000], y[:1000], x[1000:], y[1000:])
    best = stats.norm.cdf(1)
    error = np.sqrt(best * (1 - best) / 5000)
    assert best - 3 * error - 0.01 < found < best + 3 * error


def test_a_path_of_regressions_ends_where_each_by_itself_does(monkeypatch: pytest.MonkeyPatch) -> None:
    data, y = load("digits"), labels("digits")[0][:200]
    x, penalties = data.train[:200], (0.01, 1.0)
    for penalty, one in zip(penalties, embedding._regressions(x, y, penalties), strict=True):
        alone = LogisticRegression(C=penalty, max_iter=20_000, tol=1e-6).fit(x.astype(float), y)
        np.testing.assert_allclose(one.predict_proba(x), alone.predict_proba(x), atol=5e-3)
    monkeypatch.setattr(embedding, "MAX_ITERATIONS", 2)
    with pytest.warns(Warning, match="failed to converge"), pytest.raises(NumericsError, match=r"C = 1\.0 has not"):
        [*embedding._regressions(x, y, (1.0,))]


def test_every_representation_has_the_same_labels() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((300, 4)), rng.integers(0, 3, 300)
    plan = Plan(labels=(60, 20, 10_000), label_draws=3)
    found = embedding.classified(plan, (x[:200], x[200:]), (y[:200], y[200:]))
    again = embedding.classified(plan, (x[:200], x[200:]), (y[:200], y[200:]))
    assert [*found] == [20, 60] and all((found[n] == again[n]).all() and len(found[n]) == 3 for n in found)


# From flags to files


def test_fits_are_embedded_and_written_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told: Any = {"latents": (2, 3), "n_hidden": 5, "samples": 200, "labels": (50, 100), "label_draws": 2, "points": 50}
    plan = Plan(**told, backends=("aevb", "monte_carlo_em"), engine="pyro")
    assert embedding.embed(plan, tmp_path, None) == 0
    rows = pd.read_csv(tmp_path / "rows.csv")
    assert list(zip(rows.backend, rows.dimensions, rows.n_labels, strict=True)) == [
        (who, k, n) for who, k in ((PIXELS, 64), ("aevb", 2), ("aevb", 3)) for n in (50, 100)
    ]
    assert (rows[rows.backend == PIXELS].to_pixels == 0).all() and rows.accuracy.between(0, 1).all()
    out, err = capsys.readouterr()
    table = (tmp_path / "table.md").read_text()
    assert out.startswith(table) and "nan" not in table and "left out: monte_carlo_em" in err
    assert (tmp_path / "figure.svg").read_text().count("aevb: posterior means") == 1


def test_where_nobody_has_a_q_it_is_refused() -> None:
    with pytest.raises(FlagError, match="monte_carlo_em: no q"):
        embedding.planned(Plan(backends=("monte_carlo_em",)))
