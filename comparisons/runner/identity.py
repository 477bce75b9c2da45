"""What tells one result from another: the name of a cell, and what of its settings people read as its method.

Numbers keep their names: a change that moves numbers raises the version of those that it touches, and old results then
keep their own name.
"""

import hashlib
import json
from dataclasses import Field, fields
from typing import Any

import inference
from comparisons.cli import parts
from comparisons.evidence.judge import ESTIMATORS, JudgeSettings
from comparisons.runner.experiment import Experiment
from inference import AllSettings

NUMBERS_VERSION = 2  # of models, training and whatever else has no version of its own
CARD_VERSION = 5  # until 4, jax's products of matrices were rounded to 10 bits on cards that can


def method(e: Experiment) -> str:
    """Return the settings of method and judge that are not the defaults, as one string: what else tells results apart.

    Of a model or backend from a file that is its content: two versions of one file are two methods.
    """
    judge = (f for f in fields(JudgeSettings) if f.name not in ("evidence", "max_memory"))
    mine = (f for f in fields(Experiment) if f.name in ("initial_scale", "log_variance_factor"))
    told = [*fields(AllSettings), *judge, *mine]
    changed = [f"{f.name}={getattr(e, f.name)}" for f in told if getattr(e, f.name) != f.default]
    if e.step_size != "auto":
        changed.append(f"step_size={e.step_size}")
    elif e.pilot_steps != Experiment.pilot_steps:
        changed.append(f"pilot_steps={e.pilot_steps}")
    return " ".join(changed + [f"{kind}_sha256={part.sha256[:12]}" for kind, part in _parts(e)])


def identity(e: Experiment, data_digest: str, version: int | None = None) -> str:
    """Name the cell: backend, engine, seed, and a hash of all settings, the data and the version of the numbers.

    Settings at their default stay out of the hash, so that a new flag does not rename old results; a default that
    changes is a new version of the numbers. A file counts by its content and the name in it, wherever it lies.
    """
    content = {f.name: getattr(e, f.name) for f in fields(e) if getattr(e, f.name) not in (f.default, before(f))}
    content |= {kind: {"name": part.name, "sha256": part.sha256} for kind, part in _parts(e)}
    if e.compiled:  # whoever decided it: the same numbers, and not those of before there was a choice
        content["compile"] = "on"
    process = inference.unpinned(e.engine)  # what changes numbers, and an engine cannot pin: mostly nothing
    if process:
        content["process"] = process
    content |= {"data_digest": data_digest, "numbers_version": version or numbers_version(e)}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
    backend = e.backend.folder if isinstance(e.backend, parts.Part) else e.backend
    return f"{e.data}-{backend}-{e.engine}-seed{e.seed}-{digest}"


def numbers_version(e: Experiment) -> int:
    """Return the version of an experiment's numbers: a change raises that of the experiments it touches."""
    judged = [ESTIMATORS[name].version for name in e.evidence]
    card = parts.known(e.backend)  # a file has its content for a version
    trained = card.version(e) if card else 0
    return max(NUMBERS_VERSION, trained, *judged, NUMBERS_VERSION if e.device == "cpu" else CARD_VERSION)


def completed(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings as a run before this version kept them, with the value of each that it did not know.

    That is its default, or what results had before there was a choice.
    """
    asked = {f.name for name in settings.get("evidence", ()) if name in ESTIMATORS for f in _own(name)}
    known = {f.name: before(f) if f.name in asked and before(f) is not None else f.default for f in fields(Experiment)}
    return {**known, **settings}


def before(setting: Field) -> Any:
    """Return what results had before there was a setting, where that is not its default: None where it is."""
    return setting.metadata.get("before")


def _own(estimator: str) -> tuple[Field, ...]:
    return fields(ESTIMATORS[estimator].settings)


def _parts(e: Experiment) -> list[tuple[str, parts.Part]]:
    """Return what comes from a file, with the field's name."""
    named = [(kind, getattr(e, kind)) for kind in parts.KINDS]
    return [(kind, part) for kind, part in named if isinstance(part, parts.Part)]
