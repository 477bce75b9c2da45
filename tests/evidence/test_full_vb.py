"""Full variational Bayes (appendix F) against a model whose posterior over theta, evidence and bound are known.

x_i ~ N(b, I) with b ~ N(0, I) [2], and a z that the decoder ignores: the exact posterior of b is a diagonal normal and
that of z its prior, so that the best bound equals log p(X).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy import stats
from tiny_runs import broken_at, same, small, tiny, unbroken

import inference
from comparisons.errors import FlagError
from comparisons.evidence.base import Estimate, Target
from comparisons.evidence.full_vb import bound, divergence, draw, expected, predictive, under_draws
from comparisons.paper import full_vb_report
from comparisons.reporting import markdown
from comparisons.runner.cell import on
from comparisons.runner.experiment import Experiment
from comparisons.runner.rows import METRICS
from comparisons.runner.training import training
from inference import BACKENDS, ENGINES, AllSettings
from inference.base import Backend, Batch, Engine, State, arrays, join, numpys, pick
from inference.theta import INITIAL_LOG_SCALE, SCALES
from models.base import Array, Model, Params, Ppl, standard_normal_latents, zeros

N, D, M = 12, 2, 4
Q = {"loc": np.array([0.3, -0.8], np.float32), "log_scale": np.array([-1.0, 0.2], np.float32)}  # a q(b), not the best


@dataclass(frozen=True)
class Mean(Model):
    """x ~ N(b, I); z is there because a model has one."""

    n_x: int = D
    n_latent: int = 1

    @property
    def theta_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {"b": (self.n_x,)}

    def init(self, seed: int) -> tuple[Params, Params]:
        return {"b": zeros(self.n_x)}, {"loc": zeros(1), "log_scale": zeros(1)}

    def generative(self, ppl: Ppl, theta: Params, n: int) -> None:
        with ppl.plate("data", n):
            z = standard_normal_latents(ppl, 1)
            ppl.sample("x", ppl.dist.Normal(theta["b"] + 0.0 * z, 1.0).to_event(1))

    def recognition(self, ppl: Ppl, phi: Params, x: Array) -> None:
        with ppl.plate("data", x.shape[0]):
            loc = phi["loc"] + 0.0 * x[:, :1]
            ppl.sample("z", ppl.dist.Normal(loc, ppl.xp.exp(phi["log_scale"])).to_event(1))


@cache
def data() -> np.ndarray:
    return (1.0 + np.random.default_rng(0).standard_normal((N, D))).astype(np.float32)


def exact_posterior(x: np.ndarray) -> tuple[np.ndarray, float]:
    """Mean [D] and standard deviation of p(b | X)."""
    return x.sum(0, dtype=np.float64) / (len(x) + 1), (len(x) + 1) ** -0.5


def log_evidence(x: np.ndarray) -> float:
    """log p(X): each column is N(0, I + 11')."""
    covariance = np.eye(len(x)) + 1.0
    return float(sum(stats.multivariate_normal(cov=covariance).logpdf(column) for column in x.T.astype(np.float64)))


def kl(loc: np.ndarray, scale: Any) -> float:
    return float(0.5 * (loc**2 + scale**2 - 1 - 2 * np.log(scale)).sum())


def closed_bound(x: np.ndarray, loc: np.ndarray, scale: np.ndarray) -> float:
    """E_q[sum_i log N(x_i; b, I)] - KL(q || N(0, I)), for q(z) = p(z)."""
    return float((stats.norm.logpdf(x.astype(np.float64), loc) - 0.5 * scale**2).sum()) - kl(loc, scale)


def built(engine: Engine, backend: str = "aevb", **settings: Any) -> Backend:
    told = {"theta": "vb", "optimizer": "adam", "warmup": 0, "minibatch": M, "local_steps": 2, "fit_steps": 5}
    return BACKENDS[backend].build(engine, Mean(), AllSettings(**{**told, **settings}))


def start(engine: Engine, backend: Backend, step_size: float = 0.0) -> State:
    theta, phi = (arrays(engine, group) for group in Mean().init(0))
    return backend.init(engine.key(0), theta, phi, engine.array(data()), engine.array(step_size))


def at_q(engine: Engine, state: State) -> State:
    """The state with q(b) = Q."""
    placed = join(theta={"b": engine.array(Q["loc"])}, **{SCALES: {"b": engine.array(Q["log_scale"])}})
    return {**state, "params": {**state["params"], **placed}}


def trained(engine: Engine, backend: Backend, schedule: list[tuple[float, int]], m: int) -> State:
    """The state at the end, its params averaged over the steps of the last size: minibatches keep them moving."""
    state = start(engine, backend)
    step = engine.compile(lambda key, state, x, rows: backend.step(key, state, Batch(x, rows, m / N)))
    number = 0
    seen: list[dict[str, np.ndarray]] = []
    for size, count in schedule:
        seen = []
        state = {**state, "optimizer": {**state["optimizer"], "step_size": engine.array(size)}}
        for number in range(number, number + count):  # noqa: B020 (goes on counting)
            rows = np.random.default_rng([1, number]).choice(N, m, replace=False)
            key = engine.fold_in(engine.key(2), number)
            state, _ = step(key, state, engine.array(data()[rows]), engine.array(rows))
            seen.append(numpys(engine, state["params"]))
    averaged = {name: engine.array(np.mean([each[name] for each in seen], 0)) for name in seen[0]}
    return {**state, "params": averaged}


# Training


def test_q_starts_narrow_around_the_initial_theta(engine: Engine) -> None:
    backend = built(engine)
    state = start(engine, backend)
    assert backend.theta_posterior is not None
    q = backend.theta_posterior(state)
    loc, log_scale = (engine.numpy(group["b"]) for group in q.args)
    np.testing.assert_array_equal(loc, engine.numpy(backend.theta(state)["b"]))
    np.testing.assert_allclose(log_scale, INITIAL_LOG_SCALE, rtol=1e-6)
    for kind in ("map", "ml"):
        point = built(engine, theta=kind)
        assert point.theta_posterior is None and not pick(start(engine, point)["params"], SCALES)


@pytest.mark.parametrize("m", [N, M])
def test_the_exact_posterior_and_evidence_are_reached(engine: Engine, m: int) -> None:
    """In minibatches as on all data: the fraction M / N of the prior adds up to one prior. Bound = log p(X) there."""
    backend = built(engine)
    state = trained(engine, backend, [(0.05, 250), (0.01, 500)], m)
    mean, sd = exact_posterior(data())
    params = numpys(engine, state["params"])
    np.testing.assert_allclose(params["theta.b"], mean, atol=0.15 * sd)
    np.testing.assert_allclose(np.exp(params[f"{SCALES}.b"]), sd, rtol=0.15)
    x = engine.array(data())
    assert backend.theta_posterior and backend.posterior
    q = backend.posterior(engine.key(0), state, x, None)
    target = Target(engine, Mean(), backend.theta(state), x, q)
    found = bound(target, backend.theta_posterior(state), engine.key(3), 200)
    evidence = log_evidence(data()) / N
    assert abs(found.value - evidence) < 5 * found.stderr + 0.01 and 0 < found.stderr < 0.1


@pytest.mark.parametrize("estimator", ["A", "B"])
def test_the_loss_is_a_hand_written_bound(engine: Engine, estimator: str) -> None:
    """Statistical, fixed keys, 5 standard errors: the mean loss of each minibatch; over all of them, the full bound."""
    backend = built(engine, estimator=estimator)
    state = at_q(engine, start(engine, backend))
    loc, scale = Q["loc"].astype(np.float64), np.exp(Q["log_scale"].astype(np.float64))
    step = engine.compile(lambda key, state, x, rows: backend.step(key, state, Batch(x, rows, M / N))[1].objective)
    total, variance = 0.0, 0.0
    for part in range(N // M):
        rows = np.arange(part * M, part * M + M)
        x = data()[rows]
        each = [
            M
            * float(engine.numpy(step(engine.fold_in(engine.key(part), i), state, engine.array(x), engine.array(rows))))
            for i in range(150)
        ]
        closed = closed_bound(x, loc, scale) + (1 - M / N) * kl(loc, scale)
        error = np.std(each, ddof=1) / np.sqrt(len(each))
        assert abs(np.mean(each) - closed) < 5 * error, part
        total, variance = total + float(np.mean(each)), variance + float(error**2)
    assert abs(total - closed_bound(data(), loc, scale)) < 5 * np.sqrt(variance)


def test_mean_field_fits_q_of_theta_too(engine: Engine) -> None:
    backend = built(engine, "mean_field")
    state = trained(engine, backend, [(0.05, 120), (0.01, 120)], M)
    mean, sd = exact_posterior(data())
    params = numpys(engine, state["params"])
    np.testing.assert_allclose(params["theta.b"], mean, atol=0.4 * sd)
    np.testing.assert_allclose(np.exp(params[f"{SCALES}.b"]), sd, rtol=0.25)


@pytest.mark.parametrize("backend", ["monte_carlo_em", "wake_sleep"])
def test_methods_without_such_a_bound_refuse(engine: Engine, backend: str) -> None:
    with pytest.raises(ValueError, match="as a point"):
        built(engine, backend)
    with pytest.raises(FlagError, match=f"'vb' is for the backends aevb and mean_field, not {backend}"):
        Experiment(theta="vb", backend=backend)


def test_a_backend_of_ones_own_without_q_of_theta_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    aevb = BACKENDS["aevb"]
    without = aevb._replace(build=lambda *args: aevb.build(*args)._replace(theta_posterior=None))
    monkeypatch.setitem(BACKENDS, "aevb", without)
    training.cache_clear()
    with pytest.raises(FlagError, match="choose --theta map or ml"):
        unbroken(tiny(theta="vb", step_size=0.05))
    training.cache_clear()


# The judge


@pytest.fixture
def q_theta(engine: Engine) -> Any:
    backend = built(engine)
    assert backend.theta_posterior is not None
    return backend.theta_posterior(at_q(engine, start(engine, backend)))


def test_divergence_is_the_libraries(engine: Engine, q_theta: Any) -> None:
    loc, scale = q_theta.args[0]["b"], engine.ppl.xp.exp(q_theta.args[1]["b"])
    if engine.name == "pyro":
        from torch.distributions import Normal, kl_divergence
    else:
        from numpyro.distributions import Normal, kl_divergence
    library = engine.numpy(kl_divergence(Normal(loc, scale), Normal(0.0 * loc, 1.0)))
    np.testing.assert_allclose(divergence(engine, q_theta), library, rtol=1e-5, atol=1e-6)


def test_the_bound_is_the_closed_form(engine: Engine, q_theta: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistical, 5 standard errors; points in blocks, the last of them filled up."""
    monkeypatch.setattr("comparisons.evidence.full_vb.ROWS", 5)
    backend, x = built(engine), engine.array(data())
    assert backend.posterior is not None
    state = start(engine, backend)
    target = Target(engine, Mean(), backend.theta(state), x, backend.posterior(engine.key(0), state, x, None))
    found = bound(target, q_theta, engine.key(1), 200)
    closed = closed_bound(data(), Q["loc"].astype(float), np.exp(Q["log_scale"].astype(float))) / N
    assert abs(found.value - closed) < 5 * found.stderr and found.stderr < 0.3 and found.points == N


def test_draws_of_theta_are_those_of_q(engine: Engine, q_theta: Any) -> None:
    draws = np.stack([engine.numpy(draw(engine, q_theta, engine.key(0), s)["b"]) for s in range(300)])
    loc, scale = Q["loc"], np.exp(Q["log_scale"])
    assert (np.abs(draws.mean(0) - loc) < 5 * scale / np.sqrt(300)).all()
    np.testing.assert_allclose(draws.std(0), scale, rtol=0.25)


def of_draws(rng: np.random.Generator, count: int, scale: float) -> list[Estimate]:
    """log p(x | b) of 20 points under draws of q(b) = N(0.3, scale^2), in closed form."""
    x, b = points(), 0.3 + scale * rng.standard_normal(count)
    return [Estimate(stats.norm.logpdf(x, one), np.zeros(20), systematic=True) for one in b]


def points() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(20)


@pytest.mark.parametrize("scale", [0.1, 0.5])
def test_predictive_and_expected_are_their_closed_forms(scale: float) -> None:
    """The jackknife takes off most of the bias of 10 draws, and its errors cover the truth: 300 repeats, fixed seed."""
    truth = stats.norm.logpdf(points(), 0.3, np.hypot(1, scale)).mean()
    mean = (stats.norm.logpdf(points(), 0.3) - 0.5 * scale**2).mean()
    rng = np.random.default_rng(1)
    found = [of_draws(rng, 10, scale) for _ in range(300)]
    predicted = np.array([predictive(each).mean() for each in found])
    plain = np.array([np.mean(np.log(np.mean(np.exp([e.value for e in each]), 0))) for each in found])
    error = predicted[:, 0].std(ddof=1) / np.sqrt(len(found))
    assert abs(predicted[:, 0].mean() - truth) < 4 * error + 0.1 * abs(plain.mean() - truth)
    if scale == 0.5:  # where there is a bias to take off
        assert plain.mean() < truth - 2 * error
    assert (np.abs(predicted[:, 0] - truth) < 1.96 * predicted[:, 1]).mean() > 0.88
    assert abs(predicted[:, 0].mean() - truth) < abs(plain.mean() - truth)
    averaged = np.array([expected(each).mean() for each in found])
    assert abs(averaged[:, 0].mean() - mean) < 4 * averaged[:, 0].std(ddof=1) / np.sqrt(len(found))
    assert (averaged[:, 0] <= plain + 1e-12).all()


def test_a_predictive_that_hangs_on_one_draw_is_flagged() -> None:
    one, other = np.array([0.0, 0.0]), np.array([-20.0, -0.1])
    found = predictive([Estimate(value, np.zeros(2), systematic=True) for value in (one, other, other - 0.1)])
    assert found.flagged == 0.5 and found.stderr > 1.0
    alike = predictive([Estimate(one, np.full(2, 0.25), systematic=True)] * 3)
    assert alike.mean() == pytest.approx((0.0, 0.25))


def test_draws_are_the_same_for_the_same_key(engine: Engine, q_theta: Any) -> None:
    def log_px(target: Target, number: int) -> Estimate:
        return Estimate(engine.numpy(target.theta["b"]).astype(float) + number, np.zeros(D))

    target = Target(engine, Mean(), {}, engine.array(data()))
    one, two = (under_draws(target, q_theta, engine.key(7), 3, log_px) for _ in range(2))
    np.testing.assert_array_equal([e.value for e in one], [e.value for e in two])
    assert len({float(e.value[0]) for e in one}) == 3


# Runs and their report


def vb(**changes: Any) -> Experiment:
    settings = {"theta": "vb", "evidence": ("quadrature",), "tolerance": 1.0, "theta_draws": 2, "step_size": 0.05}
    return tiny(**{**settings, **changes})


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_writes_what_it_owes_and_goes_on_bit_for_bit(engine: str, tmp_path: Any) -> None:
    experiment = vb(engine=engine, samples=40)
    whole = unbroken(experiment)
    last = {(row["split"], row["metric"]): row for row in whole.rows if row["n_seen"] == 40}
    assert list(last) == on(experiment, small()).owes(has_q=True) and {name for _, name in last} <= METRICS.keys()
    of_test = {
        "elbo_nats",
        "kl_z_nats",
        "active_latents",
        *(f"log_px_{name}_nats" for name in ("quadrature", "expected", "predictive")),
    }
    assert {name for split, name in last if split == "test"} == of_test
    value = {key: row["value"] for key, row in last.items()}
    assert value["test", "log_px_expected_nats"] < value["test", "log_px_predictive_nats"]
    assert value["train", "elbo_full_nats"] < value["train", "elbo_nats"]
    assert value["train", "kl_theta_nats"] > 0 and 0 <= value["train", "theta_at_prior"] <= 1
    assert last["train", "elbo_full_nats"]["n_points"] == len(small().train)
    found, pauses = broken_at(experiment, tmp_path, list(range(1, 60, 4)))
    same(found, whole)
    assert pauses > 20


def test_mean_field_is_judged_alike() -> None:
    found = unbroken(vb(backend="mean_field", engine="pyro", samples=20))
    assert {row["metric"] for row in found.rows} >= {"elbo_full_nats", "log_px_predictive_nats"}
    assert all(np.isfinite(row["value"]) for row in found.rows)


def test_a_run_that_diverges_owes_all_of_it() -> None:
    experiment = vb(step_size=1e8, engine="pyro")
    found = unbroken(experiment)
    assert found.status == "diverged"
    lost = [(row["split"], row["metric"]) for row in found.rows if row["status"] == "diverged"]
    assert lost == on(experiment, small()).owes(has_q=True)


def test_the_report_sets_the_three_side_by_side() -> None:
    import pandas as pd

    from comparisons.runner.rows import COLUMNS

    rows = []
    for kind in ("ml", "map", "vb"):
        experiment = vb(theta=kind, engine="pyro", samples=40)
        rows += unbroken(experiment).rows
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    text = markdown.printed(full_vb_report.blocks(frame))
    lines = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    of_vb = [f"vb, {which} q" for which in ("at the mean of", "one draw of", "averaged over")]
    assert lines == ["theta", "ml, a point", "map, a point", *of_vb]
    assert "log p(X) / N is at least" in text and "nan" not in text
    assert markdown.printed(full_vb_report.blocks(frame)) == text
    assert full_vb_report.figure(frame) == full_vb_report.figure(frame)
    gone = frame.assign(value=np.nan, stderr=np.nan, status="diverged")
    assert "diverged" in markdown.printed(full_vb_report.blocks(gone)) and "nan" not in markdown.printed(
        full_vb_report.blocks(gone)
    )
    assert "svg" in full_vb_report.figure(gone)


def test_engines_are_all_here() -> None:
    assert {inference.engine(name, "cpu", 1).name for name in ENGINES} == set(ENGINES)
