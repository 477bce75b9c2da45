"""The long format: one number a row, these columns always, by these names."""

import csv
import io
import math
from collections.abc import Iterable
from typing import Any

from comparisons.evidence.judge import ESTIMATORS

OF = ("comparison", "model", "data", "n_train", "n_latent", "n_hidden")
BY = ("backend", "engine", "seed", "samples", "method")
NUMBER = ("n_seen", "split", "metric", "value", "stderr", "seconds", "status")
HOW = (
    "n_points",
    "step_size",
    "decoder_evals",
    "fit_steps",
    "eval_seconds",
    "compile_seconds",
    "flagged",
    "device",
    "threads",
    "cell",
)
COLUMNS = (*OF, *BY, *NUMBER, *HOW)
WORDS = ("comparison", "model", "data", "backend", "engine", "method", "split", "metric", "status", "device", "cell")
EMPTY = ("value", "stderr", "step_size", "eval_seconds", "compile_seconds", "flagged")  # numbers that may be missing

# `seconds` are of training up to a row, the pilot for its step size with it; `compile_seconds` of all that was traced
# and compiled for the cell so far; `eval_seconds` of judging this number. None has a second in common with another.
# `flagged` is the share of datapoints whose number the estimator itself does not trust.
# What every metric is, for captions. Those in nats are means over the first `n_points` points of the split, higher is
# better but for a KL. Those after `hmc_acceptance` are of a q(theta), with --theta vb: the others then are at its mean.
RANKED = sorted(ESTIMATORS, key=lambda name: (ESTIMATORS[name].rank is None, ESTIMATORS[name].rank))
METRICS = {
    "elbo_nats": "lower bound",
    "kl_z_nats": "KL(q(z | x) || p(z)), the bound's",
    "active_latents": "latent variables with Cov_x(E_q[z]) > 0.01",
    **{f"log_px_{name}_nats": "log p(x)" for name in RANKED},
    "hmc_acceptance": "HMC acceptance",
    **{f"{name}_evals": "decoder evaluations so far by what it keeps" for name in RANKED if ESTIMATORS[name].keeper},
    "elbo_full_nats": "lower bound on log p(X) / N",
    "kl_theta_nats": "KL(q(theta) || p(theta)) / N",
    "theta_at_prior": "share of the weights that stayed at the prior",
    "log_px_expected_nats": "mean of log p(x | theta) over q(theta)",
    "log_px_predictive_nats": "log posterior predictive density",
}

SETTINGS = ("model", "data", "n_latent", "n_hidden", "backend", "engine", "seed", "samples", "device", "threads")

PANEL = ["data", "n_train", "model", "n_latent", "n_hidden", "samples"]  # one table, or one row of figures, for each

CHAINS = ("chains", "chain_interval")  # how the paper's estimator had its chains: settings that change no fit

Row = dict[str, Any]
# A number that is not there: what it is of, and what is known of it, take these places.
BLANK: Row = {
    **{"n_seen": 0, "value": math.nan, "stderr": math.nan, "seconds": 0.0, "status": "ok", "n_points": 0},
    **{"step_size": math.nan, "decoder_evals": 0, "fit_steps": 0, "eval_seconds": 0.0},
    **{"compile_seconds": 0.0, "flagged": 0.0},
}


def trained(method: str) -> str:
    """Return a method as what it says of the fit: without how the paper's estimator had its chains."""
    return " ".join(word for word in method.split() if word.partition("=")[0] not in CHAINS)


def to_csv(rows: Iterable[Row]) -> str:
    """Write rows with a header; numbers in full precision, a missing one as an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _plain(row[name]) for name in COLUMNS})
    return text.getvalue()


def _plain(value: Any) -> Any:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return repr(float(value)) if isinstance(value, float) else value
