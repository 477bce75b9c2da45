"""What the rows say, in sentences: every number, name and verb of them is worked out from rows.

A finding is a function from `Rows` to sentences, none where its rows are missing. Two values that lie within two
standard errors of each other are called so, and are never put in an order.
"""

from collections.abc import Callable
from functools import wraps
from itertools import pairwise

import numpy as np
import pandas as pd

from comparisons.paper import appendix_d, runs, words
from comparisons.paper.curves import curves, papers, value_at
from comparisons.paper.found import Rows
from comparisons.paper.full_vb_report import by_theta
from comparisons.paper.readings import places
from comparisons.paper.runs import FULL, MODEL_OF, SIZES, TRUTH, Point, curve_of, shared
from comparisons.paper.verdicts import in_order, tolerance
from comparisons.paper.words import ENGINE_NAMES, NAMES, TITLES, compared, count, number, relation
from comparisons.reporting import outcomes
from comparisons.reporting.agreement import PAIR, agreement, verdict
from comparisons.reporting.tables import over_seeds, summary

Finding = Callable[[Rows], list[str]]


def of_comparison(name: str, rows: Rows) -> list[str]:
    """Return what the rows of a comparison say, nothing of one that has no finding."""
    return OTHERS[name](rows) if name in OTHERS else []


# Figure 2


def ahead(rows: Rows) -> list[str]:
    """AEVB's bound against wake-sleep's on test: at how many ends, and at how many stops."""
    ends, stops = [], []
    for _, _, part in runs.figure2_panels(rows.figure2):
        aevb, other = (curve_of(part, backend, "test", "elbo_nats") for backend in ("aevb", "wake_sleep"))
        ahead = [compared(aevb[n], other[n]) > 0 for n in shared(aevb, other)]
        ends += ahead[-1:]
        stops += ahead
    if not ends:
        return []
    return [
        f"AEVB's lower bound on test is above wake-sleep's at the end of {sum(ends)} of the {len(ends)} panels of "
        f"Figure 2, and at {sum(stops)} of their {len(stops)} stops."
    ]


def gaps(rows: Rows) -> list[str]:
    """AEVB's bound with the fewest and the most latent variables: test, and how far train lies from it."""
    found = []
    for data in MODEL_OF:
        each = {}
        for _, k, part in runs.figure2_panels(rows.figure2, [data]):
            both = {split: curve_of(part, "aevb", split, "elbo_nats") for split in ("train", "test")}
            if len(last := runs.ends(both)) == 2:
                each[k] = last["train"], last["test"]
        if len(each) > 1:
            told = ", and ".join(
                f"with {k} latent variables it is at {number(test)} on test at {count(test.n_seen)} points, on train "
                f"{relation(train, test, 'that')}"
                for k, (train, test) in [*each.items()][:: len(each) - 1]
            )
            rises = sum(compared(more, fewer) > 0 for (_, fewer), (_, more) in pairwise(each.values()))
            found.append(
                f"{TITLES[data]}, AEVB's bound: {told}. From each number of latent variables to the next it rises on "
                f"test in {rises} of {len(each) - 1} cases."
            )
    return found


def plateau(rows: Rows) -> list[str]:
    """Wake-sleep on Frey Face: when it leaves the value that it has at its first stop."""
    found = []
    for _, k, part in runs.figure2_panels(rows.figure2, ["frey"]):
        along = [*curve_of(part, "wake_sleep", "test", "elbo_nats").values()]
        if len(along) > 1:
            start, *_, end = along
            near = tolerance("frey", start.value)
            left = next((point.n_seen for point in along if point.value > start.value + near), None)
            when = f"is more than {near:.0f} nats above that from {count(left)} points on" if left else "stays there"
            found.append(
                f"Wake-sleep on Frey Face with {k} latent variables begins at {number(start)} on test, {when}, and "
                f"ends at {number(end)} after {count(end.n_seen)}."
            )
    return found


def spread(figure: str) -> Finding:
    """Return the finding of how far a curve's settings matter: the best and the worst run of it at one stop."""
    metric = "elbo_nats" if figure == "figure2" else TRUTH

    def finding(rows: Rows) -> list[str]:
        found = []
        for curve in in_order(c for c in curves() if c.figure == figure and c.split == "test"):
            at: dict[int, list[tuple[float, str, Point]]] = {}
            for one, along in runs.each(runs.line(getattr(rows, figure), curve, metric)):
                for point in along:
                    if np.isfinite(point.value) and not point.contradicted:
                        named = f"{words.settings(one)}, step size {words.steps(point)}"
                        at.setdefault(point.n_seen, []).append((point.value, named, point))
            at = {n: told for n, told in at.items() if len(told) > 1}
            if not at:
                continue
            n = max(at, key=lambda one: (len(at[one]), one))
            (low, worst, lowest), (high, best, highest) = min(at[n]), max(at[n])
            if high - low <= tolerance(curve.data, low):
                continue
            paper = value_at(curve, n)
            theirs = f"the paper has {paper:.1f}" if np.isfinite(paper) else "the paper's figure shows none there"
            found.append(
                f"{TITLES[curve.data]}, {words.panel_name(curve, 'latent variables')}, {NAMES[curve.backend]} on test "
                f"at {count(n)} points, {len(at[n])} settings: from {number(lowest)} ({worst}) to {number(highest)} "
                f"({best}); {theirs}."
            )
        return found

    return finding


# Figure 3


def at_each_size(sentence: Callable[[int, pd.DataFrame], str]) -> Finding:
    """Return the finding that says a sentence of each panel of Figure 3, of its training points and its rows."""

    @wraps(sentence)
    def finding(rows: Rows) -> list[str]:
        told = [sentence(n_train, runs.figure3_panel(rows.figure3, n_train)) for n_train in SIZES]
        return [one for one in told if one]

    return finding


@at_each_size
def ranking(n_train: int, part: pd.DataFrame) -> str:
    """The methods in the order of their log p(x) on test, each with its relation to the best of them."""
    ends = runs.ends({name: curve_of(part, backend, "test", TRUTH) for backend, name in NAMES.items()})
    ends = {name: point for name, point in ends.items() if np.isfinite(point.value)}
    if len(ends) < 2:
        return ""
    (first, best), *others = sorted(ends.items(), key=lambda item: -item[1].value)
    each = "; ".join(f"{name} {number(point)}, {relation(point, best, first)}" for name, point in others)
    alone = ", one seed each" if all(point.seeds == 1 for point in ends.values()) else ""
    return (
        f"N = {n_train:,}, log p(x) on test by quadrature at {count(best.n_seen)} points{alone}: "
        f"{first} {number(best)}; {each}."
    )


@at_each_size
def full_e_step(n_train: int, part: pd.DataFrame) -> str:
    """Monte Carlo EM with all chains moved: its end, its best stop, and the paper's curve there."""
    along = [*curve_of(part, "monte_carlo_em", "test", TRUTH, FULL).values()]
    if not np.isfinite([point.value for point in along]).any():
        return ""
    end, best = along[-1], runs.best(along)
    told = "; it was never higher by more than two standard errors"
    if compared(end, best) < 0:
        told = f"; its best was {number(best)}, after {count(best.n_seen)}"
    there = papers({"figure": "figure3", "n_train": n_train, "backend": "monte_carlo_em"}, "test", end.n_seen)
    theirs = f"curve is at {there:.1f} there" if np.isfinite(there) else "figure shows no curve there"
    rivals = {backend: curve_of(part, backend, "test", TRUTH).get(end.n_seen) for backend in ("aevb", "wake_sleep")}
    beside = [f", {relation(end, rival, NAMES[backend])}" for backend, rival in rivals.items() if rival]
    return (
        f"N = {n_train:,}, Monte Carlo EM with all chains moved at each E-step is at {number(end)} on test after "
        f"{count(end.n_seen)} points{''.join(beside)}{told}. The paper's {theirs}."
    )


@at_each_size
def work(n_train: int, part: pd.DataFrame) -> str:
    """What Monte Carlo EM costs beside AEVB, and where it is after AEVB's work: in decoder evaluations and seconds."""
    mine = {backend: runs.standing(part, backend, "test", TRUTH) for backend in ("aevb", "monte_carlo_em")}
    aevb, em = (curve_of(part, backend, "test", TRUTH) for backend in mine)
    if not shared(aevb, em):
        return ""
    end, told = shared(aevb, em)[-1], []
    for x, name in (("decoder_evals", "decoder evaluations"), ("seconds", "seconds")):
        of_aevb, of_em = (places(one, x) for one in mine.values())
        stops = [n for n in em if np.isfinite(em[n].value)]
        at = np.log([of_em[n] for n in stops])
        value = np.interp(np.log(of_aevb[end]), at, [em[n].value for n in stops], left=np.nan)
        then = f"after AEVB's it is at about {value:.1f} on test" if np.isfinite(value) else "begins after AEVB's"
        told.append(f"{of_em[end] / of_aevb[end]:.1f} times the {name}, and {then}")
    return (
        f"N = {n_train:,}: for the same {count(end)} points Monte Carlo EM takes {'; '.join(told)}. AEVB is at "
        f"{number(aevb[end])}. What a pilot took to choose the step size counts in the seconds alone."
    )


@at_each_size
def overfitting(n_train: int, part: pd.DataFrame) -> str:
    """AEVB's bound below log p(x) on train and on test: what the recognition network loses, and where it was best."""
    both = {(m, s): curve_of(part, "aevb", s, m) for m in ("elbo_nats", TRUTH) for s in ("train", "test")}
    last = runs.ends(both)
    if len(last) < len(both):
        return ""
    train, test = (last[TRUTH, s].value - last["elbo_nats", s].value for s in ("train", "test"))
    bound = last["elbo_nats", "test"]
    best, since = runs.best(both["elbo_nats", "test"].values()), "It has not fallen on test."
    if compared(bound, best) < 0:
        since = f"It was best after {count(best.n_seen)} points, at {number(best)}."
    return (
        f"N = {n_train:,}, AEVB after {count(bound.n_seen)} points: its bound lies {train:.1f} nats below log p(x) on "
        f"train and {test:.1f} on test. {since}"
    )


def papers_estimator(rows: Rows) -> list[str]:
    """The paper's estimator: how far it is off, and which pairs it turns."""
    return appendix_d.sentences(rows.figure3)


def engines(rows: Rows) -> list[str]:
    """Whether each two engines end at the same value, over seeds, in Figure 3."""
    part = rows.figure3[rows.figure3.data == "mnist"]
    if part.empty:
        return []
    return [
        f"{' against '.join(ENGINE_NAMES.get(name, name) for name in pair)} on MNIST, over seeds. {verdict(compared)}"
        for pair, compared in agreement(summary(part)).groupby(PAIR, sort=False)
    ]


def seeds(rows: Rows) -> list[str]:
    """Runs that end far from one another by their seed alone."""
    found = []
    for n_train in SIZES:
        part = runs.figure3_panel(rows.figure3, n_train)
        part = part[(part.metric == TRUTH) & (part.split == "test")]
        for backend in NAMES:
            mine = part[part.backend == backend]
            for one, along in runs.each(mine):
                end = along[-1]
                if end.seeds > 2 and end.error > tolerance("mnist", end.value):
                    values = runs.of(mine[mine.n_seen == end.n_seen], one).value
                    each = ", ".join(f"{value:.1f}" for value in sorted(values, reverse=True))
                    found.append(
                        f"N = {n_train:,}, {NAMES[backend]} ({words.settings(one)}) after {count(end.n_seen)} points: "
                        f"{end.seeds} seeds end on test at {each}."
                    )
    return found


# Other comparisons


def full_vb(rows: Rows) -> list[str]:
    """Maximum likelihood, MAP and full VB: log p(x) on test, the gap to train, and what q(theta) costs."""
    if rows.full_vb.empty:
        return []
    found = []
    kinds = {"ml": ("ml", TRUTH), "map": ("map", TRUTH), "vb, at the mean of q": ("vb", TRUTH)}
    kinds |= {"vb, averaged over q": ("vb", "log_px_predictive_nats")}
    for n_train, part in by_theta(outcomes.ran(rows.full_vb)).groupby("n_train"):
        end = part.n_seen.max()
        last = part[part.n_seen == end]
        told = []
        for name, (theta, metric) in kinds.items():
            mine = last[(last.theta == theta) & (last.metric == metric)]
            if {*mine.split} >= {"train", "test"}:
                train, test = (over_seeds(mine[mine.split == split])[0] for split in ("train", "test"))
                where = "above" if train > test else "below"
                told.append(f"{name} {test:.1f} (train is {abs(train - test):.1f} {where})")
        of_q = [last[last.metric == metric] for metric in ("kl_theta_nats", "theta_at_prior")]
        costs = [over_seeds(part)[0] for part in of_q if len(part)]
        text = f"Appendix F, N = {int(n_train):,}, log p(x) on test at {count(int(end))} points: {'; '.join(told)}."
        if len(costs) == 2:
            text += f" q(theta) costs {costs[0]:.1f} nats per datapoint, and {costs[1]:.0%} of the weights stay at the"
            text += " prior."
        if told:
            found.append(text)
    return found


def calibration(rows: Rows) -> list[str]:
    """The estimators of log p(x) on MNIST decoders, by their largest bias."""
    mine = rows.calibration
    mine = mine if mine.empty else mine[(mine.part == "mnist") & (mine.level == 1) & (mine.n_latent <= 3)]
    if mine.empty:
        return []
    worst = mine.assign(size=mine.bias.abs()).groupby("estimator")["size"].max().sort_values()
    latent = " and ".join(str(int(k)) for k in sorted(mine.n_latent.unique()))
    return [
        f"Against quadrature on MNIST decoders with {latent} latent variables, the largest bias of each estimator in "
        "nats: " + ", ".join(f"{name} {value:.{3 if value < 0.1 else 1}f}" for name, value in worst.items()) + "."
    ]


def inference_gap(rows: Rows) -> list[str]:
    """What of the bound's loss on test is the recognition network's."""
    if rows.inference_gap.empty:
        return []
    mine = rows.inference_gap[rows.inference_gap.split == "test"]
    each = []
    for one in mine.itertuples():
        gap = one.approximation_gap + one.amortization_gap
        name = NAMES.get(one.backend, one.backend)
        each.append(f"{name} with {one.n_latent} latent variables {gap:.1f} ({one.amortization_gap / gap:.0%})")
    told = "What the bound on test loses in nats, and the share of it that is the recognition network's"
    return [f"{told}: {', '.join(each)}."] if each else []


def speed(rows: Rows) -> list[str]:
    """A step of AEVB beside its matrix products and Pyro's own SVI."""
    if rows.speed.empty:
        return []
    mine = rows.speed[(rows.speed.part == "step") & (rows.speed.quantity == "step_ms")]
    wanted = {"the products alone": ("matrix products", "torch"), "AEVB on NumPyro": ("aevb", "numpyro")}
    wanted |= {"AEVB on Pyro": ("aevb", "pyro"), "Pyro's own SVI": ("SVI, Trace_ELBO", "pyro")}
    found = []
    for (hidden, latent), group in mine.groupby(["n_hidden", "n_latent"], sort=False):
        ms = group.groupby(["contestant", "engine"]).value.median()
        each = [f"{name} {ms[key]:.1f}" for name, key in wanted.items() if key in ms]
        if each:
            shape = f"{int(hidden)} hidden units and {int(latent)} latent variables"
            found.append(f"Milliseconds a step with {shape}: {', '.join(each)}.")
    return found


FIGURE2: tuple[Finding, ...] = (ahead, gaps, plateau, spread("figure2"))
_METHODS: tuple[Finding, ...] = (ranking, full_e_step, work, overfitting)
FIGURE3: tuple[Finding, ...] = (*_METHODS, papers_estimator, engines, seeds, spread("figure3"))
OTHERS: dict[str, Finding] = {one.__name__: one for one in (full_vb, calibration, inference_gap, speed)}
