"""What of the paper is reproduced: its curves and its claims against the rows. Pure functions of both.

One curve of the paper may have been run in several configurations. The main one is what it is held against; the others
are experiments on the cause of a difference. `main` chooses, by these rules:

1. Nothing that departs from the paper's method (`ALLOWED` names what does not). Where the paper's estimator is the
   judge, and some runs keep its chains from one judgement to the next, as its authors do, nothing that starts them
   anew.
2. The longest run.
3. What keeps those chains. Then what chooses its step size and warm-up on training data (`=auto`), before what leaves
   them at their defaults, before what was told them; of two that choose, the one that tries each step size for longer.
4. NumPyro before Pyro; then by name, so that the choice is one.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from comparisons.evidence.judge import JudgeSettings
from comparisons.paper.curves import WHOLE, Curve, value_at
from comparisons.reporting import outcomes
from comparisons.runner.experiment import Experiment
from comparisons.runner.rows import trained

HIDDEN = {("figure2", "mnist"): 500, ("figure2", "frey"): 200, ("figure3", "mnist"): 100}  # the paper's section 5
SIZES = (1000, 50_000)  # training points of Figure 3
MODEL_OF = {"mnist": "vae_bernoulli", "frey": "vae_gaussian"}
METRICS = {  # what is held against a figure
    "figure2": ("elbo_nats",),
    "figure3": ("log_px_quadrature_nats", "log_px_appendix_d_nats"),
}
TRUTH, PAPERS = METRICS["figure3"]
JUDGED = ("reproduced", "better", "worse")
TRUSTED = 0.1  # share of its datapoints that an estimator may flag and still give a verdict
NATS = {"mnist": 2.0}  # how near is reproduced, in nats
SHARE = {"frey": 0.05}  # the same, as a share of the paper's value
STOPS = (1e6, 1e7)  # points seen at which curves are compared, besides the end of the run

# Settings of `method` that a run may have and still be the paper's: how it is judged, and what the paper tunes.
ALLOWED = {*JudgeSettings.__dataclass_fields__, "chains", "step_size", "pilot_steps", "warmup", "compile"}
FULL = ("e_step=full",)  # what the authors' Monte Carlo EM does: each E-step moves the chains of all training points
ENGINES = ("numpyro", "pyro")


class Configuration(NamedTuple):
    """One way in which a curve was run; seeds are not told apart."""

    method: str
    engine: str
    samples: int


class Point(NamedTuple):
    """A configuration's value at some points seen, over its seeds that did not fail.

    `error` is the standard deviation over seeds, what one run such as the paper's scatters by; for one seed the
    estimator's own standard error. `stderr` is the error of the mean. Both are in nats, NaN where `value` is: where a
    seed has diverged. `flagged` is the share of datapoints that the estimator itself says are not to be trusted;
    `contradicted` says that a bound of some seed exceeds log p(x) by more than their errors.
    """

    n_seen: int
    value: float
    error: float
    stderr: float
    seeds: int
    step_sizes: tuple[float, ...] = ()  # that the runs had, or chose
    flagged: float = 0.0
    contradicted: bool = False


class Verdict(NamedTuple):
    """One point of one curve of the paper, and ours."""

    curve: Curve
    metric: str
    at: str  # "1e6", "1e7" or "end"
    n_seen: int
    configuration: Configuration | None
    point: Point | None
    paper: float  # nats; NaN where the paper's figure shows no curve there
    difference: float  # ours minus the paper's, nats
    word: str  # one of JUDGED, or "not trusted", "not run", "no curve"


class Claim(NamedTuple):
    """A sentence of the paper: whether it holds here, and the numbers that say so."""

    sentence: str
    word: str  # "holds", "does not hold", "mixed" or "not run"
    evidence: tuple[str, ...]


def panel(rows: pd.DataFrame, figure: str, data: str, n_latent: int, n_train: int) -> pd.DataFrame:
    """Return the rows of one panel of a figure, of every backend and configuration, without runs that failed."""
    rows = outcomes.ran(rows)
    mine = (rows.data == data) & (rows.n_latent == n_latent) & (rows.n_train == n_train)
    return rows[mine & (rows.n_hidden == HIDDEN[figure, data]) & (rows.model == MODEL_OF[data])]


def configurations(rows: pd.DataFrame) -> list[Configuration]:
    """Return the configurations that rows hold, in order."""
    columns = rows[["method", "engine", "samples"]].drop_duplicates().sort_values(["method", "engine", "samples"])
    return [Configuration(str(method), str(engine), int(samples)) for method, engine, samples in columns.to_numpy()]


def of(rows: pd.DataFrame, configuration: Configuration) -> pd.DataFrame:
    """Return the rows of one configuration."""
    method, engine, samples = configuration
    return rows[(rows.method == method) & (rows.engine == engine) & (rows.samples == samples)]


def main(found: Iterable[Configuration], tolerated: tuple[str, ...] = ()) -> Configuration | None:
    """Choose the configuration that the paper's is held against, None where there is none (see the module).

    `tolerated` names further settings, `e_step=full` say, that each choice must have.
    """
    faithful = [one for one in found if not departures(one.method, tolerated) and {*tolerated} <= {*one.method.split()}]
    return min(faithful, key=_rank, default=None)


def stands(rows: pd.DataFrame, tolerated: tuple[str, ...] = ()) -> Configuration | None:
    """Return the configuration that stands for a curve: `main` of those that the rows, of one metric, hold."""
    found = configurations(rows)
    if (rows.metric == PAPERS).any() and any(keeps_chains(one.method) for one in found):
        found = [one for one in found if keeps_chains(one.method)]
    return main(found, tolerated)


def by_training(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows of one metric by how they were trained: seeds of one fit, whatever chains the paper's estimator had.

    Rows of that estimator itself stay as they are.
    """
    return rows if (rows.metric == PAPERS).any() else rows.assign(method=rows.method.map(trained))


def keeps_chains(method: str) -> bool:
    """Say whether the paper's estimator keeps its chains from one judgement of a run to the next."""
    return "chains=kept" in method.split()


def departures(method: str, tolerated: tuple[str, ...] = ()) -> list[str]:
    """Return the settings of a method that make it another than the paper's."""
    return [one for one in method.split() if one not in tolerated and one.partition("=")[0] not in ALLOWED]


def _rank(one: Configuration) -> tuple[int, bool, int, int, int, str]:
    told = dict(setting.split("=", 1) for setting in one.method.split())
    tuned = sum(1 if told[name] != "auto" else -1 for name in ("step_size", "warmup") if name in told)
    pilot = int(told.get("pilot_steps", Experiment.pilot_steps))
    return (
        -one.samples,
        not keeps_chains(one.method),
        tuned,
        -pilot,
        ENGINES.index(one.engine) if one.engine in ENGINES else len(ENGINES),
        one.method,
    )


def points(rows: pd.DataFrame) -> list[Point]:
    """Return the values of one configuration's rows, of one backend, split and metric, along its points seen."""
    n_seen, value = rows.n_seen.to_numpy(), rows.value.to_numpy(dtype=float)
    gone = np.isnan(value)  # diverged there
    seed = rows.seed.to_numpy()
    lost = [n_seen[gone & (seed == one)].min() for one in np.unique(seed[gone])]
    columns = ("seed", "value", "stderr", "step_size", "flagged", "status")
    told = {name: rows[name].to_numpy() for name in columns if name in rows}
    found = []
    for n in sorted({*n_seen}):
        there = (n_seen == n) & ~gone
        found.append(_point({name: one[there] for name, one in told.items()}, int(n), sum(one <= n for one in lost)))
    return found


def _point(told: dict[str, np.ndarray], n_seen: int, lost: int) -> Point:
    seeds = [told["value"][told["seed"] == one].mean() for one in np.unique(told["seed"])]
    count = len(seeds) + lost
    sizes = told["step_size"].astype(float)
    sizes_seen = tuple(float(size) for size in np.unique(sizes[~np.isnan(sizes)]))
    flagged = np.nan_to_num(told["flagged"].astype(float)) if "flagged" in told else np.zeros(0)
    if lost:  # a mean over the seeds that happened to survive would flatter the method
        value = error = np.nan
    else:
        value = float(np.mean(seeds))
        error = float(np.std(seeds, ddof=1)) if count > 1 else float(told["stderr"][0])
    doubted = float(flagged.mean()) if len(flagged) else 0.0
    contradicted = "status" in told and bool((told["status"] == "contradicted").any())
    return Point(n_seen, value, error, error / count**0.5, count, sizes_seen, doubted, contradicted)


def verdicts(figure2: pd.DataFrame, figure3: pd.DataFrame, curves: Iterable[Curve]) -> list[Verdict]:
    """Hold every curve of the paper against the rows of its figure, at each of `STOPS` and at the end of the run."""
    rows = {"figure2": figure2, "figure3": figure3}
    ordered = in_order(curves)
    return [verdict for curve in ordered for metric in METRICS[curve.figure] for verdict in _curve(rows, curve, metric)]


def in_order(curves: Iterable[Curve]) -> list[Curve]:
    """Return curves as the paper has them: by figure, MNIST before Frey Face."""
    return sorted(curves, key=lambda curve: (curve.figure, list(MODEL_OF).index(curve.data)))


def _curve(rows: dict[str, pd.DataFrame], curve: Curve, metric: str) -> Iterator[Verdict]:
    ours = line(rows[curve.figure], curve, metric)
    chosen = stands(ours)
    along = points(of(ours, chosen)) if chosen else []
    for stop in STOPS:
        near = [point for point in along if abs(point.n_seen - stop) <= 0.01 * stop]
        yield _verdict(curve, metric, f"1e{round(np.log10(stop))}", int(stop), chosen, near[0] if near else None)
    if along and not any(abs(along[-1].n_seen - stop) <= 0.01 * stop for stop in STOPS):
        yield _verdict(curve, metric, "end", along[-1].n_seen, chosen, along[-1])


def line(rows: pd.DataFrame, curve: Curve, metric: str) -> pd.DataFrame:
    """Return the rows, of every configuration, that stand beside a curve of the paper."""
    ours = panel(rows, curve.figure, curve.data, curve.n_latent, curve.n_train)
    return by_training(ours[(ours.backend == curve.backend) & (ours.split == curve.split) & (ours.metric == metric)])


def _verdict(
    curve: Curve, metric: str, at: str, n_seen: int, chosen: Configuration | None, point: Point | None
) -> Verdict:
    paper = value_at(curve, n_seen)
    difference = point.value - paper if point else np.nan
    if point is None:
        word = "not run"
    elif np.isnan(paper):
        word = "no curve"
    elif point.flagged > TRUSTED or point.contradicted:
        word = "not trusted"
    else:
        word = judged(curve.data, difference, paper)
    return Verdict(curve, metric, at, n_seen, chosen if point else None, point, paper, difference, word)


def said(word: str) -> str:
    """Return a verdict's word as people read it."""
    return "off the paper's axes" if word == "no curve" else word


def panel_name(curve: Curve, unit: str = "latent") -> str:
    """Return what tells a curve's panel from the figure's others: its latent variables, or its training points."""
    return f"{curve.n_latent} {unit}" if curve.figure == "figure2" else f"N = {curve.n_train:,}"


def judged(data: str, difference: float, paper: float) -> str:
    """Return the word for a difference [nats] from the paper's value: a run that diverged, NaN, is worse."""
    if abs(difference) <= tolerance(data, paper):
        return "reproduced"
    return "better" if difference > 0 else "worse"


def tolerance(data: str, paper: float) -> float:
    """Return how far from the paper's value is still reproduced [nats]: 2 nats on MNIST, 5 % on Frey Face."""
    return NATS[data] if data in NATS else SHARE[data] * abs(paper)


# The paper's claims


def claims(figure2: pd.DataFrame, figure3: pd.DataFrame) -> list[Claim]:
    """Return the paper's claims about its methods, each with what the rows say of it."""
    return [converges(figure2), no_overfitting(figure2), small_sets(figure3), large_sets(figure3)]


def converges(rows: pd.DataFrame) -> Claim:
    """AEVB against wake-sleep in every panel of Figure 2: higher at the end, and there sooner."""
    sentence = "AEVB converges faster than wake-sleep, and to a better bound"
    held, evidence = [], []
    for name, part in _panels(rows):
        aevb, other = (curve_of(part, backend, "test", "elbo_nats") for backend in ("aevb", "wake_sleep"))
        shared = sorted({*aevb} & {*other})
        if not shared:
            continue
        end = shared[-1]
        ahead = [n for n in shared if compared(aevb[n], other[n]) > 0]
        better = compared(aevb[end], other[end])
        reached = next((n for n in sorted(aevb) if aevb[n].value >= other[end].value), None)
        held.append(better > 0 and reached is not None and reached <= end)
        sooner = f"reaches wake-sleep's last value after {count(reached)} points" if reached else "never reaches it"
        evidence.append(
            f"{name}: at {count(end)} points AEVB is at {number(aevb[end])} on test, wake-sleep at "
            f"{number(other[end])}; AEVB is ahead at {len(ahead)} of {len(shared)} checkpoints and {sooner}."
        )
    return Claim(sentence, _word(held), tuple(evidence))


def no_overfitting(rows: pd.DataFrame) -> Claim:
    """AEVB with more latent variables: it overfits where train is higher and test lower than with fewer."""
    sentence = "More latent variables do not lead to more overfitting"
    held, evidence = [], []
    for data in MODEL_OF:
        fits = {}
        for k in sorted(rows[rows.data == data].n_latent.unique()):
            part = panel(rows, "figure2", data, k, WHOLE[data])
            fits[int(k)] = {split: curve_of(part, "aevb", split, "elbo_nats") for split in ("train", "test")}
        fits = {k: both for k, both in fits.items() if both["train"] and both["test"]}
        shared = (
            sorted(set.intersection(*({*both["train"]} & {*both["test"]} for both in fits.values()))) if fits else []
        )
        if len(fits) < 2 or not shared:
            continue
        end = shared[-1]
        for few, many in zip(fits, list(fits)[1:], strict=False):
            train, test = (compared(fits[many][split][end], fits[few][split][end]) for split in ("train", "test"))
            held.append(not (train > 0 and test < 0))
        each = ", ".join(
            f"{number(both['test'][end])} with {k} (train {number(both['train'][end])})" for k, both in fits.items()
        )
        evidence.append(f"{TITLES[data]}, AEVB on test at {count(end)} points: {each} latent variables.")
    return Claim(sentence, _word(held), tuple(evidence))


def small_sets(rows: pd.DataFrame) -> Claim:
    """Monte Carlo EM against AEVB and wake-sleep at N = 1000 on test, by both estimators."""
    sentence = "With 1,000 training points Monte Carlo EM has the best log p(x) on test"
    part = panel(rows, "figure3", "mnist", 3, 1000)
    held, evidence = [], []
    for metric in METRICS["figure3"]:
        lines = {b: curve_of(part, b, "test", metric) for b in ("monte_carlo_em", "aevb", "wake_sleep")}
        rivals = {b: along for b, along in lines.items() if b != "monte_carlo_em" and along}
        shared = (
            sorted(set.intersection(*({*along} for along in lines.values() if along))) if any(lines.values()) else []
        )
        if not lines["monte_carlo_em"] or not rivals or not shared:
            continue
        end = shared[-1]
        held.append(all(compared(lines["monte_carlo_em"][end], along[end]) > 0 for along in rivals.values()))
        each = ", ".join(f"{NAMES[b]} {number(along[end])}" for b, along in lines.items() if along)
        evidence.append(f"By {ESTIMATORS[metric]}, at {count(end)} points: {each}.")
        full = curve_of(part, "monte_carlo_em", "test", TRUTH, FULL) if metric == TRUTH else {}
        if end in full:
            held.append(all(compared(full[end], along[end]) > 0 for along in rivals.values()))
            best = max(full.values(), key=lambda point: -np.inf if np.isnan(point.value) else point.value)
            evidence.append(
                f"With all chains moved (e_step=full), by {ESTIMATORS[metric]}: {number(full[end])}; its best is "
                f"{number(best)}, after {count(best.n_seen)} points."
            )
    return Claim(sentence, _word(held), tuple(evidence))


def large_sets(rows: pd.DataFrame) -> Claim:
    """Monte Carlo EM against AEVB at N = 50,000 on test, with either E-step: is it the method, or its full E-step?"""
    sentence = "Monte Carlo EM cannot cope with 50,000 training points"
    part = panel(rows, "figure3", "mnist", 3, 50_000)
    held: list[bool] = []
    tied, evidence = False, []
    aevb = curve_of(part, "aevb", "test", TRUTH)
    for name, told in (("the chains of a minibatch moved", ()), ("all chains moved (e_step=full)", FULL)):
        along = curve_of(part, "monte_carlo_em", "test", TRUTH, told)
        shared = sorted({*along} & {*aevb})
        if not shared:
            evidence.append(f"With {name}: not run.")
            continue
        end = shared[-1]
        held.append(compared(along[end], aevb[end]) < 0)
        tie = "" if compared(along[end], aevb[end]) else ", which is within two standard errors"
        tied |= bool(tie)
        evidence.append(
            f"With {name}, at {count(end)} points: Monte Carlo EM {number(along[end])}, AEVB {number(aevb[end])} "
            f"on test by quadrature{tie}."
        )
    if len(held) == 2 and held == [False, True]:
        evidence.append("So it is the full E-step, not the method.")
    return Claim(sentence, "mixed" if tied else _word(held), tuple(evidence) if held else ())


TITLES = {"mnist": "MNIST", "frey": "Frey Face"}
NAMES = {"aevb": "AEVB", "wake_sleep": "wake-sleep", "monte_carlo_em": "Monte Carlo EM", "mean_field": "mean-field VI"}
ENGINE_NAMES = {"numpyro": "NumPyro", "pyro": "Pyro"}
ESTIMATORS = {TRUTH: "quadrature", PAPERS: "the paper's estimator"}


def compared(one: Point, other: Point) -> int:
    """Return 1 where `one` is higher, -1 where it is lower, 0 within two standard errors; what diverged is lowest."""
    lost = np.isnan(one.value), np.isnan(other.value)
    if any(lost):
        return int(lost[1]) - int(lost[0])
    difference, error = one.value - other.value, float(np.hypot(one.stderr, other.stderr))
    return 0 if abs(difference) <= 2 * error else int(np.sign(difference))


def relation(one: Point, other: Point, name: str) -> str:
    """Say how `one` stands to the `other`, which is called `name`: the words are the comparison's, with its errors."""
    if np.isnan(one.value) or np.isnan(other.value):
        return "diverged" if np.isnan(one.value) else f"not to be compared with {name}, which diverged"
    off = one.value - other.value
    if not compared(one, other):
        return f"within two standard errors of {name}"
    return f"{abs(off):.1f} nats {'above' if off > 0 else 'below'} {name}"


def count(n_seen: int | None) -> str:
    """Return points seen as people read them: 1e6 is `1 million`."""
    if n_seen is None:
        return "-"
    return f"{n_seen / 1e6:g} million" if n_seen >= 1e6 else f"{n_seen:,}"


def number(point: Point) -> str:
    """Return a value and, over several seeds, how it scatters; what diverged says so."""
    if np.isnan(point.value):
        return "diverged"
    digits = 1 if abs(point.value) < 500 else 0
    scatter = f" ± {point.error:.{digits}f}" if point.seeds > 1 else ""
    return f"{point.value:.{digits}f}{scatter}{outcomes.mark(point.contradicted)}"


def curve_of(
    part: pd.DataFrame, backend: str, split: str, metric: str, told: tuple[str, ...] = (), marked: bool = False
) -> dict[int, Point]:
    """Return by points seen the points of the configuration that stands for a curve, empty where there is none.

    Without `marked` what a bound contradicts is left out: nothing may be concluded from it.
    """
    mine = by_training(part[(part.backend == backend) & (part.split == split) & (part.metric == metric)])
    chosen = stands(mine, told)
    return {p.n_seen: p for p in points(of(mine, chosen)) if marked or not p.contradicted} if chosen else {}


def _panels(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for data in MODEL_OF:
        for k in sorted(rows[rows.data == data].n_latent.unique()):
            yield f"{TITLES[data]}, {k} latent variables", panel(rows, "figure2", data, int(k), WHOLE[data])


def _word(held: list[bool]) -> str:
    if not held:
        return "not run"
    return "holds" if all(held) else "mixed" if any(held) else "does not hold"


# As rows

PLACE = ("figure", "data", "n_latent", "n_train", "backend", "split", "metric", "at", "n_seen")
NUMBERS = ("value", "error", "seeds", "paper", "difference", "verdict")


def to_csv(found: Iterable[Verdict]) -> str:
    """Return verdicts, one point of one curve a line; a number that is missing is an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*PLACE, *NUMBERS, *Configuration._fields])
    for v in found:
        p, run = v.point, v.configuration or ("", "", "")
        ours = [_plain(p.value), _plain(p.error), p.seeds] if p else ["", "", ""]
        place = [*v.curve[:6], v.metric, v.at, v.n_seen]
        writer.writerow([*place, *ours, _plain(v.paper), _plain(v.difference), v.word, *run])
    return text.getvalue()


def _plain(value: float) -> str:
    return repr(round(float(value), 4)) if np.isfinite(value) else ""
