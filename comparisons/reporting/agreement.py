"""Do the engines agree? One program, one backend, several libraries: the difference of each two over seeds."""

from itertools import combinations

import numpy as np
import pandas as pd

from comparisons.runner.rows import PANEL, trained

QUANTITIES = ("lower_bound_train", "lower_bound_test", "log_px_train", "log_px_test")
WITHIN = 2.0  # standard errors
PAIR = ["engine", "other"]


def agreement(table: pd.DataFrame) -> pd.DataFrame:
    """Return the difference (engine - other) of each two engines, for each line of `tables.summary` that both have.

    One line for each quantity, in nats: errors over seeds add in quadrature to `stderr`, `z` is the difference in
    standard errors, `seeds` the runs of both engines. Needs several seeds on either side; what diverged has no line.
    How the paper's estimator came by its chains makes no two methods of one.
    """
    lines = []
    table = table.assign(method=table.method.map(trained))
    by = [*PANEL, "backend", "method"]
    for key, group in table[table.seeds > 1].groupby(by, sort=True):
        most = group.sort_values("seeds", ascending=False, kind="stable")  # of the same fits, judged with other chains
        by_engine = most.drop_duplicates("engine").set_index("engine")
        for pair in combinations(sorted(by_engine.index), 2):
            one, other = (by_engine.loc[engine] for engine in pair)
            of_both = dict(zip([*by, *PAIR], [*key, *pair], strict=True)) | {"seeds": int(one.seeds + other.seeds)}
            for name in QUANTITIES:
                difference, error = one[name] - other[name], np.hypot(one[f"{name}_stderr"], other[f"{name}_stderr"])
                if np.isfinite(difference):
                    z = _in_errors(difference, error)
                    lines.append(of_both | {"quantity": name, "difference": difference, "stderr": error, "z": z})
    columns = [*by, *PAIR, "seeds", "quantity", "difference", "stderr", "z"]
    return pd.DataFrame(lines, columns=columns)


def verdict(compared: pd.DataFrame) -> str:
    """Return in a sentence how many differences lie within two standard errors, and how many should by chance.

    With few seeds the standard error is itself a guess: a difference of two means of s / 2 seeds, over it, follows
    Student's t with s - 2 degrees of freedom, which is outside 2 more often than a normal is.
    """
    from scipy.stats import t

    within = int((compared.z.abs() <= WITHIN).sum())
    expected = float((1 - 2 * t.sf(WITHIN, compared.seeds - 2)).sum())
    worst = float(compared.z.abs().max())
    return (
        f"Differences within two standard errors: {within} of {len(compared)}, where {expected:.1f} are to be expected "
        f"of engines that agree; the largest is {worst:.1f}. Those of one method rise and fall together."
    )


def _in_errors(difference: float, error: float) -> float:
    """Return a difference in standard errors: 0 for no difference, infinite for one without an error."""
    if error > 0 or difference == 0:
        return difference / error if error > 0 else 0.0
    return float(np.copysign(np.inf, difference))
