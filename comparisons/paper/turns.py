"""Turns: pairs of methods that the paper's estimator orders otherwise than quadrature does.

At one stop, for one number of training points and split, a pair turns where both estimates tell the two methods apart
by more than two standard errors, and the other way round. A pair that either leaves within them is undecided, and
does not turn.
"""

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

from comparisons.paper.paper_estimator import READINGS, SPLITS, contestants
from comparisons.paper.verdicts import PAPERS, SIZES, TRUTH, Point, compared, count, points


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
    for kept in READINGS:
        for n_train in SIZES:
            for split in SPLITS:
                found = contestants(figure3, n_train, split, kept)
                values = {one.name: tuple(_along(one.rows, metric) for metric in (TRUTH, PAPERS)) for one in found}
                for first, second in combinations(values, 2):
                    both = {*values[first][0], *values[first][1], *values[second][0], *values[second][1]}
                    stops = (n for n in both if all(n in along for one in (first, second) for along in values[one]))
                    for n in sorted(stops):
                        (a, b), (c, d) = ([values[one][i][n] for one in (first, second)] for i in (0, 1))
                        yield _pair((n_train, split, kept, n, (first, second)), a, b, c, d)


def _pair(place: tuple[int, str, bool, int, tuple[str, str]], a: Point, b: Point, c: Point, d: Point) -> Pair:
    told, claimed = compared(a, b), compared(c, d)
    errors = float(np.hypot(a.stderr, b.stderr)), float(np.hypot(c.stderr, d.stderr))
    turned, decided = told * claimed < 0, told * claimed != 0
    return Pair(*place, a.value - b.value, errors[0], c.value - d.value, errors[1], turned, decided)


def _along(rows: pd.DataFrame, metric: str) -> dict[int, Point]:
    found = points(rows[rows.metric == metric])
    return {one.n_seen: one for one in found if np.isfinite(one.value) and not one.contradicted}


HEAD = ["chains", "training points", "split", "points seen", "pairs", "decided by both", "turned", "which"]


def table(figure3: pd.DataFrame) -> list[list[str]]:
    """Return a line for each reading, number of training points, split and stop: how many pairs turn.

    Which they are is said of chains that are kept: of others too many turn to be listed.
    """
    groups: dict[tuple[bool, int, str, int], list[Pair]] = {}
    for one in pairs(figure3):
        groups.setdefault((one.kept, one.n_train, one.split, one.n_seen), []).append(one)
    body = []
    for (kept, n_train, split, n_seen), group in groups.items():
        counts = [len(group), sum(one.decided for one in group), sum(one.turned for one in group)]
        which = _which(group) if kept else "(not listed)"
        body.append([READINGS[kept], f"{n_train:,}", split, count(n_seen), *map(str, counts), which])
    return body


def sentences(figure3: pd.DataFrame) -> list[str]:
    """Say for each reading how many pairs turn."""
    found = []
    every = list(pairs(figure3))
    for kept, name in READINGS.items():
        mine = [one for one in every if one.kept == kept]
        if mine:
            decided = [one for one in mine if one.decided]
            turned = sum(one.turned for one in mine)
            found.append(
                f"With chains {name}, the paper's estimator turns {turned or 'none'} of the {len(decided)} pairs of "
                f"methods, over all stops, that it and quadrature both tell apart; {len(mine) - len(decided)} more "
                "are undecided."
            )
    return found


def _which(group: list[Pair]) -> str:
    return "; ".join(_told(one) for one in group if one.turned) or "-"


def _told(one: Pair) -> str:
    first, second = one.names
    return (
        f"{first} - {second}: {one.truth:+.2f} ± {one.truth_stderr:.2f}, "
        f"estimated {one.estimate:+.2f} ± {one.estimate_stderr:.2f}"
    )
