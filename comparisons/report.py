"""The report as index.html, which opens offline, and as README.md: from the rows and files in reports/ alone.

Nothing is run. The same files give the same bytes. With --readme the results in the checkout's README.md are renewed
too.

Examples:

    python -m comparisons.report
    python -m comparisons.report --out reports --readme README.md
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from comparisons import cli
from comparisons.disk import writing
from comparisons.errors import FlagError, StorageError, in_one_line

if TYPE_CHECKING:
    from comparisons.paper.found import Found
    from comparisons.paper.report import Comparison, Part
    from comparisons.reporting.blocks import Block

RUN = "python -m comparisons"


def sections() -> tuple["Part | Comparison", ...]:
    """Return the sections in their order: a file and a line each, with its name, title and word in the navigation."""
    from comparisons.paper import (
        answer,
        appendix_d,
        attempts_report,
        corrections,
        full_vb_report,
        judge_again,
        made,
        own,
        readings,
        reproduction,
        sheets,
    )
    from comparisons.paper.report import Comparison, Part
    from comparisons.reporting import reliability

    return (
        Part("runs", "Runs in this folder", "Runs", own.blocks),
        Part("changed", "What changed, and why", "What changed", corrections.blocks),
        Part("answer", "The answer", "Answer", answer.blocks),
        Part("figure2", "Figure 2: the lower bound", "Figure 2", reproduction.figure2),
        Part("figure3", "Figure 3: log p(x)", "Figure 3", reproduction.figure3),
        Part("appendix_d", "Appendix D: the paper's estimator, stop by stop", "Appendix D", appendix_d.blocks),
        Part("appendix_e", "Appendix E: which reading gives the paper's Monte Carlo EM", "Appendix E", readings.blocks),
        Comparison("attempts", "Attempts to break the findings", "Attempts", attempts_report, f"{RUN}.paper.attempts"),
        Part("figure4", "Figure 4: learned manifolds", "Figure 4", sheets.manifold),
        Part("figure5", "Figure 5: random samples", "Figure 5", sheets.samples),
        Comparison("judge_again", "Judged again", "Judged again", judge_again, f"{RUN}.paper.judge_again"),
        Comparison(
            "full_vb", "Appendix F: a posterior over the weights", "Appendix F", full_vb_report, f"{RUN}.full_vb"
        ),
        *_measured(),
        Comparison("reliability", "What the suite survives", "Reliability", reliability, "make torture"),
        *_measured("speed"),
        Part("reading", "How to read this", "How to read", answer.reading),
        Part("made", "Versions, and how to cite", "How to cite", made.cite),
    )


def _measured(*names: str) -> Iterator["Comparison"]:
    """Yield the sections of what is measured: those named, or all but `speed`, which comes late."""
    from comparisons.benchmarks import (
        bounds_report,
        calibration_report,
        closed_form_report,
        embedding,
        gradients_report,
        guide_families,
        inference_gap,
        posteriors,
        restoration_report,
        speed_report,
    )
    from comparisons.paper.report import Comparison

    told = {
        "calibration": ("The judge, calibrated", "Calibration", calibration_report),
        "inference_gap": ("Where the lower bound loses", "Inference gap", inference_gap),
        "bounds": ("What the bound leaves open", "The bound, seen", bounds_report),
        "posteriors": (posteriors.TITLE, "Posteriors", posteriors),
        "gradient_variance": (gradients_report.TITLE, "Gradients", gradients_report),
        "guide_families": (guide_families.TITLE, "Families of q", guide_families),
        "closed_form": ("Closed forms", "Closed forms", closed_form_report),
        "restoration": ("Images restored from what is seen", "Restoration", restoration_report),
        "embedding": ("Posterior means as a representation", "Embedding", embedding),
        "speed": ("Speed", "Speed", speed_report),
    }
    for name in names or (name for name in told if name != "speed"):
        yield Comparison(name, *told[name], f"{RUN}.{name}")


def _blocks(part: "Part | Comparison", there: "Found", out: Path) -> "list[Block]":
    """Return a section's blocks. Raises StorageError where the rows are not what it can be built from."""
    try:
        return part.blocks(there)
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        what = f"cannot build the section {part.title!r} from what lies in {out} ({in_one_line(error)})"
        raise StorageError(f"{what}; run its comparison again") from error


def main(arguments: list[str] | None = None) -> int:
    """Read the folder, write index.html, README.md, verdicts.csv and figures/ into it; return 0. Raises UserError."""
    parser = cli.Parser("report", __doc__ or "")
    where = "folder of the results, read and written (default: results)"
    parser.add("what is read and written", "--out", default="results", metavar="DIR", help=where)
    text = "a README whose results, between its marks, are written anew (default: none)"
    parser.add("what is read and written", "--readme", metavar="FILE", help=text)
    flags = parser.parse_args(arguments)
    given = flags.out
    out = Path(given)
    if not given or "\0" in given or not out.is_dir():
        raise FlagError(f"there is no folder {given[:100]!r}; name the one that comparisons wrote to with --out")
    from comparisons.paper import found, readme, verdicts  # and with them pandas
    from comparisons.paper.report import index, page, shown
    from comparisons.reporting.blocks import Section, figures

    there = found.read(out)
    parts = shown(sections(), there)
    built = [Section(part.name, part.title, _blocks(part, there, out)) for part in parts]
    drawn = {out / one.file: one for section in built for one in figures(section.blocks) if one.ours}
    readmes = ""
    if flags.readme is not None:
        readmes = readme.read(flags.readme, readme.parts(there.rows, there.claims, there.known["figure3"]))
    writing.claim(out)
    for path, one in drawn.items():
        writing.write(path, one.content)
    for path in {*(out / "figures").glob("*.svg")} - drawn.keys():  # of rows that are there no longer
        writing.remove(path)
    writing.write(out / "verdicts.csv", verdicts.to_csv(there.verdicts))
    writing.write(out / "index.html", page(built, parts, there))
    writing.write(out / "README.md", index(built, parts, there))
    if flags.readme is not None:
        readme.write(flags.readme, readmes)
    print(f"written: {out / 'index.html'}")
    return 0


if __name__ == "__main__":
    cli.main(lambda: main(sys.argv[1:]))
