"""Pairs of numbers that agree, or of which one bounds the other: closed forms, and what approximates them."""

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import inference
from comparisons import cli
from comparisons.benchmarks.conjugate_pairs import Row, allocation, mixtures, pair
from comparisons.cli.flags import FITTED, RUN
from comparisons.data import load, take
from comparisons.disk import writing
from comparisons.errors import FlagError, NumericsError
from comparisons.reporting import markdown
from comparisons.reporting.folder import begin, show
from comparisons.runner import store
from comparisons.runner.training import training
from inference import METHODS
from inference.base import Engine, arrays, join, numpys, setting
from inference.local import LocalSettings, local_fit
from models.base import Model, Params
from models.gaussian_mixture import GaussianMixture, em
from models.linear_gaussian import LinearGaussian, log_px, maximum_likelihood, posterior
from models.linear_updates import sweep

CHUNK = 50  # steps of one compiled loop
ROWS = 1000  # of `synthetic`, and drawn from the mixture
SHOWN = 500  # first rows that a q is fitted to with theta held fast
SWEEPS = 200  # of coordinate ascent there
PARTICLES = 10  # draws of a step of SVI there

Values = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Plan(cli.Plan):
    """What is run. Each field is a flag."""

    data: str = setting("digits", "images, beside rows that are drawn from the models", choices=("digits", "mnist"))
    n_train: int = setting(1000, "first images [datapoints]", low=SHOWN, high=100_000)
    n_latent: int = setting(3, "latent variables of linear_gaussian", low=2, high=9)
    steps: int = setting(500, "steps of EM and of coordinate ascent [steps]", low=10, high=100_000, about=FITTED)
    monte_carlo_steps: int = setting(500, "steps of Monte Carlo EM [steps]", low=10, high=10**6, about=FITTED)
    step_size: float = setting(
        0.02, "Adam's first, of Monte Carlo EM; it falls to none", above=0.0, high=1.0, about=FITTED
    )
    fit_steps: int = setting(500, "Adam steps of SVI's q, theta held fast [steps]", low=10, high=10**6, about=FITTED)
    repeats: int = setting(2, "seeds of what draws, for the error of its mean", low=2, high=100, about=RUN)


class Problem(NamedTuple):
    """A model, rows x [n, d] to fit it to, and what they are called."""

    data: str
    model: Model
    x: np.ndarray


class Found(NamedTuple):
    """The pairs, the objective of each step by curve, and a posterior [2] for the figure: exact, CAVI's and SVI's."""

    rows: list[Row]
    curves: dict[str, np.ndarray]
    shown: list[Values]


def compared(plan: Plan, out: Path, data_dir: Path | None) -> int:
    """Fit, compare, write rows.csv, steps.csv, table.md and figure.svg; return 0. Raises UserError."""
    writing.prepare(out)
    factors = problems(plan, data_dir)
    new = begin(out, {**store.environment(), "plan": asdict(plan)})
    engine, found = inference.engine(plan.engine, "cpu", plan.threads), Found([], {}, [])
    with engine.pinned():
        for row in agreements(plan, engine, factors, found):
            found.rows.append({"engine": plan.engine, **row})
            print(f"{row['data']}: {row['pair']}: {row['difference']:+.5f} nat", file=sys.stderr)
            writing.write_rows(new / "rows.csv", found.rows)
    import pandas as pd

    from comparisons.benchmarks import closed_form_report as report

    steps = [{"curve": c, "step": i, "value": v} for c, values in found.curves.items() for i, v in enumerate(values)]
    writing.write_rows(new / "steps.csv", steps)
    return show(
        out,
        {
            "table.md": lambda: markdown.printed(report.blocks(pd.DataFrame(found.rows)), report.TITLE),
            "figure.svg": lambda: report.figure(found.curves, found.shown),
        },
    )


def problems(plan: Plan, data_dir: Path | None) -> list[Problem]:
    """Return `synthetic`, whose theta is known, and the images, both for `linear_gaussian`. Raises UserError."""
    images = take(load(plan.data, data_dir), plan.n_train).train
    known = take(load("synthetic", data_dir), ROWS).train
    each = {"synthetic": known, plan.data: images}
    found = [Problem(name, LinearGaussian(x.shape[1], plan.n_latent), np.asarray(x)) for name, x in each.items()]
    for name, model, _ in found:
        if refusal := model.refusal():
            raise FlagError(f"n_latent {plan.n_latent} on {name}: {refusal}; choose a smaller --n-latent")
    return found


def agreements(plan: Plan, engine: Engine, factors: list[Problem], found: Found) -> Iterator[Row]:
    """Yield a row for each pair, and leave in `found` what the figure shows."""
    for problem in factors:
        best = float(log_px(maximum_likelihood(problem.x, plan.n_latent), problem.x).mean())
        theta, found.curves[f"EM, {problem.data}"] = climbed(engine, "em", problem, plan.steps)
        reached = float(log_px(theta, problem.x).mean())
        yield pair("EM, the maximum likelihood", problem.data, [reached], best)
        yield from draws(plan, engine, problem, reached)
        _, bounds = climbed(engine, "cavi", problem, plan.steps)
        found.curves.update({f"CAVI, {problem.data}": bounds, f"maximum, {problem.data}": np.full(1, best)})
        yield pair("CAVI's bound, the maximum likelihood", problem.data, [float(bounds[-1])], best, below=True)
        # Turned, z has the same likelihood, and coordinates that are correlated given x.
        turn, _ = np.linalg.qr(np.random.default_rng(plan.seed).standard_normal((plan.n_latent, plan.n_latent)))
        yield from held_fast(plan, engine, problem, {**theta, "w": turn @ theta["w"]}, found)
    yield from draws(plan, engine, mixture(plan.seed))
    yield from mixtures(plan.seed, found.curves)
    yield from allocation(plan.seed, found.curves)


def climbed(
    engine: Engine, backend: str, problem: Problem, steps: int, seed: int = 0, step_size: float = 1.0
) -> tuple[Values, np.ndarray]:
    """Return theta in float64 after so many steps on all rows, and the objective of each. Raises NumericsError."""
    n, kind = len(problem.x), METHODS[backend].settings
    usual: Row = {"theta": "ml", "optimizer": "adam", "warmup": 0, "minibatch": n, "e_step": "full"}
    settings: Any = kind(**{f.name: usual[f.name] for f in fields(kind) if f.name in usual})
    built, train = training(engine, problem.model, backend, settings, False)
    x, key = engine.array(problem.x), engine.key(seed)
    groups = (arrays(engine, group) for group in problem.model.init(0))
    state = built.init(engine.fold_in(key, 0), *groups, x, engine.array(step_size))
    state, objectives = arrays(engine, numpys(engine, state)), []
    rows = engine.array(np.tile(np.arange(n), (CHUNK, 1)))
    for first in range(0, steps, CHUNK):
        numbers = np.arange(first, first + CHUNK)
        count = min(CHUNK, steps - first)
        if "optimizer" in state:  # what draws leave of noise in theta falls with the step size
            falling = engine.array(step_size * (1 - first / steps) ** 2)
            state["optimizer"] = {**state["optimizer"], "step_size": falling}
        state, info = train(state, x, engine.fold_in(key, 2), engine.array(numbers), rows, engine.array(count))
        objectives.append(engine.numpy(info.objective)[:count])
    theta = {name: value.astype(np.float64) for name, value in numpys(engine, built.theta(state)).items()}
    if not all(np.isfinite(value).all() for value in theta.values()):
        raise NumericsError(f"{backend} on {problem.data} is not finite after {steps} steps; lower --step-size")
    return theta, np.concatenate(objectives)


def draws(plan: Plan, engine: Engine, problem: Problem, exact: float | None = None) -> Iterator[Row]:
    """Yield how far Monte Carlo EM comes, over seeds, beside EM: log p(x) of each theta in closed form.

    A mixture's likelihood has several maxima: there EM goes on from where each seed ended.
    """
    assert problem.model.log_px
    ends, above = [], []
    for seed in range(plan.seed, plan.seed + plan.repeats):
        theta, _ = climbed(engine, "monte_carlo_em", problem, plan.monte_carlo_steps, seed, plan.step_size)
        ends.append(float(problem.model.log_px(theta, problem.x).mean()))
        if exact is None:
            theta = em(theta, problem.x, plan.steps)
        above.append(float(problem.model.log_px(theta, problem.x).mean()) if exact is None else exact)
    words = "EM" if exact is not None else "EM from where it ended"
    yield pair(f"Monte Carlo EM, {words}", problem.data, ends, above)


def held_fast(plan: Plan, engine: Engine, problem: Problem, theta: Values, found: Found) -> Iterator[Row]:
    """Yield what SVI and coordinate ascent make of one family of q with theta held fast, and what both leave out."""
    xp, x = engine.ppl.xp, problem.x[:SHOWN]
    held, at = arrays(engine, theta), engine.array(x)

    def swept_again(q: Params) -> Params:
        return sweep(xp, held, at, q["loc"])[0]

    q, again = {"loc": xp.zeros_like(at[:, : plan.n_latent])}, engine.compile(swept_again)
    for _ in range(SWEEPS):
        q = again(q)
    swept = {name: engine.numpy(q[name]).astype(np.float64) for name in ("loc", "variance")}
    fit = local_fit(engine, problem.model, LocalSettings(theta="ml", fit_steps=plan.fit_steps, particles=PARTICLES))
    fitted = []
    for seed in range(plan.seed, plan.seed + plan.repeats):
        local = numpys(engine, fit(engine.key(seed), join(theta=held), at).args[-1])
        fitted.append({"loc": local["loc"], "variance": np.exp(2.0 * local["log_scale"].astype(np.float64))})
    exact, covariance = posterior(theta, x)
    bounds = [factorised_bound(theta, x, one) for one in (swept, *fitted)]
    yield pair("SVI's mean field, CAVI: bounds, theta held fast", problem.data, bounds[1:], bounds[0])
    evidence = float(log_px(theta, x).mean())
    yield pair("CAVI's bound, log p(x), theta held fast", problem.data, [bounds[0]], evidence, below=True)
    for j in range(plan.n_latent):
        each, name = [float(one["variance"][:, j].mean()) for one in fitted], f"variance of z{j + 1} given x"
        yield pair(f"SVI's, CAVI's {name}", problem.data, each, float(swept["variance"][j]))
        yield pair(f"CAVI's, exact {name}", problem.data, [float(swept["variance"][j])], covariance[j, j], below=True)
    linked = np.abs(np.triu(covariance / np.sqrt(np.outer(covariance.diagonal(), covariance.diagonal())), 1))
    two = np.array(np.unravel_index(linked.argmax(), linked.shape))  # the coordinates of which q leaves out most
    found.shown[:] = found.shown or [
        {"mean": exact[0, two], "covariance": covariance[np.ix_(two, two)]},
        {"mean": swept["loc"][0, two], "covariance": np.diag(swept["variance"][two])},
        {"mean": fitted[0]["loc"][0, two], "covariance": np.diag(fitted[0]["variance"][0, two])},
    ]


def factorised_bound(theta: Values, x: np.ndarray, q: Values) -> float:
    """Return the mean of log p(x) - KL(N(loc, diag variance) || p(z | x)) in nats, in closed form and float64."""
    mean, covariance = posterior(theta, x)
    off, precision = q["loc"] - mean, np.linalg.inv(covariance)
    kl = np.einsum("ni,ij,nj->n", off, precision, off) + (q["variance"] * precision.diagonal() - 1).sum(-1)
    kl += np.linalg.slogdet(covariance)[1] - np.log(q["variance"]).sum(-1)
    return float((log_px(theta, x) - 0.5 * kl).mean())


def mixture(seed: int) -> Problem:
    """Return `gaussian_mixture` of three components in a plane, and rows that are drawn from one."""
    rng = np.random.default_rng(seed)
    c = rng.choice(3, ROWS, p=[0.5, 0.3, 0.2])
    z = np.array([[-2.0, 0.0], [2.0, 1.0], [0.0, 3.0]])[c] + 0.6 * rng.standard_normal((ROWS, 2))
    x = 1.0 + z @ rng.standard_normal((2, 5)) + 0.5 * rng.standard_normal((ROWS, 5))
    return Problem("rows drawn from gaussian_mixture", GaussianMixture(5, 2, 1), x.astype(np.float32))
