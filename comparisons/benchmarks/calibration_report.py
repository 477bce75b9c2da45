"""The calibration's rows as blocks of a report and a figure: pure functions of the rows."""

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from comparisons.benchmarks.templates import filled
from comparisons.data import GREY
from comparisons.reporting import drawing
from comparisons.reporting.blocks import Block, Heading, Items, Paragraph, Table
from comparisons.reporting.drawing import BLACK, BLUE, GREEN, PURPLE, VERMILION

TITLES = {
    "linear": "Against the closed form: linear_gaussian",
    "mnist": "Against quadrature: MNIST decoders trained by AEVB, test points",
    "simulated": "Between two bounds: data drawn from MNIST decoders, 200 hidden units",
}
# A dash pattern tells the variants of one estimator apart.
STYLES = {
    "importance, q": (BLUE, "-"),
    "importance, HMC mixture": (BLUE, "--"),
    "importance, HMC normal": (BLUE, ":"),  # of rows of before the mixture
    "annealed, prior": (GREEN, "--"),
    "annealed, q": (GREEN, "-"),
    "appendix_d, paper": (VERMILION, "-"),
    "appendix_d, draws reused": (VERMILION, ":"),
    "appendix_d, 8 chains": (VERMILION, "--"),
    "appendix_d, 8 annealed chains": (PURPLE, "-"),
    "appendix_d, 8 annealed chains, normal": (PURPLE, "--"),
    "quadrature": (BLACK, "-"),
}
BOUNDS = ("sandwich", "bidirectional")  # what the truth is taken from above three latent variables
ABOUT = "How far each estimator of log p(x) is from the truth, where it is known."
FIGURE = "The error of each estimator against what it costs: the lower and the further left, the better."
TITLE = "How far each estimator of log p(x) is from the truth"
NOTE = (
    "Nats per datapoint. bias: mean of estimate minus truth; sd: spread of a datapoint's estimates over repeats, "
    "or of errors over datapoints where there is one run; coverage: share of datapoints within 1.96 of their own "
    "standard errors; bad: share further than 0.5 nat from the truth; of these flagged: share of those that the "
    "estimator itself does not trust. Seconds are for 1000 datapoints, on one core of a shared machine; of runs "
    "that took longer than 60 seconds they contain compilation. Memory is the peak "
    f"above what the process held before. Numbers on mnist are a {GREY}."
)
# The columns of the tables, as templates of a row.
SHARES = {
    "coverage": "{0.coverage:.0%}",
    "flagged": "{0.flagged:.0%}",
    "bad": "{0.bad:.0%}",
    "of these flagged": "{0.bad_flagged:.0%}",
}
VARIANT = {"estimator": "{0.estimator}", "settings": "{0.settings}"}
BIAS = {"bias": "{0.bias:+.3f} ± {0.bias_stderr:.3f}"}
COST = {"seconds": "{0.seconds_per_1000:.1f}", "MB": "{0.peak_megabytes:.0f}"}
LINES = {**VARIANT, **BIAS, "sd": "{0.sd:.3f}", **SHARES, **COST}
OF_BOUNDS = {**LINES, **dict.fromkeys(("sd", *SHARES), "-"), "bias": "gap {0.gap:.3f}"}  # they are the truth here
OF_ENGINES = {
    **VARIANT,
    "numpyro minus pyro": "{0.difference:+.4f}",
    "in standard errors": "{0.mean_in_errors:+.1f}",
    "worst datapoint, in its own": "{0.worst_in_errors:.1f}",
}
OF_DEFAULTS = {
    "decoder": "{0.decoder}",
    "latent variables": "{0.n_latent}",
    "estimator": "{0.estimator}",
    "points": "{0.n_points}",
    **BIAS,
    "of those not flagged": "{0.bias_trusted:+.3f}",
    **SHARES,
}
CLOSE = 0.1  # nats: differences of two backends below this are no ordering


def blocks(rows: pd.DataFrame) -> list[Block]:
    """Return the report: findings first, then a table for each part."""
    rows = rows.assign(settings=[text if isinstance(text, str) else "" for text in rows.settings])
    return [
        Items(findings(rows), lined=True),
        Paragraph(NOTE),
        *_parts(rows),
        *_paper(rows[rows.part == "paper"]),
        *_engines(rows[rows.part == "engines"]),
        *_defaults(rows[rows.part == "defaults"]),
    ]


def findings(rows: pd.DataFrame) -> list[str]:
    """Return what the rows say, a sentence each."""
    found = []
    names = ["importance, q", "importance, HMC mixture", "importance, HMC normal"]
    names += ["annealed, q", "annealed, prior", "appendix_d, 8 annealed chains"]
    small = rows[(rows.n_latent <= 3) & rows.estimator.isin(names) & (rows.level == 1)]
    for part, against in (("linear", "the closed form"), ("mnist", "quadrature on MNIST decoders")):
        for name, group in small[small.part == part].groupby("estimator"):
            each = ", ".join(
                f"bias {row.bias:+.3f}, coverage {row.coverage:.0%}, flagged {row.flagged:.0%} at {row.n_latent}"
                for row in group.itertuples()
            )
            found.append(f"Against {against}, {name} ({group.settings.iloc[0]}): {each} latent variables.")
    high = rows[(rows.part == "linear") & (rows.n_latent > 10)]
    for name, group in high.groupby("estimator"):
        if not group.bad.any():
            continue
        failing = group[group.bad > 0]
        share = np.average(failing.bad_flagged, weights=failing.bad)
        found.append(
            f"Above 10 latent variables {name} is off by more than 0.5 nat on {group.bad.mean():.0%} of the points of "
            f"the linear part, and flags {share:.0%} of them."
        )
    for row in rows[rows.estimator.isin(BOUNDS)].itertuples():
        found.append(
            f"At {row.n_latent} latent variables the two bounds of {row.estimator} are {row.gap:.3f} nat apart "
            f"({row.settings}; {row.n_points} points, {row.seconds_per_1000 * row.n_points / 1000:.0f} s)."
        )
    found += _said_of_themselves(rows[rows.part == "defaults"])
    paper = rows[rows.part == "paper"]
    for name, group in paper[paper.estimator.str.startswith("appendix_d")].groupby("estimator"):
        sizes = "; ".join(
            f"N = {int(n)}: mean {part.bias.min():+.2f} to {part.bias.max():+.2f}, "
            f"median {part['median'].min():+.2f} to {part['median'].max():+.2f}"
            for n, part in group.groupby("n_train")
        )
        found.append(
            f"The paper's estimator ({_label(name)}) on fits of every backend, estimate minus truth in nats: {sizes}."
        )
    if len(paper):
        found += _orderings(paper)
    return found


def _said_of_themselves(rows: pd.DataFrame) -> list[str]:
    """Say of each estimator at default settings how its intervals cover, and what share of its bad points it flags."""
    found = []
    for name, group in rows.dropna(subset=["coverage"]).groupby("estimator", sort=False):
        bad = group.bad * group.n_points
        flagged = (bad * group.bad_flagged.fillna(0.0)).sum()
        told = f", and flags {flagged / bad.sum():.0%} of them" if bad.sum() else ""
        points = group.n_points.sum()
        found.append(
            f"At default settings, on {points} points of {len(group)} decoders of digits, the 95 % intervals of {name} "
            f"cover {(group.coverage * group.n_points).sum() / points:.0%}; it is off by more than 0.5 nat on "
            f"{bad.sum() / points:.1%}{told}."
        )
    if found:
        found.append(
            "Nothing can tell an estimator of a mode that none of its draws has met. The default is therefore "
            "quadrature up to 3 latent variables, and above it importance sampling from the HMC mixture, which looks "
            "for modes; importance sampling from q, annealing and appendix D are used where they are asked for."
        )
    return found


def error_against_cost(rows: pd.DataFrame) -> str:
    """Draw root-mean-square error against seconds for 1000 points, one line an estimator. Returns SVG."""
    panels = [
        (part, k, group)
        for part in TITLES
        for k, group in rows[(rows.part == part) & ~rows.estimator.isin(BOUNDS)].groupby("n_latent")
    ]
    columns = min(3, max(1, len(panels)))
    lines = -(-max(1, len(panels)) // columns)

    def draw(figure: Any) -> None:
        axes = figure.subplots(lines, columns, squeeze=False)
        for axis in axes.flat[len(panels) :]:
            axis.set_visible(False)
        for axis, (part, k, group) in zip(axes.flat, panels, strict=False):
            _draw(axis, group)
            axis.set_title(f"{part}, {k} latent variables", fontsize=9)
        seen = {name for _, _, group in panels for name in group.estimator}
        handles = [
            drawing.key(name, color=colour, linestyle=dash) for name, (colour, dash) in STYLES.items() if name in seen
        ]
        figure.legend(handles=handles, loc="outside right upper", frameon=False)

    return drawing.svg((3.6 * columns + 2.4, 3.0 * lines), draw)


def _draw(axis: Any, group: pd.DataFrame) -> None:
    from matplotlib.ticker import NullFormatter

    for name, line in group.groupby("estimator", sort=False):
        colour, dash = STYLES[name]
        axis.plot(line.seconds_per_1000, line.rmse, dash, color=colour, marker="o", markersize=3, linewidth=1.3)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel("seconds for 1000 points")
    axis.set_ylabel("RMS error [nats]")


def _parts(rows: pd.DataFrame) -> Iterator[Block]:
    for part, title in TITLES.items():
        for k, group in rows[rows.part == part].groupby("n_latent"):
            points, repeats = int(group.n_points.iloc[0]), int(group.repeats.iloc[0])
            yield Heading(f"{title}, {k} latent variables")
            yield Paragraph(f"{points // repeats} datapoints, {repeats} repeats.")
            bounds = group.estimator.isin(BOUNDS)
            yield Table([*LINES], [*filled(group[bounds], OF_BOUNDS), *filled(group[~bounds], LINES)])


def _paper(rows: pd.DataFrame) -> Iterator[Block]:
    if rows.empty:
        return
    body = []
    for (n_train, backend, split), group in rows.groupby(["n_train", "backend", "split"]):
        by_name = group.set_index("estimator")
        cells = [f"{int(n_train)}", backend, split, f"{group.truth.iloc[0]:.2f}"]
        for name in PAPER:
            if name not in by_name.index:
                cells.append("-")
                continue
            row = by_name.loc[name]
            doubt = f" ({row.flagged:.0%} flagged)" if name != "lower bound" else ""
            cells.append(f"{row.bias:+.2f} ± {row.bias_stderr:.2f}, median {row['median']:+.2f}{doubt}")
        body.append(cells)
    yield Heading("The paper's estimator on every backend's fit: MNIST, 3 latent variables, 100 hidden units")
    yield Paragraph("log p(x) by quadrature; ± is the standard error over datapoints.")
    yield Table(["N", "backend", "split", "log p(x)", *(f"{_label(name)} minus log p(x)" for name in PAPER)], body)
    yield Heading("Pairs of backends that an estimator orders otherwise than log p(x)")
    yield Paragraph(f"Differences of at least {CLOSE} nat, of the same datapoints.")
    turned = [line for _, lines in _turned(rows).values() for line in lines]
    yield Table(["by", "N", "split", "difference", "of log p(x)", "as estimated"], turned)


_VARIANTS = ("", ", draws reused", ", started at q", ", annealed start")
PAPER = ("lower bound", "appendix_d, chains kept", *(f"appendix_d{how}" for how in _VARIANTS))


def _label(name: str) -> str:
    """Return an estimator's name as people read it: which chains it goes by, where that is the question."""
    return "appendix_d, chains anew" if name == "appendix_d" else name


def _turned(rows: pd.DataFrame) -> dict[str, tuple[int, list[list[str]]]]:
    """Return, for the bound and each estimator: how many pairs of backends there are, and those it orders otherwise."""
    found = {}
    for name in PAPER:
        turned, pairs = [], 0
        for (n_train, split), group in rows[rows.estimator == name].groupby(["n_train", "split"]):
            for one, two in combinations(group.itertuples(), 2):
                pairs += 1
                truth, claim = one.truth - two.truth, one.estimate - two.estimate
                if truth * claim < 0 and min(abs(truth), abs(claim)) > CLOSE:
                    who = [f"{int(n_train)}", split, f"{one.backend} minus {two.backend}"]
                    turned.append([_label(name), *who, f"{truth:+.2f}", f"{claim:+.2f}"])
        found[name] = (pairs, turned)
    return found


def _orderings(rows: pd.DataFrame) -> list[str]:
    """Say how many pairs of backends an estimate, or the bound, orders otherwise than log p(x) does."""
    return [
        f"Of {pairs} pairs of backends, {len(turned) or 'none'} {'is' if len(turned) < 2 else 'are'} ordered otherwise "
        f"by {'the ' if name == 'lower bound' else ''}{_label(name)} than by log p(x)."
        for name, (pairs, turned) in _turned(rows).items()
        if pairs
    ]


def _engines(rows: pd.DataFrame) -> Iterator[Block]:
    if len(rows):
        yield Heading("Both engines, from the same theta and x: 100 MNIST test points, 3 latent variables")
        yield Paragraph("In nats, and in standard errors over the datapoints that neither engine flags.")
        yield Table([*OF_ENGINES], filled(rows, OF_ENGINES))


def _defaults(rows: pd.DataFrame) -> Iterator[Block]:
    if len(rows):
        yield Heading("What each estimator says of itself at default settings: decoders of digits, 20 hidden units")
        yield Paragraph(
            "Data drawn from the decoder; log p(x) by quadrature up to 3 latent variables, above as the middle of two "
            "bounds. Points whose log p(x) is not known to 0.05 nat are left out."
        )
        yield Table([*OF_DEFAULTS], filled(rows, OF_DEFAULTS))
