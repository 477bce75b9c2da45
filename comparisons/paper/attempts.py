"""Attempts to break every finding that contradicts the paper: plain NumPy, the other engine, other rows, other points.

A finding stands as long as no attempt makes it fall. The plain methods are `tests/plain.py`, named as a user's backends
are; what judges them again, by other formulas and on other points, is there too. `--quick` runs every attempt at a size
of seconds on the embedded digits: it shows that the machinery works, and says nothing about a finding.
"""

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import inference
from comparisons import cli
from comparisons.cli import parts
from comparisons.data import Data, load, take
from comparisons.data.files import fetch
from comparisons.data.frey import FRAMES, read_frey
from comparisons.disk import reading, writing
from comparisons.errors import NumericsError
from comparisons.evidence.base import Target
from comparisons.evidence.full_vb import AT_PRIOR, bound, divergence
from comparisons.runner import store
from comparisons.runner.cell import on
from comparisons.runner.experiment import Experiment
from comparisons.runner.fits import Fit, restored
from comparisons.runner.jobs import Job, run_cell
from comparisons.runner.training import training
from inference.base import Backend, State, join, pick, setting
from inference.theta import SCALES

PLAIN = Path(__file__).parents[2] / "tests" / "plain.py"
POINTS = 1000  # datapoints that an attempt judges itself
CHUNK = 100  # steps compiled as one
WIDTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # of a q(theta) that is as wide in every weight
MILLION, HALF = 1_000_000, 500_000
Row = dict[str, Any]

# Where an attempt has a rival in another comparison, its settings are that one's, so that the rows compare.
MANY = {"eval_points": 10_000, "elbo_draws": 4}
FREY = {"data": "frey", "n_latent": 10, "n_hidden": 200, "warmup": 0, "step_size": 0.01, "samples": MILLION, **MANY}
PLATEAU = {**FREY, "n_latent": 20, "backend": "wake_sleep"}
DEEP = {"data": "mnist", "n_latent": 5, "n_hidden": 500, "warmup": 0, "samples": MILLION, **MANY}
SMALL = {"data": "mnist", "n_train": 1000, "warmup": 0, "step_size": 0.1, "samples": HALF}
LARGE = {**SMALL, "n_train": None}
VB = {"data": "mnist", "n_train": 1000, "step_size": 0.1, "samples": MILLION}
ON_PYRO = {"engine": "pyro", "compile": "off"}
OTHER_POINTS = (("log_px", "test", "first"), ("log_px", "test", "last"))
BOUNDS = (("bound", "test", "first"), ("bound", "test", "last"))


@dataclass(frozen=True)
class Attempt:
    """One try at one finding: an experiment, the data it runs on, and what is judged again by plain NumPy.

    `plain` names the method of `tests/plain.py` that takes the backend's place; `judged` holds (metric, split, which
    points); with `scales` it is a q(theta) that starts at the MAP fit of the same settings, with these widths.
    """

    finding: str
    name: str
    settings: dict[str, Any]
    plain: str = ""
    data: str = "as it is"
    judged: tuple[tuple[str, str, str], ...] = ()
    scales: tuple[float, ...] = ()

    @property
    def file(self) -> str:
        """The name of the files that hold its rows."""
        return "".join(letter if letter.isalnum() else "-" for letter in f"{self.finding}-{self.name}")


ATTEMPTS = (
    Attempt("frey", "minibatches of 500", {**FREY, "minibatch": 500}),
    Attempt("em_large", "seed 1", {**LARGE, "backend": "monte_carlo_em", "seed": 1}, judged=OTHER_POINTS),
    Attempt("em_large", "plain AEVB", LARGE, "aevb", judged=OTHER_POINTS + BOUNDS),
    Attempt("frey", "minibatches of 500, 20 latent variables", {**FREY, "minibatch": 500, "n_latent": 20}),
    Attempt("frey", "minibatches of 500, 2 latent variables", {**FREY, "minibatch": 500, "n_latent": 2}),
    Attempt("full_vb", "started at MAP", VB, scales=(0.01, 0.1)),
    Attempt("em_large", "plain, tuned as ours", LARGE, "monte_carlo_em_fast", judged=OTHER_POINTS),
    Attempt("aevb_small", "plain", SMALL, "aevb", judged=(*OTHER_POINTS, *BOUNDS, ("log_px", "train", "first"))),
    Attempt("frey_plateau", "minibatches of 500", {**PLATEAU, "minibatch": 500}),
    Attempt("frey", "last frames", FREY, data="last"),
    Attempt("frey", "plain", FREY, "aevb", judged=BOUNDS),
    Attempt("wake_sleep", "plain, factor 1", {**DEEP, "step_size": 0.01}, "wake_sleep", judged=BOUNDS),
    Attempt("frey", "minibatches of 500, ten million points", {**FREY, "minibatch": 500, "samples": 10 * MILLION}),
    Attempt("em_large", "plain", LARGE, "monte_carlo_em", judged=OTHER_POINTS),
    Attempt("em_large", "seed 2", {**LARGE, "backend": "monte_carlo_em", "seed": 2}, judged=OTHER_POINTS),
    Attempt("frey", "every fifth frame", FREY, data="every fifth"),
    Attempt("frey", "blocks of 50 frames", FREY, data="blocks"),
    Attempt("wake_sleep", "plain, factor 0.1", {**DEEP, "step_size": 0.02, "log_variance_factor": 0.1}, "wake_sleep"),
    Attempt("full_vb", "plain, noise for each datapoint", {**VB, "theta": "vb"}, "full_vb"),
    Attempt("frey_plateau", "plain", PLATEAU, "wake_sleep", judged=BOUNDS),
    Attempt("aevb_large", "plain", {**LARGE, "samples": MILLION}, "aevb", judged=OTHER_POINTS + BOUNDS),
    Attempt("em_small", "plain", SMALL, "monte_carlo_em", judged=(*OTHER_POINTS, ("log_px", "train", "first"))),
    Attempt("frey", "initial weights ten times", {**FREY, "initial_scale": 10.0}),
    Attempt("frey", "floor under the variance", {**FREY, "model": "floored"}),
    Attempt("frey", "pixels / 255", FREY, data="by 255"),
    Attempt("frey", "estimator A", {**FREY, "estimator": "A"}),
    Attempt("frey", "other shuffle", FREY, data="reshuffled"),
    Attempt("aevb_small", "other rows", SMALL, data="other rows", judged=(*OTHER_POINTS, *BOUNDS)),
    Attempt("em_small", "other rows", {**SMALL, "backend": "monte_carlo_em"}, data="other rows", judged=OTHER_POINTS),
    Attempt("full_vb", "ten draws", {**VB, "theta": "vb", "particles": 10, "samples": MILLION // 5}),
    Attempt("full_vb", "pyro", {**VB, "theta": "vb", **ON_PYRO, "samples": MILLION // 5}),
)
TRIED = tuple(dict.fromkeys(attempt.finding for attempt in ATTEMPTS))


@dataclass(frozen=True, kw_only=True)
class Plan(cli.Told):
    """What is run. Each field is a flag."""

    findings: tuple[str, ...] = setting(TRIED, "findings to try and break", choices=TRIED)
    quick: bool = setting(False, "seconds on digits instead: to see the machinery work")


def main(arguments: list[str] | None = None) -> int:
    """Run what has not been run, write rows.csv, table.md and manifest.json; return 0. Raises UserError."""
    plan, out, data_dir = cli.parse_plan("paper.attempts", __doc__ or "", Plan, arguments)
    from comparisons.paper.attempts_report import report  # and with it pandas

    writing.prepare(out)
    for attempt in ATTEMPTS:
        if attempt.finding not in plan.findings:
            continue
        mine = shrunk(attempt) if plan.quick else attempt
        path = out / "parts" / f"{mine.file}.json"
        plain = hashlib.sha256(PLAIN.read_bytes()).hexdigest()  # rows of other plain methods are not theirs
        identity = {**asdict(mine), "seed": plan.seed, "plain": plain}
        if reading.made_with(path, identity):
            continue
        print(f"{mine.finding}: {mine.name}", file=sys.stderr)
        environment = store.environment()
        rows = list(tried(mine, plan, out, data_dir))
        writing.write_json(path, {**environment, "identity": identity, "rows": rows})
        report(out)
    report(out)
    return 0


def shrunk(attempt: Attempt) -> Attempt:
    """Return the same attempt at a size of seconds, on digits."""
    smaller = {"data": "digits", "n_hidden": 10, "samples": 2000, "n_train": 300, "eval_points": 50}
    smaller["warmup"] = 0  # of 100 steps: twenty would not move at all
    if attempt.settings["data"] == "frey":
        smaller |= {"model": attempt.settings.get("model", "vae_gaussian")}
    return replace(attempt, settings={**attempt.settings, **smaller, "n_latent": 3})


def tried(attempt: Attempt, plan: Plan, out: Path, data_dir: Path | None) -> Iterator[Row]:
    """Run an attempt; yield its rows: those of its cell, and what plain NumPy says of the fit. Raises UserError."""
    named = {"seed": plan.seed, **attempt.settings, "evidence": ("none",), "threads": plan.threads}
    if attempt.plain:
        named |= {**ON_PYRO, "backend": parts.find("backend", f"{PLAIN}:{attempt.plain}")}
    if named.get("model") == "floored":
        named["model"] = parts.find("model", f"{PLAIN.with_name('floored.py')}:Floored")
    experiment = Experiment(**named)
    data = varied(attempt.data, experiment, data_dir)
    fit = ended(experiment, data, out)
    common = {"finding": attempt.finding, "attempt": attempt.name, "cell": fit.cell.name}
    shared = ("split", "metric", "n_seen", "value", "stderr", "n_points", "step_size")
    for row in store.read_rows(out / "cells" / fit.cell.name / "rows.csv").to_dict("records"):
        yield {**common, "points": "first", **{name: row[name] for name in shared}}
    plainly = {"n_seen": experiment.samples, "step_size": experiment.step_size}
    for metric, split, which in attempt.judged:
        row = {**common, "split": split, "points": which, **plainly}
        yield {**row, **judged(fit, data, metric, split, which, plan.seed)}
    if attempt.scales:
        for row in from_map(fit, data, attempt.scales):
            yield {**common, "split": "train", "points": "all", "step_size": experiment.step_size, **row}


def ended(experiment: Experiment, data: Data, out: Path) -> Fit:
    """Return the fit of an experiment on this data, from its cell in `out` or trained there. Raises UserError."""
    cell = on(experiment, data)
    if not store.finished(out, cell.name, with_state=True):
        status = run_cell(Job("attempts", cell, out, store.environment()), data)
        if status != "done":
            raise NumericsError(f"the fit {cell.name} diverged")
    return restored(cell, store.load_state(out, cell.name))


def judged(fit: Fit, data: Data, metric: str, split: str, which: str, seed: int) -> Row:
    """Return a row's numbers: the bound or log p(x) by plain NumPy, with the estimator's own standard error."""
    x = chosen(data.train if split == "train" else data.test, which, min(POINTS, fit.experiment.eval_points))
    rng = np.random.default_rng([seed, 20])
    theta = {name: fit.engine.numpy(value) for name, value in fit.theta.items()}
    estimate = parts.named("backend", parts.find("backend", f"{PLAIN}:{metric}"))
    if metric == "log_px":
        found = estimate(theta, x, rng)
        error = float(np.sqrt(np.square(found.stderr).sum()) / len(x))
        low = float((found.effective < 50).mean())
        row = {"metric": "log_px_plain_nats", "value": float(found.value.mean()), "stderr": error}
        return {**row, "n_points": len(x), "flagged": low}
    posterior = fit.posterior(fit.engine.array(x))
    assert posterior is not None
    phi = {name: fit.engine.numpy(value) for name, value in posterior.args[0].items()}
    repeats = np.stack([estimate(theta, phi, x, 1, rng, fit.experiment.log_variance_factor) for _ in range(20)])
    error = float(repeats.mean(1).std(ddof=1) / np.sqrt(len(repeats)))
    return {"metric": "elbo_plain_nats", "value": float(repeats.mean()), "stderr": error, "n_points": len(x)}


def chosen(rows: np.ndarray, which: str, count: int) -> np.ndarray:
    """Return `count` rows: the first, which every comparison judges, or the last."""
    return rows[:count] if which == "first" else rows[-count:]


def varied(how: str, experiment: Experiment, data_dir: Path | None) -> Data:
    """Return the experiment's data, varied as an attempt asks: other rows for training, or another split of a film."""
    data = load(experiment.data, data_dir)
    if how == "as it is":
        return take(data, experiment.n_train)
    if how == "by 255":
        scale = np.float32(256 / 255)
        return data._replace(train=data.train * scale, test=data.test * scale)
    n_train = experiment.n_train or len(data.train)
    if how == "other rows":
        half = len(data.train) // 2
        return data._replace(train=data.train[half : half + n_train])
    frames = film(data, data_dir)
    number = np.arange(len(frames))
    n_test = len(data.test)
    tests = {
        "reshuffled": np.random.default_rng(1).permutation(number) < n_test,
        "every fifth": number % 5 == 0,
        "last": number >= len(frames) - n_test,
        "blocks": (number // 50) % 5 == 2,
    }[how]
    return data._replace(train=frames[~tests], test=frames[tests])


def film(data: Data, data_dir: Path | None) -> np.ndarray:
    """Return all images in the order of the film; those of another set in its own order."""
    if data.name == "frey":
        return read_frey(fetch(FRAMES, data_dir)).astype(np.float32) / 256
    return np.concatenate([data.train, data.test])


def from_map(fit: Fit, data: Data, scales: tuple[float, ...]) -> Iterator[dict[str, Any]]:
    """Yield rows: the bound around the MAP fit for each of `WIDTHS`, and after training from each of `scales`.

    If full VB ended in a bad optimum of its bound (appendix F), a q(theta) around weights that fit better would have
    the higher bound.
    Training goes on for as many points as the MAP fit had, with its step size; phi starts at the MAP fit's.
    """
    experiment = replace(fit.experiment, theta="vb")
    engine = inference.engine(experiment.engine, experiment.device, experiment.threads)
    backend, train = training(engine, fit.model, experiment.backend, experiment.settings, data.fresh)
    theta, phi = (pick(fit.state["params"], group) for group in ("theta", "phi"))
    x = engine.array(data.train)

    def start(width: float) -> State:
        state = backend.init(engine.key(0), theta, phi, x, engine.array(np.float32(experiment.step_size)))
        wide = {name: engine.ppl.xp.zeros_like(value) + float(np.log(width)) for name, value in theta.items()}
        params = {**state["params"], **join(**{SCALES: wide})}
        # Training gives up the memory of its state, and the MAP fit's arrays are in it.
        return _copied(engine, {**state, "params": params})

    for width in WIDTHS:
        yield from _rows(fit, backend, start(width), x, f"at MAP, width {width:g}", 0)
    m, steps = experiment.minibatch, experiment.samples // experiment.minibatch
    for width in scales:
        state = start(width)
        for first in range(0, steps, CHUNK):
            numbers = np.arange(first, min(first + CHUNK, steps))
            rng = np.random.default_rng([experiment.seed, 30, first])
            rows = np.stack([rng.choice(len(data.train), m, replace=False) for _ in numbers])
            key = engine.key(experiment.seed)
            state, _ = train(state, x, key, engine.array(numbers), engine.array(rows))
        yield from _rows(fit, backend, state, x, f"trained from width {width:g}", steps * m)


def _rows(fit: Fit, backend: Backend, state: State, x: Any, where: str, n_seen: int) -> Iterator[dict[str, Any]]:
    engine = fit.engine
    assert backend.theta_posterior is not None
    assert backend.posterior is not None
    q_theta = backend.theta_posterior(state)
    q = backend.posterior(engine.key(1), state, x, None)
    found = bound(Target(engine, fit.model, backend.theta(state), x, q), q_theta, engine.key(2), 20)
    weights = divergence(engine, q_theta)
    common = {"start": where, "n_seen": n_seen, "n_points": len(x)}
    yield {**common, "metric": "elbo_full_nats", "value": found.value, "stderr": found.stderr}
    yield {**common, "metric": "kl_theta_nats", "value": float(weights.sum()) / len(x), "stderr": 0.0}
    yield {**common, "metric": "theta_at_prior", "value": float((weights < AT_PRIOR).mean()), "stderr": 0.0}


def _copied(engine: Any, state: State) -> State:
    return {
        name: _copied(engine, value) if isinstance(value, dict) else engine.array(engine.numpy(value))
        for name, value in state.items()
    }


if __name__ == "__main__":
    cli.main(lambda: main(sys.argv[1:]))
