"""Sections of the report that are told by rows alone, as Markdown and figures: HTML is made from the Markdown."""

from typing import NamedTuple

from comparisons.paper import corrections, findings, paper_estimator, readings, turns
from comparisons.paper.curves import curves
from comparisons.paper.reproduction import Found, Plot
from comparisons.reporting.tables import escape, pipe

NOT_RUN = "Not run yet.\n"


class Section(NamedTuple):
    """A part of the report: `text` and `more`, what may be folded away, are Markdown."""

    name: str
    title: str
    text: str
    plots: list[Plot]
    more: str = ""


def changed(found: Found) -> Section:
    """Return the report's opening: what was wrong before."""
    text = corrections.markdown(found.rows, found.manifests.get("figure3", {}))
    return Section("changed", "What changed, and why", text, [])


def appendix_d(found: Found) -> Section:
    """Return the section on the paper's estimator: its error at each stop, its cost, and the pairs that it turns."""
    text = (
        "The paper estimates log p(x) from 50 posterior draws of short HMC chains (its appendix D). Its authors keep a "
        "datapoint's chain, and its step size, from one judgement to the next along training. Below is the mean error "
        "of that estimator at each stop: its value minus that of quadrature on the same fits and datapoints. ± is the "
        "standard error over seeds, for one seed that of the estimators.\n"
    )
    tables = []
    for n_train in paper_estimator.SIZES:
        for split in paper_estimator.SPLITS:
            head, body = paper_estimator.table(found.figure3, n_train, split)
            if body:
                tables.append(
                    f"### N = {n_train:,}, {split}: the estimator minus quadrature, nats\n\n{_table(head, body)}"
                )
    if not tables:
        return Section("appendix_d", TITLES["appendix_d"], f"{text}\n{NOT_RUN}", [])
    said = paper_estimator.sentences(found.figure3)
    if not any(one.kept for one in paper_estimator.everyone(found.figure3)):
        said.insert(0, "Not run yet: no run here keeps its chains from one judgement to the next.")
    turned = turns.table(found.figure3)
    if turned:
        said += turns.sentences(found.figure3)
        tables.append(
            "### Pairs of methods that it orders otherwise than quadrature\n\nA pair turns where both estimates tell "
            "the two apart by more than two standard errors, and the other way round; of one seed the error is that "
            f"of the estimators, and knows nothing of other seeds.\n\n{_table(turns.HEAD, turned)}"
        )
    return Section("appendix_d", TITLES["appendix_d"], f"{text}\n{_list(said)}", [], "\n".join(tables))


def appendix_e(found: Found) -> Section:
    """Return the experiment on Monte Carlo EM: every configuration on both axes, beside the paper's curves."""
    text = (
        "How the paper counts the points that Monte Carlo EM has seen is not known, nor whether an E-step moves the "
        "chains of a minibatch or of all training points. Here every configuration that was run is held against the "
        "paper's curves, read as a count of training points and as one of decoder evaluations: the mean absolute "
        "difference, in nats, over the vertices of the paper's curve that ours reaches. Evaluations that a choice of "
        "step size took before are left out.\n"
    )
    held = readings.readings(found.figure3, curves())
    if not held:
        return Section("appendix_e", TITLES["appendix_e"], f"{text}\n{NOT_RUN}", [])
    table = _table(readings.HEAD, readings.table(held))
    drawn = [
        Plot(f"appendix_e-{n}-{axis}", _alt(held, n, axis), readings.drawing(found.figure3, curves(), n, axis))
        for n in readings.SIZES for axis in readings.AXES
        if any(one.n_train == n for one in held)
    ]  # fmt: skip
    return Section("appendix_e", TITLES["appendix_e"], f"{text}\n{_list(readings.sentences(held))}", drawn, table)


TITLES = {
    "appendix_d": "Appendix D: the paper's estimator, stop by stop",
    "appendix_e": "Appendix E: which reading gives the paper's Monte Carlo EM",
}


class Told(NamedTuple):
    """All that rows alone tell, worked out once for both printers."""

    changed: Section
    appendix_d: Section
    appendix_e: Section
    said: dict[str, list[str]]  # by figure or comparison: what its rows say, in sentences


def told(found: Found) -> Told:
    """Return every section and sentence that rows alone tell."""
    said = {
        "figure2": findings.said(findings.FIGURE2, found.rows),
        "figure3": findings.said(findings.FIGURE3, found.rows),
        **{name: findings.said([one], found.rows) for name, one in findings.OTHERS.items()},
    }
    return Told(changed(found), appendix_d(found), appendix_e(found), said)


def _alt(held: list[readings.Reading], n_train: int, axis: str) -> str:
    mine = [one for one in held if (one.n_train, one.axis) == (n_train, axis) and one.vertices["test"]]
    far = ", ".join(
        f"{' '.join(readings.told(one.configuration.method)[:2])} {one.distance['test']:.1f}" for one in mine
    )
    beside = f" Mean distance from it in nats, by E-step and weight updates: {far}." if far else " None reaches it."
    return (
        f"N = {n_train:,}: log p(x) on test by quadrature of every Monte Carlo EM configuration against "
        f"{readings.AXES[axis]}, over the paper's curve.{beside}"
    )


def _list(said: list[str]) -> str:
    return "\n".join(f"- {escape(one)}" for one in said) + "\n" if said else ""


def _table(head: list[str], body: list[list[str]]) -> str:
    return pipe(head, [[escape(cell) for cell in line] for line in body])
