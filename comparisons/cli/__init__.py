"""What a command line needs: flags from dataclasses, their limits, exit codes, signals, and a user's own files."""

from comparisons.cli.command import main
from comparisons.cli.flags import Parser, Plan, Told, parse_plan

__all__ = ["Parser", "Plan", "Told", "main", "parse_plan"]
