"""The report for those who read on a code host: README.md, and the verdicts as CSV."""

import csv
import io
from collections.abc import Sequence

import numpy as np

from comparisons.paper import reproduction
from comparisons.paper.pictures import escape
from comparisons.paper.report_html import EXTRAS, MANIFOLD, QUESTION, SAMPLES, TITLE
from comparisons.paper.reproduction import Found, Plot
from comparisons.paper.sections import Section, Told
from comparisons.reporting import outcomes
from comparisons.reporting.tables import pipe


def readme(found: Found, drawn: dict[str, list[Plot]], told: Told) -> str:
    """Return the index: the answer, the plots, the verdicts on test, and where the rest lies."""
    parts = [
        f"# {TITLE}\n\n{QUESTION}\n",
        "`index.html` in this folder says the same at length, and opens offline. Both are built by "
        "`python -m comparisons.report` from the rows and files here.\n",
        _told(told.changed),
        f"## The answer\n\n{reproduction.summary(found)} {reproduction.TOLERANCE}\n",
        *(_image(one) for one in drawn["answer"]),
        "## What the paper concluded\n",
    ]
    for claim in found.claims:
        lines = [f"- {claim.sentence}: **{claim.word}**.", *(f"  - {escape(line)}" for line in claim.evidence)]
        parts.append("\n".join(lines) + ("\n" if claim is found.claims[-1] else ""))
    for figure, title, folder in (
        ("figure2", "Figure 2: the lower bound", "lower_bound"),
        ("figure3", "Figure 3: log p(x)", "marginal_likelihood"),
    ):
        parts.append(f"\n## {title}\n")
        parts += [_image(one) for one in drawn[figure]] or ["Not run yet.\n"]
        lines = [f"- {escape(one)}" for one in told.said[figure]]
        parts += ["\n".join(lines) + "\n"] if lines else []
        tested = [v for v in found.verdicts if v.curve.figure == figure and v.curve.split == "test"]
        body = reproduction.verdict_rows(tested)
        if body:
            parts.append(_table(reproduction.verdict_head(figure), body))
            parts.append(f"Nats per datapoint, higher is better. {reproduction.ERRORS} {reproduction.GREY_NOTE}\n")
            parts.append(f"[Every row]({folder}/rows.csv), [all runs]({folder}/table.md).\n")
        parts += [f"{outcomes.CONTRADICTED}\n"] if reproduction.contradicted(found, figure) else []
        lost = reproduction.failed(found, figure)
        if lost:
            parts.append("\n".join([f"{outcomes.FAILED}\n", *(f"- {escape(one)}" for one in lost)]) + "\n")
        others = reproduction.experiments(found, figure)
        if others:
            parts.append("Experiments on the cause: the same curves under other settings, engines or lengths.\n")
            parts.append(_table(reproduction.experiment_head(figure), others))
        worse = reproduction.causes(found, figure)
        if worse:
            parts.append("Where ours is worse than the paper's or not trusted, and what is known there:\n")
            parts.append("\n".join(f"- {escape(line)}" for line in worse) + "\n")
        agreed, compared = reproduction.engines(found, figure)
        if compared:
            parts.append(f"The two engines. {reproduction.ENGINES} {agreed}\n")
            parts.append(_table(reproduction.ENGINES_HEAD, compared))
    parts += [_told(told.appendix_d), _told(told.appendix_e)]
    for folder, title, text in (
        ("manifold", "Figure 4: learned manifolds", MANIFOLD),
        ("samples", "Figure 5: random samples", SAMPLES),
    ):
        sheets = found.sheets.get(folder, [])
        shown = "\n".join(f"![{escape(str(facts['title']))}]({folder}/{path.name})" for path, facts in sheets)
        more = f"{shown}\n\n[How they were made]({folder}/table.md).\n" if sheets else "Not run yet.\n"
        parts.append(f"\n## {title}\n\n{text}\n\n{more}")
    parts.append("\n## And more\n")
    parts.append("\n".join(_more(name, name in found.extras, told.said.get(name, [])) for name in EXTRAS))
    return "\n".join(parts) + "\n"


def _told(section: Section) -> str:
    drawn = "".join(f"\n{_image(one)}" for one in section.plots)
    more = f"\n{section.more}" if section.more else ""
    return f"\n## {section.title}\n\n{section.text}{drawn}{more}"


def verdicts_csv(found: Found) -> str:
    """Return the verdicts, one point of one curve a line; a number that is missing is an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["figure", "data", "n_latent", "n_train", "backend", "split", "metric", "at", "n_seen", "value", "error",
         "seeds", "paper", "difference", "verdict", "method", "engine", "samples"]
    )  # fmt: skip
    for v in found.verdicts:
        p, c = v.point, v.configuration
        ours = [_plain(p.value), _plain(p.error), p.seeds] if p else ["", "", ""]
        run = [c.method, c.engine, c.samples] if c else ["", "", ""]
        place = [*v.curve[:6], v.metric, v.at, v.n_seen]
        writer.writerow([*place, *ours, _plain(v.paper), _plain(v.difference), v.word, *run])
    return text.getvalue()


def _more(name: str, there: bool, said: list[str]) -> str:
    title, text = EXTRAS[name]
    lines = "".join(f"\n  - {escape(one)}" for one in said)
    return f"- {f'[{title}]({name}/table.md)' if there else title}: {text}{'' if there else ' Not run yet.'}{lines}"


def _image(one: Plot) -> str:
    alt = escape(one.alt).replace("[", "(").replace("]", ")")
    return f"![{alt}](figures/{one.name}.svg)\n"


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    return pipe(list(head), [[escape(cell) for cell in line] for line in body])


def _plain(value: float) -> str:
    return repr(round(float(value), 4)) if np.isfinite(value) else ""
