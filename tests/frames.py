"""Rows, curves and names that tests of tables, verdicts and reports are made of."""

from typing import Any

import numpy as np
import pandas as pd

from comparisons.paper.curves import Curve
from comparisons.reporting import markdown, tables
from comparisons.runner.baselines import Baselines
from comparisons.runner.rows import COLUMNS

HOSTILE = "\"><script>alert(1)</script>&'<img src=x onerror=alert(1)>"


def row(**changes: Any) -> dict[str, Any]:
    """One row of a cell that went well, with the given changes."""
    cell = {"backend": "aevb", "engine": "pyro", "seed": 0, "n_latent": 3, "method": "", "data": "digits", **changes}
    return {
        "comparison": "marginal_likelihood",
        "model": "vae_bernoulli",
        "n_train": 1000,
        "n_hidden": 100,
        "samples": 100_000,
        "n_seen": 100_000,
        "split": "train",
        "metric": "elbo_nats",
        "value": -10.0,
        "stderr": 0.5,
        "seconds": 2.0,
        "status": "ok",
        "n_points": 50,
        "step_size": 0.02,
        "decoder_evals": 1000,
        "fit_steps": 0,
        "eval_seconds": 0.1,
        "compile_seconds": 0.5,
        "flagged": 0.0,
        "device": "cpu",
        "threads": 1,
        "cell": "-".join(str(cell[name]) for name in ("data", "backend", "method", "engine", "seed", "n_latent")),
        **cell,
    }


def frame(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=list(COLUMNS))


def seeds(engine: str, values: list[float], **changes: Any) -> list[dict[str, Any]]:
    return [row(engine=engine, seed=seed, value=value, **changes) for seed, value in enumerate(values)]


def table_of(rows: pd.DataFrame, known: Baselines | None = None) -> str:
    """The tables of a grid's rows, as its table.md has them."""
    return markdown.printed(tables.blocks(rows, known))


def pipes(text: str) -> list[list[str]]:
    """The cells of each line of a Markdown table, split at unescaped pipes."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    marker = "\0"
    return [
        [cell.strip().replace(marker, "\\|") for cell in line.replace("\\|", marker).strip("|").split("|")]
        for line in lines
    ]


FIGURE2 = {"data": "mnist", "n_train": 50_000, "n_hidden": 500, "engine": "numpyro", "split": "test"}
FIGURE3 = {**FIGURE2, "n_hidden": 100, "metric": "log_px_quadrature_nats"}
NONE = frame()


def curve(**changes: Any) -> Curve:
    """Return a curve that is -100 at 1e5 and falls by 10 each decade, with the given changes."""
    fields = {
        "figure": "figure2",
        "data": "mnist",
        "n_latent": 3,
        "n_train": 50_000,
        "backend": "aevb",
        "split": "test",
        "metric": "elbo_nats",
        "n_seen": np.array([1e5, 1e8]),
        "value": np.array([-100.0, -130.0]),
        **changes,
    }
    return Curve(**fields)


def run(values: dict[float, float], **changes: Any) -> list[dict[str, Any]]:
    """Return the rows of one cell that had these values at these points seen."""
    end = int(max(values))
    settings = {**FIGURE2, "samples": end, "stderr": 0.01, **changes}
    cell = " ".join(map(str, settings.values()))
    return [row(**{**settings, "n_seen": int(n), "value": v, "cell": cell}) for n, v in values.items()]
