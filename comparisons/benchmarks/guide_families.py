"""Fits of one model with each family of q(z | x): bound, log p(x), seconds, and by which path z is drawn."""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from comparisons import cli
from comparisons.benchmarks.templates import filled, with_error
from comparisons.cli import parts
from comparisons.cli.flags import FITTED, JUDGED
from comparisons.data import DATA, GREY, Data, load, take
from comparisons.disk import writing
from comparisons.evidence.elbo import elbo
from comparisons.evidence.judge import JudgeSettings, automatic, estimate
from comparisons.reporting import markdown
from comparisons.reporting.blocks import Block, Heading, Paragraph, Table
from comparisons.reporting.folder import begin, show
from comparisons.runner import store
from comparisons.runner.experiment import Experiment, built
from comparisons.runner.fits import fitted
from inference.base import setting
from models.families import FAMILIES, PRIORS, suited

if TYPE_CHECKING:
    import pandas as pd

ABOUT = "The recognition network with other families than the normal, and what of log p(x) each leaves open."
FIGURE = "Lower bound and log p(x) of the same fits, on test data; bars are two standard errors."
TITLE = "Families of q(z | x)"
OF_FITS = ("model", "data", "prior_family", "n_latent", "n_hidden", "samples", "step_size", "engine", "threads")
NUMBERS = ("elbo", "log_px", "gap")
COLUMNS = {
    "q(z given x)": "{0.title}",
    "route": "{0.route}",
    "lower bound": with_error("elbo"),
    "log p(x)": with_error("log_px"),
    "left open": with_error("gap"),
    "seconds": "{0.seconds:.1f}",
    "fits": "{0.fits}",
}

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Plan(cli.Plan):
    """What is run. Each field is a flag."""

    data: str = setting("digits", "the data set", choices=tuple(DATA))
    model: str = parts.model_setting()
    prior_family: str = setting("normal", "family of p(z)", choices=PRIORS)
    families: tuple[str, ...] = setting((), "families of q(z|x); none: all that suit the prior", choices=(*FAMILIES,))
    n_latent: int = setting(2, "latent variables of a datapoint", low=1, high=1000)
    n_train: int = setting(50_000, "training datapoints at most [datapoints]", low=100, high=10**6)
    n_hidden: int = setting(100, "hidden units", low=1, high=20_000)
    runs: int = setting(1, "fits of each family, with the seeds seed, seed + 1, ...", low=1, high=100)
    samples: int = setting(50_000, "training points of each fit [datapoints]", low=100, high=10**9, about=FITTED)
    step_size: float | str = setting(
        0.1, "step size; auto: the best of a few on the training set, for each", above=0.0, high=1e9, about=FITTED
    )
    eval_points: int = setting(
        200, "first test datapoints that are judged [datapoints]", low=2, high=10**6, about=JUDGED
    )
    elbo_draws: int = setting(200, "draws of z for each bound [draws]", low=2, high=100_000, about=JUDGED)


def compare(plan: Plan, out: Path, data_dir: Path | None) -> int:
    """Fit with each family, judge, write rows.csv, table.md and figure.svg; return 0. Raises UserError."""
    writing.prepare(out)
    data = load(plan.data, data_dir)
    data = take(data, min(plan.n_train, len(data.train)))
    chosen = plan.families or tuple(suited(plan.prior_family))
    for family in chosen:  # what one of them refuses is said before any is fitted
        built(experiment(plan, family, plan.seed, len(data.train)), data.train.shape[1])
    new = begin(out, {**store.environment(), "plan": asdict(plan)})
    rows: list[Row] = []
    for seed in range(plan.seed, plan.seed + plan.runs):
        for family in chosen:
            rows.append(row := judged(plan, family, seed, data, out))
            print(f"{family}, seed {seed}: bound {row['elbo']:.2f}, log p(x) {row['log_px']:.2f}", file=sys.stderr)
            writing.write_rows(new / "rows.csv", rows)
    import pandas as pd

    frame = pd.DataFrame(rows)
    return show(
        out,
        {
            "table.md": lambda: markdown.printed(blocks(frame), TITLE),
            "figure.svg": lambda: figure(frame),
        },
    )


def experiment(plan: Plan, family: str, seed: int, n_train: int) -> Experiment:
    """Return how a family is fitted."""
    settings: dict[str, Any] = {name: getattr(plan, name) for name in OF_FITS}
    return Experiment(guide_family=family, seed=seed, n_train=n_train, backend="aevb", **settings)


def judged(plan: Plan, family: str, seed: int, data: Data, out: Path) -> Row:
    """Return the bound of a family's fit and log p(x) under its theta, on the first test points, with their errors."""
    fit = fitted(experiment(plan, family, seed, len(data.train)), data, out)
    x, _ = fit.points(data, "test", plan.eval_points)
    target = fit.target(x)
    evidence = automatic(target.facts, JudgeSettings())
    truth = estimate(evidence, target, JudgeSettings(), seed)
    card = FAMILIES[family]
    row: Row = {"family": family, "title": card.title, "route": card.route, "path": card.path, "library": card.library}
    row |= {"prior": plan.prior_family, "data": plan.data, "engine": plan.engine, "seed": seed}
    row["elbo"], row["elbo_stderr"] = elbo(target, fit.engine.fold_in(fit.engine.key(seed), 1), plan.elbo_draws).mean()
    row["log_px"], row["log_px_stderr"] = truth.mean()
    row |= {"gap": row["log_px"] - row["elbo"], "gap_stderr": float(np.hypot(row["elbo_stderr"], row["log_px_stderr"]))}
    last = store.read_rows(out / "cells" / fit.cell.name / "rows.csv").iloc[-1]
    row |= {"evidence": evidence, "flagged": truth.flagged, "n_points": truth.points, "step_size": last.step_size}
    return {**row, "samples": plan.samples, "n_latent": plan.n_latent, "seconds": last.seconds}


def summary(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Return a line for each family, the highest bound first.

    Each number is the mean over seeds with its standard error; that of one seed is the estimator's own.
    """
    import pandas as pd

    lines = []
    for name, each in rows.groupby("family", sort=False):
        n = len(each)
        line: Row = {"family": name, "title": each.title.iloc[0], "route": each.route.iloc[0], "fits": n}
        for number in NUMBERS:
            line[number] = each[number].mean()
            own = each[f"{number}_stderr"].iloc[0]
            line[f"{number}_stderr"] = each[number].std(ddof=1) / np.sqrt(n) if n > 1 else own
        lines.append({**line, "seconds": each.seconds.mean()})
    return pd.DataFrame(lines).sort_values("elbo", ascending=False, kind="stable")


def blocks(rows: "pd.DataFrame") -> list[Block]:
    """Return the families by their bounds, and by which path each is drawn."""
    if rows.empty:
        return []
    first, lines = rows.iloc[0], summary(rows)
    error = "over seeds" if rows.seed.nunique() > 1 else "of the estimators"
    twice = {"logistic", "logistic_by_inverse"} <= {*rows.family}
    control = " The logistic is there by two routes: one law, so what they differ by is noise." if twice else ""
    note = f" Numbers on {first.data} are a {GREY}." if first.data in ("mnist", "digits") else ""
    cards = rows.drop_duplicates("family").fillna({"library": ""}).replace({"library": {"": "ours"}})
    drawn = [[row.title, row.route, row.path, row.library, row.library] for row in cards.itertuples()]
    return [
        Table([*COLUMNS], filled(lines, COLUMNS), caption=ABOUT, numbers=("seconds", "fits")),
        Paragraph(
            f"Nats per datapoint, on the first {rows.n_points.max()} test points of {first.data}: {first.n_latent} "
            f"latent variables under z ~ {first.prior}, {first.samples:,} training points seen, {first.engine}. ± is "
            f"the standard error {error}. log p(x) is by {first.evidence}, and left open is log p(x) less the bound: "
            f"KL(q(z | x) || p(z | x)). Seconds are those of training, without compiling.{control}{note}"
        ),
        Heading("By which path z is drawn"),
        Table(["q(z given x)", "route", "z", "Pyro", "NumPyro"], drawn, caption="The paths of the paper's section 2.4"),
    ]


def figure(rows: "pd.DataFrame") -> str:
    """Return the bounds and log p(x) as SVG, a line for each family."""
    from comparisons.reporting import drawing

    lines = summary(rows).iloc[::-1]

    def draw(figure: Any) -> None:
        axis, at = figure.subplots(), np.arange(len(lines))
        marks = {"log_px": ("log p(x)", drawing.ORANGE, 0.12), "elbo": ("lower bound", drawing.BLUE, -0.12)}
        for number, (label, colour, above) in marks.items():
            errors = 2 * lines[f"{number}_stderr"]
            axis.errorbar(lines[number], at + above, xerr=errors, fmt="o", ms=4, color=colour, label=label)
        axis.set_yticks(at, lines.title)
        axis.set_xlabel("nats per datapoint, test")
        figure.legend(loc="outside upper right", ncols=2, frameon=False)

    return drawing.svg((6.5, 1.1 + 0.27 * len(lines)), draw)
