"""The estimators of log p(x) against truths: what is run, in pieces, each kept in files of its own."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import inference
from comparisons import cli
from comparisons.benchmarks.scoring import measured, scored
from comparisons.data import Data, load, take
from comparisons.evidence.annealed import AnnealedSettings, bidirectional, simulate
from comparisons.evidence.appendix_d import AppendixDSettings, appendix_d_kept
from comparisons.evidence.base import Estimate, Target
from comparisons.evidence.elbo import elbo
from comparisons.evidence.importance import ImportanceSettings
from comparisons.evidence.judge import ESTIMATORS, JudgeSettings, estimate
from comparisons.evidence.kept import Chains
from comparisons.evidence.sandwich import sandwich
from comparisons.runner import store
from comparisons.runner.experiment import NUMBERS_VERSION, Experiment
from comparisons.runner.fits import Fit, fitted, followed
from inference.base import Array, Engine, Key, Params, Posterior, setting
from models.linear_gaussian import LinearGaussian, log_px, posterior

PARTS = ("linear", "mnist", "simulated", "paper", "engines", "defaults")

# Every estimator from cheap to dear: a line in the figure each. `q` is the backend's own approximate posterior.
WELL_RUN: dict[str, Any] = {"hmc_chains": 8, "hmc_warmup": 100, "hmc_leapfrog": 10, "force": True}
SWEEP: dict[str, list[dict[str, Any]]] = {
    "importance, q": [{"proposal": "q", "importance_samples": k} for k in (100, 1000, 10_000)],
    "importance, HMC mixture": [{"proposal": "hmc", "importance_samples": k} for k in (100, 1000, 10_000)],
    "annealed, prior": [{"temperatures": t} for t in (50, 200, 800)],
    "annealed, q": [{"start": "recognition", "temperatures": t} for t in (50, 200, 800)],
    "appendix_d, paper": [{"force": True, "hmc_draws": d} for d in (50, 200, 800)],
    "appendix_d, draws reused": [{"force": True, "hmc_draws": d, "reuse_draws": True} for d in (50, 200, 800)],
    "appendix_d, 8 chains": [{**WELL_RUN, "hmc_draws": d} for d in (50, 200, 500)],
    "appendix_d, 8 annealed chains": [{**WELL_RUN, "start": "annealed", "hmc_draws": d} for d in (50, 200, 500)],
    "appendix_d, 8 annealed chains, normal": [
        {**WELL_RUN, "start": "annealed", "hmc_draws": d, "density": "normal"} for d in (50, 200, 500)
    ],
}
# The paper's estimator, besides that of chains kept along training: all of these are begun anew where training ended.
KEPT = "appendix_d, chains kept"
PAPER: dict[str, dict[str, Any]] = {
    "appendix_d": {},
    "appendix_d, draws reused": {"reuse_draws": True},
    "appendix_d, started at q": {"start": "recognition"},
    "appendix_d, annealed start": {"start": "annealed"},
}

DEFAULTS: dict[str, dict[str, Any]] = {
    "importance, HMC mixture": {},
    "importance, q": {"proposal": "q"},
    "annealed, prior": {},
    "annealed, q": {"start": "recognition"},
    "appendix_d, paper": {"force": True},
}
TIGHT = ImportanceSettings(importance_samples=10_000)  # of the two bounds that hold a truth
LAST = ("w2", "b2")  # parameters of a decoder's last layer
SATURATED = (1.0, 5.0, 20.0)  # factors on the last layer of a trained Bernoulli decoder
SURE = 0.05  # nats: a truth with a larger error of its own is none
NARROW = -12.0  # log variance of a Gaussian decoder whose posteriors are a thousandth of the prior wide


@dataclass(frozen=True, kw_only=True)
class Plan(cli.Plan):
    """What is run. Each field is a flag."""

    parts: tuple[str, ...] = setting(PARTS, "what to run", choices=PARTS)
    points: int = setting(1000, "datapoints of the parts mnist and paper [datapoints]", low=10, high=10_000)
    simulated: int = setting(100, "datapoints of the part simulated [datapoints]", low=10, high=10_000)
    repeats: int = setting(200, "part linear: repetitions of each of 5 datapoints", low=2, high=10_000)
    latents: tuple[int, ...] = setting((2, 3, 10, 20, 50), "part linear: latent variables", low=1, high=100)
    decoders: tuple[int, ...] = setting((2, 3, 10, 20), "part defaults: latent variables", low=1, high=100)
    levels: tuple[int, ...] = setting((0, 1, 2), "levels of cost of each estimator, from cheap to dear", low=0, high=2)
    temperatures: int = setting(500, "part simulated: temperatures of the two bounds", low=10, high=10**6)
    samples: int = setting(1_000_000, "training points of each fit [datapoints]", low=1000, high=10**9)


def judge(target: Target, name: str, seed: int, **changes: Any) -> Estimate:
    """Run an estimator by its name, or by one of its names in `SWEEP`."""
    return estimate(name.split(",")[0], target, replace(JudgeSettings(), **changes), seed)


Row = dict[str, Any]


class Piece(NamedTuple):
    """What is run, and kept, as one: its rows, and the settings of the plan that they depend on."""

    part: str
    name: str
    reads: tuple[str, ...]
    rows: Callable[[], Iterator[Row]]

    @property
    def file(self) -> str:
        """The name of the files that hold its rows and what they were run with."""
        return f"{self.part}-{self.name}"


def calibrate(plan: Plan, out: Path, data_dir: Path | None) -> int:
    """Run what has not been run, write rows.csv, table.md and figure.svg; return 0. Raises UserError."""
    store.prepare(out)
    data = load("mnist", data_dir) if set(plan.parts) - {"linear", "defaults"} else None
    engine = inference.engine(plan.engine, "cpu", plan.threads)
    for part in plan.parts:
        for piece in PIECES[part](plan, engine, data, out):
            run(piece, plan, out)
    report(out)
    print((out / "table.md").read_text())
    return 0


def run(piece: Piece, plan: Plan, out: Path) -> None:
    """Run a piece, unless its files in `out` are of the same settings and versions of the numbers. Raises UserError."""
    judged = max(card.version for card in ESTIMATORS.values())
    versions = {"numbers_version": NUMBERS_VERSION, "judge_version": judged}
    identity = {**{name: getattr(plan, name) for name in piece.reads}, **versions}
    path = out / "parts" / f"{piece.file}.json"
    if store.made_with(path, identity):
        return
    environment = store.environment()
    rows: list[Row] = []
    for row in piece.rows():
        rows.append({"part": piece.part, **row})
        print(_line(rows[-1]), file=sys.stderr)
    store.write_rows(path.with_suffix(".csv"), rows)
    store.write_json(path, {**environment, "identity": identity, "plan": asdict(plan)})  # last: it says done


SWEPT = ("engine", "seed", "levels")  # what every sweep over the estimators depends on


def linear(plan: Plan, engine: Engine, data: Data | None, out: Path) -> Iterator[Piece]:
    """Against the closed form: 5 datapoints, each judged again and again with fresh noise."""
    for k in plan.latents:
        yield Piece("linear", str(k), (*SWEPT, "repeats"), partial(_linear, plan, engine, k))


def _linear(plan: Plan, engine: Engine, k: int) -> Iterator[Row]:
    n_x = 2 * k + 4
    rng = np.random.default_rng([plan.seed, k])
    model = LinearGaussian(n_x, k)
    w, b = rng.standard_normal((k, n_x)) / np.sqrt(k), rng.standard_normal(n_x)
    theta = {"w": w, "b": b, "log_scale": np.log(0.5)}
    x = b + rng.standard_normal((5, k)) @ w + 0.5 * rng.standard_normal((5, n_x))
    x = np.tile(x, (plan.repeats, 1))
    placed = {name: engine.array(value) for name, value in theta.items()}
    q = best_factorised(engine, theta, x)
    target = Target(engine, model, placed, engine.array(x), q)
    for row in sweep(target, plan, log_px(theta, x), repeats=plan.repeats):
        yield {"model": "linear_gaussian", "n_latent": k, **row}


def best_factorised(engine: Engine, theta: dict[str, Any], x: np.ndarray) -> Posterior:
    """Return the recognition model with the highest bound: the exact mean, one over the precision's diagonal."""
    _, covariance = posterior(theta, x)
    slope = theta["w"].T @ covariance / np.exp(2 * theta["log_scale"])
    log_scale = -0.5 * np.log(np.diag(np.linalg.inv(covariance)))
    phi = {"w": slope, "b": -theta["b"] @ slope, "log_scale": log_scale}
    model = LinearGaussian(*slope.shape)
    return Posterior(model.recognition, ({name: engine.array(value) for name, value in phi.items()}, engine.array(x)))


def mnist(plan: Plan, engine: Engine, data: Data | None, out: Path) -> Iterator[Piece]:
    """Against quadrature, on the test points of decoders trained by AEVB."""
    for k in (2, 3):
        yield Piece("mnist", str(k), (*SWEPT, "points", "samples"), partial(_mnist, plan, data, out, k))


def _mnist(plan: Plan, data: Data | None, out: Path, k: int) -> Iterator[Row]:
    target = _target(fit_of(plan, data, out, "aevb", k, 50_000, 100), data, "test", plan.points)
    truth = judge(target, "quadrature", plan.seed, tolerance=0.01).value
    for tolerance in (1.0, 0.1, 0.03):
        judged = measured(partial(judge, target, "quadrature", plan.seed, tolerance=tolerance))
        row = {"estimator": "quadrature", "settings": f"tolerance={tolerance}", **scored(judged, truth)}
        yield {"model": "vae_bernoulli", "n_latent": k, **row}
    for row in sweep(target, plan, truth):
        yield {"model": "vae_bernoulli", "n_latent": k, **row}


def simulated(plan: Plan, engine: Engine, data: Data | None, out: Path) -> Iterator[Piece]:
    """Between two bounds, on data drawn from decoders with many latent variables."""
    for k in (20, 50):
        reads = (*SWEPT, "simulated", "temperatures", "samples")
        yield Piece("simulated", str(k), reads, partial(_simulated, plan, engine, data, out, k))


def _simulated(plan: Plan, engine: Engine, data: Data | None, out: Path, k: int) -> Iterator[Row]:
    fit = fit_of(plan, data, out, "aevb", k, 50_000, 200)
    x, z = simulate(engine, fit.model, fit.theta, plan.simulated, engine.key(plan.seed + k))
    target = Target(engine, fit.model, fit.theta, x, fit.posterior(x))
    bounds: dict[tuple[str, str], Callable[[], Estimate]] = {
        ("sandwich", f"importance_samples={TIGHT.importance_samples}"): partial(
            sandwich, target, z, TIGHT, plan.seed + 1
        )
    }
    for start in ("prior", "recognition"):
        led = AnnealedSettings(start=start, temperatures=plan.temperatures)
        named = ("bidirectional", f"start={start} temperatures={plan.temperatures}")
        bounds[named] = partial(bidirectional, target, z, led, plan.seed + 1)
    found = []
    for (name, settings), run in bounds.items():
        judged = measured(run)
        found.append(judged.estimate)
        row = {"estimator": name, "settings": settings, "gap": float((found[-1].diagnostics or {})["gap"].mean())}
        yield {"model": "vae_bernoulli", "n_latent": k, **row, **scored(judged, np.full(len(x), np.nan))}
    for row in sweep(target, plan, *tightest(found)):
        yield {"model": "vae_bernoulli", "n_latent": k, **row}


def paper(plan: Plan, engine: Engine, data: Data | None, out: Path) -> Iterator[Piece]:
    """The paper's estimator at its own settings, beside the truth and the bound, on every backend's fit."""
    for n_train in (1000, 50_000):
        for backend in inference.BACKENDS:
            rows = partial(_paper, plan, engine, data, out, n_train, backend)
            yield Piece("paper", f"{backend}-{n_train}", ("engine", "seed", "points", "samples"), rows)


def _paper(plan: Plan, engine: Engine, data: Data | None, out: Path, n_train: int, backend: str) -> Iterator[Row]:
    assert data is not None
    experiment = replace(_experiment(plan, backend, 3, n_train, 100), eval_points=plan.points)
    fit, chains = followed(experiment, take(data, n_train), out)
    for split in ("train", "test"):
        target = _target(fit, data, split, plan.points)
        truth = judge(target, "quadrature", plan.seed, tolerance=0.03).value
        runs: dict[str, Callable[[], Estimate]] = {
            name: partial(judge, target, "appendix_d", plan.seed, **changes)
            for name, changes in PAPER.items()
            if target.q is not None or changes.get("start") != "recognition"
        }
        key = engine.key(plan.seed)
        runs[KEPT] = partial(_kept, target, key, chains[split])
        if target.q is not None:
            runs["lower bound"] = partial(elbo, target, key, 20)
        for name, run in runs.items():
            yield {
                "model": "vae_bernoulli", "n_latent": 3, "n_train": n_train, "backend": backend,
                "split": split, "estimator": name, "settings": "", "truth": float(truth.mean()),
                **scored(measured(run), truth),
            }  # fmt: skip


def engines(plan: Plan, engine: Engine, data: Data | None, out: Path) -> Iterator[Piece]:
    """Both engines' estimates from the same theta and x: their difference in standard errors."""
    yield Piece("engines", "3", ("engine", "seed", "samples"), partial(_engines, plan, data, out))


def _engines(plan: Plan, data: Data | None, out: Path) -> Iterator[Row]:
    fit = fit_of(plan, data, out, "aevb", 3, 50_000, 100)
    one, two = (
        _target(fit.on(inference.engine(name, "cpu", plan.threads)), data, "test", 100)
        for name in sorted(inference.ENGINES)
    )
    variants: dict[str, dict[str, Any]] = {"quadrature": {}, **{name: levels[1] for name, levels in SWEEP.items()}}
    for name, changes in variants.items():
        judged = [measured(partial(judge, target, name, plan.seed, **changes)) for target in (one, two)]
        here, there = (each.estimate for each in judged)
        difference = here.value - there.value
        # Below a thousandth of a nat stands float32's rounding of log p(x, z).
        error = np.maximum(np.hypot(here.stderr, there.stderr), 1e-3)
        trusted = ~(here.doubtful | there.doubtful)
        yield {
            "model": "vae_bernoulli", "n_latent": 3, "estimator": name, "settings": _settings(changes),
            **scored(judged[0], there.value),
            "difference": float(difference.mean()),
            "mean_in_errors": float(difference[trusted].sum() / np.sqrt(np.square(error[trusted]).sum() or np.nan)),
            "worst_in_errors": float(np.abs(difference / error)[trusted].max(initial=0.0)),
        }  # fmt: skip


def defaults(plan: Plan, engine: Engine, data: Data | None, out: Path) -> Iterator[Piece]:
    """At default settings: every estimator on data drawn from decoders of digits, as they are and made harder."""
    for k in plan.decoders:
        for model in ("vae_bernoulli", "vae_gaussian"):
            reads = ("engine", "seed", "simulated", "temperatures", "samples")
            yield Piece("defaults", f"{model}-{k}", reads, partial(_defaults, plan, engine, out, k, model))


def _defaults(plan: Plan, engine: Engine, out: Path, k: int, model: str) -> Iterator[Row]:
    experiment = Experiment(
        data="digits", model=model, n_latent=k, n_hidden=20, engine=plan.engine, seed=plan.seed,
        samples=min(plan.samples, 100_000), step_size=0.02, threads=plan.threads, evidence=("none",),
    )  # fmt: skip
    fit = fitted(experiment, load("digits"), out)
    for kind, theta in harder(fit.theta).items():
        x, z = simulate(engine, fit.model, theta, plan.simulated, engine.key(plan.seed + k))
        target = Target(engine, fit.model, theta, x, fit.posterior(x))
        truth, error = best_known(plan, target, z)
        for name, changes in DEFAULTS.items():
            judged = measured(partial(judge, target, name, plan.seed, **changes))
            row = {"model": model, "decoder": kind, "n_latent": k, "estimator": name}
            yield {**row, "settings": _settings(changes), **scored(judged, truth, truth_error=error)}


def harder(theta: Params) -> dict[str, Params]:
    """Return a decoder's parameters, as they are and made harder, by what was done to them."""
    if "w3" in theta:
        return {f"log variance {NARROW:g}": {**theta, "w3": 0.0 * theta["w3"], "b3": 0.0 * theta["b3"] + NARROW}}
    return {
        "trained" if factor == 1.0 else f"weights x {factor:g}": {**theta, **{n: factor * theta[n] for n in LAST}}
        for factor in SATURATED
    }


def best_known(plan: Plan, target: Target, z: Array) -> tuple[np.ndarray, np.ndarray]:
    """Return log p(x) [n] and its error: by quadrature up to three latent variables, above between two bounds.

    NaN where that error exceeds `SURE`: what no truth is known of judges nobody.
    """
    if target.model.n_latent <= 3:
        found = judge(target, "quadrature", plan.seed, tolerance=0.01)
    else:
        found = sandwich(target, z, TIGHT, plan.seed + 1)
    return tightest([found])


def tightest(found: Sequence[Estimate]) -> tuple[np.ndarray, np.ndarray]:
    """Return for each datapoint the value of the smallest error, and that error, [n]; NaN where that is too large."""
    best = np.argmin(np.nan_to_num([each.stderr for each in found], nan=np.inf), 0)[None]
    value, error = (
        np.take_along_axis(np.stack(each), best, 0)[0]
        for each in ([each.value for each in found], [each.stderr for each in found])
    )
    return np.where(error <= SURE, value, np.nan), error


PIECES: dict[str, Callable[[Plan, Engine, Data | None, Path], Iterator[Piece]]] = {
    "linear": linear, "mnist": mnist, "simulated": simulated, "paper": paper, "engines": engines,
    "defaults": defaults,
}  # fmt: skip


def fit_of(plan: Plan, data: Data | None, out: Path, backend: str, k: int, n_train: int, n_hidden: int) -> Fit:
    """Return one fit to MNIST: from this comparison's folder, or the main one's, else trained here."""
    assert data is not None
    experiment = _experiment(plan, backend, k, n_train, n_hidden)
    return fitted(experiment, take(data, n_train), out, [Path("reports/marginal_likelihood")])


def _experiment(plan: Plan, backend: str, k: int, n_train: int, n_hidden: int) -> Experiment:
    return Experiment(
        data="mnist", n_train=n_train, n_latent=k, n_hidden=n_hidden, backend=backend, engine=plan.engine,
        seed=plan.seed, samples=plan.samples, threads=plan.threads,
    )  # fmt: skip


def _kept(target: Target, key: Key, chains: Chains) -> Estimate:
    """The paper's estimator as its authors ran it: by the chains that were kept along the fit's training."""
    return appendix_d_kept(target, AppendixDSettings(), key, chains)[0]


def sweep(
    target: Target, plan: Plan, truth: np.ndarray, truth_error: np.ndarray | float = 0.0, repeats: int = 1
) -> Iterator[Row]:
    """Run every estimator at every level of cost; yield a row each."""
    for name, levels in SWEEP.items():
        for level in plan.levels:
            changes = levels[level]
            judged = measured(partial(judge, target, name, plan.seed, **changes))
            row = {"estimator": name, "settings": _settings(changes), "level": level}
            yield {**row, **scored(judged, truth, repeats, truth_error)}


def report(out: Path) -> None:
    """Rebuild rows.csv, table.md and figure.svg from the pieces that have been run, each part's in their order."""
    import pandas as pd

    from comparisons.benchmarks import calibration_report

    folder = out / "parts"
    # A file of the whole part is of an earlier version, which did not run it in pieces.
    found = [
        path
        for part in PARTS
        for path in sorted(folder.glob(f"{part}-*.csv"), key=_in_order) or folder.glob(f"{part}.csv")
    ]
    rows = pd.concat([pd.read_csv(path) for path in found], ignore_index=True)
    store.write(out / "rows.csv", rows.to_csv(index=False, lineterminator="\n"))
    store.write(out / "table.md", calibration_report.markdown(rows))
    store.write(out / "figure.svg", calibration_report.error_against_cost(rows))


def _in_order(path: Path) -> tuple[int, str]:
    """Return the key that sorts the pieces of a part: by the number that ends their name, then by name."""
    number = path.stem.rpartition("-")[2]
    return (int(number) if number.isdigit() else 0, path.name)


def _target(fit: Fit, data: Data | None, split: str, count: int) -> Target:
    assert data is not None
    x, indices = fit.points(take(data, fit.experiment.n_train), split, count)
    return Target(fit.engine, fit.model, fit.theta, x, fit.posterior(x, indices))


def _settings(changes: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in changes.items() if name != "force")


def _line(row: dict[str, Any]) -> str:
    what = " ".join(str(row[name]) for name in ("part", "backend", "n_train", "split") if name in row)
    return (
        f"{what} k={row['n_latent']} {row['estimator']} {row['settings']}: bias {row['bias']:+.3f}, "
        f"sd {row['sd']:.3f}, coverage {row['coverage']:.0%}, flagged {row['flagged']:.0%}, "
        f"{row['seconds_per_1000']:.1f} s"
    )
