"""Restoration: channels by enumeration and regression, posterior draws by quadrature and in closed form, the files."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pandas as pd
import pytest
from scipy import special, stats

import inference
from comparisons.benchmarks import restoration, restoration_report
from comparisons.benchmarks.channels import FLOOR, Channel, Degraded
from comparisons.benchmarks.restoration import Plan, Restored, Task
from comparisons.benchmarks.restoration_report import COLUMNS, ENCODER, NEAREST, POSTERIOR
from comparisons.checks.base import FAIL, PASS
from comparisons.checks.model import check_model
from comparisons.data import Data
from comparisons.errors import FlagError, UnfitError
from comparisons.evidence.base import Target
from inference.base import Engine, arrays
from models.base import Model
from models.linear_gaussian import LinearGaussian
from models.vae import VaeBernoulli, VaeGaussian
from models.vae_poisson import VaePoisson

PLAN = Plan(chains=8, warmup=100, draws=200)
CASES = {"denoising": (1, 0.2), "inpainting": (1, 0.0), "super_resolution": (2, 0.0), "all at once": (2, 0.1)}
SHAPE, D = (2, 4), 8
UNSEEN = np.isin(np.arange(D), (2, 3, 6, 7))


def channel(name: str) -> tuple[Channel, np.ndarray]:
    block, noise = CASES[name]
    return Channel(SHAPE, block, noise), UNSEEN if name in ("inpainting", "all at once") else np.zeros(D, bool)


# A channel


@pytest.mark.parametrize("name", CASES)
def test_pixels_of_zero_and_one_are_restored_as_by_counting_all_images(name: str, engine: Engine) -> None:
    """Over all 2^8 images and all 2^8 flips: p(y | z), and E[x | z, y]."""
    through, unseen = channel(name)
    rng = np.random.default_rng(0)
    logits, x = 2.0 * rng.standard_normal((3, D)), (rng.random((3, D)) < 0.5).astype(float)
    y = through.seen(rng, x, unseen, binary=True).astype(float)
    there = ~np.isnan(y)
    like = engine.ppl.dist.Bernoulli
    mean, log_p = (
        engine.numpy(a)
        for a in through.restored(engine, like(logits=engine.array(logits)), engine.array(x), engine.array(y))
    )
    whole = engine.array(np.where(there, y, 1.0))
    score = engine.numpy(through.through(engine.ppl, like(logits=engine.array(logits))).log_prob(whole))
    images = np.array([*product((0, 1), repeat=D)])
    flips = images if through.noise else images[:1]
    chance = np.where(flips, through.noise, 1 - through.noise).prod(-1)
    sums = np.abs(images[:, None] - flips)[..., through.pixels].sum(-1)
    for i in range(3):
        p = np.where(images, special.expit(logits[i]), special.expit(-logits[i])).prod(-1)
        seen = ((sums == y[i]) | ~there[i]).all(-1) @ chance
        np.testing.assert_allclose(score[i][there[i]].sum(), np.log(p @ seen), rtol=1e-5)
        expected = np.clip((p * seen) @ images / (p @ seen), FLOOR, 1 - FLOOR)
        np.testing.assert_allclose(mean[i], expected, atol=3e-6)
        np.testing.assert_allclose(log_p[i], np.log(np.where(x[i] == 1, mean[i], 1 - mean[i])), atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_normal_pixels_are_restored_as_by_regression(name: str, engine: Engine) -> None:
    through, unseen = channel(name)
    rng = np.random.default_rng(1)
    loc, scale, x = (rng.standard_normal((3, D)) for _ in range(3))
    scale, y = np.exp(0.5 * scale), through.seen(rng, x, unseen, binary=False).astype(float)
    fn = engine.ppl.dist.Normal(engine.array(loc), engine.array(scale))
    mean, log_p = (engine.numpy(a) for a in through.restored(engine, fn, engine.array(x), engine.array(y)))
    for i in range(3):
        there = ~np.isnan(y[i])
        expected, covariance = regressed(through, loc[i], np.diag(scale[i] ** 2), y[i])
        np.testing.assert_allclose(mean[i], expected, atol=1e-4)
        left = np.maximum(np.diag(covariance), FLOOR * scale[i] ** 2)
        scored = ~(there[through.owner]) | (name != "inpainting")  # a pixel that is seen as it is has no variance left
        np.testing.assert_allclose(
            log_p[i][scored], stats.norm.logpdf(x[i], expected, np.sqrt(left))[scored], atol=1e-3
        )


def regressed(
    through: Channel, mean: np.ndarray, covariance: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and covariance of x given y, for x ~ N(mean, covariance) [d, d]."""
    sums = np.stack([np.isin(np.arange(D), pixels) for pixels in through.pixels]).astype(float)[~np.isnan(y)]
    gain = covariance @ sums.T @ np.linalg.inv(sums @ covariance @ sums.T + through.noise**2 * np.eye(len(sums)))
    return mean + gain @ (y[~np.isnan(y)] - sums @ mean), covariance - gain @ sums @ covariance


@pytest.mark.parametrize(
    ("name", "block", "noise", "kind"), [("numpyro", 1, 0.2, VaeGaussian), ("pyro", 2, 0.1, VaeBernoulli)]
)
def test_what_is_seen_has_a_model_that_keeps_the_contract(name: str, block: int, noise: float, kind: Any) -> None:
    def factory(n_x: int, n_latent: int, n_hidden: int) -> Model:
        return Degraded(kind(n_x * block**2, n_latent, n_hidden), Channel((block, n_x * block), block, noise))

    found = check_model(factory, inference.engine(name, "cpu", 1))
    assert not [one for one in found if one.status == FAIL]
    assert sum(one.status == PASS for one in found) > 20


def test_pixels_of_another_kind_are_refused(engine: Engine) -> None:
    with pytest.raises(ValueError, match="a decoder of Poisson; what is seen of Bernoulli and normal pixels is known"):
        restoration.pixel(engine, Degraded(VaePoisson(D, 2, 3), Channel(SHAPE, 2)))


# Posterior draws


def task(name: str, model: Model, theta: dict[str, np.ndarray], n: int, binary: bool, x: np.ndarray) -> Task:
    through, unseen = channel(name)
    y = through.seen(np.random.default_rng(5), x, unseen, binary)
    return Task(name, through, x.astype(np.float32), y, unseen if unseen.any() else np.ones(D, bool))


@pytest.mark.parametrize(
    ("on", "name"), [("pyro", "denoising"), ("numpyro", "inpainting"), ("pyro", "super_resolution")]
)
def test_what_draws_restore_is_what_quadrature_does(on: str, name: str, engines: dict[str, Engine]) -> None:
    """E[x | y] of a decoder with two latent variables, by a grid over z; within five errors of the chains' own."""
    engine, model = engines[on], VaeBernoulli(D, 2, 6)
    rng = np.random.default_rng(3)
    theta = {key: 1.5 * rng.standard_normal(shape) for key, shape in model.theta_shapes.items()}
    x = (rng.random((4, D)) < 0.5).astype(float)
    one = task(name, model, theta, 4, True, x)
    target = Target(engine, Degraded(model, one.channel), arrays(engine, theta), engine.array(one.y))
    z, mixed = restoration.posterior(PLAN, target)
    found = restoration.by_draws(target, one, z)
    axis = np.linspace(-6, 6, 121)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    p = oracles.mean_and_variance("vae_bernoulli", theta, grid)[0]
    images = np.array([*product((0, 1), repeat=D)])
    for i in range(4):
        seen = np.where(np.isnan(one.y[i]), np.nan, one.y[i])
        if name == "denoising":
            weight = np.where(images == seen, 0.8, 0.2).prod(-1)
        else:
            weight = ((images[:, one.channel.pixels].sum(-1) == seen) | np.isnan(seen)).all(-1).astype(float)
        given = np.exp(np.log(p) @ images.T + np.log1p(-p) @ (1 - images).T) * weight  # [g, images]
        prior = np.exp(-0.5 * np.square(grid).sum(1))
        joint = prior @ given
        expected = joint @ images / joint.sum()
        by_chain = found.mean[:, i]
        error = by_chain.std(0, ddof=1) / np.sqrt(len(by_chain))
        assert (np.abs(by_chain.mean(0) - expected) < 5 * error + 2e-3).all(), (name, i)
    assert mixed["unmixed"] <= 0.5 and 0.6 < mixed["acceptance"] < 1.0


def test_what_draws_restore_of_a_linear_model_is_the_closed_form(engines: dict[str, Engine]) -> None:
    """And under the model that made the images no other guess scores higher than the posterior does."""
    engine = engines["pyro"]
    rng = np.random.default_rng(4)
    theta = {"w": rng.standard_normal((2, D)), "b": rng.standard_normal(D), "log_scale": np.array(np.log(0.4))}
    covariance = theta["w"].T @ theta["w"] + 0.16 * np.eye(D)
    x = rng.multivariate_normal(theta["b"], covariance, 60)
    one = task("all at once", LinearGaussian(D, 2), theta, 60, False, x)
    target = Target(engine, Degraded(LinearGaussian(D, 2), one.channel), arrays(engine, theta), engine.array(one.y))
    z, _ = restoration.posterior(PLAN, target)
    found = restoration.by_draws(target, one, z)
    expected, exact = np.empty((60, D)), np.empty(60)
    for i in range(60):
        expected[i], left = regressed(one.channel, theta["b"], covariance, one.y[i].astype(float))
        exact[i] = stats.norm.logpdf(x[i], expected[i], np.sqrt(np.diag(left)))[one.scored].mean()
    off = found.mean.mean(0) - expected
    error = found.mean.std(0, ddof=1) / np.sqrt(len(found.mean))
    assert abs(off / error).max() < 7 and abs(off).mean() < 0.05  # of 480 pixels with errors of 8 chains: Student's t
    mine = restoration.scores(one, found)
    assert abs(found.score(one).mean() - exact.mean()) < 5 * mine["mc_error"] + 2e-3
    train = rng.multivariate_normal(theta["b"], covariance, 500).astype(np.float32)
    data = Data("x", train, one.x, SHAPE, "real", "", False)
    for way, other in restoration.baselines(engine, data, one).items():
        assert found.score(one).mean() > other.score(one).mean(), way


# What it is held against


def test_the_nearest_images_are_nearest_in_what_is_seen() -> None:
    rng = np.random.default_rng(6)
    train, (through, unseen) = rng.random((50, D)).astype(np.float32), channel("inpainting")
    one = Task("", through, train[:3], through.seen(rng, train[:3], unseen, False), unseen)
    found = restoration._nearest(one, train)
    distance = np.square(train[None, :, ~unseen] - train[:3, None, ~unseen]).sum(-1)
    for i in range(3):
        assert {*found[i]} == {*np.argsort(distance[i])[:10]} and i in found[i]


def test_independent_pixels_are_what_the_training_set_says(engine: Engine) -> None:
    rng = np.random.default_rng(7)
    train, x = (rng.random((2, 100, D)) < 0.3).astype(np.float32)
    through, unseen = channel("inpainting")
    one = Task("", through, x, through.seen(rng, x, unseen, True), unseen)
    data = Data("x", train, x, SHAPE, "binary", "", False)
    p = (train.sum(0) + 0.5) / 101
    expected = np.where(x == 1, np.log(p), np.log1p(-p))[:, unseen].mean(1)
    found = restoration.baselines(engine, data, one)[COLUMNS]
    np.testing.assert_allclose(found.score(one), expected, rtol=1e-4)
    np.testing.assert_array_equal(found.mean[0][:, ~unseen].round(3), x[:, ~unseen])


@pytest.mark.parametrize(("kind", "share"), [("lower", 1 / 2), ("centre", 1 / 4), ("scattered", 1 / 2)])
def test_a_hole_is_a_half_or_a_quarter(kind: str, share: float) -> None:
    hole = restoration.hole(kind, (28, 20), np.random.default_rng(0)).reshape(28, 20)
    assert hole.mean() == pytest.approx(share, abs=0.01)
    assert kind != "lower" or hole[14:].all()


def test_the_error_of_chains_is_that_of_other_chains() -> None:
    """Each chain says p of one pixel with its own error: the log of their mean is off by sd / sqrt(8) / mean."""
    rng = np.random.default_rng(8)
    log_p = np.log(0.5 + 0.05 * rng.standard_normal((8, 1, 1)) + np.zeros((8, 2, D)))
    one = Task("", Channel(SHAPE), np.ones((2, D)), np.ones((2, D)), np.ones(D, bool))
    told = restoration.scores(one, Restored(np.exp(log_p), log_p, np.exp(log_p[0])))
    p = np.exp(log_p)
    expected = (p.std(0, ddof=1) / np.sqrt(8) / p.mean(0)).mean()
    assert told["mc_error"] == pytest.approx(expected, rel=0.1)


# From flags to files


def test_fits_restore_and_are_written_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = Plan(n_latent=2, n_hidden=5, samples=200, points=4, chains=2, warmup=10, draws=4, engine="pyro", block=4)
    plan = replace(small, backends=("aevb", "monte_carlo_em"), tasks=("inpainting", "super_resolution"))
    assert restoration.restore(plan, tmp_path, None) == 0
    rows = pd.read_csv(tmp_path / "rows.csv")
    ways = [POSTERIOR, ENCODER, COLUMNS, NEAREST] * 2 + [POSTERIOR] * 2
    assert list(rows.way) == ways and rows.log_score.notna().all()
    assert {*rows[rows.task == "inpainting"].n_pixels} == {32} and {*rows[rows.task != "inpainting"].n_pixels} == {64}
    table = (tmp_path / "table.md").read_text()
    assert "nan" not in table and "Super resolution, digits" in table
    assert (tmp_path / "figure.svg").read_text().count("<image") == 2
    assert capsys.readouterr().out.startswith(table)


def test_what_cannot_be_seen_is_refused_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoration, "fitted", lambda *_: pytest.fail("trained"))
    with pytest.raises(
        FlagError, match="block 3 does not divide the 8 x 8 pixels of digits; choose --block 2 or 4 or 8"
    ):
        restoration.planned(Plan(block=3))
    monkeypatch.setattr(restoration, "built", lambda *_: VaePoisson(64, 2, 3))
    with pytest.raises(UnfitError, match=r"has a decoder of Poisson.*choose vae_bernoulli or vae_gaussian"):
        restoration.planned(Plan())


def test_the_sentences_are_those_of_the_rows() -> None:
    row = {"data": "digits", "model": "m", "task": "inpainting", "n_latent": 2, "n_images": 4, "n_pixels": 32}
    row |= {"log_score": -0.2, "log_score_stderr": 0.01, "squared_error": 0.1, "squared_error_stderr": 0.0}
    rows = [{**row, "backend": "aevb", "way": POSTERIOR, "mc_error": 0.001, "unmixed": 0.25}]
    rows += [{**row, "backend": "", "way": NEAREST, "to_posterior": -0.125, "to_posterior_stderr": 0.02}]
    items, _, table, _ = restoration_report.blocks(pd.DataFrame(rows))
    assert "nearest images -0.125 ± 0.020" in str(items) and "+nan" not in str(table) and "'25%'" in str(table)
