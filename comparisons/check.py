"""Hold models and backends, registered ones or your own, against their contracts, and explain what fails.

A file named as path/to/file.py:NAME is run. NAME is a callable: (n_x, n_latent, n_hidden) -> Model for --model, and
(engine, model, settings) -> Backend for --backend. Exit code 0: no check fails, 1: some do, 2: a flag is wrong.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import inference
from comparisons import cli
from comparisons.cli import parts
from comparisons.errors import FlagError
from inference import BACKENDS, ENGINES
from inference.base import Engine
from models import MODELS

if TYPE_CHECKING:
    from comparisons.checks.base import Outcome

REGISTERED: dict[str, tuple[str, ...]] = {"model": tuple(MODELS), "backend": tuple(BACKENDS), "engine": tuple(ENGINES)}
SIZES = {"n_x": (6, "columns of x"), "n_latent": (2, "latent variables"), "n_hidden": (5, "hidden units")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Check what the flags name, print a line for each check and explain the failures; return 0 or 1.

    Raises FlagError.
    """
    flags = _read(arguments)
    named = {kind: _named(kind, flags[kind]) for kind in REGISTERED}
    if not named["model"] and not named["backend"]:
        raise FlagError("there is nothing to check; name a --model or a --backend")
    factories = [(kind, name, parts.named(kind, name)) for kind in parts.KINDS for name in named[kind]]
    engines = [_engine(name) for name in named["engine"]]

    from comparisons.checks.backend import check_backend
    from comparisons.checks.model import check_model

    check: dict[str, Callable[[Any, Engine], list[Outcome]]] = {
        "model": partial(check_model, **{name: flags[name] for name in SIZES}),
        "backend": check_backend,
    }
    failed, count = [], 0
    for kind, name, factory in factories:
        for engine in engines:
            title = f"{kind} {name} on {engine.name}"
            print(title, flush=True)
            for outcome in check[kind](factory, engine):
                reason = f": {outcome.text}" if outcome.status == "skipped" else ""
                print(f"  {outcome.status:8}{outcome.name}{reason}", flush=True)
                count += 1
                if outcome.status == "FAIL":
                    failed.append((f"{title}: {outcome.name}", outcome))
    print(f"\n{len(failed)} of {count} checks failed.")
    for title, outcome in failed:
        print(f"\n{title}\n  Contract: {outcome.contract}\n  {outcome.text}")
    return 1 if failed else 0


def _read(arguments: Sequence[str] | None) -> dict[str, Any]:
    parser = cli.Parser(
        prog="python -m comparisons.check",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for kind in parts.KINDS:
        text = f"{', '.join(REGISTERED[kind])}, all of these, or {parts.FORM}, whose code is then run"
        parser.add_argument(f"--{kind}", nargs="+", default=[], metavar="X", help=f"{kind}s to check: {text}")
    text = f"engines to check on {{{', '.join(ENGINES)}, all}} (default: all)"
    parser.add_argument("--engine", nargs="+", default=["all"], metavar="X", help=text)
    for name, (default, text) in SIZES.items():
        flag, text = "--" + name.replace("_", "-"), f"models: {text} (default: {default})"
        parser.add_argument(flag, type=int, default=default, metavar="X", help=text)
    flags = vars(parser.parse_args(arguments))
    for name in SIZES:
        if not 1 <= flags[name] <= 10_000:
            raise FlagError(f"{name} {flags[name]} is out of range; it must be at least 1 and at most 10000")
    return flags


def _named(kind: str, texts: Sequence[str]) -> list[str]:
    """Return registered names and parts, each once, with `all` as all registered. Raises FlagError."""
    found: dict[str, None] = {}
    for text in texts:
        for name in REGISTERED[kind] if text == "all" else (text,):
            part = parts.find(kind, name) if kind in parts.KINDS else name
            if part not in REGISTERED[kind] and not isinstance(part, parts.Part):
                form = f", or {parts.FORM}" if kind in parts.KINDS else ""
                raise FlagError(f"unknown {kind} {name!r}; choose from {', '.join(REGISTERED[kind])}, all{form}")
            found[part] = None
    return list(found)


def _engine(name: str) -> Engine:
    try:
        return inference.engine(name, "cpu", 1)
    except ImportError as error:
        reason, packages = str(error).splitlines()[0], inference.PACKAGES[name]
        raise FlagError(f"engine {name!r} is not installed ({reason}); install it: pip install {packages}") from error


if __name__ == "__main__":
    cli.main(lambda: main(sys.argv[1:]))
