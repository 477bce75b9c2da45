"""Names, and how numbers are said: what tables, figures and sentences about the paper have in common."""

import numpy as np

from comparisons.paper.curves import Curve
from comparisons.paper.runs import PAPERS, TRUTH, Configuration, Point
from comparisons.reporting import outcomes

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


def count(n_seen: int) -> str:
    """Return points seen as people read them: 1e6 is `1 million`."""
    return f"{n_seen / 1e6:g} million" if n_seen >= 1e6 else f"{n_seen:,}"


def number(point: Point) -> str:
    """Return a value and, over several seeds, the standard error of their mean; what diverged says so."""
    if np.isnan(point.value):
        return "diverged"
    digits = 1 if abs(point.value) < 500 else 0
    error = f" ± {point.stderr:.{digits}f}" if point.seeds > 1 else ""
    return f"{point.value:.{digits}f}{error}{outcomes.mark(point.contradicted)}"


def said(word: str) -> str:
    """Return a verdict's word as people read it."""
    return "off the paper's axes" if word == "no curve" else word


def panel_name(curve: Curve, unit: str = "latent") -> str:
    """Return what tells a curve's panel from the figure's others: its latent variables, or its training points."""
    return f"{curve.n_latent} {unit}" if curve.figure == "figure2" else f"N = {curve.n_train:,}"


def steps(point: Point) -> str:
    """Return the step sizes of the runs behind a point."""
    return " ".join(f"{size:g}" for size in point.step_sizes) or "-"


def settings(one: Configuration) -> str:
    """Return what tells a run from others of a curve: its settings and its engine."""
    return f"{one.method or 'defaults'}, {one.engine}"
