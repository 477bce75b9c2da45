"""The paper's estimator (appendix D) against quadrature on the same fits, stop by stop: how far it is off, what it
costs.

Two readings are told apart. In the authors' code a datapoint keeps its chain and its step size from one judgement to
the next along training (`chains=kept`); without that every judgement starts its chains anew.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from comparisons.paper.verdicts import (
    FULL,
    NAMES,
    PAPERS,
    SIZES,
    TRUTH,
    Configuration,
    configurations,
    keeps_chains,
    main,
    of,
    panel,
)

EVALS = "appendix_d_evals"  # decoder evaluations that kept chains have taken up to a stop
SPLITS = ("test", "train")
NEAR = {"monte_carlo_em": 3.0}  # nats within which the estimator's mean error is held to be small,
ELSE_NEAR = 1.0  # and for the other methods
READINGS = {True: "kept", False: "started anew"}  # what becomes of the chains


class Contestant(NamedTuple):
    """One method's fits that both quadrature and the paper's estimator judged, by one reading of the chains."""

    n_train: int
    split: str
    name: str  # as people read it
    backend: str
    kept: bool
    configuration: Configuration
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
    part = panel(figure3, "figure3", "mnist", 3, n_train)
    found = []
    for backend in [name for name in NAMES if part.backend.eq(name).any()]:
        mine = part[(part.backend == backend) & (part.split == split)]
        both = [one for one in configurations(mine[mine.metric == PAPERS]) if keeps_chains(one.method) == kept]
        both = [one for one in both if of(mine, one).metric.eq(TRUTH).any()]
        for told in ((), FULL) if backend == "monte_carlo_em" else ((),):
            chosen = main(both, told)
            if chosen:
                name = NAMES[backend] + (", all chains moved" if told else "")
                found.append(Contestant(n_train, split, name, backend, kept, chosen, of(mine, chosen)))
    return found


def everyone(figure3: pd.DataFrame) -> Iterator[Contestant]:
    """Yield every contestant: kept chains first, then by training points and split."""
    for kept in READINGS:
        for n_train in SIZES:
            for split in SPLITS:
                yield from contestants(figure3, n_train, split, kept)


def errors(one: Contestant) -> list[Error]:
    """Return the estimator's error along a contestant's stops.

    The difference is taken within each fit, so that what seeds have in common in both estimates drops out.
    """
    wide = {
        metric: one.rows[one.rows.metric == metric].set_index(["n_seen", "seed"]) for metric in (TRUTH, PAPERS, EVALS)
    }
    truth, papers = wide[TRUTH], wide[PAPERS]
    found = []
    for n_seen in sorted({*truth.index.get_level_values(0)} & {*papers.index.get_level_values(0)}):
        a, b = papers.loc[n_seen], truth.loc[n_seen]
        off = (a.value - b.value.reindex(a.index)).to_numpy(dtype=float)
        if len(off) > 1:
            stderr = float(off.std(ddof=1) / len(off) ** 0.5)
        else:
            stderr = float(np.hypot(a.stderr.iloc[0], b.stderr.iloc[0]))
        evals = wide[EVALS].value.get(n_seen, pd.Series(dtype=float))
        cost = float(evals.mean()) if len(evals) else np.nan
        found.append(Error(int(n_seen), float(off.mean()), stderr, len(off), float(a.flagged.fillna(0).mean()), cost))
    return found


def near(one: Contestant) -> float:
    """Return within how many nats of quadrature the estimator's mean error is held to be small."""
    return NEAR.get(one.backend, ELSE_NEAR)


def table(figure3: pd.DataFrame, n_train: int, split: str) -> tuple[list[str], list[list[str]]]:
    """Return head and lines of a table: a line for each contestant, a column for each stop."""
    from comparisons.paper.verdicts import count

    found = [(one, errors(one)) for kept in READINGS for one in contestants(figure3, n_train, split, kept)]
    stops = sorted({error.n_seen for _, along in found for error in along})
    body = []
    for one, along in found:
        at = {error.n_seen: _shown(error) for error in along}
        last = along[-1]
        cost = "-" if np.isnan(last.evals) else f"{last.evals:.2g}"
        told = [one.name, READINGS[one.kept], *(at.get(stop, "-") for stop in stops)]
        body.append([*told, f"{last.flagged:.0%}", cost, f"{one.rows.decoder_evals.max():.2g}", str(last.seeds)])
    costs = ["flagged, at the end", "decoder evaluations of the chains", "of training", "seeds"]
    return ["method", "chains", *(count(stop) for stop in stops), *costs], body


def sentences(figure3: pd.DataFrame) -> list[str]:
    """Say over which range the estimator's mean error goes, and at which stops it is not small: a line a reading."""
    found = []
    for kept, name in READINGS.items():
        within, beyond, all_of_them = 0, [], []
        for one in [one for one in everyone(figure3) if one.kept == kept]:
            for error in errors(one):
                all_of_them.append(error.value)
                if abs(error.value) <= near(one):
                    within += 1
                else:
                    beyond.append(f"{one.name}, N = {one.n_train:,}, {one.split}")
        if not all_of_them:
            continue
        values = np.array(all_of_them)[np.isfinite(all_of_them)]
        low, high = (values.min(), values.max()) if len(values) else (np.nan, np.nan)
        where = "; ".join(f"{who} ({beyond.count(who)})" for who in dict.fromkeys(beyond))
        found.append(
            f"With chains {name}, the mean error of the paper's estimator lies between {low:+.1f} and {high:+.1f} "
            f"nats; it is within {ELSE_NEAR:g} nat ({NEAR['monte_carlo_em']:g} for Monte Carlo EM) at {within} of "
            f"{len(all_of_them)} stops{f'. The others: {where}' if where else ''}."
        )
    return found


def _shown(error: Error) -> str:
    return "diverged" if np.isnan(error.value) else f"{error.value:+.2f} ± {error.stderr:.2f}"
