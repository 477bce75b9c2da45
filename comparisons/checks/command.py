"""What `comparisons.check` looks at: the models and backends that its flags name, on each engine."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial

import inference
from comparisons.checks.base import FAIL, SKIPPED, Outcome
from comparisons.cli import parts
from comparisons.errors import FlagError, unknown
from inference import ENGINES, METHODS
from inference.base import Engine
from models import MODELS

REGISTERED: dict[str, tuple[str, ...]] = {"model": tuple(MODELS), "backend": tuple(METHODS), "engine": tuple(ENGINES)}


Subject = tuple[str, Callable[[], list[Outcome]]]  # what is checked, in words, and what checks it


def subjects(
    named: dict[str, list[str]], sizes: dict[str, int], device: str = "cpu", guide: str = parts.NONE
) -> Iterator[Subject]:
    """Yield every model and backend on every engine that is named, once all are found. Raises FlagError."""
    models = {name: parts.factory(name, guide) for name in named["model"]}
    backends = {name: parts.named("backend", name) for name in named["backend"]}
    engines = [_engine(name, device) for name in named["engine"]]
    for name, build in models.items():
        refusals: list[str] = []
        with suppress(Exception, SystemExit):  # said by the checks
            model = build(*(sizes[name] for name in ("n_x", "n_latent", "n_hidden")))
            refusals = [text for engine in engines if (text := model.misplaced(engine.name))]
        if refusals:
            raise FlagError(f"model {str(name)!r} {refusals[0]}")

    from comparisons.checks.backend import check_backend
    from comparisons.checks.model import check_model

    for name, build in models.items():
        for engine in engines:
            yield f"model {name} on {engine.name}", partial(check_model, build, engine, **sizes)
    for name, card in backends.items():
        for engine in engines:
            yield f"backend {name} on {engine.name}", partial(check_backend, card, engine)


def told(subjects: Iterator[Subject]) -> int:
    """Check, print a line for each check and explain the failures; return 1 where there are some, else 0."""
    failed, count = [], 0
    for title, check in subjects:
        print(title, flush=True)
        for outcome in check():
            reason = f": {outcome.text}" if outcome.status == SKIPPED else ""
            print(f"  {outcome.status:8}{outcome.name}{reason}", flush=True)
            count += 1
            if outcome.status == FAIL:
                failed.append((f"{title}: {outcome.name}", outcome))
    print(f"\n{len(failed)} of {count} checks failed.")
    for title, outcome in failed:
        print(f"\n{title}\n  Contract: {outcome.contract}\n  {outcome.text}")
    return 1 if failed else 0


def chosen(kind: str, texts: Sequence[str]) -> list[str]:
    """Return registered names and parts, each once, with `all` as all registered. Raises FlagError."""
    found: dict[str, None] = {}
    for text in texts:
        for name in REGISTERED[kind] if text == "all" else (text,):
            part = parts.find(kind, name) if kind in parts.KINDS else name
            if part not in REGISTERED[kind] and not isinstance(part, parts.Part):
                form = f", or {parts.FORM}" if kind in parts.KINDS else ""
                raise unknown(kind, name, [*REGISTERED[kind], "all"], form)
            found[part] = None
    return list(found)


def _engine(name: str, device: str) -> Engine:
    try:
        return inference.engine(name, device, 1)
    except ImportError as error:
        reason = str(error).splitlines()[0]
        raise FlagError(
            f"engine {name!r} is not installed ({reason}); install it: pip install {ENGINES[name].packages}"
        ) from error
    except (RuntimeError, AssertionError) as error:
        raise FlagError(f"{name} has no {device} here: {str(error).splitlines()[0]}; use --device cpu") from error
