"""What was measured of gradients, as sentences, tables and figures: pure functions of the rows."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from comparisons.benchmarks.gradients_closed import EXPECTED
from comparisons.benchmarks.gradients_exact import PARAMETERS, ROUTES
from comparisons.disk import reading, writing
from comparisons.reporting import drawing, markdown
from comparisons.reporting.blocks import Block, Heading, Items, Paragraph, Table
from comparisons.reporting.drawing import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION
from comparisons.reporting.folder import beside

TITLE = "How noisy the gradients are"
ABOUT = "The variance of each estimator of the bound's gradient, what it costs, and what it does to training."
FIGURES = {
    "exact": "Variance of one draw of three gradients of E_N(1, 1)[f(x; k)], by numerical integration: none is best "
    "everywhere.",
    "closed": "On a linear Gaussian model: the gradient's variance and its signal-to-noise ratio, against the draws.",
    "trained": "Along AEVB's training: the variance of phi's gradient with the largest minibatches, and how much of "
    "B's is over draws of z.",
    "training": "The bound on test as each estimator, and each optimiser at the best of its step sizes, trains AEVB.",
}
COLOURS = {
    **{"B": BLUE, "A": SKY, "stl": GREEN, "score": VERMILION, "score_loo": ORANGE, "iwae": PURPLE, "dreg": BLACK},
    **dict(zip(ROUTES, (VERMILION, BLUE, GREEN, PURPLE), strict=True)),
    **{"adagrad": BLUE, "adam": GREEN, "sgd": VERMILION},
}
ALIKE = 0.02  # of a variance: less is no difference


def report(out: Path) -> str:
    """Write rows.csv, table.md and a figure a part from the parts in a folder; return the table."""
    places = sorted((out / "parts").glob("*.csv"), key=lambda path: [*TABLES].index(path.stem))
    rows = pd.concat([reading.table(path) for path in places], ignore_index=True)
    writing.write(out / "rows.csv", rows.to_csv(index=False, lineterminator="\n"))
    drawn = {f"{name}.svg": draw for name, draw in figures(rows).items()}
    return beside(out, {"table.md": lambda: markdown.printed(blocks(rows), TITLE), **drawn})


def blocks(rows: pd.DataFrame) -> list[Block]:
    """Return what to know first, a sentence each, then for each part its tables and what else they say."""
    parts = {name: rows[rows.part == name] for name in TABLES if (rows.part == name).any()}
    found = {name: FINDINGS[name](part) for name, part in parts.items()}
    told: list[Block] = [Items([one for name in parts for one in found[name][FIRST[name]]], lined=True)]
    for name, part in parts.items():
        rest = [one for one in found[name] if one not in found[name][FIRST[name]]]
        told += [*TABLES[name](part), *([Items(rest, lined=True)] if rest else [])]
    return told


def figures(rows: pd.DataFrame) -> dict[str, Callable[[], str]]:
    """Return what draws an SVG for each figure that there are rows for."""
    of = {name: rows[rows.part == name] for name in TABLES}
    drawn: dict[str, tuple[tuple[float, float], Callable[[Any], None], int]] = {
        "exact": ((10.0, 5.4), lambda picture: _draw_exact(picture, of["exact"]), len(of["exact"])),
        "closed": ((10.0, 6.2), lambda picture: _draw_closed(picture, of["closed"]), len(of["closed"])),
        "trained": ((10.0, 5.8), lambda picture: _draw_trained(picture, of["trained"]), len(of["trained"])),
        "training": (
            (10.0, 3.6),
            lambda picture: _draw_training(picture, of["estimators"], of["optimizers"]),
            len(of["estimators"]) + len(of["optimizers"]),
        ),
    }
    return {name: partial(drawing.svg, size, draw) for name, (size, draw, count) in drawn.items() if count}


# In one dimension


def _found_exact(rows: pd.DataFrame) -> list[str]:
    one = rows[rows.k.notna() & ~rows.estimator.str.contains("coupled")]
    best = one.loc[one.groupby(["cost", "k", "parameter"]).variance.idxmin()].estimator.value_counts()
    told = ", ".join(f"the {name} one at {count}" for name, count in best.items())
    return [f"In one dimension no gradient is always the least noisy: of {best.sum()} settings {told}."]


def _table_exact(rows: pd.DataFrame) -> Iterator[Block]:
    one, many = rows[rows.k.notna()], rows[rows.dimension.notna()]
    ks = sorted({*one.k})
    ks = [ks[0], ks[len(ks) // 2], ks[-1]]
    body = [
        [cost, parameter, f"{k:g}", *(f"{part[part.estimator == name].variance.iloc[0]:.3g}" for name in ROUTES)]
        for (cost, parameter, k), part in one[one.k.isin(ks)].groupby(["cost", "parameter", "k"], sort=False)
    ]
    yield Heading("In one dimension: E_N(1, 1)[f(x; k)]")
    yield Table(["f", "by", "k", *ROUTES], body, caption="Variance of one draw (measure-valued: of two)")
    sizes = sorted({*many.dimension})
    body = [
        [str(cost), *(f"{part[part.dimension == size].variance.iloc[0]:,.0f}" for size in sizes)]
        for cost, part in many.groupby("cost")
    ]
    head = ["f", *(f"D = {size:.0f}" for size in sizes)]
    yield Table(
        head, body, caption="Variance of the score function's gradient by one mean, under N(1/2, I) in D dimensions"
    )


def _draw_exact(picture: Any, rows: pd.DataFrame) -> None:
    one = rows[rows.k.notna()]
    costs = [*dict.fromkeys(one.cost)]
    axes = picture.subplots(2, len(costs), sharex=True)
    for i, parameter in enumerate(PARAMETERS):
        for axis, cost in zip(axes[i], costs, strict=True):
            for name in ROUTES:
                line = one[(one.cost == cost) & (one.parameter == parameter) & (one.estimator == name)]
                axis.loglog(line.k, line.variance, color=COLOURS[name], label=name)
            axis.set_title(f"f = {cost}, by {parameter}")
            axis.set_xlabel("k")
        axes[i][0].set_ylabel("variance")
    axes[0][0].legend(frameon=False, fontsize=7)


# On a linear Gaussian model


def _found_closed(rows: pd.DataFrame) -> list[str]:
    told, slopes = rows[rows.draws.notna()], rows[rows.draws.isna()]
    # Of the K-sample bound theta's is of another function than log p(x) at finite K.
    fair = told[~(told.estimator.isin(["iwae", "dreg"]) & (told.group == "theta"))]
    found = [
        f"Against the exact gradient of a linear Gaussian model, the largest bias of {len(fair)} estimates is "
        f"{fair.t.abs().max():.1f} standard errors."
    ]
    for row in slopes.itertuples():
        if (expected := EXPECTED.get((row.estimator, row.group))) is not None and np.isfinite(row.slope):
            found.append(
                f"{row.estimator}: the signal-to-noise ratio of {row.group}'s gradient goes as K to the power "
                f"{row.slope:+.3f} ± {row.slope_stderr:.3f}, where theory has {expected:+.1f}."
            )
    return found


def _table_closed(rows: pd.DataFrame) -> Iterator[Block]:
    told, slopes = rows[rows.draws.notna()], rows[rows.draws.isna()].set_index(["estimator", "group"])
    for group in ("phi", "theta"):
        mine = told[told.group == group]
        counts = sorted({*mine.draws})
        ends = [counts[0], counts[len(counts) // 2], counts[-1]]
        body = []
        for name, part in mine.groupby("estimator", sort=False):
            of = {row.draws: row for row in part.itertuples()}
            each = [f"{of[k].variance:.3g} ± {of[k].variance_stderr:.1g}" if k in of else "-" for k in ends]
            slope = slopes.loc[(name, group)]
            fitted = f"{slope.slope:+.3f} ± {slope.slope_stderr:.3f}" if np.isfinite(slope.slope) else "-"
            last = of[counts[-1]]
            body.append(
                [str(name), *each, f"{last.bias:+.1%} ± {last.bias_stderr:.1%}", f"{part.t.abs().max():.1f}", fitted]
            )
        head = ["estimator", *(f"variance, K = {k:.0f}" for k in ends), f"bias, K = {counts[-1]:.0f}", "largest |t|"]
        yield Heading(f"On a linear Gaussian model: the gradient by {group}")
        yield Table([*head, "slope of signal to noise"], body)
    yield Paragraph(
        "Variance: summed over the parameters, of the mean bound of 10 datapoints with 20 latent variables. Bias: "
        "along the exact gradient, relative to it; of iwae and dreg by theta against that of log p(x), by phi against "
        "each other. Slope: of the logarithms, from 10 draws on; the mean of iwae by phi is dreg's, which is "
        "the same."
    )


def _draw_closed(picture: Any, rows: pd.DataFrame) -> None:
    axes = picture.subplots(2, 2, sharex=True)
    for column, group in zip(axes.T, ("phi", "theta"), strict=True):
        for quantity, axis in zip(("variance", "signal_to_noise"), column, strict=True):
            for name, line in rows[rows.draws.notna() & (rows.group == group)].groupby("estimator", sort=False):
                error = line[f"{quantity}_stderr"]
                look = {"color": COLOURS[str(name)], "label": name, "marker": ".", "lw": 1.0}
                axis.errorbar(line.draws, line[quantity], yerr=error, linestyle="--" if name == "dreg" else "-", **look)
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.set_ylabel(quantity.replace("_", "-") + (" ratio" if quantity != "variance" else ""))
        column[0].set_title(f"gradient by {group}")
        column[1].set_xlabel("draws of z, K")
    axes[0, 0].legend(frameon=False, fontsize=7, ncol=2)


# On data, along training


def _found_trained(rows: pd.DataFrame) -> list[str]:
    """Say at each stage by how much the others' variance differs from B's, and how much of B's is over draws of z."""
    found, largest, least = [], rows.minibatch.max(), _least(rows)
    of = {(row.n_seen, row.estimator, row.draws, row.minibatch, row.block): row for row in rows.itertuples()}
    for stage in sorted({*rows.n_seen}):
        b = of[stage, "B", least, largest, "phi"]
        when = f"After {stage:,.0f} points, with L = {least:.0f} and M = {largest:.0f},"
        for name in ("A", "stl", "score"):
            if one := of.get((stage, name, least, largest, "phi")):
                ratio = one.variance / b.variance
                error = ratio * np.hypot(one.variance_stderr / one.variance, b.variance_stderr / b.variance)
                digits = 2 if ratio < 100 else 0
                found.append(
                    f"{when} the variance of phi's gradient by {name} is {ratio:,.{digits}f} ± {error:,.{digits}f} "
                    "times that by B."
                )
        found.append(
            f"{when} {b.noise_share:.0%} ± {b.noise_share_stderr:.0%} of B's variance is over draws of z, which is all "
            "that more draws could take away."
        )
    return found


def _table_trained(rows: pd.DataFrame) -> Iterator[Block]:
    largest, least = rows.minibatch.max(), _least(rows)
    for block in ("phi", "theta"):
        mine = rows[rows.block == block]
        unit = {
            row.n_seen: row.variance
            for row in mine[(mine.estimator == "B") & (mine.draws == least)].itertuples()
            if row.minibatch == largest
        }
        body = []
        for (name, draws), part in mine[mine.minibatch == largest].groupby(["estimator", "draws"], sort=False):
            cells = []
            for row in part.sort_values("n_seen").itertuples():
                ratio, error = row.variance / unit[row.n_seen], row.variance_stderr / unit[row.n_seen]
                cells += [
                    f"{ratio:.3g} ± {error:.1g}",
                    f"{row.noise_share:.0%}",
                    f"{ratio * draws:.3g}",
                    f"{row.t:+.1f}",
                ]
            body.append([str(name), f"{draws:.0f}", *cells, f"{1000 * part.seconds.median():.2f}"])
        heads = [(f"{stage:,.0f}: variance", "over z", "x L", "t") for stage in sorted({*mine.n_seen})]
        yield Heading(f"Along AEVB's training: the gradient by {block}, minibatches of {largest:.0f}")
        yield Table(["estimator", "L", *(word for head in heads for word in head), "ms"], body)
    yield Paragraph(
        f"Variance: in units of that of B with L = {least:.0f}, at the same number of training points seen. Over z: "
        "the share of it that is over draws of z, the rest being over minibatches. x L: the variance at equal decoder "
        "evaluations. t: bias along B's mean gradient, in standard errors. ms: a gradient, in a loop of its own. "
        "From the same draws theta's gradient is the same by all of them."
    )
    body, sizes = [], _sizes(rows)
    for (stage, block), part in rows[(rows.estimator == "B") & rows.block.isin(["phi", "theta"])].groupby(
        ["n_seen", "block"]
    ):
        shares = [part[(part.draws == least) & (part.minibatch == size)].iloc[0] for size in sizes]
        body.append(
            [f"{stage:,.0f}", str(block), *(f"{one.noise_share:.0%} ± {one.noise_share_stderr:.0%}" for one in shares)]
        )
    head = ["points seen", "gradient by", *(f"M = {size:.0f}" for size in sizes)]
    yield Table(head, body, caption=f"The share of B's variance with L = {least:.0f} that is over draws of z")


def _least(rows: pd.DataFrame) -> float:
    return float(rows[rows.estimator == "B"].draws.min())


def _sizes(rows: pd.DataFrame) -> list[float]:
    return sorted({*rows.minibatch})


def _draw_trained(picture: Any, rows: pd.DataFrame) -> None:
    stages, largest = sorted({*rows.n_seen}), rows.minibatch.max()
    axes = picture.subplots(2, len(stages), squeeze=False, sharex=True)
    for column, stage in zip(axes.T, stages, strict=True):
        mine = rows[(rows.n_seen == stage) & (rows.block == "phi")]
        for name, line in mine[mine.minibatch == largest].groupby("estimator", sort=False):
            look = {"color": COLOURS[str(name)], "label": name, "marker": "."}
            column[0].errorbar(line.draws, line.variance, yerr=line.variance_stderr, **look)
        column[0].set_yscale("log")
        column[0].set_title(f"after {stage:,.0f} points")
        for size, dash in zip(_sizes(mine), (":", "--", "-"), strict=False):
            line = mine[(mine.estimator == "B") & (mine.minibatch == size)]
            column[1].plot(
                line.draws, line.noise_share, color=BLUE, linestyle=dash, marker=".", label=f"M = {size:.0f}"
            )
        column[1].set_ylim(0, 1)
        column[1].set_xlabel("draws of z, L")
    axes[0, 0].set_ylabel("variance of phi's gradient")
    axes[1, 0].set_ylabel("share of B's over draws of z")
    axes[0, 0].legend(frameon=False, fontsize=7)
    axes[1, 0].legend(frameon=False, fontsize=7)


# In training


def _ends(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Return mean and standard error over seeds of the bound at the end, the seconds, and how many diverged."""
    last = rows[rows.n_seen == rows.groupby(by).n_seen.transform("max")]
    return last.groupby(by, sort=False).agg(
        mean=("value", "mean"),
        error=("value", "sem"),
        seconds=("train_seconds", "mean"),
        lost=("value", lambda value: int(value.isna().sum())),
    )


def _found_estimators(rows: pd.DataFrame) -> list[str]:
    """Say who leads with one draw, and what the score function reaches without a baseline and with one."""
    told, points = _ends(rows, ["estimator", "particles"]), f"{rows.n_seen.max():,.0f}"
    one = told.xs(1, level="particles").sort_values("mean", ascending=False)
    said = [f"Trained by {one.index[0]} with L = 1 the bound on test is {_ended(one.iloc[0])} after {points} points."]
    for name, count in (("B", 1), ("score", 1), ("score_loo", 2)):
        if (name, count) in told.index and name != one.index[0]:
            said.append(f"Trained by {name} with L = {count} it is {_ended(told.loc[(name, count)])}.")
    return said


def _ended(one: Any) -> str:
    return f"{one['mean']:.2f} ± {one['error']:.2f}" if np.isfinite(one["mean"]) else "not finite"


def _table_estimators(rows: pd.DataFrame) -> Iterator[Block]:
    yield Heading("Trained by each estimator")
    yield _table_of_ends(rows, ["estimator", "particles"], ["estimator", "L"])


def _found_optimizers(rows: pd.DataFrame) -> list[str]:
    points = f"{rows.n_seen.max():,.0f}"
    return [
        f"By {name} at {size:g}, the best of its step sizes, the bound on test is {_ended(one)} after {points} points."
        for name, (size, one) in sorted(_best(rows).items(), key=lambda item: -item[1][1]["mean"])
    ]


def _table_optimizers(rows: pd.DataFrame) -> Iterator[Block]:
    yield Heading("Trained by each optimiser, with estimator B")
    yield _table_of_ends(rows, ["optimizer", "step_size"], ["optimiser", "step size"])


def _table_of_ends(rows: pd.DataFrame, by: list[str], head: list[str]) -> Table:
    seeds = rows.seed.nunique()
    body = []
    for key, one in _ends(rows, by).sort_values("mean", ascending=False).iterrows():
        value = _ended(one) if np.isfinite(one["mean"]) else "diverged"
        body.append(
            [
                *(f"{part:g}" if isinstance(part, float) else str(part) for part in key),
                value,
                f"{one.lost:g}",
                f"{one.seconds:.1f}",
            ]
        )
    columns = [*head, "bound on test", f"diverged, of {seeds}", "seconds"]
    told = f"After {rows.n_seen.max():,.0f} points; nats per datapoint, ± over {seeds} seeds"
    return Table(columns, body, caption=told)


def _best(rows: pd.DataFrame) -> dict[str, tuple[float, Any]]:
    """Return each optimiser's step size of the highest bound with no seed lost, and what `_ends` has of it."""
    ends = _ends(rows, ["optimizer", "step_size"])
    kept = ends[(ends.lost == 0) & ends["mean"].notna()]
    found = {}
    for name in dict.fromkeys(rows.optimizer):
        if name in kept.index.get_level_values(0):
            size = kept.loc[name]["mean"].idxmax()
            found[str(name)] = (float(size), kept.loc[(name, size)])
    return found


def _draw_training(picture: Any, by_estimator: pd.DataFrame, by_optimizer: pd.DataFrame) -> None:
    axes = picture.subplots(1, 3, sharey=True)
    for name, part in by_estimator.groupby("estimator", sort=False):
        least = part[part.particles == part.particles.min()]
        look = {"label": f"{name}, L = {least.particles.iloc[0]:.0f}", "marker": "."}
        drawing.over_seeds(axes[0], least, COLOURS[str(name)], **look)
        mean = least.groupby("n_seen")[["train_seconds", "value"]].mean()
        axes[1].plot(mean.train_seconds, mean.value, color=COLOURS[str(name)], marker=".")
    for name, (size, _) in _best(by_optimizer).items() if len(by_optimizer) else ():
        part = by_optimizer[(by_optimizer.optimizer == name) & (by_optimizer.step_size == size)]
        drawing.over_seeds(axes[2], part, COLOURS[name], label=f"{name}, {size:g}", marker=".")
    for axis, label in zip(axes, ("training points seen", "seconds of training", "training points seen"), strict=True):
        axis.set_xlabel(label)
        if axis.lines:
            axis.set_title("" if axis is axes[1] else "by estimator" if axis is axes[0] else "by optimiser, with B")
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize=7)
    for axis in (axes[0], axes[2]):
        if axis.lines:
            drawing.logarithmic(axis)
    told = pd.concat([by_estimator, by_optimizer])
    ends = told[told.n_seen == told.n_seen.max()].value  # what goes before warms up, far below
    if ends.notna().any():
        axes[0].set_ylim(ends.min() - 0.25 * (ends.max() - ends.min()) - 1.0, None)
    axes[0].set_ylabel("bound on test [nats per datapoint]")


FIRST = {  # of the findings of each part those to be known first; of training's its last stage
    "exact": slice(1),
    "closed": slice(1),
    "trained": slice(-4, None),
    "estimators": slice(2),
    "optimizers": slice(1),
}
FINDINGS = {
    "exact": _found_exact,
    "closed": _found_closed,
    "trained": _found_trained,
    "estimators": _found_estimators,
    "optimizers": _found_optimizers,
}
TABLES = {
    "exact": _table_exact,
    "closed": _table_closed,
    "trained": _table_trained,
    "estimators": _table_estimators,
    "optimizers": _table_optimizers,
}
