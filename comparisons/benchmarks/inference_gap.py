"""The two gaps between a lower bound and log p(x), on fits of several backends."""

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from comparisons import cli
from comparisons.data import GREY, Data, load, take
from comparisons.evidence.elbo import elbo
from comparisons.evidence.importance import k_sample_bound
from comparisons.evidence.judge import estimate
from comparisons.evidence.settings import JudgeSettings
from comparisons.reporting import markdown
from comparisons.reporting.blocks import Block, Items, Paragraph, Table
from comparisons.runner import store
from comparisons.runner.experiment import Experiment
from comparisons.runner.fits import Fit, fitted
from inference.base import Posterior, Settings, join, setting
from inference.mean_field import mean_field

ABOUT = "What of log p(x) minus the bound is the recognition network's."
TITLE = "Where the lower bound loses"
BACKENDS = ("aevb", "wake_sleep")  # those with a recognition network
GAPS = {"approximation_gap": ("log_px", "local_elbo"), "amortization_gap": ("local_elbo", "elbo")}
IWAE = 50  # draws of the tighter bound that stands beside


@dataclass(frozen=True, kw_only=True)
class Plan(cli.Plan):
    """What is run. Each field is a flag."""

    data: str = setting("mnist", "the data set", choices=("mnist", "mnist_binary", "digits"))
    backends: tuple[str, ...] = setting(BACKENDS, "backends whose fits are taken apart", choices=BACKENDS)
    latents: tuple[int, ...] = setting((3, 20), "latent variables of the fits", low=1, high=1000)
    n_train: int = setting(50_000, "training datapoints [datapoints]", low=100, high=10**6)
    n_hidden: int = setting(100, "hidden units", low=1, high=20_000)
    samples: int = setting(1_000_000, "training points of each fit [datapoints]", low=100, high=10**9)
    points: int = setting(1000, "first datapoints of each split that are judged [datapoints]", low=10, high=10_000)
    draws: int = setting(200, "draws of z for each bound [draws]", low=2, high=100_000)
    fit_steps: int = setting(2000, "Adam steps of the local fits [steps]", low=1, high=10**6)
    importance_samples: int = setting(
        1000, "importance: draws for each datapoint, above 3 latent variables [draws]", low=25, high=1_000_000
    )


def take_apart(plan: Plan, out: Path, data_dir: Path | None) -> int:
    """Fit, take apart, write rows.csv and table.md; return 0. Raises UserError."""
    store.prepare(out)
    data = load(plan.data, data_dir)
    n_train = min(plan.n_train, len(data.train))
    data = take(data, n_train)
    store.write_json(out / "manifest.json", {**store.environment(), "plan": asdict(plan)})
    rows: list[dict[str, Any]] = []
    for k in plan.latents:
        for backend in plan.backends:
            experiment = Experiment(
                data=plan.data, n_train=n_train, n_latent=k, n_hidden=plan.n_hidden, backend=backend,
                engine=plan.engine, seed=plan.seed, samples=plan.samples, threads=plan.threads,
            )  # fmt: skip
            fit = fitted(experiment, data, out, [Path("reports/marginal_likelihood"), Path("reports/calibration")])
            for row in gaps(plan, fit, data):
                rows.append(row)
                print(_line(row), file=sys.stderr)
                store.write_rows(out / "rows.csv", rows)
    table = markdown.printed(blocks(pd.DataFrame(rows)), TITLE)
    store.write(out / "table.md", table)
    print(table)
    return 0


def gaps(plan: Plan, fit: Fit, data: Data) -> Iterator[dict[str, Any]]:
    """Yield a row for each split: log p(x), the two bounds, and the gaps between them, each with its standard error.

    Bounds and log p(x) are of the same datapoints; errors are those of the estimators.
    """
    for split in ("train", "test"):
        x, indices = fit.points(data, split, plan.points)
        key = fit.engine.key(plan.seed)
        q = fit.posterior(x, indices)
        assert q is not None
        best = local_fit(fit, x, plan.fit_steps)
        settings = replace(JudgeSettings(), tolerance=0.03, importance_samples=plan.importance_samples)
        name = "quadrature" if fit.model.n_latent <= 3 else "importance"
        truth = estimate(name, fit.engine, fit.model, fit.theta, x, plan.seed, best, settings)
        amortized = elbo(fit.engine, fit.model, fit.theta, q, x, fit.engine.fold_in(key, 1), plan.draws)
        local = elbo(fit.engine, fit.model, fit.theta, best, x, fit.engine.fold_in(key, 2), plan.draws)
        tighter = k_sample_bound(fit.engine, fit.model, fit.theta, x, q, fit.engine.fold_in(key, 3), IWAE)
        row: dict[str, Any] = {
            "data": plan.data, "n_latent": fit.model.n_latent, "backend": fit.experiment.backend, "split": split,
            "n_points": len(truth.value), "evidence": name, "flagged": truth.flagged,
        }  # fmt: skip
        bounds = {"log_px": truth, "elbo": amortized, "local_elbo": local, "iwae": tighter}
        for label, found in bounds.items():
            row[label], row[f"{label}_stderr"] = found.mean()
        for gap, (upper, lower) in GAPS.items():
            row[gap] = row[upper] - row[lower]
            row[f"{gap}_stderr"] = float(np.hypot(row[f"{upper}_stderr"], row[f"{lower}_stderr"]))
        yield row


def local_fit(fit: Fit, x: Any, steps: int) -> Posterior:
    """Return mean-field VI's own q(z_i) of each row of x, fitted with the fit's theta held fast."""
    settings = Settings(fit_steps=steps, particles=10)
    backend = mean_field(fit.engine, fit.model, settings)
    state = {"params": join(theta=fit.theta)}
    assert backend.posterior is not None
    return backend.posterior(fit.engine.key(fit.experiment.seed), state, x, None)


def blocks(rows: pd.DataFrame) -> list[Block]:
    """Return the findings in sentences, and the table."""
    if rows.empty:
        return []
    sentences, body = [], []
    for row in rows.to_dict("records"):
        total = row["approximation_gap"] + row["amortization_gap"]
        share = row["amortization_gap"] / total if total > 0 else float("nan")
        sentences.append(
            f"{row['backend']}, {row['n_latent']} latent variables, {row['split']}: the bound lies {total:.2f} nats "
            f"below log p(x); {share:.0%} of it is the recognition network's, the rest that of a factorised normal."
        )
        body.append(
            [row["backend"], str(row["n_latent"]), row["split"], f"{_pm(row, 'log_px')} ({row['evidence']})"]
            + [_pm(row, name) for name in ("local_elbo", "elbo", "iwae", "approximation_gap", "amortization_gap")]
        )
    head = ["backend", "latent variables", "split", "log p(x)", "bound of the local fit", "bound", f"bound, K = {IWAE}"]
    data = rows.data.iloc[0]
    note = f"Numbers on {data} are a {GREY}. " if data in ("mnist", "digits") else ""
    return [
        Items(sentences, lined=True),
        Table([*head, "approximation gap", "amortization gap"], body),
        Paragraph(
            f"Nats per datapoint, on the first {rows.n_points.max()} points of each split; ± is the estimators' own "
            f"standard error. {note}K = {IWAE}: the importance-weighted bound of Burda et al. (2016) with the "
            "recognition network."
        ),
    ]


def _pm(row: dict[str, Any], name: str) -> str:
    return f"{row[name]:.2f} ± {row[name + '_stderr']:.2f}"


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['backend']} k={row['n_latent']} {row['split']}: log p(x) {row['log_px']:.2f}, approximation gap "
        f"{row['approximation_gap']:.2f}, amortization gap {row['amortization_gap']:.2f}"
    )
