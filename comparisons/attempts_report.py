"""The table of attempts to break findings."""

from pathlib import Path


def report(out: Path) -> None:
    """Rebuild rows.csv, table.md and manifest.json from the attempts that have been run."""
    import json

    from comparisons import store

    rows, runs = [], {}
    for path in sorted((out / "parts").glob("*.json")):
        part = json.loads(path.read_text())
        rows += part["rows"]
        runs[path.stem] = part["environment"]
    if rows:
        store.write_rows(out / "rows.csv", rows)
    store.write_json(out / "manifest.json", {**store.environment(), "attempts": runs})
