"""Bounds above log p(x): found where there is one, and never where both numbers are right."""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from comparisons.benchmarks.truths import best_factorised
from comparisons.data import load
from comparisons.evidence.base import Estimate, Target
from comparisons.evidence.elbo import elbo
from comparisons.evidence.exact import exact
from comparisons.evidence.guard import contradiction
from comparisons.runner import judging
from comparisons.runner import run as run_module
from comparisons.runner.cell import on
from comparisons.runner.experiment import Experiment
from inference.base import Engine, arrays
from models.base import Params, Ppl, standard_normal_latents
from models.linear_gaussian import LinearGaussian

N, D, K = 100, 6, 2


@dataclass(frozen=True)
class Overstated(LinearGaussian):
    """The prior of z counts a quarter: a bound for log p(x) no more."""

    def generative(self, ppl: Ppl, theta: Params, n: int) -> None:
        with ppl.plate("data", n):
            with ppl.scale(scale=0.25):
                z = standard_normal_latents(ppl, self.n_latent)
            loc = ppl.xp.matmul(z, theta["w"]) + theta["b"]
            ppl.sample("x", ppl.dist.Normal(loc, ppl.xp.exp(theta["log_scale"])).to_event(1))


def problem() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return theta with orthogonal w, whose posterior recognition can be, and data from it."""
    rng = np.random.default_rng(0)
    w = np.linalg.qr(rng.standard_normal((D, K)))[0].T * np.array([[1.5], [0.7]])
    x = 3.0 + rng.standard_normal((N, K)) @ w + 0.5 * rng.standard_normal((N, D))
    theta = {"w": w, "b": np.full(D, 3.0), "log_scale": np.log(0.5)}
    return {name: np.asarray(value, np.float32) for name, value in theta.items()}, x.astype(np.float32)


@pytest.mark.parametrize("draws", [2, 20])
def test_no_alarm_where_the_bound_is_log_px(engine: Engine, draws: int) -> None:
    """At q = the exact posterior every draw is log p(x) to rounding: 100 seeds, and all of them pass."""
    theta, x = problem()
    model = LinearGaussian(D, K)
    q = best_factorised(engine, theta, x)
    target = Target(engine, model, arrays(engine, theta), engine.array(x), q)
    truth = exact(target)
    for seed in range(100):
        bound = elbo(target, engine.key(seed), draws)
        assert abs(bound.mean()[0] - truth.mean()[0]) < 1e-4
        assert contradiction(bound, truth, draws) == ""


def test_a_scaled_prior_is_found(engine: Engine) -> None:
    theta, x = problem()
    q = best_factorised(engine, theta, x)
    target = Target(engine, LinearGaussian(D, K), arrays(engine, theta), engine.array(x), q)
    bound = elbo(target._replace(model=Overstated(D, K)), engine.key(0), 20)
    found = contradiction(bound, exact(target), 20)
    assert found.startswith("the lower bound exceeds it by ") and " ± " in found


def log_weights(seed: int, draws: int, n: int, k: int, ratio: float) -> Estimate:
    """Return the bound of q = N(0, ratio^2 I) on log p(x) = 0 with posterior N(0, I), as `elbo` reckons it."""
    e = np.random.default_rng(seed).standard_normal((draws, n, k))
    log_w = (0.5 * (1 - ratio**2) * e**2 + np.log(ratio)).sum(-1)
    return Estimate(log_w.mean(0), log_w.std(0, ddof=1) / np.sqrt(draws))


@pytest.mark.parametrize("draws", [2, 4, 20])
@pytest.mark.parametrize("ratio", [0.5, 0.95, 1.01, 1.2, 2.0, 3.0])
def test_no_alarm_where_log_weights_are_skewed(ratio: float, draws: int) -> None:
    """Wide q have weights with a long left tail: the mean of a few is often above the truth by many of its errors."""
    for seed in range(100):
        n, k = (500, 1) if seed % 2 else (2, 3)
        bound = log_weights(seed, draws, n, k, ratio)
        truth = Estimate(np.zeros(n), np.full(n, 1e-3), systematic=True)
        assert contradiction(bound, truth, draws) == "", seed


@pytest.mark.parametrize("seed", range(5))
def test_an_offset_beyond_the_errors_is_found(seed: int) -> None:
    bound = log_weights(seed, 20, 1000, 2, 1.1)  # 0.02 below log p(x) = 0, with an error of 0.002
    assert contradiction(bound, Estimate(np.full(1000, -0.02), np.zeros(1000)), 20) == ""
    found = contradiction(bound, Estimate(np.full(1000, -0.06), np.zeros(1000)), 20)
    assert found.startswith("the lower bound exceeds it by 0.0") and "clearly" not in found


def test_errors_are_reckoned_with() -> None:
    """Those that datapoints share do not shrink with their number."""
    bound, value = Estimate(np.full(400, 1.0), np.full(400, 0.1)), np.zeros(400)
    assert contradiction(bound, Estimate(value, np.full(400, 0.4)), 20)
    assert contradiction(bound, Estimate(value, np.full(400, 0.4), systematic=True), 20) == ""
    assert contradiction(bound, Estimate(value, np.full(400, 0.1), systematic=True), 20)
    large = Estimate(np.full(400, 1e5), np.zeros(400))  # where float32 cannot tell
    assert contradiction(large, Estimate(np.full(400, 1e5 - 0.5), np.zeros(400)), 20) == ""


def test_a_few_datapoints_are_found_and_those_not_trusted_left_out() -> None:
    """Narrow posteriors that a grid misses: the mean is off by nothing, the points by more than can be."""
    bound = log_weights(0, 20, 1000, 2, 1.05)
    value, stderr = np.full(1000, 0.0), np.full(1000, 0.003)
    value[:5] = bound.value[:5] - 1.57
    missed = Estimate(value, stderr, systematic=True)
    assert re_found(contradiction(bound, missed, 20)) == (5, 1000)
    known = missed._replace(diagnostics={"flagged": np.arange(1000) < 5})
    assert contradiction(bound, known, 20) == ""
    assert contradiction(bound._replace(diagnostics={"flagged": np.arange(1000) < 5}), missed, 20) == ""
    value[2:5] = 0.0
    assert contradiction(bound, Estimate(value, stderr, systematic=True), 20) == ""  # two of a thousand are chance


def re_found(text: str) -> tuple[int, int]:
    """Return the two numbers of datapoints in a line."""
    words = text.split("clearly at ")[1].split()
    return int(words[0]), int(words[2])


@pytest.mark.parametrize("broken_off", [False, True])
def test_a_run_marks_the_row_and_says_so(
    broken_off: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An estimator that is 2 nats low on test; also where a checkpoint lies between it and the bound."""
    real, lower = judging.estimate, {"log_px_importance_nats": 2.0}
    fit: dict[str, Any] = {
        "data": "synthetic",
        "n_latent": 2,
        "engine": "pyro",
        "samples": 200,
        "step_size": 0.02,
        "warmup": 0,
    }
    judge: dict[str, Any] = {
        "evidence": ("exact", "importance"),
        "importance_samples": 50,
        "proposal": "q",
        "eval_points": 30,
    }
    experiment = Experiment(**fit, **judge)
    data = load("synthetic")
    test = data.test[:30].astype(np.float32)

    def estimate(name: str, target: Target, *args: Any) -> Estimate:
        found = real(name, target, *args)
        on_test = np.array_equal(target.engine.numpy(target.x), test)
        return found._replace(value=found.value - (on_test and lower.get(f"log_px_{name}_nats", 0.0)))

    monkeypatch.setattr(judging, "estimate", estimate)
    snapshots: list[Any] = []
    keep = (lambda *kept: snapshots.append(copy.deepcopy(kept))) if broken_off else None
    (*_, last) = run_module.run("fit", on(experiment, data), data, keep=keep, every=0.0)
    if broken_off:  # the last checkpoint that has not seen the wrong number yet
        before = [kept for kept in snapshots if len(kept[1]["judging"]) == 5][-1]
        capsys.readouterr()
        (*_, last) = run_module.run("fit", on(experiment, data), data, kept=before)
    marked = {(row["split"], row["metric"]) for row in last.rows if row["status"] != "ok"}
    assert marked == {("test", "log_px_importance_nats")}
    at_the_end = [row["status"] for row in last.rows if row["n_seen"] == 200]
    assert at_the_end == ["ok"] * 5 + ["contradicted"] + ["ok"] * 4 and last.status == "done"
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == (1 if broken_off else sum(row["status"] == "contradicted" for row in last.rows))
    assert all(
        line.startswith(f"{on(experiment, data).name}, test, ") and " exceeds it by " in line for line in lines
    ), lines


def test_nothing_to_compare() -> None:
    two = Estimate(np.zeros(2), np.zeros(2), diagnostics={"flagged": np.ones(2, bool)})
    assert contradiction(two._replace(value=np.ones(2)), two, 20) == ""
    with pytest.raises(ValueError, match="2 datapoints"):
        contradiction(two, Estimate(np.zeros(3), np.zeros(3)), 20)
