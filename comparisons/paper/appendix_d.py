"""The paper's estimator (appendix D) against quadrature on the same fits, stop by stop: how far it is off, what it
costs, and which methods it orders otherwise.

Two readings are told apart. In the authors' code a datapoint keeps its chain and its step size from one judgement to
the next along training (`chains=kept`); without that every judgement starts its chains anew.

At one stop, for one number of training points and split, a pair of methods turns where both estimates tell the two
apart by more than two standard errors, and the other way round. A pair that either leaves within them is undecided,
and does not turn.
"""

from collections.abc import Iterator
from itertools import combinations, product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from comparisons.paper import runs
from comparisons.paper.found import Found
from comparisons.paper.runs import FULL, PAPERS, SIZES, SPLITS, TRUTH, Point
from comparisons.paper.words import NAMES, compared, count
from comparisons.reporting.blocks import Block, Figures, Fold, Items, Paragraph, Table, not_run

EVALS = "appendix_d_evals"  # decoder evaluations that kept chains have taken up to a stop
NEAR = {"monte_carlo_em": 3.0}  # nats within which the estimator's mean error is held to be small,
ELSE_NEAR = 1.0  # and for the other methods
READINGS = {True: "kept", False: "started anew"}  # what becomes of the chains


TEXT = (
    "The paper estimates log p(x) from 50 posterior draws of short HMC chains (its appendix D). Its authors keep a "
    "datapoint's chain, and its step size, from one judgement to the next along training. Below is the mean error "
    "of that estimator at each stop: its value minus that of quadrature on the same fits and datapoints. ± is the "
    "standard error over seeds, for one seed that of the estimators."
)
TURNS = (
    "A pair turns where both estimates tell the two apart by more than two standard errors, and the other way round; "
    "of one seed the error is that of the estimators, and knows nothing of other seeds."
)


class Contestant(NamedTuple):
    """One method's fits that both quadrature and the paper's estimator judged, by one reading of the chains."""

    n_train: int
    split: str
    name: str  # as people read it
    backend: str
    kept: bool
    rows: pd.DataFrame  # of the split, both metrics, all seeds


class Error(NamedTuple):
    """The estimator minus quadrature at one stop, in nats: mean over seeds of the mean over datapoints."""

    n_seen: int
    value: float  # NaN where a seed had diverged
    stderr: float  # over seeds; for one seed that of both estimators together
    seeds: int
    flagged: float  # share of datapoints that the paper's estimator does not trust
    evals: float  # decoder evaluations of the chains so far; NaN where they were not counted


def contestants(figure3: pd.DataFrame, n_train: int, split: str, kept: bool) -> list[Contestant]:
    """Return the fits of each method that both estimators judged: the configuration that stands for it, if any does."""
    part = runs.figure3_panel(figure3, n_train)
    found = []
    for backend in NAMES:
        mine = part[(part.backend == backend) & (part.split == split)]
        both = [
            one
            for one in runs.configurations(mine[mine.metric == PAPERS])
            if runs.keeps_chains(one.method) == kept and runs.of(mine, one).metric.eq(TRUTH).any()
        ]
        for told in ((), FULL) if backend == "monte_carlo_em" else ((),):
            chosen = runs.main(both, told)
            if chosen:
                name = NAMES[backend] + (", all chains moved" if told else "")
                found.append(Contestant(n_train, split, name, backend, kept, runs.of(mine, chosen)))
    return found


def everyone(figure3: pd.DataFrame) -> Iterator[Contestant]:
    """Yield every contestant: kept chains first, then by training points and split."""
    for kept, n_train, split in product(READINGS, SIZES, SPLITS):
        yield from contestants(figure3, n_train, split, kept)


def errors(one: Contestant) -> list[Error]:
    """Return the estimator's error along a contestant's stops.

    The difference is taken within each fit, so that what seeds have in common in both estimates drops out.
    """
    papers, truth, evals = (one.rows[one.rows.metric == metric] for metric in (PAPERS, TRUTH, EVALS))
    costs = evals.groupby("n_seen").value.mean()
    judged = papers[papers.n_seen.isin(truth.n_seen)]
    fits = judged.merge(truth, how="left", on=["n_seen", "seed"], suffixes=("", "_truth"))
    found = []
    for n_seen, at in fits.groupby("n_seen"):
        off = (at.value - at.value_truth).to_numpy()
        both = np.hypot(at.stderr, at.stderr_truth).iloc[0]
        stderr = off.std(ddof=1) / len(off) ** 0.5 if len(off) > 1 else both
        flagged = at.flagged.fillna(0).mean()
        found.append(Error(int(n_seen), off.mean(), stderr, len(off), flagged, costs.get(n_seen, np.nan)))
    return found


def table(figure3: pd.DataFrame, n_train: int, split: str) -> tuple[list[str], list[list[str]]]:
    """Return head and lines of a table: a line for each contestant, a column for each stop."""
    found = [(one, errors(one)) for kept in READINGS for one in contestants(figure3, n_train, split, kept)]
    stops = sorted({error.n_seen for _, along in found for error in along})
    body = []
    for one, along in found:
        at = {
            error.n_seen: "diverged" if np.isnan(error.value) else f"{error.value:+.2f} ± {error.stderr:.2f}"
            for error in along
        }
        last = along[-1]
        cost = "-" if np.isnan(last.evals) else f"{last.evals:.2g}"
        told = [one.name, READINGS[one.kept], *(at.get(stop, "-") for stop in stops)]
        body.append([*told, f"{last.flagged:.0%}", cost, f"{one.rows.decoder_evals.max():.2g}", str(last.seeds)])
    costs = ["flagged, at the end", "decoder evaluations of the chains", "of training", "seeds"]
    return ["method", "chains", *(count(stop) for stop in stops), *costs], body


def error_sentences(figure3: pd.DataFrame) -> list[str]:
    """Say over which range the estimator's mean error goes, and at which stops it is not small: a line a reading."""
    lines = [
        (one.kept, f"{one.name}, N = {one.n_train:,}, {one.split}", error.value, NEAR.get(one.backend, ELSE_NEAR))
        for one in everyone(figure3)
        for error in errors(one)
    ]
    said = []
    for kept, mine in pd.DataFrame(lines, columns=["kept", "who", "value", "near"]).groupby("kept", sort=False):
        beyond = mine[~(mine.value.abs() <= mine.near)].who.value_counts(sort=False)  # what diverged is beyond
        where = "; ".join(f"{who} ({stops})" for who, stops in beyond.items())
        said.append(
            f"With chains {READINGS[kept]}, the mean error of the paper's estimator lies between "
            f"{mine.value.min():+.1f} and {mine.value.max():+.1f} "
            f"nats; it is within {ELSE_NEAR:g} nat ({NEAR['monte_carlo_em']:g} for Monte Carlo EM) at "
            f"{len(mine) - beyond.sum()} of {len(mine)} stops{f'. The others: {where}' if where else ''}."
        )
    return said


class Pair(NamedTuple):
    """Two methods at one stop. Differences are the first minus the second, in nats."""

    n_train: int
    split: str
    kept: bool  # the chains of the paper's estimator, from one judgement to the next
    n_seen: int
    names: tuple[str, str]
    truth: float
    truth_stderr: float
    estimate: float
    estimate_stderr: float
    turned: bool
    decided: bool  # both tell the two apart


def pairs(figure3: pd.DataFrame) -> Iterator[Pair]:
    """Yield every pair that both estimators judged at one stop, without what diverged or is contradicted."""
    for kept, n_train, split in product(READINGS, SIZES, SPLITS):
        found = contestants(figure3, n_train, split, kept)
        values = [(one.name, _along(one.rows, TRUTH), _along(one.rows, PAPERS)) for one in found]
        for (first, *along), (second, *beside) in combinations(values, 2):
            for n in runs.shared(*along, *beside):
                truth, estimate = (_apart(a[n], b[n]) for a, b in zip(along, beside, strict=True))
                agree = truth[0] * estimate[0]  # 0 where either leaves the two within its errors
                apart = *truth[1:], *estimate[1:]
                yield Pair(n_train, split, kept, n, (first, second), *apart, agree < 0, agree != 0)


def _apart(one: Point, other: Point) -> tuple[int, float, float]:
    """Return which of two is higher, 0 within their errors, their difference and its error."""
    return compared(one, other), one.value - other.value, float(np.hypot(one.stderr, other.stderr))


def _along(rows: pd.DataFrame, metric: str) -> dict[int, Point]:
    found = runs.points(rows[rows.metric == metric])
    return {one.n_seen: one for one in found if np.isfinite(one.value) and not one.contradicted}


TURNED = ["chains", "training points", "split", "points seen", "pairs", "decided by both", "turned", "which"]


def turned_table(figure3: pd.DataFrame) -> list[list[str]]:
    """Return a line for each reading, number of training points, split and stop: how many pairs turn.

    Which they are is said of chains that are kept: of others too many turn to be listed.
    """
    every = pd.DataFrame(pairs(figure3), columns=Pair._fields)
    body = []
    for (kept, n_train, split, n_seen), group in every.groupby(["kept", "n_train", "split", "n_seen"], sort=False):
        which = "; ".join(map(_told, group[group.turned].itertuples())) or "-"
        counts = map(str, (len(group), group.decided.sum(), group.turned.sum()))
        place = READINGS[kept], f"{n_train:,}", split, count(n_seen)
        body.append([*place, *counts, which if kept else "(not listed)"])
    return body


def turn_sentences(figure3: pd.DataFrame) -> list[str]:
    """Say for each reading how many pairs turn."""
    every = pd.DataFrame(pairs(figure3), columns=Pair._fields)
    return [
        f"With chains {READINGS[kept]}, the paper's estimator turns {mine.turned.sum() or 'none'} of the "
        f"{mine.decided.sum()} pairs of methods, over all stops, that it and quadrature both tell apart; "
        f"{(~mine.decided).sum()} more are undecided."
        for kept, mine in every.groupby("kept", sort=False)
    ]


def _told(one: Any) -> str:
    first, second = one.names
    return (
        f"{first} - {second}: {one.truth:+.2f} ± {one.truth_stderr:.2f}, "
        f"estimated {one.estimate:+.2f} ± {one.estimate_stderr:.2f}"
    )


def sentences(figure3: pd.DataFrame) -> list[str]:
    """Return how far the paper's estimator is off, and how many pairs it turns."""
    return [*error_sentences(figure3), *turn_sentences(figure3)]


def blocks(found: Found) -> list[Block]:
    """Return what the estimator's error is and what follows from it, in sentences and tables."""
    numbers: list[Block] = []
    for n_train, split in product(SIZES, SPLITS):
        head, body = table(found.rows.figure3, n_train, split)
        caption = f"N = {n_train:,}, {split}: the estimator minus quadrature at each stop, in nats. Nearer 0 is better."
        numbers += [Table(head, body, caption=caption)] if body else []
    if not numbers:
        return [Paragraph(TEXT), *not_run()]
    said = sentences(found.rows.figure3)
    if not any(one.kept for one in everyone(found.rows.figure3)):
        said.insert(0, "Not run yet: no run here keeps its chains from one judgement to the next.")
    turned = turned_table(found.rows.figure3)
    if turned:
        caption = "Pairs of methods that it orders otherwise than quadrature: where it would mislead."
        numbers += [Table(TURNED, turned, caption=caption), Paragraph(TURNS)]
    return [Paragraph(TEXT), Items(said, lined=True), Figures(()), Fold("The numbers", numbers)]
