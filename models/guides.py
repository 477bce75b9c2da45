"""Settings that a model takes after it is built, where it has what they act on."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

from models.base import Array, Model


@dataclass(frozen=True)
class LogVarianceWeights(Model):
    """A model whose q(z | x) = N(mu, diag sigma^2) has weights for log sigma^2; they act `log_variance_factor` times.

    Below 1 that limits no q(z | x); but Adagrad, whose steps do not shrink with the gradient, then moves log sigma^2
    more slowly by that factor.
    """

    log_variance_factor: float = field(default=1.0, kw_only=True)

    def weighted(self, log_variance: Array) -> Array:
        """Return f times the product with the weights; the paper's appendix C has no f, and no step need pay for 1."""
        return log_variance if self.log_variance_factor == 1.0 else self.log_variance_factor * log_variance


def with_log_variance_factor(model: Model, factor: float) -> Model:
    """Return the model with this factor. Raises ValueError for one whose guide has no such weights, unless it is 1."""
    if factor == 1.0:
        return model
    if not isinstance(model, LogVarianceWeights):
        raise ValueError(
            f"log_variance_factor {factor} needs a q(z|x) with log-variance weights (models.guides); "
            "drop --log-variance-factor"
        )
    return replace(model, log_variance_factor=factor)


def with_fields(model: Model, told: Mapping[str, Any]) -> Model:
    """Return the model with these of its fields. Raises ValueError for one that it has not, or for what it refuses."""
    for name in told.keys() - ({f.name for f in fields(model)} if is_dataclass(model) else set()):
        raise ValueError(f"it has no {name}; drop --{name.replace('_', '-')}, or choose a --model that has it")
    return replace(model, **told) if told else model  # type: ignore[type-var]
