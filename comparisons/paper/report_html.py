"""The report as one page of HTML: sections from what was found, in the order of the paper."""

from collections.abc import Iterable, Iterator
from typing import Any

from comparisons.paper import pictures, reproduction
from comparisons.paper.reproduction import Extra, Found, Made, Plot
from comparisons.paper.sections import Section, Told
from comparisons.paper.verdicts import NAMES
from comparisons.reporting import outcomes, page
from comparisons.reporting.page import Markup, details, join, link, tag

TITLE = "Auto-Encoding Variational Bayes, run again"
QUESTION = (
    "In 2013 Kingma and Welling fitted one model, a decoder p(x | z) with a prior p(z), by several methods: their own "
    "auto-encoding variational Bayes (AEVB), wake-sleep and Monte Carlo EM. They showed single runs, without error "
    "bars. Do the curves come out again, and do the conclusions stand?"
)
NAV = {
    "changed": "What changed", "answer": "Answer", "figure2": "Figure 2", "figure3": "Figure 3",
    "appendix_d": "Appendix D", "appendix_e": "Appendix E", "attempts": "Attempts",
    "judge_again": "Judged again", "figure4": "Figure 4",
    "figure5": "Figure 5",
    "full_vb": "Appendix F", "calibration": "Calibration", "inference_gap": "Inference gap",
    "reliability": "Reliability", "speed": "Speed", "reading": "How to read",
}  # fmt: skip
EXTRAS = {  # title, what it is
    "attempts": (
        "Attempts to break the findings",
        "Each finding that contradicts the paper, an independent attempt at breaking it, and what came of that.",
    ),
    "judge_again": (
        "Judged again",
        "The fits of Figure 3 that were kept, under the quadrature that sees oblique narrow posteriors.",
    ),
    "full_vb": (
        "Appendix F: a posterior over the weights",
        "Maximum likelihood, MAP and full variational Bayes are one model with three answers for theta.",
    ),
    "calibration": (
        "The judge, calibrated",
        "How far each estimator of log p(x) is from the truth, where it is known.",
    ),
    "inference_gap": ("Where the lower bound loses", "What of log p(x) minus the bound is the recognition network's."),
    "reliability": ("What the suite survives", "Runs were killed, stopped and starved of disk, and went on."),
    "speed": ("Speed", "What the same work costs, engine by engine."),
}
COMMANDS = {
    name: f"python -m comparisons.{name}"
    for name in ("attempts", "judge_again", "full_vb", "calibration", "inference_gap")
}

COMMANDS["reliability"] = "make torture"
CLASSES = {"reproduced": "good", "better": "good", "holds": "good", "worse": "bad", "does not hold": "bad"}
LEAD = 10  # items of a list that are shown before the rest is folded away


def plots(found: Found, told: Told) -> dict[str, list[Plot]]:
    """Return every plot of the report, by section."""
    return {
        "answer": [reproduction.answer(found)],
        "figure2": reproduction.figure2(found),
        "figure3": reproduction.figure3(found),
        "appendix_e": told.appendix_e.plots,
    }


def whole(found: Found, drawn: dict[str, list[Plot]], told: Told) -> str:
    """Return the whole page, the same bytes for the same rows and files."""
    entries = (tag("li", link(f"#{name}", title)) for name, title in NAV.items())
    header = join([tag("h1", TITLE), tag("p", QUESTION), tag("nav", tag("ul", *entries), aria_label="Sections")])
    parts = [
        _told(told.changed),
        _answer(found, drawn["answer"]),
        _figure2(found, drawn["figure2"], told.said["figure2"]),
        _figure3(found, drawn["figure3"], told.said["figure3"]),
        _told(told.appendix_d),
        _told(told.appendix_e),
        _extra("attempts", found.extras.get("attempts"), []),
        _sheets(found, "figure4", "Figure 4: learned manifolds", "manifold", MANIFOLD),
        _sheets(found, "figure5", "Figure 5: random samples", "samples", SAMPLES),
        *(_extra(name, found.extras.get(name), told.said.get(name, [])) for name in EXTRAS if name != "attempts"),
        _reading(),
    ]
    paper = link("https://arxiv.org/abs/1312.6114v10", "arXiv 1312.6114v10")
    footer = tag(
        "p", "The paper is ", paper, ". This page is built from the rows and files beside it by ",
        tag("code", "python -m comparisons.report"), ", and from nothing else.",
    )  # fmt: skip
    return page.document(TITLE, QUESTION, header, parts, footer)


MANIFOLD = (
    "The decoder's mean on a grid over the two latent variables, equally spaced on the unit square and put through the "
    "inverse distribution function of the normal."
)
SAMPLES = "The decoder's mean at random draws of z from the prior, for growing numbers of latent variables."


def _told(section: Section) -> Markup:
    """Return a section that is Markdown and figures; its tables are folded away."""
    drawn = tag("div", *(_plot(one) for one in section.plots), class_="plots") if section.plots else ""
    more = page.from_markdown(section.more)
    folded = details("The numbers", *more) if more else ""
    return page.section(section.name, section.title, *page.from_markdown(section.text), drawn, folded)


def _answer(found: Found, drawn: list[Plot]) -> Markup:
    caption = (
        "Ours minus the paper's at the furthest point that both have; the grey band is what counts as reproduced. A "
        "triangle lies beyond the axis."
    )
    items = []
    for claim in found.claims:
        body = tag("ul", *(tag("li", line) for line in claim.evidence)) if claim.evidence else ""
        folded = details(f"The numbers, in {len(claim.evidence)} panels", body) if len(claim.evidence) > 3 else body
        items.append(tag("li", f"{claim.sentence}: ", _word(claim.word), ".", folded))
    figure = tag("div", *(_plot(one, caption) for one in drawn))
    claims = tag("div", tag("h3", "What the paper concluded"), tag("ul", *items))
    return page.section(
        "answer",
        "The answer",
        tag("p", reproduction.summary(found)),
        tag("p", reproduction.TOLERANCE),
        tag("div", figure, claims, class_="beside"),
    )


def _figure2(found: Found, drawn: list[Plot], said: list[str]) -> Markup:
    text = (
        "The lower bound on log p(x) against training points seen. Our curves are in colour, the paper's in grey; "
        "train is solid, test dashed, and a band is the standard deviation over seeds."
    )
    return page.section(
        "figure2",
        "Figure 2: the lower bound",
        tag("p", text),
        *_reproduced(found, "figure2", drawn, "lower_bound", said),
    )


def _figure3(found: Found, drawn: list[Plot], said: list[str]) -> Markup:
    text = (
        "Estimated log p(x) on MNIST with 3 latent variables and 100 hidden units. With so few latent variables the "
        "integral over z can be done by quadrature, which is the truth here (solid); the paper's own estimator, of its "
        "appendix D, stands beside it (dotted). Points seen flatter methods that do more work for each point, so "
        "decoder evaluations and seconds follow; the paper has no such axes, and there train is solid and test dashed."
    )
    return page.section(
        "figure3",
        "Figure 3: log p(x)",
        tag("p", text),
        *_reproduced(found, "figure3", drawn, "marginal_likelihood", said),
    )


def _reproduced(found: Found, figure: str, drawn: list[Plot], folder: str, said: list[str]) -> Iterator[Markup]:
    """Yield what both figures have: plots, verdicts, what was not run, other runs, commands and rows."""
    if not drawn:
        yield _not_run(f"python -m comparisons.{folder} --help")
    else:
        yield tag("div", *(_plot(one) for one in drawn), class_="plots")
    if said:
        items = tag("ul", *(tag("li", one) for one in said))
        yield tag("h3", "What the rows say")
        yield items if len(said) <= LEAD else details(f"{len(said)} findings", items)
    mine = [v for v in found.verdicts if v.curve.figure == figure]
    head = reproduction.verdict_head(figure)
    for split in ("test", "train"):
        body = [
            [_word(cell) if head[i] == "verdict" else cell for i, cell in enumerate(line)]
            for line in reproduction.verdict_rows(v for v in mine if v.curve.split == split)
        ]
        numbers = [head.index(name) for name in ("ours", "paper", "ours - paper", "seeds")]
        if body:
            shown = page.table(f"Verdicts on {split}", head, body, numbers)
            yield shown if split == "test" else details("The same on the training set", shown)
    if drawn:
        note = f"Nats per datapoint, higher is better. {reproduction.ERRORS} {reproduction.GREY_NOTE}"
        yield tag("p", note, class_="note")
    if reproduction.contradicted(found, figure):
        yield tag("p", outcomes.CONTRADICTED, class_="note")
    lost = reproduction.failed(found, figure)
    if lost:
        yield details(
            f"{len(lost)} runs failed", tag("p", outcomes.FAILED), tag("ul", *(tag("li", one) for one in lost))
        )
    missing = reproduction.not_run(mine)
    if missing and drawn:
        yield details(f"Not run: {len(missing)} panels have gaps", tag("ul", *(tag("li", line) for line in missing)))
    others = reproduction.experiments(found, figure)
    if others:
        yield tag("h3", "Experiments on the cause")
        text = "The same curves under other settings, engines or lengths: what a difference from the paper hangs on."
        yield tag("p", text)
        head = reproduction.experiment_head(figure)
        right = [head.index(name) for name in ("ours, test", "paper", "ours - paper", "seeds")]
        yield page.table("Experiments on the cause", head, others, right)
    worse = reproduction.causes(found, figure)
    if worse:
        lines = tag("ul", *(tag("li", line) for line in worse))
        yield details(
            f"Worse than the paper, or not trusted, at {len(worse)} points of its curves: what is known there", lines
        )
    agreed, compared = reproduction.engines(found, figure)
    if compared:
        yield tag("h3", "The two engines")
        yield tag("p", f"{reproduction.ENGINES} {agreed}")
        head = reproduction.ENGINES_HEAD
        right = [head.index(name) for name in ("training points", "NumPyro - Pyro", "in standard errors", "runs")]
        yield details("Each difference", page.table("NumPyro minus Pyro", head, compared, right))
    yield from _made(reproduction.made_by(found, figure))
    if drawn:
        rows, table = link(f"{folder}/rows.csv", "every row"), link(f"{folder}/table.md", "all runs as a table")
        yield tag("p", "Data: ", rows, ", ", table, ", ", link("verdicts.csv", "the verdicts"), ".", class_="note")


def _sheets(found: Found, name: str, title: str, folder: str, text: str) -> Markup:
    sheets = found.sheets.get(folder, [])
    if not sheets:
        return page.section(name, title, tag("p", text), _not_run(f"python -m comparisons.{folder}"))
    shown = []
    for path, facts in sheets:
        s = facts["settings"]
        alt = f"{facts['title']}: {facts['latents']}."
        caption = (
            f"{facts['title']}. {NAMES.get(s['backend'], s['backend'])} on {s['engine']}, "
            f"{s['n_hidden']} hidden units, {s['samples']:,} points seen."
        )
        shown.append(page.image(path.read_bytes(), "image/png", alt, caption, "sheet"))
    facts_of = (
        details(str(facts["title"]), page.table(str(facts["title"]), ("", ""), map(list, pictures.settings(facts))))
        for _, facts in sheets
    )
    return page.section(
        name, title, tag("p", text), tag("div", *shown, class_="plots"), tag("h3", "How they were made"), *facts_of,
        tag("p", "Data: ", link(f"{folder}/table.md", "images and settings"), ".", class_="note"),
    )  # fmt: skip


def _extra(name: str, extra: Extra | None, said: list[str]) -> Markup:
    title, text = EXTRAS[name]
    if extra is None:
        return page.section(name, title, tag("p", text), _not_run(COMMANDS.get(name, "")))
    lines = tag("ul", *(tag("li", one) for one in said)) if said else ""
    first, _, rest = extra.markdown.partition("\n")
    blocks = page.from_markdown(rest if first.startswith("# ") else extra.markdown)  # it has its title already
    lead = blocks[: next((i for i, b in enumerate(blocks) if b.startswith(("<h", "<div"))), len(blocks))]
    long = any(block.count("<li>") > LEAD for block in lead)
    shown = [] if long else lead
    others = blocks[len(shown) :]
    folded = [details("Findings and tables", *others)] if len(others) > 3 or long else others
    drawn = []
    if extra.figure:
        alt = f"{title}: the figure of this comparison; its numbers are in the tables below."
        drawn = [tag("div", page.image(extra.figure, "image/svg+xml", alt), class_="wide")]
    data = tag("p", "Data: ", link(f"{name}/table.md", "the table"), ".", class_="note")
    return page.section(
        name, title, tag("p", text), lines, *shown, *drawn, *folded, *_made(reproduction.made(extra.manifests)), data
    )  # fmt: skip


def _reading() -> Markup:
    texts = [
        reproduction.TOLERANCE,
        reproduction.ERRORS,
        "One run stands for each curve: of those with the paper's method, the longest; of equally long ones, that "
        "which chose its step size and warm-up on training data. The others are listed as experiments on the cause.",
        "The paper's curves are the vertices of its vector graphics, calibrated on the axis ticks; between two of them "
        "we interpolate in the logarithm of the points seen.",
        f"{reproduction.GREY_NOTE} Compare them with each other, not with numbers for binarised MNIST.",
        "How the paper counts the points that Monte Carlo EM has seen cannot be established. Here each datapoint whose "
        "chain moves counts once, and decoder evaluations stand beside.",
        "Seconds were taken on machines shared by several runs: read them as upper bounds.",
    ]
    return page.section("reading", "How to read this", tag("ul", *(tag("li", one) for one in texts)))


def _made(found: Iterable[Made]) -> Iterator[Markup]:
    """Yield the exact commands, each with the commit and the machines it ran on."""
    by_command: dict[tuple[str, str], list[str]] = {}
    for one in found:
        by_command.setdefault((one.command, one.commit), []).append(one.where)
    shown: list[Any] = []
    for (command, commit), machines in by_command.items():
        note = f"Commit {commit}. {' | '.join(machines)}."
        shown += [tag("pre", tag("code", command), tabindex=0), tag("p", note, class_="note")]
    if shown:
        few = len(by_command) <= 2
        summary = "The exact command" if len(by_command) == 1 else f"The exact commands ({len(by_command)})"
        yield join([tag("h3", summary), *shown]) if few else details(summary, *shown)


def _plot(one: Plot, caption: str = "") -> Markup:
    return page.image(one.svg.encode(), "image/svg+xml", one.alt, caption)


def _not_run(command: str) -> Markup:
    return tag("p", "Not run yet.", *([" The command: ", tag("code", command), "."] if command else []), class_="soft")


def _word(word: str) -> Markup:
    return tag("span", word, class_=CLASSES.get(word, "soft"))
