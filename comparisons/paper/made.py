"""Where numbers come from: the exact commands, and the commits and machines they ran on."""

from collections.abc import Iterable
from typing import Any

from comparisons.paper.found import Found
from comparisons.paper.pictures import versions
from comparisons.reporting.blocks import Block, Code, Command, Fold, Heading, Items, Link, Long, Paragraph

FEW = 2  # commands that are shown at once
SUITE = "One model, two engines, four ways to fit it: a comparison suite for latent-variable inference"
CITE = (f'To cite the suite, "{SUITE}", name a commit too; its ', Code("CITATION.cff"), " has the fields.")
PAPER = Link("https://arxiv.org/abs/1312.6114v10", "arXiv 1312.6114v10")
CITE_PAPER = ("The paper: D. P. Kingma and M. Welling, Auto-Encoding Variational Bayes, ICLR 2014, ", PAPER, ".")


def cite(found: Found) -> list[Block]:
    """Return the commits and versions that made the numbers, and how to cite them. No file here holds a date."""
    manifests = [one for cells in found.manifests.values() for one in cells.values()]
    manifests += [one for extra in found.extras.values() for one in extra.manifests]
    manifests += [facts for sheets in found.sheets.values() for _, facts in sheets]
    told = [_told(one)[1:] for one in manifests if "commit" in one]
    commits, machines = (" | ".join(sorted({one[i] for one in told})) for i in range(2))
    lines = [f"Commits of the runs: {commits}.", f"Versions and machines: {machines}."] if told else []
    return [Items([*lines, CITE, *([CITE_PAPER] if found.of_paper else [])])]


def blocks(manifests: Iterable[dict[str, Any]]) -> list[Block]:
    """Return each command that made some numbers once, with its commit, its versions and its machines."""
    machines: dict[tuple[str, str], list[str]] = {}
    for command, commit, where in sorted({_told(manifest) for manifest in manifests}):
        machines.setdefault((command, commit), []).append(where)
    shown: list[Block] = []
    for (command, commit), there in machines.items():
        shown += [Command(command), Paragraph(f"Commit {commit}. {' | '.join(there)}.", "note")]
    if not shown:
        return []
    title = "The exact command" if len(machines) == 1 else f"The exact commands ({len(machines)})"
    return [Long([Heading(title), *shown] if len(machines) <= FEW else [Fold(title, shown)])]


def _told(manifest: dict[str, Any]) -> tuple[str, str, str]:
    """Return a manifest's command and commit, and where it ran."""
    settings = manifest.get("settings") or {}
    device = f", {settings['device']}" if "device" in settings else ""
    where = f"Python {manifest.get('python', '?')}, {versions(manifest)}; {manifest.get('processor', '?')}{device}"
    return str(manifest.get("command", "?")), str(manifest.get("commit", "?"))[:12], where
