"""The two gaps between a lower bound and log p(x), on fits of several backends."""

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import inference
from comparisons import cli
from comparisons.benchmarks.templates import filled, with_error
from comparisons.benchmarks.traits import recognises
from comparisons.cli import parts
from comparisons.cli.flags import FITTED, JUDGED
from comparisons.data import GREY, Data, load, take
from comparisons.disk import writing
from comparisons.errors import FlagError
from comparisons.evidence.base import Estimate, Target
from comparisons.evidence.elbo import elbo
from comparisons.evidence.importance import k_sample_bound
from comparisons.evidence.judge import JudgeSettings, automatic, estimate
from comparisons.reporting import markdown
from comparisons.reporting.blocks import Block, Items, Paragraph, Table
from comparisons.reporting.folder import begin, show
from comparisons.runner import store
from comparisons.runner.experiment import Experiment
from comparisons.runner.fits import Fit, earlier, fitted
from inference import BACKENDS
from inference.base import join, setting
from inference.local import LocalSettings, local_fit

if TYPE_CHECKING:
    import pandas as pd

ABOUT = "What of log p(x) minus the bound is the recognition network's."
TITLE = "Where the lower bound loses"
OF_FITS = ("model", "data", "n_hidden", "samples", "engine", "seed", "threads")
GAPS = {"approximation_gap": ("log_px", "local_elbo"), "amortization_gap": ("local_elbo", "elbo")}
IWAE = 50  # draws of the tighter bound that stands beside
PARTICLES = 10  # draws of a step of the local fit
COLUMNS = {
    "backend": "{0.backend}",
    "latent variables": "{0.n_latent}",
    "split": "{0.split}",
    "log p(x)": with_error("log_px") + " ({0.evidence})",
    "bound of the local fit": with_error("local_elbo"),
    "bound": with_error("elbo"),
    f"bound, K = {IWAE}": with_error("iwae"),
    "approximation gap": with_error("approximation_gap"),
    "amortization gap": with_error("amortization_gap"),
}
KNOWN = earlier("marginal_likelihood", "calibration")

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Plan(cli.Plan):
    """What is run. Each field is a flag."""

    data: str = setting("mnist", "the data set", choices=("mnist", "mnist_binary", "digits"))
    model: str = parts.model_setting()
    backends: tuple[str, ...] = parts.backend_setting(tuple(BACKENDS), flag="--backend", also=("--backends",))
    latents: tuple[int, ...] = setting(
        (3, 20), "latent variables of the fits", low=1, high=1000, flag="--n-latent", also=("--latents",)
    )
    n_train: int = setting(50_000, "training datapoints [datapoints]", low=100, high=10**6)
    n_hidden: int = setting(100, "hidden units", low=1, high=20_000)
    samples: int = setting(1_000_000, "training points of each fit [datapoints]", low=100, high=10**9, about=FITTED)
    points: int = setting(
        1000,
        "first datapoints of each split that are judged [datapoints]",
        low=10,
        high=10_000,
        about=JUDGED,
        flag="--eval-points",
        also=("--points",),
    )
    draws: int = setting(
        200,
        "draws of z for each bound [draws]",
        low=2,
        high=100_000,
        about=JUDGED,
        flag="--elbo-draws",
        also=("--draws",),
    )
    fit_steps: int = setting(2000, "Adam steps of the local fits [steps]", low=1, high=10**6, about=JUDGED)
    importance_samples: int = setting(
        1000,
        "importance: draws for each datapoint, above 3 latent variables [draws]",
        low=25,
        high=1_000_000,
        about=JUDGED,
    )


def take_apart(plan: Plan, out: Path, data_dir: Path | None) -> int:
    """Fit, take apart, write rows.csv and table.md; return 0. Raises UserError."""
    writing.prepare(out)
    backends = amortized(plan)
    data = load(plan.data, data_dir)
    n_train = min(plan.n_train, len(data.train))
    data = take(data, n_train)
    new = begin(out, {**store.environment(), "plan": asdict(plan)})
    settings: dict[str, Any] = {"n_train": n_train, **{name: getattr(plan, name) for name in OF_FITS}}
    rows: list[Row] = []
    for k, backend in product(plan.latents, backends):
        fit = fitted(Experiment(n_latent=k, backend=backend, **settings), data, out, KNOWN)
        for row in gaps(plan, fit, data):
            rows.append(row)
            print(_line(row), file=sys.stderr)
            writing.write_rows(new / "rows.csv", rows)
    import pandas as pd

    return show(out, {"table.md": lambda: markdown.printed(blocks(pd.DataFrame(rows)), TITLE)})


def amortized(plan: Plan) -> list[str]:
    """Return the backends that have a recognition network, of those asked for. Raises FlagError where none has."""
    engine = inference.engine(plan.engine, "cpu", plan.threads)
    found = [name for name in plan.backends if recognises(engine, name)]
    if not found:
        raise FlagError(f"{' '.join(plan.backends)}: no recognition network to take apart; choose another --backend")
    return found


def gaps(plan: Plan, fit: Fit, data: Data) -> Iterator[Row]:
    """Yield a row for each split: log p(x), the two bounds, and the gaps between them, each with its standard error.

    Bounds and log p(x) are of the same datapoints; errors are those of the estimators. The best q is a local fit with
    the fit's theta held fast.
    """
    engine, theta = fit.engine, fit.theta
    fit_locally = local_fit(engine, fit.model, LocalSettings(fit_steps=plan.fit_steps, particles=PARTICLES))
    settings = replace(JudgeSettings(), tolerance=0.03, importance_samples=plan.importance_samples)
    for split in ("train", "test"):
        x, indices = fit.points(data, split, plan.points)
        q = fit.posterior(x, indices)
        assert q is not None
        target = Target(engine, fit.model, theta, x, q)
        best = target._replace(q=fit_locally(engine.key(fit.experiment.seed), join(theta=theta), x))
        name = automatic(target.facts, settings)
        keys = [engine.fold_in(engine.key(plan.seed), number) for number in (1, 2, 3)]
        truth = estimate(name, best, settings, plan.seed)
        found = {
            "log_px": truth,
            "elbo": elbo(target, keys[0], plan.draws),
            "local_elbo": elbo(best, keys[1], plan.draws),
            "iwae": k_sample_bound(target, keys[2], IWAE),
        }
        named = {"data": plan.data, "n_latent": fit.model.n_latent, "backend": fit.experiment.backend, "split": split}
        yield {**named, "n_points": truth.points, "evidence": name, "flagged": truth.flagged, **apart(found)}


def apart(found: dict[str, Estimate]) -> Row:
    """Return the mean of each estimate and the gaps between them, in nats, each with its standard error."""
    row: Row = {}
    for label, each in found.items():
        row[label], row[f"{label}_stderr"] = each.mean()
    for gap, (upper, lower) in GAPS.items():
        row[gap] = row[upper] - row[lower]
        row[f"{gap}_stderr"] = float(np.hypot(row[f"{upper}_stderr"], row[f"{lower}_stderr"]))
    return row


def blocks(rows: "pd.DataFrame") -> list[Block]:
    """Return the findings in sentences, and the table."""
    if rows.empty:
        return []
    sentences = []
    for row in rows.itertuples():
        total = row.approximation_gap + row.amortization_gap
        share = row.amortization_gap / total if total > 0 else float("nan")
        sentences.append(
            f"{row.backend}, {row.n_latent} latent variables, {row.split}: the bound lies {total:.2f} nats "
            f"below log p(x); {share:.0%} of it is the recognition network's, the rest that of a factorised normal."
        )
    data = rows.data.iloc[0]
    note = f"Numbers on {data} are a {GREY}. " if data in ("mnist", "digits") else ""
    return [
        Items(sentences, lined=True),
        Table([*COLUMNS], filled(rows, COLUMNS), caption=ABOUT),
        Paragraph(
            f"Nats per datapoint, on the first {rows.n_points.max()} points of each split; ± is the estimators' own "
            f"standard error. {note}K = {IWAE}: the importance-weighted bound of Burda et al. (2016) with the "
            "recognition network."
        ),
    ]


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['backend']} k={row['n_latent']} {row['split']}: log p(x) {row['log_px']:.2f}, approximation gap "
        f"{row['approximation_gap']:.2f}, amortization gap {row['amortization_gap']:.2f}"
    )
