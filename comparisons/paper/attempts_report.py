"""The report of `attempts`: what each try at a finding gave, beside our own numbers and the paper's, and the outcome.

Our own numbers come from the rows of the other comparisons, the paper's from its curves: none is typed here. An outcome
is worked out from the numbers by the rule that its sentence names.
"""

import math
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import pandas as pd

from comparisons.disk import reading, writing
from comparisons.paper.curves import papers
from comparisons.reporting import markdown
from comparisons.reporting.blocks import Block, Code, Gap, Heading, Paragraph, Strong, Table, Text
from comparisons.reporting.folder import beside
from comparisons.runner import store

ABOUT = "Each finding that contradicts the paper, an independent attempt at breaking it, and what came of that."
TITLE = "Attempts to break the findings"

REPORTS = Path(__file__).parents[2] / "reports"
LOG_PX = ("log_px_plain_nats", "log_px_quadrature_nats")  # ours first, then what stands for it in other comparisons
BOUND = ("elbo_nats", "elbo_nats")
TUNED = "warmup=0 pilot_steps=3000"


class Outcome(NamedTuple):
    """What became of a finding: a word by a rule, both empty where it was not tried, and the numbers."""

    word: str
    rule: str
    numbers: str


class Finding(NamedTuple):
    """A finding, the quantity it is about, where our own rows of it are, and how its attempts are judged.

    `ours` are columns of the rows of `folder`; `attempts` may override them by name; `paper` are a curve's.
    """

    claim: str
    metric: tuple[str, str]
    folder: str
    ours: dict[str, Any]
    paper: dict[str, Any]
    outcome: "Outcomes"


class Told(NamedTuple):
    """The rows of one finding's attempts, and of ours."""

    rows: pd.DataFrame
    finding: Finding

    def value(
        self, attempt: str, metric: str = "", split: str = "test", points: str = "first", n_seen: float = 0
    ) -> float:
        """Return an attempt's number at its last stop, or at `n_seen`; NaN where it has not been run."""
        metric = metric or self.finding.metric[0]
        mine = self.rows[(self.rows.attempt == attempt) & (self.rows.metric == metric) & (self.rows.split == split)]
        mine = mine[mine.points.isin([points, "all"])].sort_values("n_seen", kind="stable")
        mine = mine[mine.n_seen == n_seen] if n_seen else mine
        return float(mine.value.iloc[-1]) if len(mine) else math.nan

    def ours(self, n_seen: float, split: str = "test", **other: Any) -> float:
        """Return the mean over seeds of our own number at these points seen; NaN where there is none."""
        metric = other.pop("metric", self.finding.metric[1])
        return published(self.finding.folder, {**self.finding.ours, **other}, metric, split, n_seen)

    def paper(self, n_seen: float, split: str = "test", **other: Any) -> float:
        """Return the paper's number, NaN where its curve has none."""
        return papers({**self.finding.paper, **other}, split, n_seen)


Outcomes = Callable[[Told], Outcome]


class Part(TypedDict):
    """An attempt that has been run: what it was, and its rows."""

    identity: dict[str, Any]
    rows: list[dict[str, str | float | None]]


def report(out: Path) -> None:
    """Rebuild rows.csv, table.md and manifest.json from the attempts that have been run."""
    parts = [reading.record(path, Part) for path in sorted((out / "parts").glob("*.json"))]
    rows = [row for part in parts for row in part["rows"]]
    writing.write_json(out / "manifest.json", {"attempts": [_of(part) for part in parts]})
    if rows:
        writing.write_rows(out / "rows.csv", rows)
        beside(out, {"table.md": lambda: markdown.printed(blocks(pd.DataFrame(rows)), TITLE)})


INTRODUCTION = (
    "Every finding here that contradicts the paper, or goes beyond it, and what came of trying to break it. 'Plain' "
    "is ",
    Code("tests/plain.py"),
    ": the method in NumPy, gradients by hand, draws of its own, judged by formulas of its own.",
)
NOTE = (
    "Nats per datapoint, higher is better, at the last stop of each run; one seed. ± is the estimator's own error, not "
    "the scatter of runs. 'Ours' is what the other comparisons have at the same points seen and settings, or at the "
    "settings of the finding where an attempt changes them. Bounds are judged on the first 10,000 points of a split, "
    "by the suite (",
    Code("elbo_nats"),
    ") or by plain NumPy on 1000 (",
    Code("elbo_plain_nats"),
    "); log p(x) on 1000, by importance sampling in plain NumPy. Numbers on MNIST are a cross-entropy of grey values, "
    "not a normalised log density.",
)


def blocks(rows: pd.DataFrame) -> list[Block]:
    """Return a part for each finding: the claim, the outcome, and a line for each attempt and split."""
    parts = [_of_finding(rows[rows.finding == name], finding) for name, finding in FINDINGS.items()]
    return [Paragraph(INTRODUCTION), *(block for part in parts for block in part), Gap(), Paragraph(NOTE)]


def _of_finding(rows: pd.DataFrame, finding: Finding) -> list[Block]:
    if rows.empty:
        return []
    told = Told(rows, finding)
    word, rule, numbers = finding.outcome(told)
    outcome: Text = (Strong(word), f" (rule: {rule}). {numbers}") if word else numbers
    return [Heading(finding.claim), Paragraph(outcome), Table(HEAD, list(_lines(told)))]


SAME = {"elbo_plain_nats": "elbo_nats", "log_px_plain_nats": "log_px_quadrature_nats"}  # by another hand
HEAD = ["attempt", "quantity", "split", "points judged", "points seen", "attempt's", "ours", "the paper's"]


def _lines(told: Told) -> Iterator[list[Text]]:
    rows = told.rows
    alike = [name for name in ("attempt", "start", "metric", "split", "points") if name in rows]
    rows = rows[rows.n_seen == rows.groupby(alike, dropna=False).n_seen.transform("max")]
    for row in rows[rows.metric != "hmc_acceptance"].to_dict("records"):
        own = SAME.get(row["metric"], row["metric"])
        named = [name for name in (row["attempt"], row.get("start")) if isinstance(name, str)]
        other = _other(row["attempt"])
        same = {**other, "n_points": row["n_points"], "metric": own}  # other points have another mean
        ours = told.ours(row["n_seen"], row["split"], **same) if row["points"] != "last" else math.nan
        # A curve of Figure 2 is a bound, one of Figure 3 log p(x).
        paper = told.paper(row["n_seen"], row["split"], **other) if own == told.finding.metric[1] else math.nan
        error = f" ± {row['stderr']:.2f}" if row["stderr"] else ""
        judged = [Code(row["metric"]), row["split"], f"{row['points']} {row['n_points']:.0f}", f"{row['n_seen']:,.0f}"]
        others = [_also(number, f"{number:.2f}") for number in (ours, paper)]
        yield [", ".join(named), *judged, f"{row['value']:.2f}{error}", *others]


# Outcomes


def _wake_sleep(told: Told) -> Outcome:
    plain, factor = told.value("plain, factor 1"), told.value("plain, factor 0.1")
    ours, with_it = told.ours(1e6), told.ours(1e6, method="warmup=0 log_variance_factor=0.1 step_size=0.02")
    paper = told.paper(1e6)
    if math.isnan(plain):
        return NOT_YET
    return Outcome(
        "Stands" if paper - plain > 2.0 else "Falls",
        "plain, too, is over two nats below the paper",
        f"After a million points with 5 latent variables plain wake-sleep is at {plain:.1f} on test, ours at "
        f"{ours:.1f}, the paper at {paper:.1f}: the gap is not a fault of our code."
        + _also(factor, f" With the log-variance weights times 0.1 plain is at {factor:.1f}, ours at {with_it:.1f}."),
    )


def _em_large(told: Told) -> Outcome:
    both = ("first", "last")
    runs = {name: [told.value(name, points=points) for points in both] for name in told.rows.attempt.unique()}
    rival, whose = runs.pop("plain AEVB", None), "plain AEVB"
    if rival is None:
        rival, whose = [told.ours(HALF, backend="aevb"), math.nan], "our AEVB"
    if not runs:
        return NOT_YET
    runs = {"our seed 0": [told.ours(HALF), math.nan], **runs}
    # Every number that has a rival is more than a nat above it; a missing one is NaN, which no comparison holds of.
    ahead = [name for name, each in runs.items() if not any(a - b <= 1.0 for a, b in zip(each, rival, strict=True))]
    each = "; ".join(f"{name} {_both(values)}" for name, values in runs.items())
    return Outcome(
        "Stands" if len(ahead) == len(runs) else "Stands, but not in every run" if ahead else "Falls",
        f"more than a nat above {whose} on the first 1000 test points and, where both are judged there, on the last",
        f"After {HALF:,} points {whose} is at {_both(rival)}. Monte Carlo EM: {each}. 'Plain' moves HMC's step size by "
        "2 % after each move, 'tuned as ours' by half of what acceptance lacks. The attempts are judged by importance "
        "sampling in plain NumPy, our own rows by quadrature.",
    )


def _both(values: list[float]) -> str:
    """Return the numbers on the first and the last points, as far as there are both."""
    return " and ".join(f"{value:.1f}" for value in values if not math.isnan(value))


def _em_small(told: Told) -> Outcome:
    plain, other = told.value("plain"), told.value("other rows")
    if math.isnan(plain):
        return NOT_YET
    em, aevb = told.ours(HALF), told.ours(HALF, backend="aevb")
    return Outcome(
        "Stands" if abs(plain - em) < 3.0 else "Falls",
        "plain and ours within three nats, twice the scatter of seeds",
        f"After {HALF:,} points plain Monte Carlo EM is at {plain:.1f} on test, ours at {em:.1f}, our AEVB at "
        f"{aevb:.1f}." + _also(other, f" Trained on other 1000 images, ours is at {other:.1f}."),
    )


def _aevb_large(told: Told) -> Outcome:
    plain, last = told.value("plain"), told.value("plain", points="last")
    if math.isnan(plain):
        return NOT_YET
    paper = told.paper(1e7)
    return Outcome(
        "Stands" if plain > paper else "Falls",
        "plain passes in a million points what the paper has after ten",
        f"Plain AEVB is at {plain:.1f} on the first 1000 test points and {last:.1f} on the last after a million "
        f"points, ours at {told.ours(1e6):.1f}; the paper at {paper:.1f} after ten million.",
    )


def _aevb_small(told: Told) -> Outcome:
    log_px, bound = told.value("plain"), told.value("plain", "elbo_plain_nats")
    other = told.value("other rows") - told.value("other rows", "elbo_plain_nats")
    if math.isnan(log_px):
        return NOT_YET
    on_train = told.value("plain", split="train") - told.value("plain", "elbo_nats", "train")
    gap = log_px - bound
    return Outcome(
        "Stands" if gap > 3 * on_train else "Falls",
        "the gap on test three times that on train",
        f"After {HALF:,} points plain AEVB's bound on test lies {gap:.1f} nats below log p(x), on train "
        f"{on_train:.1f}." + _also(other, f" Trained on other 1000 images, ours has a gap of {other:.1f} on test."),
    )


def _frey(told: Told) -> Outcome:
    names = [name for name in told.rows.attempt.unique() if not _other(name) and "ten million" not in name]
    paper = told.paper(1e6)
    found = {name: told.value(name) for name in names}
    nearest = min(found, key=lambda name: abs(found[name] - paper))
    splits = [found[name] for name in found if name in SPLITS]
    text = f"Nearest: {nearest}, {found[nearest]:.0f}."
    if LARGER in found:
        text += (
            " With minibatches of 500 there is a fifth of the updates for as many points; at half a million the curve "
            f"is at {told.value(LARGER, n_seen=HALF):.0f}, the paper at {told.paper(HALF):.0f}."
        )
    if "plain" in found:
        text += f" Plain AEVB is at {found['plain']:.0f}, ours at {told.ours(1e6):.0f}: our code is not the cause."
    if splits:
        learned = [told.value(name, split="train") for name in found if name in SPLITS]
        text += (
            f" By the split of the film, test ends between {min(splits):.0f} and {max(splits):.0f}; train ends at "
            f"{min(learned):.0f} or more, the paper's at {told.paper(1e6, 'train'):.0f}: no split is the cause."
        )
    for k in (2, 20):
        value, theirs = told.value(f"{LARGER}, {k} latent variables"), told.paper(1e6, n_latent=k)
        text += _also(value, f" With {k} latent variables and {LARGER}: {value:.0f}, the paper {theirs:.0f}.")
    late = told.value(f"{LARGER}, ten million points")
    text += _also(late, f" After ten million points, {LARGER}: {late:.0f}, the paper {told.paper(1e7):.0f}.")
    rule = f"an attempt comes within 50 nats of the paper's {paper:.0f} on test after a million points with 10 latent"
    return Outcome("Falls" if abs(found[nearest] - paper) < 50 else "Stands", f"{rule} variables", text)


def _frey_plateau(told: Told) -> Outcome:
    plain, large = told.value("plain"), told.value(LARGER)
    with_it = _also(large, f"With {LARGER} ours is at {large:.0f}.")
    if math.isnan(plain):
        return Outcome("", "", with_it) if with_it else NOT_YET
    return Outcome(
        "Stands" if plain > 600 else "Falls",
        "above 600 after a million points with 20 latent variables",
        f"Plain wake-sleep is at {plain:.0f}, ours at {told.ours(1e6):.0f}, the paper at {told.paper(1e6):.0f}. "
        + with_it,
    )


def _full_vb(told: Told) -> Outcome:
    rows = told.rows[told.rows.metric == "elbo_full_nats"]
    start = rows.assign(start=rows.get("start", "")).start.astype(str)
    around, trained = (rows[start.str.startswith(where)] for where in ("at MAP", "trained"))
    if around.empty:
        return NOT_YET
    best = around.loc[around.value.idxmax()]
    ours = told.ours(1e6, "train")
    text = (
        f"Of all widths around the weights of MAP the best ({best.start.removeprefix('at MAP, ')}) has a bound on "
        f"log p(X) / N of {best.value:.1f}, the fit that underfits {ours:.1f} after as many points."
    )
    for row in trained.to_dict("records"):
        text += f" {row['start'].capitalize()} it ends at {row['value']:.1f}."
    plain, share = (told.value(NOISY, metric, "train") for metric in ("", "theta_at_prior"))
    at_prior = told.ours(1e6, "train", metric="theta_at_prior")
    text += _also(
        plain,
        " Plain full VB with noise for each datapoint, a less noisy gradient of the same bound, ends at "
        f"{plain:.1f} with {share:.0%} of the weights at the prior (ours {at_prior:.0%}).",
    )
    return Outcome(
        "Stands, and is what the bound asks for" if best.value < ours else "Falls",
        "no q(theta) around the MAP fit has a higher bound than the fit that underfits",
        text,
    )


def _also(value: float, sentence: str) -> str:
    """Return a sentence about a number, nothing where there is none."""
    return "" if math.isnan(value) else sentence


LARGER, NOISY = "minibatches of 500", "plain, noise for each datapoint"
HALF = 500_000
NOT_YET = Outcome("", "", "Not run yet.")
SPLITS = ("other shuffle", "every fifth frame", "last frames", "blocks of 50 frames")
_MNIST5 = {"data": "mnist", "n_latent": 5, "n_hidden": 500, "method": "warmup=0 step_size=0.01"}
_MNIST3 = {"data": "mnist", "n_latent": 3, "n_hidden": 100, "method": TUNED, "engine": "numpyro", "samples": 10_000_000}
_FREY = {"data": "frey", "n_hidden": 200, "samples": 10_000_000, "method": TUNED}
_VB = {"data": "mnist", "n_train": 1000, "method": "theta=vb step_size=0.1"}


def _figure2(claim: str, ours: dict[str, Any], n_latent: int, backend: str, outcome: Outcomes) -> Finding:
    paper = {"figure": "figure2", "data": ours["data"], "n_latent": n_latent, "backend": backend}
    return Finding(claim, BOUND, "lower_bound", {**ours, "n_latent": n_latent, "backend": backend}, paper, outcome)


def _figure3(claim: str, n_train: int, backend: str, outcome: Outcomes) -> Finding:
    panel = {"n_train": n_train, "backend": backend}
    paper = {"figure": "figure3", "data": "mnist", **panel}
    return Finding(claim, LOG_PX, "marginal_likelihood", {**_MNIST3, **panel}, paper, outcome)


WAKE_SLEEP = "Wake-sleep on MNIST is below the paper unless its log-variance weights are multiplied by 0.1"
EM_LARGE = "Monte Carlo EM with minibatches is above AEVB with 50,000 training points"
EM_SMALL = "Monte Carlo EM does not win with 1000 training points"
FREY = "AEVB on Frey Face is ahead of the paper's"
FREY_PLATEAU = "Wake-sleep on Frey Face leaves the plateau that the paper's stays on"
FULL_VB = "Full VB underfits with 1000 training points"
AEVB_LARGE = "AEVB is ten nats above the paper's Figure 3 with 50,000 training points"
AEVB_SMALL = "What overfits in AEVB with 1000 training points is the recognition network"
_NO_CURVE = {"figure": "figure2", "data": "none"}
FINDINGS = {
    "wake_sleep": _figure2(WAKE_SLEEP, _MNIST5, 5, "wake_sleep", _wake_sleep),
    "em_large": _figure3(EM_LARGE, 50_000, "monte_carlo_em", _em_large),
    "em_small": _figure3(EM_SMALL, 1000, "monte_carlo_em", _em_small),
    "frey": _figure2(FREY, _FREY, 10, "aevb", _frey),
    "frey_plateau": _figure2(FREY_PLATEAU, _FREY, 20, "wake_sleep", _frey_plateau),
    "full_vb": Finding(FULL_VB, ("elbo_full_nats",) * 2, "full_vb", _VB, _NO_CURVE, _full_vb),
    "aevb_large": _figure3(AEVB_LARGE, 50_000, "aevb", _aevb_large),
    "aevb_small": _figure3(AEVB_SMALL, 1000, "aevb", _aevb_small),
}


def published(folder: str, settings: dict[str, Any], metric: str, split: str, n_seen: float) -> float:
    """Return the mean over seeds of a number in another comparison's rows; NaN where it has none."""
    rows = _rows(folder)
    for name, value in {**settings, "metric": metric, "split": split, "n_seen": n_seen}.items():
        rows = rows[rows[name] == value]
    return float(rows.value.mean()) if len(rows) else math.nan


@cache
def _rows(folder: str) -> pd.DataFrame:
    return store.read_rows(REPORTS / folder / "rows.csv")


def _other(attempt: str) -> dict[str, Any]:
    """Return the method or the number of latent variables, where an attempt's name says that it is another."""
    if attempt.endswith("AEVB"):
        return {"backend": "aevb"}
    number = attempt.partition(", ")[2].removesuffix(" latent variables")
    return {"n_latent": int(number)} if number.isdigit() else {}


def _of(part: dict[str, Any]) -> dict[str, Any]:
    told = {name: part["identity"][name] for name in ("finding", "name", "settings", "data", "plain")}
    return {**told, **{name: value for name, value in part.items() if name not in ("identity", "rows")}}
