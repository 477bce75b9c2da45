"""The report of `attempts`: what each try at a finding gave, beside our own numbers and the paper's, and the outcome.

Our own numbers come from the rows of the other comparisons, the paper's from its curves: none is typed here. An outcome
is worked out from the numbers by the rule that its sentence names.
"""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import pandas as pd

REPORTS = Path(__file__).parents[2] / "reports"
LOG_PX = ("log_px_plain_nats", "log_px_quadrature_nats")  # ours first, then what stands for it in other comparisons
BOUND = ("elbo_nats", "elbo_nats")
FIGURE2, FIGURE3 = "warmup=0 pilot_steps=3000", "warmup=0 pilot_steps=3000"


class Finding(NamedTuple):
    """A finding, the quantity it is about, where our own rows of it are, and how its attempts are judged.

    `ours` are columns of the rows of `folder`; `attempts` may override them by name; `paper` are a curve's.
    """

    claim: str
    metric: tuple[str, str]
    folder: str
    ours: dict[str, Any]
    paper: dict[str, Any]
    outcome: Callable[["Told"], str]


class Told(NamedTuple):
    """The rows of one finding's attempts, and of ours."""

    rows: "pd.DataFrame"
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


def report(out: Path) -> None:
    """Rebuild rows.csv, table.md and manifest.json from the attempts that have been run."""
    import pandas as pd

    from comparisons.runner import store

    parts = [json.loads(path.read_text()) for path in sorted((out / "parts").glob("*.json"))]
    rows = [row for part in parts for row in part["rows"]]
    store.write_json(out / "manifest.json", {"attempts": [_of(part) for part in parts]})
    if not rows:
        return
    store.write_rows(out / "rows.csv", rows)
    store.write(out / "table.md", markdown(pd.DataFrame(rows)))


def markdown(rows: "pd.DataFrame") -> str:
    """Return a section for each finding: the claim, the outcome, and a line for each attempt and split."""
    from comparisons.reporting.tables import pipe

    text = ["# Attempts to break the findings\n"]
    text.append(
        "Every finding here that contradicts the paper, or goes beyond it, and what came of trying to break it. "
        "*Plain* is "
        "`tests/plain.py`: the method in NumPy, gradients by hand, draws of its own, judged by formulas of its own.\n"
    )
    for name, finding in FINDINGS.items():
        mine = rows[rows.finding == name]
        if len(mine):
            told = Told(mine, finding)
            text.append(f"## {finding.claim}\n")
            text.append(finding.outcome(told) + "\n")
            text.append(pipe(HEAD, list(_lines(told))))
    text.append(
        "\nNats per datapoint, higher is better, at the last stop of each run; one seed. ± is the estimator's own "
        "error, not "
        "the scatter of runs. *Ours* is what the other comparisons have at the same points seen and settings, or at "
        "the "
        "settings of the finding where an attempt changes them. Bounds are judged on the first 10,000 points of a "
        "split, by "
        "the suite (`elbo_nats`) or by plain NumPy on 1000 (`elbo_plain_nats`); log p(x) on 1000, by importance "
        "sampling in "
        "plain NumPy. Numbers on MNIST are a cross-entropy of grey values, not a normalised log density.\n"
    )
    return "\n".join(text)


SAME = {"elbo_plain_nats": "elbo_nats", "log_px_plain_nats": "log_px_quadrature_nats"}  # by another hand
HEAD = ["attempt", "quantity", "split", "points judged", "points seen", "attempt's", "ours", "the paper's"]


def _lines(told: Told) -> Iterator[list[str]]:
    rows = told.rows
    alike = [name for name in ("attempt", "start", "metric", "split", "points") if name in rows]
    rows = rows[rows.n_seen == rows.groupby(alike, dropna=False).n_seen.transform("max")]
    rows = rows[rows.metric != "hmc_acceptance"]
    starts = "start" in rows
    for row in rows.to_dict("records"):
        own = SAME.get(row["metric"], row["metric"])
        named = [row["attempt"]]
        if starts and isinstance(row["start"], str):
            named.append(row["start"])
        other = _other(row["attempt"])
        same = {**other, "n_points": row["n_points"], "metric": own}  # other points have another mean
        ours = told.ours(row["n_seen"], row["split"], **same) if row["points"] != "last" else math.nan
        # A curve of Figure 2 is a bound, one of Figure 3 log p(x).
        paper = told.paper(row["n_seen"], row["split"], **other) if own == told.finding.metric[1] else math.nan
        error = f" ± {row['stderr']:.2f}" if row["stderr"] else ""
        yield [
            ", ".join(named), f"`{row['metric']}`", row["split"], f"{row['points']} {row['n_points']:.0f}",
            f"{row['n_seen']:,.0f}", f"{row['value']:.2f}{error}", _number(ours), _number(paper),
        ]  # fmt: skip


# Outcomes


def _wake_sleep(told: Told) -> str:
    plain, factor = told.value("plain, factor 1"), told.value("plain, factor 0.1")
    ours, with_it = told.ours(1e6), told.ours(1e6, method="warmup=0 log_variance_factor=0.1 step_size=0.02")
    paper = told.paper(1e6)
    if math.isnan(plain):
        return NOT_YET
    word = "Stands" if paper - plain > 2.0 else "Falls"
    text = (
        f"**{word}** (rule: plain, too, is over two nats below the paper). After a million points with 5 latent "
        f"variables plain wake-sleep is at {plain:.1f} on test, ours at {ours:.1f}, the paper at {paper:.1f}: the gap "
        "is not a fault of our code."
    )
    if math.isnan(factor):
        return text
    return text + f" With the log-variance weights times 0.1 plain is at {factor:.1f}, ours at {with_it:.1f}."


def _em_large(told: Told) -> str:
    both = ("first", "last")
    runs = {name: [told.value(name, points=points) for points in both] for name in told.rows.attempt.unique()}
    rival, whose = runs.pop("plain AEVB", None), "plain AEVB"
    if rival is None:
        rival, whose = [told.ours(HALF, backend="aevb"), math.nan], "our AEVB"
    if not runs:
        return NOT_YET
    runs = {"our seed 0": [told.ours(HALF), math.nan], **runs}
    ahead = [name for name, values in runs.items() if _ahead(values, rival)]
    word = "Stands" if len(ahead) == len(runs) else "Stands, but not in every run" if ahead else "Falls"
    each = "; ".join(f"{name} {_both(values)}" for name, values in runs.items())
    return (
        f"**{word}** (rule: more than a nat above {whose} on the first 1000 test points and, where both are judged "
        f"there, on the last). After {HALF:,} points {whose} is at {_both(rival)}. Monte Carlo EM: {each}. *Plain* "
        "moves HMC's step size by 2 % after each move, *tuned as ours* by half of what acceptance lacks. The attempts "
        "are judged by importance sampling in plain NumPy, our own rows by quadrature."
    )


def _ahead(values: list[float], rival: list[float]) -> bool:
    """Say whether every number that has a rival is more than a nat above it."""
    pairs = zip(values, rival, strict=True)
    return all(value - other > 1.0 for value, other in pairs if not math.isnan(value - other))


def _both(values: list[float]) -> str:
    """Return the numbers on the first and the last points, as far as there are both."""
    return " and ".join(f"{value:.1f}" for value in values if not math.isnan(value))


def _em_small(told: Told) -> str:
    plain, other = told.value("plain"), told.value("other rows")
    if math.isnan(plain):
        return NOT_YET
    em, aevb = told.ours(HALF), told.ours(HALF, backend="aevb")
    word = "Stands" if abs(plain - em) < 3.0 else "Falls"
    text = (
        f"**{word}** (rule: plain and ours within three nats, twice the scatter of seeds). After {HALF:,} points "
        "plain Monte "
        f"Carlo EM is at {plain:.1f} on test, ours at {em:.1f}, our AEVB at {aevb:.1f}."
    )
    return text if math.isnan(other) else text + f" Trained on other 1000 images, ours is at {other:.1f}."


def _aevb_large(told: Told) -> str:
    plain, last = told.value("plain"), told.value("plain", points="last")
    if math.isnan(plain):
        return NOT_YET
    paper = told.paper(1e7)
    word = "Stands" if plain > paper else "Falls"
    return (
        f"**{word}** (rule: plain passes in a million points what the paper has after ten). Plain AEVB is at "
        f"{plain:.1f} on the "
        f"first 1000 test points and {last:.1f} on the last after a million points, ours at {told.ours(1e6):.1f}; "
        "the paper at "
        f"{paper:.1f} after ten million."
    )


def _aevb_small(told: Told) -> str:
    log_px, bound = told.value("plain"), told.value("plain", "elbo_plain_nats")
    other = told.value("other rows") - told.value("other rows", "elbo_plain_nats")
    if math.isnan(log_px):
        return NOT_YET
    on_train = told.value("plain", split="train") - told.value("plain", "elbo_nats", "train")
    gap = log_px - bound
    word = "Stands" if gap > 3 * on_train else "Falls"
    text = (
        f"**{word}** (rule: the gap on test three times that on train). After {HALF:,} points plain AEVB's bound on "
        "test lies "
        f"{gap:.1f} nats below log p(x), on train {on_train:.1f}."
    )
    return (
        text if math.isnan(other) else text + f" Trained on other 1000 images, ours has a gap of {other:.1f} on test."
    )


def _frey(told: Told) -> str:
    names = [name for name in told.rows.attempt.unique() if not _other(name) and "ten million" not in name]
    paper = told.paper(1e6)
    found = {name: told.value(name) for name in names}
    nearest = min(found, key=lambda name: abs(found[name] - paper))
    word = "Falls" if abs(found[nearest] - paper) < 50 else "Stands"
    splits = [found[name] for name in found if name in SPLITS]
    text = (
        f"**{word}** (rule: an attempt comes within 50 nats of the paper's {paper:.0f} on test after a million "
        "points with 10 "
        f"latent variables). Nearest: {nearest}, {found[nearest]:.0f}."
    )
    if "minibatches of 500" in found:
        text += (
            " With minibatches of 500 there is a fifth of the updates for as many points; at half a million the curve "
            f"is at {told.value('minibatches of 500', n_seen=HALF):.0f}, the paper at {told.paper(HALF):.0f}."
        )
    if "plain" in found:
        text += f" Plain AEVB is at {found['plain']:.0f}, ours at {told.ours(1e6):.0f}: our code is not the cause."
    if splits:
        learned = [told.value(name, split="train") for name in found if name in SPLITS]
        text += (
            f" By the split of the film, test ends between {min(splits):.0f} and {max(splits):.0f}; train ends at "
            f"{min(learned):.0f} or more, the paper's at {told.paper(1e6, 'train'):.0f}: no split is the cause."
        )
    others = {k: told.value(f"minibatches of 500, {k} latent variables") for k in (2, 20)}
    for k, value in others.items():
        if not math.isnan(value):
            theirs = told.paper(1e6, n_latent=k)
            text += f" With {k} latent variables and minibatches of 500: {value:.0f}, the paper {theirs:.0f}."
    late = told.value("minibatches of 500, ten million points")
    if not math.isnan(late):
        text += f" After ten million points, minibatches of 500: {late:.0f}, the paper {told.paper(1e7):.0f}."
    return text


def _frey_plateau(told: Told) -> str:
    plain, large = told.value("plain"), told.value("minibatches of 500")
    if math.isnan(plain) and math.isnan(large):
        return NOT_YET
    text = ""
    if not math.isnan(plain):
        word = "Stands" if plain > 600 else "Falls"
        text = (
            f"**{word}** (rule: above 600 after a million points with 20 latent variables). Plain wake-sleep is at "
            f"{plain:.0f}, "
            f"ours at {told.ours(1e6):.0f}, the paper at {told.paper(1e6):.0f}. "
        )
    return text if math.isnan(large) else text + f"With minibatches of 500 ours is at {large:.0f}."


def _full_vb(told: Told) -> str:
    rows = told.rows[(told.rows.metric == "elbo_full_nats")]
    if "start" not in rows or not rows.start.astype(str).str.startswith("at MAP").any():
        return NOT_YET
    around = rows[rows.start.astype(str).str.startswith("at MAP")]
    best = around.loc[around.value.idxmax()]
    trained = rows[rows.start.astype(str).str.startswith("trained")]
    ours = told.ours(1e6, "train")
    word = "Stands, and is what the bound asks for" if best.value < ours else "Falls"
    text = (
        f"**{word}** (rule: no q(theta) around the MAP fit has a higher bound than the fit that underfits). Of all "
        "widths around "
        f"the weights of MAP the best ({best.start.removeprefix('at MAP, ')}) has a bound on log p(X) / N of "
        f"{best.value:.1f}, "
        f"the fit that underfits {ours:.1f} after as many points."
    )
    for row in trained.to_dict("records"):
        text += f" {row['start'].capitalize()} it ends at {row['value']:.1f}."
    plain = told.value("plain, noise for each datapoint", split="train")
    if not math.isnan(plain):
        share = told.value("plain, noise for each datapoint", "theta_at_prior", "train")
        text += (
            " Plain full VB with noise for each datapoint, a less noisy gradient of the same bound, ends at "
            f"{plain:.1f} with "
            f"{share:.0%} of the weights at the prior (ours {told.ours(1e6, 'train', metric='theta_at_prior'):.0%})."
        )
    return text


HALF = 500_000
NOT_YET = "Not run yet."
SPLITS = ("other shuffle", "every fifth frame", "last frames", "blocks of 50 frames")
_MNIST3 = {
    "data": "mnist",
    "n_latent": 3,
    "n_hidden": 100,
    "method": FIGURE3,
    "engine": "numpyro",
    "samples": 10_000_000,
}
_FREY = {"data": "frey", "n_hidden": 200, "samples": 10_000_000, "method": FIGURE2}
_CURVE2, _CURVE3 = {"figure": "figure2"}, {"figure": "figure3", "data": "mnist"}

FINDINGS = {
    "wake_sleep": Finding(
        "Wake-sleep on MNIST is below the paper unless its log-variance weights are multiplied by 0.1",
        BOUND, "lower_bound",
        {"data": "mnist", "n_latent": 5, "n_hidden": 500, "backend": "wake_sleep", "method": "warmup=0 step_size=0.01"},
        {**_CURVE2, "data": "mnist", "n_latent": 5, "backend": "wake_sleep"}, _wake_sleep,
    ),
    "em_large": Finding(
        "Monte Carlo EM with minibatches is above AEVB with 50,000 training points",
        LOG_PX, "marginal_likelihood", {**_MNIST3, "n_train": 50_000, "backend": "monte_carlo_em"},
        {**_CURVE3, "n_train": 50_000, "backend": "monte_carlo_em"}, _em_large,
    ),
    "em_small": Finding(
        "Monte Carlo EM does not win with 1000 training points",
        LOG_PX, "marginal_likelihood", {**_MNIST3, "n_train": 1000, "backend": "monte_carlo_em"},
        {**_CURVE3, "n_train": 1000, "backend": "monte_carlo_em"}, _em_small,
    ),
    "frey": Finding(
        "AEVB on Frey Face is ahead of the paper's",
        BOUND, "lower_bound", {**_FREY, "n_latent": 10, "backend": "aevb"},
        {**_CURVE2, "data": "frey", "n_latent": 10, "backend": "aevb"}, _frey,
    ),
    "frey_plateau": Finding(
        "Wake-sleep on Frey Face leaves the plateau that the paper's stays on",
        BOUND, "lower_bound", {**_FREY, "n_latent": 20, "backend": "wake_sleep"},
        {**_CURVE2, "data": "frey", "n_latent": 20, "backend": "wake_sleep"}, _frey_plateau,
    ),
    "full_vb": Finding(
        "Full VB underfits with 1000 training points",
        ("elbo_full_nats", "elbo_full_nats"), "full_vb",
        {"data": "mnist", "n_train": 1000, "method": "theta=vb step_size=0.1"}, {**_CURVE2, "data": "none"}, _full_vb,
    ),
    "aevb_large": Finding(
        "AEVB is ten nats above the paper's Figure 3 with 50,000 training points",
        LOG_PX, "marginal_likelihood", {**_MNIST3, "n_train": 50_000, "backend": "aevb"},
        {**_CURVE3, "n_train": 50_000, "backend": "aevb"}, _aevb_large,
    ),
    "aevb_small": Finding(
        "What overfits in AEVB with 1000 training points is the recognition network",
        LOG_PX, "marginal_likelihood", {**_MNIST3, "n_train": 1000, "backend": "aevb"},
        {**_CURVE3, "n_train": 1000, "backend": "aevb"}, _aevb_small,
    ),
}  # fmt: skip


def published(folder: str, settings: dict[str, Any], metric: str, split: str, n_seen: float) -> float:
    """Return the mean over seeds of a number in another comparison's rows; NaN where it has none."""
    rows = _rows(folder)
    wanted = {**settings, "metric": metric, "split": split, "n_seen": n_seen}
    for name, value in wanted.items():
        rows = rows[rows[name] == value]
    return float(rows.value.mean()) if len(rows) else math.nan


def papers(settings: dict[str, Any], split: str, n_seen: float) -> float:
    """Return the paper's value of a curve; NaN where there is no such curve or it does not reach there."""
    from comparisons.paper.curves import curves, value_at

    wanted = {**settings, "split": split}
    found = [curve for curve in curves() if all(getattr(curve, name) == value for name, value in wanted.items())]
    return value_at(found[0], n_seen) if found else math.nan


def _rows(folder: str) -> "pd.DataFrame":
    from comparisons.runner import store

    return store.read_rows(REPORTS / folder / "rows.csv")


def _other(attempt: str) -> dict[str, Any]:
    """Return the method or the number of latent variables, where an attempt's name says that it is another."""
    if attempt.endswith("AEVB"):
        return {"backend": "aevb"}
    number = attempt.partition(", ")[2].removesuffix(" latent variables")
    return {"n_latent": int(number)} if number.isdigit() else {}


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"


def _of(part: dict[str, Any]) -> dict[str, Any]:
    told = {name: part["identity"][name] for name in ("finding", "name", "settings", "data", "plain")}
    return {**told, **{name: value for name, value in part.items() if name not in ("identity", "rows")}}
