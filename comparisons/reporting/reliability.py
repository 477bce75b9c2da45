"""What the suite survives: rows of injected faults, as the tests that inject them write them, to a table."""

import pandas as pd

from comparisons.reporting.blocks import Block, Code, Paragraph, Table

ABOUT = "Runs were killed, stopped and starved of disk, and went on."
TITLE = "What the suite survives"


def blocks(rows: pd.DataFrame) -> list[Block]:
    """Return the table: a line for each injection, its cases and what became of them."""
    counts = rows[["cases", "kills", "failed"]].sum()
    body = []
    for row in rows.itertuples():
        skipped = row.cases - row.passed - row.failed
        observed = "as expected" if row.passed == row.cases else f"{row.failed} otherwise, {skipped} skipped"
        numbers = [str(row.cases), str(row.passed), str(row.rounds)]
        body.append([row.injection, row.expected, observed, *numbers])
    return [
        Paragraph(
            (
                f"{counts.cases} cases, {counts.kills} rounds in which a process was killed, {counts.failed} wrong "
                "results. ",
                Code("rows.csv"),
                " says which commit each was seen of; ",
                Code("make torture"),
                " sees them all again.",
            )
        ),
        Table(["injection", "expected", "observed", "cases", "passed", "rounds"], body, caption=ABOUT),
    ]
