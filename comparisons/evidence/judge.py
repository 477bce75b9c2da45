"""The estimators by name: a new one is a file of its own, and its lines here."""

from dataclasses import dataclass

from comparisons.evidence import annealed, appendix_d, exact, importance, quadrature
from comparisons.evidence.annealed import AnnealedSettings
from comparisons.evidence.appendix_d import AppendixDSettings
from comparisons.evidence.base import Estimate, Estimator, Facts, MemorySettings, Target
from comparisons.evidence.importance import ImportanceSettings
from comparisons.evidence.quadrature import QuadratureSettings
from inference.base import setting

ESTIMATORS: dict[str, Estimator] = {
    "quadrature": quadrature.CARD,
    "importance": importance.CARD,
    "annealed": annealed.CARD,
    "appendix_d": appendix_d.CARD,
    "exact": exact.CARD,
}


@dataclass(frozen=True, kw_only=True)
class EvidenceSettings:
    """Which estimators are asked."""

    evidence: tuple[str, ...] = setting(
        ("auto",),
        "estimators of log p(x): quadrature (n_latent <= 3), importance, annealed, appendix_d (the paper's), exact "
        "(linear_gaussian), none; auto: exact or quadrature where they serve, else importance, some minutes a stop",
        choices=("auto", "none", *ESTIMATORS),
        about="how it is judged",
    )


# Fields come in the order of the bases from the last to the first: as in ESTIMATORS.
@dataclass(frozen=True, kw_only=True)
class JudgeSettings(
    AppendixDSettings, AnnealedSettings, ImportanceSettings, QuadratureSettings, MemorySettings, EvidenceSettings
):
    """How log p(x) is estimated: the settings of all estimators as one flat record."""


def automatic(facts: Facts, settings: JudgeSettings) -> str:
    """Return the estimator that `auto` stands for: of the lowest rank that does not refuse, or of the highest.

    A closed form that is not known of yet counts as none.
    """
    ranked = sorted((card.rank, name) for name, card in ESTIMATORS.items() if card.rank is not None)
    known = facts._replace(closed_form=bool(facts.closed_form))
    return next((name for _, name in ranked if not ESTIMATORS[name].refuses(known, settings)), ranked[-1][1])


def estimate(name: str, target: Target, settings: MemorySettings, seed: int) -> Estimate:
    """Run one estimator of log p(x), in nats, under the library's settings that the engine's numbers are defined by."""
    with target.engine.pinned():
        return ESTIMATORS[name].estimate(target, settings, seed)
