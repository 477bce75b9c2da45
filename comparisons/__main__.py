"""`python -m comparisons` lists the comparisons."""

import ast
from pathlib import Path

if __name__ == "__main__":
    print("Run one with python -m comparisons.<name>; each has --help.\n")
    here = Path(__file__).parent
    for path in sorted(here.rglob("*.py"), key=lambda path: (len(path.parts), path)):
        source = path.read_text()
        if "\n    cli.main(" in source:
            name = ".".join(path.relative_to(here).with_suffix("").parts)
            print(f"  {name:22}{(ast.get_docstring(ast.parse(source)) or '').splitlines()[0]}")
