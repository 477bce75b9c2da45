"""What of the paper is reproduced: its curves and its claims against the rows. Pure functions of both."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd

from comparisons.paper import runs
from comparisons.paper.curves import Curve, value_at
from comparisons.paper.runs import FULL, MODEL_OF, PAPERS, TRUTH, Configuration, Point, curve_of, shared
from comparisons.paper.words import ESTIMATORS, NAMES, TITLES, compared, count, number
from comparisons.reporting import csv

METRICS = {"figure2": ("elbo_nats",), "figure3": (TRUTH, PAPERS)}  # what is held against a figure
ABOVE, BELOW = "above the paper", "below the paper"
JUDGED = ("reproduced", ABOVE, BELOW)
TRUSTED = 0.1  # share of its datapoints that an estimator may flag and still give a verdict
NATS = {"mnist": 2.0}  # how near is reproduced, in nats
SHARE = {"frey": 0.05}  # the same, as a share of the paper's value
STOPS = (1e6, 1e7)  # points seen at which curves are compared, besides the end of the run


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


def verdicts(figure2: pd.DataFrame, figure3: pd.DataFrame, curves: Iterable[Curve]) -> list[Verdict]:
    """Hold every curve of the paper against the rows of its figure, at each of `STOPS` and at the end of the run."""
    rows = {"figure2": figure2, "figure3": figure3}
    return [
        verdict
        for curve in in_order(curves)
        for metric in METRICS[curve.figure]
        for verdict in _curve(rows[curve.figure], curve, metric)
    ]


def in_order(curves: Iterable[Curve]) -> list[Curve]:
    """Return curves as the paper has them: by figure, MNIST before Frey Face."""
    return sorted(curves, key=lambda curve: (curve.figure, list(MODEL_OF).index(curve.data)))


def _curve(rows: pd.DataFrame, curve: Curve, metric: str) -> Iterator[Verdict]:
    ours = runs.line(rows, curve, metric)
    chosen = runs.stands(ours)
    along = runs.points(runs.of(ours, chosen)) if chosen else []
    for stop in STOPS:
        yield _verdict(curve, metric, f"1e{round(np.log10(stop))}", int(stop), chosen, runs.near(along, stop))
    if along and not any(runs.near(along[-1:], stop) for stop in STOPS):
        yield _verdict(curve, metric, "end", along[-1].n_seen, chosen, along[-1])


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


def judged(data: str, difference: float, paper: float) -> str:
    """Return the word for a difference [nats] from the paper's value: a run that diverged, NaN, is below."""
    if abs(difference) <= tolerance(data, paper):
        return "reproduced"
    return ABOVE if difference > 0 else BELOW


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
    for data, k, part in runs.figure2_panels(rows):
        aevb, other = (curve_of(part, backend, "test", "elbo_nats") for backend in ("aevb", "wake_sleep"))
        stops = shared(aevb, other)
        if not stops:
            continue
        end = stops[-1]
        ahead = [compared(aevb[n], other[n]) > 0 for n in stops]
        reached = next((n for n in sorted(aevb) if aevb[n].value >= other[end].value), None)
        held.append(ahead[-1] and reached is not None and reached <= end)
        sooner = f"reaches wake-sleep's last value after {count(reached)} points" if reached else "never reaches it"
        evidence.append(
            f"{TITLES[data]}, {k} latent variables: at {count(end)} points AEVB is at {number(aevb[end])} on test, "
            f"wake-sleep at {number(other[end])}; AEVB is ahead at {sum(ahead)} of {len(ahead)} checkpoints and "
            f"{sooner}."
        )
    return _claim(sentence, held, evidence)


def no_overfitting(rows: pd.DataFrame) -> Claim:
    """AEVB with more latent variables: it overfits where train is higher and test lower than with fewer."""
    sentence = "More latent variables do not lead to more overfitting"
    held, evidence = [], []
    for data in MODEL_OF:
        fits = {
            k: {split: curve_of(part, "aevb", split, "elbo_nats") for split in ("train", "test")}
            for _, k, part in runs.figure2_panels(rows, [data])
        }
        fits = {k: both for k, both in fits.items() if all(both.values())}
        stops = shared(*(along for both in fits.values() for along in both.values()))
        if len(fits) < 2 or not stops:
            continue
        ends = {k: {split: along[stops[-1]] for split, along in both.items()} for k, both in fits.items()}
        for few, many in pairwise(ends.values()):
            held.append(not (compared(many["train"], few["train"]) > 0 and compared(many["test"], few["test"]) < 0))
        each = ", ".join(f"{number(end['test'])} with {k} (train {number(end['train'])})" for k, end in ends.items())
        evidence.append(f"{TITLES[data]}, AEVB on test at {count(stops[-1])} points: {each} latent variables.")
    return _claim(sentence, held, evidence)


def small_sets(rows: pd.DataFrame) -> Claim:
    """Monte Carlo EM against AEVB and wake-sleep at N = 1000 on test, by both estimators."""
    sentence = "With 1,000 training points Monte Carlo EM has the best log p(x) on test"
    part = runs.figure3_panel(rows, 1000)
    held, evidence = [], []
    for metric in METRICS["figure3"]:
        last = runs.ends({b: curve_of(part, b, "test", metric) for b in ("monte_carlo_em", "aevb", "wake_sleep")})
        if "monte_carlo_em" not in last or len(last) < 2:
            continue
        em, *rivals = last.values()
        end = em.n_seen
        each = ", ".join(f"{NAMES[backend]} {number(point)}" for backend, point in last.items())
        held.append(all(compared(em, rival) > 0 for rival in rivals))
        evidence.append(f"By {ESTIMATORS[metric]}, at {count(end)} points: {each}.")
        full = curve_of(part, "monte_carlo_em", "test", TRUTH, FULL) if metric == TRUTH else {}
        if end in full:
            held.append(all(compared(full[end], rival) > 0 for rival in rivals))
            best = runs.best(full.values())
            evidence.append(
                f"With all chains moved (e_step=full), by {ESTIMATORS[metric]}: {number(full[end])}; its best is "
                f"{number(best)}, after {count(best.n_seen)} points."
            )
    return _claim(sentence, held, evidence)


def large_sets(rows: pd.DataFrame) -> Claim:
    """Monte Carlo EM against AEVB at N = 50,000 on test, with either E-step: is it the method, or its full E-step?"""
    sentence = "Monte Carlo EM cannot cope with 50,000 training points"
    part = runs.figure3_panel(rows, 50_000)
    held: list[bool] = []
    tied, evidence = False, []
    aevb = curve_of(part, "aevb", "test", TRUTH)
    for name, told in (("the chains of a minibatch moved", ()), ("all chains moved (e_step=full)", FULL)):
        last = runs.ends({"em": curve_of(part, "monte_carlo_em", "test", TRUTH, told), "aevb": aevb})
        if len(last) < 2:
            evidence.append(f"With {name}: not run.")
            continue
        higher = compared(last["em"], last["aevb"])
        held.append(higher < 0)
        tied |= higher == 0
        tie = "" if higher else ", which is within two standard errors"
        evidence.append(
            f"With {name}, at {count(last['em'].n_seen)} points: Monte Carlo EM {number(last['em'])}, "
            f"AEVB {number(last['aevb'])} on test by quadrature{tie}."
        )
    if held == [False, True]:
        evidence.append("So it is the full E-step, not the method.")
    return _claim(sentence, held, evidence, tied)


def _claim(sentence: str, held: list[bool], evidence: list[str], tied: bool = False) -> Claim:
    if not held:
        return Claim(sentence, "not run", ())
    word = "mixed" if tied else "holds" if all(held) else "mixed" if any(held) else "does not hold"
    return Claim(sentence, word, tuple(evidence))


# As rows

PLACE = ("figure", "data", "n_latent", "n_train", "backend", "split", "metric", "at", "n_seen")
NUMBERS = ("value", "error", "seeds", "paper", "difference", "verdict")


def to_csv(found: Iterable[Verdict]) -> str:
    """Return verdicts, one point of one curve a line; a number that is missing is an empty field."""
    lines = []
    for v in found:
        ours = [v.point.value, v.point.stderr, v.point.seeds] if v.point else [np.nan, np.nan, ""]
        place = [*v.curve[:6], v.metric, v.at, v.n_seen]
        lines.append([*place, *ours, v.paper, v.difference, v.word, *(v.configuration or ("", "", ""))])
    columns = [*PLACE, *NUMBERS, *Configuration._fields]
    return csv.for_people(pd.DataFrame(lines, columns=columns).round(4))
