"""Which models have their updates in closed form, for the methods that ask for no gradient."""

from typing import Any

from inference.base import Settings
from inference.gradients import unread
from models import MODELS
from models.base import Conjugate, Model


def updates(model: Model) -> Conjugate | None:
    """Return a model's own updates; None where its class does not say them itself."""
    found: Conjugate | None = vars(type(model)).get("conjugate")
    return found


def refusal(model: Model, settings: Settings, instead: str, sweeps: bool = False) -> str:
    """Say why there is nothing in closed form to do, and which backend can; nothing where there is.

    `sweeps`: coordinate ascent is asked for, and not EM.
    """
    found = updates(model)
    if not _serves(found, sweeps):
        names = {getattr(build, "__name__", name): name for name, build in MODELS.items()}
        name = names.get(type(model).__name__, type(model).__name__)
        able = ", ".join(name for name, build in MODELS.items() if _serves(updates(build(4, 2, 2)), sweeps))
        return f"needs a conjugate model ({able}), and {name} is not; choose --backend {instead}"
    if settings.theta == "vb" or (settings.theta == "map" and not (found and found.prior)):
        others = "ml or map" if found and found.prior else "ml"
        return f"has no closed form for theta {settings.theta!r} here; choose --theta {others}"
    return unread(model, settings)


def held(model: Model, settings: Settings, instead: str, sweeps: bool = False) -> Any:
    """Return a model's updates, a Conjugate. Raises ValueError with the refusal."""
    if reason := refusal(model, settings, instead, sweeps):
        raise ValueError(reason)
    return updates(model)


def _serves(found: Conjugate | None, sweeps: bool) -> bool:
    return found is not None and (found.sweep is not None or not sweeps)
