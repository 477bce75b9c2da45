"""What an estimator is pointed at, what it returns, and what it says of itself."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from inference.base import Engine, Key, Posterior, setting, taken
from inference.latents import Latents, latents
from models.base import Array, Model, Params

PARTIAL = "the support of this q(z|x) is a part of the prior's"


class Target(NamedTuple):
    """The problem as a value: datapoints x [n, d] under p(x, z | theta), and a method's q(z | x) of them, if any.

    Estimators move through the coordinates z [..., n, k] of the latent sites at this theta (`inference.latents`).
    """

    engine: Engine
    model: Model
    theta: Params
    x: Array
    q: Posterior | None = None
    placed: Any = None  # where its prior lies, of some datapoints of more: all have the coordinates of the whole

    def take(self, rows: np.ndarray) -> "Target":
        """Return some of the datapoints, with their q."""
        at, placed = self.engine.array(rows), None if self.latents.plain else self.place
        x = self.engine.at_once(taken, self.x, at)
        if self.q is None:
            return self._replace(x=x, placed=placed)
        *shared, each = self.q.args
        return self._replace(
            x=x, q=self.q._replace(args=(*shared, self.engine.at_once(taken, each, at))), placed=placed
        )

    def log_joint(self, z: Array) -> Array:
        """Return log p(x, z | theta) in nats [..., n], for coordinates z [..., n, k]."""
        return _log_joint(self.engine, self.model)(self.place, z, self.x)

    @property
    def latents(self) -> Latents:
        """The latent sites."""
        return latents(self.engine, self.model)

    @property
    def place(self) -> Any:
        """theta, and the coordinates that its prior gives, as compiled functions take them: theta alone where plain."""
        if self.latents.plain:
            return self.theta
        return self.placed if self.placed and self.placed.theta is self.theta else _placed(self)

    @property
    def posterior(self) -> Posterior:
        """Its q(z | x). Raises ValueError where it has none."""
        if self.q is None:
            raise ValueError("this method has no q(z | x), and a bound or weights of it cannot be had")
        return self.q

    @property
    def facts(self) -> "Facts":
        """What an estimator may refuse it for."""
        closed_form = self.model.log_px is not None
        name, covers = type(self.model).__name__, self.model.covers
        return Facts(name, self.latents.size, closed_form, self.q is not None, "this method", covers)


@cache
def _log_joint(engine: Engine, model: Model) -> Any:
    sites = latents(engine, model)
    return engine.compile(lambda place, z, x: sites.log_joint(place, x, z))


# The latest few: a theta's prior is looked at once, not block by block.
_PLACES: list[tuple[Latents, Params, Any, Any]] = []


def _placed(target: Target) -> Any:
    # Covariates move a prior: then its place is that of these rows, whichever others were asked for before.
    of = target.x if target.model.given else None
    for sites, theta, x, place in _PLACES:
        if sites is target.latents and theta is target.theta and x is of:
            return place
    place = target.latents.place(target.theta, target.x)
    _PLACES[:] = [*_PLACES[-3:], (target.latents, target.theta, of, place)]
    return place


class Facts(NamedTuple):
    """What is known of a fit before it is trained: what an estimator may refuse it for.

    None: not known before the model or the backend is built.
    """

    model: str
    n_latent: int
    closed_form: bool | None  # of log p(x)
    has_q: bool | None
    backend: str
    covers: bool = True  # whether q(z | x) reaches all z that the prior allows


class Estimate(NamedTuple):
    """One number per datapoint, and its own error, in nats, float64.

    `stderr` is a Monte-Carlo standard error, independent between datapoints, or, where `systematic`, the size of a
    deterministic error such as quadrature's, which may share its sign between datapoints. value +- 1.96 stderr is
    meant to hold the truth for 95 % of datapoints. `diagnostics` are arrays [n] by name; `flagged` among them marks the
    datapoints whose number is not to be trusted.
    """

    value: np.ndarray
    stderr: np.ndarray
    systematic: bool = False
    diagnostics: dict[str, Any] | None = None

    def mean(self) -> tuple[float, float]:
        """Return the mean over datapoints and its error: errors add in quadrature, systematic ones linearly.

        The error is that of the estimator on THESE datapoints; it does not speak of other draws of data.
        """
        n = len(self.value)
        error = self.stderr.mean() if self.systematic else np.sqrt(np.square(self.stderr).sum()) / n
        return float(self.value.mean()), float(error)

    @property
    def points(self) -> int:
        """How many datapoints there are."""
        return len(self.value)

    @property
    def doubtful(self) -> np.ndarray:
        """Which datapoints the estimator itself does not trust, [n]."""
        return np.asarray((self.diagnostics or {}).get("flagged", np.zeros(len(self.value), bool)))

    @property
    def flagged(self) -> float:
        """The share of those."""
        return float(self.doubtful.mean())


class Average(NamedTuple):
    """One number of `points` datapoints together, such as a mean in nats, and its standard error.

    `flagged` is the share of datapoints whose number is not to be trusted.
    """

    value: float
    stderr: float
    points: int
    flagged: float = 0.0

    def mean(self) -> tuple[float, float]:
        """Return the mean and its error, as an `Estimate` does."""
        return self.value, self.stderr


class Keeper(NamedTuple):
    """What an estimator keeps along training, from one stop to the next: arrays in NumPy, a part of a checkpoint.

    What is kept is a NamedTuple of arrays. Training never sees it.
    """

    wanted: Callable[[Any], bool]  # (settings)
    every: Callable[[Any], int]  # (settings) -> training points between two looks
    begin: Callable[[Target, Any, Key], Any]  # (target, settings, key) -> kept
    look: Callable[[Target, Any, Key, Any], Any]  # (target, settings, key, kept) -> kept
    judge: Callable[[Target, Any, Key, Any], tuple[Estimate, Any]]  # the same, with the estimate at a stop
    evaluations: Callable[[Any, int, bool], int]  # (settings, datapoints, judged) -> how often p(x | z) is evaluated
    restored: Callable[[dict[str, np.ndarray]], Any]  # kept, from a checkpoint's arrays


class Estimator(NamedTuple):
    """An estimator of log p(x) by its card: nobody else knows its name.

    `settings` is a dataclass of `setting` fields, which are flags as well. `refuses(facts, settings)` says in a line
    why it cannot be had, with the remedy, and nothing where it can, or where that is not known yet. `auto` takes the
    estimator of the lowest `rank` that does not refuse; one without a rank is never taken so. A change that changes its
    numbers raises their `version`. `settle(settings, asked)` returns what `auto` stands for among its own settings,
    where the estimator is asked for and where it is not.
    """

    estimate: Callable[[Target, Any, int], Estimate]  # (target, settings, seed)
    settings: type
    # 4: until 3, quadrature missed oblique narrow posteriors, and importance sampling and annealing modes.
    version: int
    refuses: Callable[[Facts, Any], str] = lambda facts, settings: ""
    rank: int | None = None
    keeper: Keeper | None = None
    settle: Callable[[Any, bool], dict[str, Any]] = lambda settings, asked: {}


@dataclass(frozen=True, kw_only=True)
class MemorySettings:
    """What every estimator is told."""

    max_memory: float = setting(
        1e9, "bound on the working arrays of an estimator, which cuts its work to fit [bytes]", low=1e7, high=1e15
    )


@dataclass(frozen=True, kw_only=True)
class StartSettings(MemorySettings):
    """What an estimator by chains is told."""

    start: str = setting(
        "prior",
        "annealed, appendix_d: chains start at the prior, or at the backend's q(z|x) (annealed: half of them); "
        "appendix_d: or where annealed chains end",
        choices=("prior", "recognition", "annealed"),
    )


def hold(refusal: str) -> None:
    """Raise ValueError for a refusal, where there is one."""
    if refusal:
        raise ValueError(refusal)
