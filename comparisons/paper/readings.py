"""Which reading of appendix E reproduces the paper's Monte Carlo EM curves?

The paper says that each E-step is ten leapfrog steps and that five weight updates follow. It does not say which
chains an E-step moves (those of a minibatch, or of all training points, as in the authors' code) nor what its axis
counts (training points, or decoder evaluations). Every configuration that was run is held against the paper's curve
on both axes.
"""

import textwrap
from typing import NamedTuple

import numpy as np
import pandas as pd

from comparisons.paper import reproduction_figures as figures
from comparisons.paper import runs, words
from comparisons.paper.curves import Curve, curves
from comparisons.paper.found import Found
from comparisons.paper.runs import PAPERS, SIZES, SPLITS, TRUTH, Configuration
from comparisons.paper.verdicts import NATS
from comparisons.paper.words import ESTIMATORS, count
from comparisons.reporting.blocks import Block, Figures, Fold, Items, Paragraph, Table, not_run
from inference.monte_carlo_em import MonteCarloEMSettings

AXES = {"n_seen": "training points", "decoder_evals": "decoder evaluations"}  # what the paper's axis may count
WIDTH = 48  # characters of a legend's line
HEAD = ["test, nats from the paper's", "train", "training points", "E-step", "weight updates", "other settings"]
HEAD += ["engine", "step size", "seeds", "points seen", "judged by", "axis", "vertices, test and train"]
CURVES = "Each reading of the paper's axis beside the paper's curves, in grey: the nearer, the more likely it is meant."
TABLE = "How far each reading is from the paper's curves, on average over their vertices: the least is the nearest."


class Reading(NamedTuple):
    """One configuration on one axis, held against the paper's curves of one N."""

    n_train: int
    configuration: Configuration
    metric: str
    axis: str  # a key of AXES
    seeds: int
    step_sizes: str
    n_seen: int
    distance: dict[str, float]  # by split: mean |ours - the paper's| over the vertices that ours reaches, NaN for none
    vertices: dict[str, int]  # by split: how many those are


def readings(figure3: pd.DataFrame, papers: tuple[Curve, ...]) -> list[Reading]:
    """Return every Monte Carlo EM configuration of Figure 3 on both axes, by the judges that may be trusted with it.

    Those are quadrature, and the paper's estimator where it keeps its chains.
    """
    found = []
    for n_train in SIZES:
        mine = _mine(figure3, n_train)
        for one in runs.configurations(mine):
            for metric in (TRUTH, PAPERS) if runs.keeps_chains(one.method) else (TRUTH,):
                rows = runs.of(mine[mine.metric == metric], one)
                kept = _along(rows[rows.split == "test"], "n_seen")[1]
                if not kept:
                    continue
                last = kept[-1]
                for axis in AXES:
                    each = {s: _distance(rows[rows.split == s], _papers(papers, n_train, s), axis) for s in SPLITS}
                    far = {split: pair[0] for split, pair in each.items()}
                    reached = {split: pair[1] for split, pair in each.items()}
                    place = n_train, one, metric, axis
                    found.append(Reading(*place, last.seeds, words.steps(last), last.n_seen, far, reached))
    return found


TEXT = (
    "How the paper counts the points that Monte Carlo EM has seen is not known, nor whether an E-step moves the "
    "chains of a minibatch or of all training points. Here every configuration that was run is held against the "
    "paper's curves, read as a count of training points and as one of decoder evaluations: the mean absolute "
    "difference, in nats, over the vertices of the paper's curve that ours reaches. Evaluations that a choice of "
    "step size took before are left out."
)


def blocks(found: Found) -> list[Block]:
    """Return the section on appendix E: every configuration on both axes, beside the paper's curves."""
    held = readings(found.rows.figure3, curves())
    if not held:
        return [Paragraph(TEXT), *not_run()]
    drawn = [
        figures.plot(f"appendix_e-{n}-{axis}", _alt(held, n, axis), drawing(found.rows.figure3, curves(), n, axis))
        for n in SIZES
        if any(one.n_train == n for one in held)
        for axis in AXES
    ]
    numbers = Fold("The numbers", [Table(HEAD, table(held), caption=TABLE)])
    return [Paragraph(TEXT), Items(sentences(held), lined=True), Figures(drawn, caption=CURVES), numbers]


def table(found: list[Reading]) -> list[list[str]]:
    """Return the lines of the table under HEAD."""
    body = []
    for one in found:
        e_step, updates, rest = told(one.configuration.method)
        far = ["-" if np.isnan(one.distance[split]) else f"{one.distance[split]:.1f}" for split in SPLITS]
        settings = [e_step, updates, rest or "-", one.configuration.engine, one.step_sizes]
        read = [ESTIMATORS[one.metric], AXES[one.axis], " and ".join(str(one.vertices[s]) for s in SPLITS)]
        body.append([*far, f"{one.n_train:,}", *settings, str(one.seeds), count(one.n_seen), *read])
    return body


def sentences(found: list[Reading]) -> list[str]:
    """Say which reading is nearest to the paper's curves: at each N, and over both by the same settings and axis."""
    said = []
    for n_train in SIZES:
        mine = [one for one in found if one.n_train == n_train and _whole(one)]
        if mine:
            best = min(mine, key=_mean)
            said.append(
                f"N = {n_train:,}: of {len(mine)} readings that reach the paper's curves on both splits, the nearest "
                f"is {_named(best)}: {_mean(best):.1f} nats from them on average."
            )
    both: dict[tuple[str, str, str, str], dict[int, Reading]] = {}
    for one in found:
        if _whole(one):
            # How long each step size was tried is no reading: a step of all chains is other work at either N.
            words = [word for word in one.configuration.method.split() if not word.startswith("pilot_steps=")]
            key = (" ".join(words), one.configuration.engine, one.metric, one.axis)
            of_it = both.setdefault(key, {})
            if one.n_train not in of_it or one.n_seen > of_it[one.n_train].n_seen:
                of_it[one.n_train] = one
    whole = [by_size for by_size in both.values() if len(by_size) == len(SIZES)]
    if whole:
        nearest = min(whole, key=lambda by_size: max(map(_mean, by_size.values())))
        verb = "reproduces" if max(map(_mean, nearest.values())) <= NATS["mnist"] else "does not reproduce"
        each = " and ".join(f"{_mean(nearest[n]):.1f} at N = {n:,}" for n in SIZES)
        said.append(
            f"Over both N the nearest is {_named(nearest[SIZES[0]])}: {each}. Held to {NATS['mnist']:g} nats, "
            f"it {verb} the paper's curves."
        )
    elif found:
        said.append("No reading was run at both N as far as the paper's curves begin.")
    return said


def drawing(figure3: pd.DataFrame, papers: tuple[Curve, ...], n_train: int, axis: str) -> str:
    """Draw log p(x) on test by quadrature, a line for each configuration, over the paper's curve. Returns SVG."""
    mine = _mine(figure3, n_train)
    mine = mine[(mine.metric == TRUTH) & (mine.split == "test")]
    ours = {one: _along(runs.of(mine, one), axis) for one in runs.configurations(mine)}
    ours = {one: along for one, along in ours.items() if along[1]}
    named = [
        (textwrap.fill(label, WIDTH), figures.Line(*along, "monte_carlo_em", "test"))
        for label, along in zip(_told_apart([*ours]), ours.values(), strict=True)
    ]
    return figures.several(named, [_papers(papers, n_train, "test")], f"N = {n_train:,}, test", axis)


def _told_apart(found: list[Configuration]) -> list[str]:
    """Return a name for each configuration: its E-step and updates, and of the rest what not all have in common."""
    rest = [{*told(one.method)[2].split(), one.engine, f"{count(one.samples)} points"} for one in found]
    shared = set.intersection(*rest) if rest else set()
    names = []
    for one, its in zip(found, rest, strict=True):
        e_step, updates, _ = told(one.method)
        names.append(", ".join([f"{e_step} E-step", f"{updates} updates", *sorted(its - shared)]))
    return names


def told(method: str) -> tuple[str, str, str]:
    """Return a method's E-step and weight updates, the defaults where it names none, and its other settings."""
    settings = dict(one.split("=", 1) for one in method.split() if "=" in one)
    e_step = settings.pop("e_step", MonteCarloEMSettings.e_step)
    updates = settings.pop("weight_updates", str(MonteCarloEMSettings.weight_updates))
    return e_step, updates, " ".join(f"{name}={value}" for name, value in settings.items())


def _mine(figure3: pd.DataFrame, n_train: int) -> pd.DataFrame:
    part = runs.figure3_panel(figure3, n_train)
    return part[part.backend == "monte_carlo_em"]


def _papers(papers: tuple[Curve, ...], n_train: int, split: str) -> Curve:
    wanted = ("figure3", n_train, "monte_carlo_em", split)
    return next(one for one in papers if (one.figure, one.n_train, one.backend, one.split) == wanted)


def places(rows: pd.DataFrame, axis: str) -> dict[int, float]:
    """Return a column by points seen. Decoder evaluations are those of training: a pilot's before it are left out."""
    at = rows.groupby("n_seen")[axis].mean()
    if axis == "decoder_evals" and len(at) > 1:
        (a, before), (b, end) = at.iloc[-2:].items()
        each = (end - before) / (b - a)  # the same for every point seen
        at -= max(0.0, end - each * b) if each > 0 else 0.0
    return {int(n): float(value) for n, value in at.items()}


def _along(rows: pd.DataFrame, axis: str) -> tuple[np.ndarray, list[runs.Point]]:
    """Return x and the points of one configuration that have not diverged."""
    kept = [point for point in runs.points(rows) if np.isfinite(point.value)]
    at = places(rows, axis)
    return np.array([at[point.n_seen] for point in kept]), kept


def _distance(rows: pd.DataFrame, paper: Curve, axis: str) -> tuple[float, int]:
    """Return the mean of |ours - the paper's| over the vertices of its curve that ours reaches, and their number."""
    x, kept = _along(rows, axis)
    reached = (paper.n_seen >= x[0]) & (paper.n_seen <= x[-1]) if kept else np.zeros(0, bool)
    if not reached.any():
        return np.nan, 0
    ours = np.interp(np.log(paper.n_seen[reached]), np.log(x), [point.value for point in kept])
    return float(np.abs(ours - paper.value[reached]).mean()), int(reached.sum())


def _whole(one: Reading) -> bool:
    return all(one.vertices.values())


def _mean(one: Reading) -> float:
    return float(np.mean([*one.distance.values()]))


def _named(one: Reading) -> str:
    e_step, updates, rest = told(one.configuration.method)
    whose = "all chains" if e_step == "full" else "a minibatch's chains"
    settings = f"{whose}, {updates} updates{f', {rest}' if rest else ''}"
    return f"{settings} on {one.configuration.engine}, by {AXES[one.axis]} and {ESTIMATORS[one.metric]}"


def _alt(held: list[Reading], n_train: int, axis: str) -> str:
    mine = [one for one in held if (one.n_train, one.axis) == (n_train, axis) and one.vertices["test"]]
    far = ", ".join(f"{' '.join(told(one.configuration.method)[:2])} {one.distance['test']:.1f}" for one in mine)
    beside = f" Mean distance from it in nats, by E-step and weight updates: {far}." if far else " None reaches it."
    return (
        f"N = {n_train:,}: log p(x) on test by quadrature of every Monte Carlo EM configuration against "
        f"{AXES[axis]}, over the paper's curve.{beside}"
    )
