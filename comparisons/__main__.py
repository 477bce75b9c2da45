"""`python -m comparisons` lists the comparisons; `python -m comparisons NAME` runs one."""

import ast
import runpy
import sys
import textwrap

from comparisons.cli import streams
from comparisons.cli.commands import COMMANDS, refuse

if __name__ == "__main__":
    if sys.argv[1:] and not sys.argv[1].startswith("-"):
        name = sys.argv[1]
        if name not in COMMANDS:
            refuse(name)
        del sys.argv[1]
        runpy.run_module(f"comparisons.{name}", run_name="__main__", alter_sys=True)
    else:
        streams.outlast()
        print("Run one with python -m comparisons.<name>; each has --help.\n")
        for name, path in COMMANDS.items():
            text = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[0]
            print(textwrap.fill(text, 80, initial_indent=f"  {name:22}", subsequent_indent=" " * 24))
