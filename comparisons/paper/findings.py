"""What the rows say, in sentences: every number, name and verb of them is worked out from rows.

A finding is a function from `Rows` to sentences, none where its rows are missing. Two values that lie within two
standard errors of each other are called so, and are never put in an order.
"""

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from comparisons.paper import paper_estimator, turns
from comparisons.paper.curves import WHOLE, curves, value_at
from comparisons.paper.found import Rows
from comparisons.paper.full_vb_report import by_theta
from comparisons.paper.readings import places
from comparisons.paper.verdicts import (
    ENGINE_NAMES,
    FULL,
    MODEL_OF,
    NAMES,
    SIZES,
    TITLES,
    TRUTH,
    Point,
    by_training,
    compared,
    configurations,
    count,
    curve_of,
    in_order,
    line,
    number,
    of,
    panel,
    points,
    relation,
    stands,
    tolerance,
)
from comparisons.reporting import outcomes
from comparisons.reporting.agreement import PAIR, agreement, verdict
from comparisons.reporting.tables import over_seeds, summary

Finding = Callable[[Rows], list[str]]


def said(findings: Iterable[Finding], rows: Rows) -> list[str]:
    """Return the sentences of some findings, in order."""
    return [sentence for finding in findings for sentence in finding(rows)]


def of_comparison(name: str, rows: Rows) -> list[str]:
    """Return what the rows of a comparison say, nothing of one that has no finding."""
    return OTHERS[name](rows) if name in OTHERS else []


# Figure 2


def ahead(rows: Rows) -> list[str]:
    """AEVB's bound against wake-sleep's on test: at how many ends, and at how many stops."""
    ends, stops = [], []
    for data in MODEL_OF:
        for k in _latents(rows.figure2, data):
            part = panel(rows.figure2, "figure2", data, k, WHOLE[data])
            aevb, other = (curve_of(part, backend, "test", "elbo_nats") for backend in ("aevb", "wake_sleep"))
            shared = sorted({*aevb} & {*other})
            ahead = [compared(aevb[n], other[n]) > 0 for n in shared]
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
        for k in _latents(rows.figure2, data):
            part = panel(rows.figure2, "figure2", data, k, WHOLE[data])
            train, test = (curve_of(part, "aevb", split, "elbo_nats") for split in ("train", "test"))
            if shared := sorted({*train} & {*test}):
                each[k] = train[shared[-1]], test[shared[-1]]
        if len(each) > 1:
            told = ", and ".join(
                f"with {k} latent variables it is at {number(test)} on test at {count(test.n_seen)} points, on train "
                f"{relation(train, test, 'that')}"
                for k, (train, test) in [*each.items()][:: len(each) - 1]
            )
            rises = sum(compared(b[1], a[1]) > 0 for a, b in zip(each.values(), [*each.values()][1:], strict=False))
            found.append(
                f"{TITLES[data]}, AEVB's bound: {told}. From each number of latent variables to the next it rises on "
                f"test in {rises} of {len(each) - 1} cases."
            )
    return found


def plateau(rows: Rows) -> list[str]:
    """Wake-sleep on Frey Face: when it leaves the value that it has at its first stop."""
    found = []
    for k in _latents(rows.figure2, "frey"):
        along = curve_of(panel(rows.figure2, "figure2", "frey", k, WHOLE["frey"]), "wake_sleep", "test", "elbo_nats")
        if len(along) > 1:
            start, *_, end = [along[n] for n in sorted(along)]
            near = tolerance("frey", start.value)
            left = next((n for n in sorted(along) if along[n].value > start.value + near), None)
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
            ours = line(getattr(rows, figure), curve, metric)
            at: dict[int, list[tuple[float, str, Point]]] = {}
            for one in configurations(ours):
                for point in points(of(ours, one)):
                    if np.isfinite(point.value) and not point.contradicted:
                        sizes = " ".join(f"{size:g}" for size in point.step_sizes)
                        named = f"{one.method or 'defaults'}, {one.engine}, step size {sizes or '-'}"
                        at.setdefault(point.n_seen, []).append((point.value, named, point))
            at = {n: told for n, told in at.items() if len(told) > 1}
            if not at:
                continue
            n = max(at, key=lambda one: (len(at[one]), one))
            (low, worst, lowest), (high, best, highest) = min(at[n]), max(at[n])
            if high - low <= tolerance(curve.data, low):
                continue
            paper = value_at(curve, n)
            papers = f"the paper has {paper:.1f}" if np.isfinite(paper) else "the paper's figure shows none there"
            where = f"{curve.n_latent} latent variables" if figure == "figure2" else f"N = {curve.n_train:,}"
            found.append(
                f"{TITLES[curve.data]}, {where}, {NAMES[curve.backend]} on test at {count(n)} points, {len(at[n])} "
                f"settings: from {number(lowest)} ({worst}) to {number(highest)} ({best}); {papers}."
            )
        return found

    return finding


# Figure 3


def ranking(rows: Rows) -> list[str]:
    """The methods in the order of their log p(x) on test, each with its relation to the best of them."""
    found = []
    for n_train in SIZES:
        ends = _ends(rows, n_train)
        if len(ends) < 2:
            continue
        (first, best), *others = sorted(ends.items(), key=lambda item: -item[1].value)
        each = "; ".join(f"{name} {number(point)}, {relation(point, best, first)}" for name, point in others)
        alone = ", one seed each" if all(point.seeds == 1 for point in ends.values()) else ""
        found.append(
            f"N = {n_train:,}, log p(x) on test by quadrature at {count(best.n_seen)} points{alone}: "
            f"{first} {number(best)}; {each}."
        )
    return found


def full_e_step(rows: Rows) -> list[str]:
    """Monte Carlo EM with all chains moved: its end, its best stop, and the paper's curve there."""
    found = []
    for n_train in SIZES:
        part = panel(rows.figure3, "figure3", "mnist", 3, n_train)
        along = curve_of(part, "monte_carlo_em", "test", TRUTH, FULL)
        finite = [point for point in along.values() if np.isfinite(point.value)]
        if not finite:
            continue
        end, best = along[max(along)], max(finite, key=lambda point: point.value)
        falls = compared(end, best) < 0
        told = "; it was never higher by more than two standard errors"
        told = f"; its best was {number(best)}, after {count(best.n_seen)}" if falls else told
        there = _papers(n_train, "monte_carlo_em", end.n_seen)
        papers = f"curve is at {there:.1f} there" if np.isfinite(there) else "figure shows no curve there"
        others = [
            relation(end, other[end.n_seen], NAMES[backend])
            for backend in ("aevb", "wake_sleep")
            if end.n_seen in (other := curve_of(part, backend, "test", TRUTH))
        ]
        found.append(
            f"N = {n_train:,}, Monte Carlo EM with all chains moved at each E-step is at {number(end)} on test after "
            f"{count(end.n_seen)} points{''.join(f', {one}' for one in others)}{told}. The paper's {papers}."
        )
    return found


def work(rows: Rows) -> list[str]:
    """What Monte Carlo EM costs beside AEVB, and where it is after AEVB's work: in decoder evaluations and seconds."""
    found = []
    for n_train in SIZES:
        part = panel(rows.figure3, "figure3", "mnist", 3, n_train)
        mine = part[(part.split == "test") & (part.metric == TRUTH)]
        runs = {backend: _of_main(mine[mine.backend == backend]) for backend in ("aevb", "monte_carlo_em")}
        aevb, em = (curve_of(part, backend, "test", TRUTH) for backend in runs)
        shared = sorted({*aevb} & {*em})
        if not shared:
            continue
        end, told = shared[-1], []
        for x, name in (("decoder_evals", "decoder evaluations"), ("seconds", "seconds")):
            cost = {backend: _cost(one, x) for backend, one in runs.items()}
            ratio = cost["monte_carlo_em"][end] / cost["aevb"][end]
            stops = [n for n in sorted(em) if np.isfinite(em[n].value)]
            at = np.log([cost["monte_carlo_em"][n] for n in stops])
            value = np.interp(np.log(cost["aevb"][end]), at, [em[n].value for n in stops], left=np.nan)
            then = f"after AEVB's it is at about {value:.1f} on test" if np.isfinite(value) else "begins after AEVB's"
            told.append(f"{ratio:.1f} times the {name}, and {then}")
        found.append(
            f"N = {n_train:,}: for the same {count(end)} points Monte Carlo EM takes {'; '.join(told)}. AEVB is at "
            f"{number(aevb[end])}. What a pilot took to choose the step size counts in the seconds alone."
        )
    return found


def _cost(rows: pd.DataFrame, x: str) -> dict[int, float]:
    if x == "decoder_evals":
        return places(rows, x)
    return {int(n): float(value) for n, value in rows.groupby("n_seen")[x].mean().items()}


def overfitting(rows: Rows) -> list[str]:
    """AEVB's bound below log p(x) on train and on test: what the recognition network loses, and where it was best."""
    found = []
    for n_train in SIZES:
        part = panel(rows.figure3, "figure3", "mnist", 3, n_train)
        both = {(m, s): curve_of(part, "aevb", s, m) for m in ("elbo_nats", TRUTH) for s in ("train", "test")}
        shared = sorted(set.intersection(*({*along} for along in both.values())))
        if not shared:
            continue
        end = shared[-1]
        train, test = (both[TRUTH, s][end].value - both["elbo_nats", s][end].value for s in ("train", "test"))
        bound = both["elbo_nats", "test"]
        best = max((p for p in bound.values() if np.isfinite(p.value)), key=lambda p: p.value)
        fell = compared(bound[end], best) < 0
        since = (
            f"It was best after {count(best.n_seen)} points, at {number(best)}."
            if fell
            else "It has not fallen on test."
        )
        found.append(
            f"N = {n_train:,}, AEVB after {count(end)} points: its bound lies {train:.1f} nats below log p(x) on "
            f"train and {test:.1f} on test. {since}"
        )
    return found


def papers_estimator(rows: Rows) -> list[str]:
    """The paper's estimator: how far it is off, and which pairs it turns."""
    return [*paper_estimator.sentences(rows.figure3), *turns.sentences(rows.figure3)]


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
    rows3 = rows.figure3[(rows.figure3.metric == TRUTH) & (rows.figure3.split == "test")]
    for n_train in SIZES:
        part = panel(rows3, "figure3", "mnist", 3, n_train)
        for backend in [name for name in NAMES if part.backend.eq(name).any()]:
            mine = part[part.backend == backend]
            for one in configurations(mine):
                end = points(of(mine, one))[-1]
                if end.seeds > 2 and end.error > tolerance("mnist", end.value):
                    last = of(mine, one)
                    values = sorted(last[last.n_seen == end.n_seen].value, reverse=True)
                    each = ", ".join(f"{value:.1f}" for value in values)
                    found.append(
                        f"N = {n_train:,}, {NAMES[backend]} ({one.method or 'defaults'}, {one.engine}) after "
                        f"{count(end.n_seen)} points: {end.seeds} seeds end on test at {each}."
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
            both = {
                split: over_seeds(mine[mine.split == split])
                for split in ("train", "test")
                if mine.split.eq(split).any()
            }
            if len(both) == 2:
                test, gap = both["test"][0], both["train"][0] - both["test"][0]
                told.append(f"{name} {test:.1f} (train is {abs(gap):.1f} {'above' if gap > 0 else 'below'})")
        of_q = [last[last.metric == metric] for metric in ("kl_theta_nats", "theta_at_prior")]
        costs = [over_seeds(part)[0] for part in of_q if len(part)]
        cost = (
            f" q(theta) costs {costs[0]:.1f} nats per datapoint, and {costs[1]:.0%} of the weights stay at the prior."
            if len(costs) == 2
            else ""
        )
        if told:
            found.append(
                f"Appendix F, N = {int(n_train):,}, log p(x) on test at {count(int(end))} points: "
                f"{'; '.join(told)}.{cost}"
            )
    return found


def calibration(rows: Rows) -> list[str]:
    """The estimators of log p(x) on MNIST decoders, by their largest bias."""
    if rows.calibration.empty:
        return []
    mine = rows.calibration[(rows.calibration.part == "mnist") & (rows.calibration.level == 1)]
    mine = mine[mine.n_latent <= 3]
    if mine.empty:
        return []
    worst = mine.assign(size=mine.bias.abs()).groupby("estimator")["size"].max().sort_values()
    latent = " and ".join(str(int(k)) for k in sorted(mine.n_latent.unique()))
    return [
        f"Against quadrature on MNIST decoders with {latent} latent variables, the largest bias of each estimator in "
        "nats: " + ", ".join(f"{name} {_size(value)}" for name, value in worst.items()) + "."
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


def _papers(n_train: int, backend: str, n_seen: int) -> float:
    """Return the paper's value on test in Figure 3; NaN where it has no curve, or none there."""
    wanted = ("figure3", n_train, backend, "test")
    found = [c for c in curves() if (c.figure, c.n_train, c.backend, c.split) == wanted]
    return value_at(found[0], n_seen) if found else np.nan


def _ends(rows: Rows, n_train: int) -> dict[str, Point]:
    """Return each method's value on test at the last stop that all share; what diverged has none."""
    part = panel(rows.figure3, "figure3", "mnist", 3, n_train)
    along = {NAMES[b]: curve_of(part, b, "test", TRUTH) for b in NAMES if part.backend.eq(b).any()}
    along = {name: one for name, one in along.items() if one}
    shared = sorted(set.intersection(*({*one} for one in along.values()))) if along else []
    ends = {name: one[shared[-1]] for name, one in along.items()} if shared else {}
    return {name: point for name, point in ends.items() if np.isfinite(point.value)}


def _of_main(rows: pd.DataFrame, told: tuple[str, ...] = ()) -> pd.DataFrame:
    rows = by_training(rows)
    chosen = stands(rows, told)
    return of(rows, chosen) if chosen else rows[:0]


def _latents(rows: pd.DataFrame, data: str) -> list[int]:
    return sorted(int(k) for k in rows[rows.data == data].n_latent.unique())


def _size(value: float) -> str:
    return f"{value:.3f}" if value < 0.1 else f"{value:.1f}"
