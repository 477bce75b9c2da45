"""What became of runs: a row is `ok`, or its status says why its number is missing or not to be believed.

- `diverged`: the fit left the finite numbers. That is a finding about the method, and a mean over the seeds that
  happened to survive would flatter it: the seed takes the mean with it.
- `failed`: the run broke, by a bug, for want of memory or with its worker. That says nothing about the method: the
  seed is missing, as if it had not been run, and the page says so.
- `contradicted`: a lower bound exceeds log p(x) of the same datapoints by more than their errors, so that one of the
  two is wrong. The number stays, and bears a mark.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from comparisons.reporting.blocks import Block, Items, Paragraph

if TYPE_CHECKING:
    import pandas as pd

MARK = "†"
CONTRADICTED = (
    f"{MARK} A lower bound exceeds log p(x) of the same datapoints by more than their errors: one of the two is wrong."
)


def ran(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Return the rows of runs that did not fail: what a mean may be taken over."""
    return rows[rows.status != "failed"]


def word(rows: "pd.DataFrame") -> str:
    """Return one status for the rows of several seeds: `failed` only where every seed has failed."""
    told = {*ran(rows).status}
    return next((one for one in ("diverged", "contradicted") if one in told), "ok" if told else "failed")


def drawable(rows: "pd.DataFrame", by: Sequence[str]) -> "pd.DataFrame":
    """Return the rows that have a number, of each group `by` those before the first of its seeds diverged.

    A curve that went on as the mean over the seeds that survive would flatter the method.
    """
    rows = ran(rows)
    if rows.empty:
        return rows
    lost = rows.n_seen.where(rows.value.isna())
    ends = lost.groupby([rows[name] for name in by]).transform("min")
    return rows[rows.value.notna() & ~(rows.n_seen >= ends)]


def mark(contradicted: bool) -> str:
    """Return what stands behind a number that a bound contradicts, and nothing behind another."""
    return f" {MARK}" if contradicted else ""


def failures(rows: "pd.DataFrame") -> list[str]:
    """Return a sentence for each run that failed: which it was, and why, where a column `reason` says so."""
    lost = rows[rows.status == "failed"].drop_duplicates("cell")
    lost = lost.sort_values(["data", "n_train", "n_latent", "backend", "method", "engine", "seed"])
    return [
        f"{one.backend}{f', {one.method},' if one.method else ''} on {one.engine}, {one.data}, {one.n_train} training "
        f"points, {one.n_latent} latent variables, seed {one.seed}: failed "
        f"({' '.join(getattr(one, 'reason', '').split()) or 'the reason was not written down'})."
        for one in lost.itertuples()
    ]


def blocks(rows: "pd.DataFrame") -> list[Block]:
    """Return what is said of the runs that failed, nothing where none did."""
    lost = failures(rows)
    return [Paragraph(FAILED), Items(lost, lined=True)] if lost else []


FAILED = "A run that failed says nothing about its method: its seed is missing from every mean."


def explained(rows: "pd.DataFrame", out: Path) -> "pd.DataFrame":
    """Return rows with what the manifests in their folder say: `command`, and `reason`, why a run failed."""
    from comparisons.runner import store

    told = {path.parent.name: store.read_manifest(out, path.parent.name) for path in out.glob("cells/*/manifest.json")}
    reasons = {cell: str(facts.get("reason", "")) for cell, facts in told.items() if facts.get("status") == "failed"}
    commands = [str(told.get(cell, {}).get("command", "")) for cell in rows.cell]
    return rows.assign(reason=[reasons.get(cell, "") for cell in rows.cell], command=commands)


def command(rows: "pd.DataFrame") -> str:
    """Return the commands that made rows, as one; nothing where no manifest says."""
    return ";\n".join(sorted({*rows.command} - {""})) if "command" in rows else ""
