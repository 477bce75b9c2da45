"""Hold models and backends, registered ones or your own, against their contracts, and explain what fails.

A file named as path/to/file.py:NAME is run. NAME is a callable: (n_x, n_latent, n_hidden) -> Model for --model, and
(engine, model, settings) -> Backend, or the card of one, for --backend. Exit code 0: no check fails, 1: some do, 2: a
flag is wrong.

Examples:

    python -m comparisons.check --backend aevb --engine numpyro
    python -m comparisons.check --model factor_analysis.py:FactorAnalysis --backend iwae.py:iwae
"""

import sys
from collections.abc import Sequence

from comparisons import cli
from comparisons.checks.command import REGISTERED, chosen, subjects, told
from comparisons.cli import parts
from comparisons.cli.flags import COMPARED, RUN
from comparisons.errors import FlagError

SIZES = {"n_x": (6, "columns of x"), "n_latent": (2, "latent variables"), "n_hidden": (5, "hidden units")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Check what the flags name; return 0, or 1 where a check fails. Raises FlagError."""
    parser = cli.Parser("check", __doc__ or "")
    for kind in parts.KINDS:
        text = f"{kind}s to check: {', '.join(REGISTERED[kind])}, all of these, or {parts.FORM}, whose code is then run"
        parser.add(COMPARED, f"--{kind}", nargs="+", default=[], metavar="X", help=text)
    text = f"guide(x), where the model is model(x) of a Pyro or NumPyro pair: {parts.FORM} (default: {parts.NONE})"
    parser.add(COMPARED, "--guide", default=parts.NONE, metavar="X", help=text)
    text = f"engines to check on {{{', '.join(REGISTERED['engine'])}, all}} (default: all)"
    parser.add(COMPARED, "--engine", nargs="+", default=["all"], metavar="X", help=text)
    text = "where arrays live (default: cpu)"
    parser.add(RUN, "--device", choices=("cpu", "cuda"), default="cpu", help=text)
    for name, (default, text) in SIZES.items():
        flag, text = "--" + name.replace("_", "-"), f"models: {text} (default: {default})"
        parser.add(COMPARED, flag, type=int, default=default, metavar="X", help=text)
    flags = vars(parser.parse_args(arguments))
    for name in SIZES:
        if not 1 <= flags[name] <= 10_000:
            raise FlagError(f"{name} {flags[name]} is out of range; it must be at least 1 and at most 10000")
    named = {kind: chosen(kind, flags[kind]) for kind in REGISTERED}
    if not named["model"] and not named["backend"]:
        raise FlagError("there is nothing to check; name a --model or a --backend")
    guide = parts.find("guide", flags["guide"])
    return told(subjects(named, {name: flags[name] for name in SIZES}, flags["device"], guide))


if __name__ == "__main__":
    cli.main(lambda: main(sys.argv[1:]))
