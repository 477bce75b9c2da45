"""`python -m comparisons` lists the comparisons."""

import ast
from pathlib import Path

if __name__ == "__main__":
    print("Run one with python -m comparisons.<name>; each has --help.\n")
    for path in sorted(Path(__file__).parent.glob("*.py")):
        source = path.read_text()
        if "\n    cli.main(" in source:
            print(f"  {path.stem:22}{(ast.get_docstring(ast.parse(source)) or '').splitlines()[0]}")
