"""Do the engines agree? One program, one backend, several libraries: the difference of each two over seeds."""

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
    by = [*PANEL, "backend", "method"]
    several = table[table.seeds > 1].assign(method=table.method.map(trained))
    most = several.sort_values("seeds", ascending=False, kind="stable")  # of the same fits, judged with other chains
    each = most.drop_duplicates([*by, "engine"])
    both = each.merge(each, on=by, suffixes=("", "_other")).rename(columns={"engine_other": "other"})
    both = both[both.engine < both.other].sort_values([*by, *PAIR], ignore_index=True)
    lines = [
        both[[*by, *PAIR]].assign(
            seeds=both.seeds + both.seeds_other,
            quantity=name,
            difference=both[name] - both[f"{name}_other"],
            stderr=np.hypot(both[f"{name}_stderr"], both[f"{name}_stderr_other"]),
        )
        for name in QUANTITIES
    ]
    found = pd.concat(lines).sort_index(kind="stable")
    found = found[found.difference.abs() < np.inf]
    return found.assign(z=(found.difference / found.stderr).where(found.difference != 0, 0.0)).reset_index(drop=True)


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
