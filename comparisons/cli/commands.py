"""The commands by name, as `python -m comparisons` lists them."""

from pathlib import Path

HERE = Path(__file__).parents[1]
COMMANDS = {
    ".".join(path.relative_to(HERE).with_suffix("").parts): path
    for path in sorted(HERE.rglob("*.py"), key=lambda path: (len(path.parts), path))
    if "\n    cli.main(" in path.read_text(encoding="utf-8")
}
