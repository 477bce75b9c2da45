"""Where numbers come from: the exact commands, and the commits and machines they ran on."""

from collections.abc import Iterable
from typing import Any

from comparisons.paper.pictures import versions
from comparisons.reporting.blocks import Block, Command, Fold, Heading, Long, Paragraph

FEW = 2  # commands that are shown at once


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
