"""log p(x) of a theta that anybody has trained, by the suite's estimators, and the bound of a q(z | x) beside it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, make_dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from comparisons.checks.contract import hold
from comparisons.cli import parts
from comparisons.cli.flags import check
from comparisons.errors import FlagError, NumericsError, UnfitError, unknown
from comparisons.evidence.base import Estimate, Target
from comparisons.evidence.elbo import elbo
from comparisons.evidence.guard import contradiction
from comparisons.evidence.judge import ESTIMATORS, JudgeSettings, estimate
from comparisons.evidence.latents import use
from comparisons.library.given import numbers, opened, parameters, rows
from comparisons.runner.experiment import Experiment, settled
from comparisons.runner.grid import started
from comparisons.runner.sizes import hold_shapes, sized
from inference.base import Posterior, arrays, join, pick
from inference.rows import recognition
from models import MODELS
from models.base import Model
from models.guides import with_fields, with_log_variance_factor

if TYPE_CHECKING:
    import pandas as pd

# What of a cell's flags a judge has a use for, with their limits.
ASKED = ("engine", "seed", "elbo_draws", "log_variance_factor", "device", "threads")
Settings: Any = make_dataclass(
    "Settings",
    [(f.name, f.type, field(default=f.default, metadata=f.metadata)) for f in fields(Experiment) if f.name in ASKED],
    bases=(JudgeSettings,),
    frozen=True,
    kw_only=True,
)


def judge(
    model: Any,
    theta: Any,
    x: Any,
    phi: Any = None,
    *,
    engine: str = "numpyro",
    evidence: Any = "auto",
    seed: int = 0,
    threads: int = 1,
    **settings: Any,
) -> "Judged":
    """Estimate log p(x | theta) of each row of x [n, n_x], in nats; with a phi its bound, KL and active latents too.

    `model` is a registered name or `path/to/file.py:NAME`, at the sizes that theta's shapes have, what builds a model
    from (n_x, n_latent, n_hidden), or a Model. `theta` and `phi` are dicts of arrays, NumPy's, torch's or jax's, or
    paths to a .npz or .safetensors; a file that holds both serves as both. `evidence` names one estimator or several.
    Of `settings` each is a flag by its name: elbo_draws=20, device="cpu", importance_samples=1000, ...

    Raises FlagError for a setting, and a model that is not what the suite counts on; UnfitError for an estimator that
    cannot judge it; DataError for names or shapes of parameters and values of x that are not the model's;
    NumericsError for an estimate that is not finite.
    """
    estimators = (evidence,) if isinstance(evidence, str) else tuple(evidence)
    told = _told({"engine": engine, "evidence": estimators, "seed": seed, "threads": threads, **settings})
    if phi is None and isinstance(theta, (str, Path)) and pick(opened(Path(theta)), "phi"):
        phi = theta
    params = join(theta=parameters("theta", theta), phi={} if phi is None else parameters("phi", phi))
    name, built = _model(model, params, _widths(x))
    data = rows(x, built)
    try:
        built = with_log_variance_factor(built, told.log_variance_factor)
    except ValueError as error:
        raise FlagError(f"model {name!r}: {error}") from error
    on: Any = started(told.engine, told.device, told.threads)
    hold(on, built, name, data)
    with on.pinned():
        at = on.array(data)
        q = None if phi is None else Posterior(recognition(built), (arrays(on, pick(params, "phi")), at))
        return _judged(Target(on, built, arrays(on, pick(params, "theta")), at, q), name, told)


def _judged(target: Target, name: str, told: Any) -> "Judged":
    facts = target.facts._replace(model=name)
    told = replace(told, **settled(told, facts))
    for one in told.evidence:
        if refusal := ESTIMATORS[one].refuses(facts, told):
            raise UnfitError(refusal)
    if not told.evidence and target.q is None:
        raise FlagError("evidence 'none' without a phi leaves nothing to judge; name an estimator, or give a phi")
    works: dict[str, Callable[[], Any]]
    works = {f"log_px_{one}_nats": partial(estimate, one, target, told, told.seed) for one in told.evidence}
    if target.q is not None:
        drawn = target, target.engine.fold_in(target.engine.key(told.seed), 1), told.elbo_draws
        used = cache(partial(use, *drawn))
        works |= {"elbo_nats": partial(elbo, *drawn)}
        works |= {"kl_z_nats": lambda: used().kl, "active_latents": lambda: used().active}
    found, seconds = {}, {}
    for metric, work in works.items():
        began = time.perf_counter()
        found[metric] = work()
        seconds[metric] = time.perf_counter() - began
        if not np.isfinite(found[metric].mean()).all():
            raise NumericsError(f"{metric} of {name} is not finite; look at theta, phi and x")
    bound, evidence = found.get("elbo_nats"), [metric for metric in works if metric.startswith("log_px")]
    above = {metric: contradiction(bound, found[metric], told.elbo_draws) for metric in evidence if bound}
    return Judged(found, seconds, {metric: text for metric, text in above.items() if text})


@dataclass(frozen=True, repr=False)
class Judged:
    """What was found: `estimates` by metric, with the `seconds` of each, in nats per datapoint.

    `value`, `stderr` and `flagged` [n], `mean` and `mean_stderr` are of the first: of log p(x), where that is asked.
    `contradictions` say by how much the bound exceeds a log p(x), where that is more than both errors: one of the two
    is then wrong.
    """

    estimates: dict[str, Any]
    seconds: dict[str, float]
    contradictions: dict[str, str]

    @property
    def first(self) -> Estimate:
        """The estimate of the first estimator that was asked, or else of the bound."""
        return next(iter(self.estimates.values()))

    @property
    def value(self) -> np.ndarray:
        """Each datapoint's number [n], in nats."""
        return self.first.value

    @property
    def stderr(self) -> np.ndarray:
        """The standard error that the estimator has of each [n], in nats."""
        return self.first.stderr

    @property
    def flagged(self) -> np.ndarray:
        """Which datapoints the estimator itself does not trust [n]."""
        return self.first.doubtful

    @property
    def mean(self) -> float:
        """The mean over datapoints, in nats."""
        return self.first.mean()[0]

    @property
    def mean_stderr(self) -> float:
        """The estimator's standard error of the mean on these datapoints, in nats."""
        return self.first.mean()[1]

    @cached_property
    def table(self) -> "pd.DataFrame":
        """A line for each metric: its mean, `stderr` of that, the share `flagged`, seconds, and a status."""
        import pandas as pd

        status = {name: "contradicted" if name in self.contradictions else "ok" for name in self.estimates}
        lines = [(n, *one.mean(), one.flagged, self.seconds[n], status[n]) for n, one in self.estimates.items()]
        return pd.DataFrame(lines, columns=["metric", "mean", "stderr", "flagged", "seconds", "status"])

    @property
    def _notes(self) -> list[str]:
        told = [f"{name} cannot be right, or the bound cannot: {text}." for name, text in self.contradictions.items()]
        return [*told, f"Nats per datapoint, of {self.first.points}; flagged is the share not to be trusted."]

    def __repr__(self) -> str:
        return "\n".join([self.table.to_string(index=False, formatters=FORMATS), *self._notes])

    def _repr_html_(self) -> str:
        html = self.table.to_html(index=False, formatters=FORMATS)
        return html + "".join(f"<p>{text}</p>" for text in self._notes)


FORMATS = {"mean": "{:.3f}".format, "stderr": "{:.2g}".format, "flagged": "{:.1%}".format, "seconds": "{:.1f}".format}


def _told(settings: dict[str, Any]) -> Any:
    """Return settings within their limits. Raises FlagError."""
    known = [f.name for f in fields(Settings)]
    if wrong := [name for name in settings if name not in known]:
        raise unknown("setting", wrong[0], sorted(known))
    told = Settings(**settings)
    check(told)
    return told


def _widths(x: Any) -> dict[str, int]:
    """Return how many columns each array of x has, by name: x alone, or those of a dict. Raises DataError."""
    told = x if isinstance(x, Mapping) else {"x": x}
    return {str(name): numbers(name, one, flat=name != "x")[:1].size for name, one in told.items()}


def _model(given: Any, params: Mapping[str, np.ndarray], widths: Mapping[str, int]) -> tuple[str, Model]:
    """Return a model and its name, at the sizes that the parameters have. Raises FlagError and DataError."""
    others = {f"n_{name}": width for name, width in widths.items() if name != "x"}

    def at(build: Callable[[int, int, int], Model]) -> Callable[[int, int, int], Model]:
        def built(*sizes: int) -> Model:
            try:
                return with_fields(build(*sizes), others)
            except ValueError as error:
                raise FlagError(f"model {name!r}: {error}") from error

        return built if others else build

    if isinstance(given, Model):
        name = type(given).__name__
        hold_shapes(name, parts.usable(f"model {name}", given), params)
        return name, given
    if not isinstance(given, str):
        name = getattr(given, "__name__", type(given).__name__)
        if not callable(given):
            raise FlagError(f"model is of type {name}; give a name, {parts.FORM}, a Model or what builds one")
        return name, sized(name, at(parts.checked(name, given)), params, widths.get("x", 0))
    part = parts.find("model", given)
    if part not in MODELS and not isinstance(part, parts.Part):
        raise unknown("model", part, MODELS, f", or {parts.FORM}")
    name = str(part)
    return name, sized(name, at(parts.model(part)), params, widths.get("x", 0))
