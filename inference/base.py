"""The contracts between models, engines and backends, and nothing else.

A program is a callable `program(ppl, *args)` that samples sites. Keys are explicit: the same key gives the same draw.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from models.base import Array, Model, Params, Ppl

Key = Any  # an int for torch, a uint32 pair for jax: only ever passed on
Program = Callable[..., Any]
State = dict[str, Any]  # nested dicts of arrays: what the next step needs, and what a checkpoint holds


class Optimizer(NamedTuple):
    """A gradient transformation over flat dicts of arrays, written once for both engines (see `optim`).

    `init(xp, params, step_size) -> state` and `update(xp, grads, state) -> (updates, state)`; updates are added to
    the parameters to MINIMISE.
    """

    init: Callable[[Any, Params, Array], State]
    update: Callable[[Any, Params, State], tuple[Params, State]]


class Svi(Protocol):
    """The library's own stochastic variational inference, with its state made explicit."""

    def init(self, params: Params, step_size: Array) -> State:
        """Return {"params", "optimizer"}."""

    def update(self, key: Key, state: State, *args: Any) -> tuple[State, Array]:
        """Take one step on the negative ELBO at `args`; return the new state and the loss, in nats."""


class Site(NamedTuple):
    """What a program said under one name, as the library recorded it.

    `kind` is the library's word for the statement: sample, param, deterministic and so on. `fn` is the distribution, or
    None. `scale` is None or 1 where nothing scales the score; `masked` says whether something hides part of it;
    `plates` are the dims and sizes of the plates around it, outermost first.
    """

    kind: str
    fn: Any
    value: Array
    observed: bool
    scale: Any
    masked: bool
    plates: tuple[tuple[int | None, int], ...]


class Engine(Protocol):
    """One PPL and its array library: the verbs every backend is written against."""

    def __hash__(self) -> int: ...

    name: str
    ppl: Ppl

    @property
    def compiling_seconds(self) -> float:
        """Seconds that this process has spent on tracing and compiling with the library, whichever engine asked."""

    def pinned(self) -> AbstractContextManager[None]:
        """Return a context in which the library's global settings are those that the engine's numbers are defined by.

        The caller's own come back after it. Every verb, and what `compile` and `value_and_grad` return, runs in one
        by itself; enter it for arithmetic between verbs. Within another it costs next to nothing.
        """

    def draw(self, key: Key, program: Program, *args: Any) -> Params:
        """Run a program; return the value of each of its sites, reparameterised where the distribution can be."""

    def log_prob(self, program: Program, values: Mapping[str, Array], *args: Any) -> Array:
        """Score values for every site: log density in nats, summed over sites, one number per datapoint.

        Leading sample axes of `values` stay: z [L, n, k] gives [L, n]. Raises ValueError where a site has no value.
        """

    def conditional(self, program: Program, site: str, values: Mapping[str, Array], *args: Any) -> Any:
        """Return the library's distribution at `site`, given values for all sites."""

    def sites(self, key: Key, program: Program, values: Mapping[str, Array], *args: Any) -> dict[str, Site]:
        """Run a program with values for some of its sites; return all that it said, plates apart, by name, in order."""

    def outline(self, key: Key, program: Program, *args: Any) -> dict[str, Site]:
        """Return what `sites` says of a program's names, kinds, shapes and supports; other numbers may not be there.

        Where they need not be worked out for it, they are not: in jax each operation would be compiled by itself.
        """

    def value_and_grad(self, function: Callable[..., Any], has_aux: bool = False) -> Callable[..., Any]:
        """Differentiate a scalar function with respect to its first argument, an array or a flat dict of arrays."""

    def scan(
        self, step: Callable[..., Any], carry: Any, xs: tuple[Array, ...], count: Array | None = None
    ) -> tuple[Any, Any]:
        """Fold step(carry, x) -> (carry, y) over the leading axis of xs; stack y, a NamedTuple of scalars or None.

        With a `count` [] it folds over the first so many, and y is 0 from there on: one compiled program for any count.
        """

    def compile(self, function: Callable[..., Any], consumed: bool = False) -> Callable[..., Any]:
        """Return the function, compiled for the shapes of its arguments where the engine can.

        Where the first argument is `consumed`, its arrays may not be read any more: their memory may hold the result.
        """

    def at_once(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return function(*args), for the few calls that are not worth a graph of torch's.

        In jax it is one program: there each operation by itself would be compiled by itself.
        """

    def put(self, array: Array, indices: Array, rows: Array) -> Array:
        """Return a copy of `array` with array[indices] = rows; the input stays as it was."""

    def array(self, value: Any) -> Array:
        """Copy NumPy values to the device: floats as float32, integers as the library's index type."""

    def numpy(self, value: Array) -> Any:
        """Copy an array back to NumPy."""

    def key(self, seed: int) -> Key: ...

    def split(self, key: Key, count: int = 2) -> Any: ...

    def fold_in(self, key: Key, data: Any) -> Key:
        """Derive the key number `data` (a step, say) from a key."""

    def svi(self, model: Program, guide: Program, optimizer: Optimizer, estimator: str, particles: int) -> Svi:
        """Wrap the library's SVI around model(ppl, params, *args) and guide(ppl, params, *args).

        `estimator` A is equation 6 of the paper (`Trace_ELBO`), B is equation 7 (analytic KL, `TraceMeanField_ELBO`).
        """


def setting(default: Any, text: str, **limits: Any) -> Any:
    """Declare a field that is also a flag: its help text, and its limits (`choices`, `low`, `high`, `above`).

    With `or_file`, `path/to/file.py:NAME` may stand in place of a choice. One that `spans` takes several values, which
    span a grid; `all` are those that the word stands for, where these are not all choices. `flag` is its name, where
    that is not the field's, or False: a setting, and no flag; `also` are names that it had, which are still taken.
    `about` is the group of the help that it stands in, where that does not follow from the card whose settings it is
    one of. `before` is what results had before there was the setting, where that is not its default.
    """
    return field(default=default, metadata={"help": text, **limits})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What every backend may be told; one with more to be told adds fields in a class of its own, in its own file.

    The defaults are the paper's where it has one (section 5, appendix E).
    """

    theta: str = setting(
        "map",
        "generative parameters: map (prior N(0, I) on theta, the paper's weight decay), ml (no prior) or vb (a normal "
        "q(theta) in place of a point, appendix F: methods that climb a bound)",
        choices=("ml", "map", "vb"),
        spans=True,
    )
    optimizer: str = setting(
        "adagrad",
        "optimiser of theta and phi; sgd has nothing to accumulate, and no warm-up",
        choices=("adagrad", "adam", "sgd"),
        spans=True,
    )
    warmup: int = setting(
        100, "first steps in which the optimiser accumulates without moving (authors' code: 100) [steps]", low=0
    )
    estimator: str = setting(
        "B",
        "estimator of the bound's gradient: A (equation 6, all sampled), B (equation 7, analytic KL), stl (A without "
        "its score term), score (score function, section 2.2), score_loo (with a leave-one-out baseline), or, of the "
        "L-sample bound, iwae and dreg (doubly reparameterised)",
        choices=("A", "B", "stl", "score", "score_loo", "iwae", "dreg"),
        spans=True,
    )
    minibatch: int = setting(100, "M, datapoints in a minibatch [datapoints]", low=1, high=100_000)
    particles: int = setting(1, "L, draws of z for each datapoint and step [draws]", low=1, high=1000)


class Batch(NamedTuple):
    """A minibatch: rows x [m, n_x], their indices [m] in the training set, and the fraction m / N of it they are."""

    x: Array
    indices: Array
    fraction: float


class Info(NamedTuple):
    """What a diagnostician wants of one step, all scalars.

    `objective`: what the backend climbs, in nats per datapoint (the ELBO where it has one; higher is better).
    `decoder_evals`: how often p(x | z) was evaluated or differentiated at one datapoint.
    `acceptance`: mean acceptance probability of HMC, NaN without one.
    """

    objective: Array
    decoder_evals: Array
    acceptance: Array


class Posterior(NamedTuple):
    """A backend's approximate posterior of given datapoints: program(ppl, *args) samples the site z [n, n_latent].

    The last of `args` holds one row for each datapoint, an array or a dict of arrays; those before it are shared.
    `fit_steps` says how many local optimisation steps it took to have it (0 for an amortized guide).
    """

    program: Program
    args: tuple[Any, ...]
    fit_steps: int = 0

    def take(self, indices: Array) -> "Posterior":
        """Return the posterior of some of the datapoints."""
        return self._replace(args=(*self.args[:-1], taken(self.args[-1], indices)))


class Backend(NamedTuple):
    """An inference method: arrays in, arrays out.

    `init(key, theta, phi, x, step_size) -> state` sees the whole training set x [N, n_x]. One that memory does not hold
    has len, shape and, where it is indexed, rows in NumPy.
    `step(key, state, batch) -> (state, info)`.
    `theta(state)` is the fitted model's parameters.
    `posterior(key, state, x, indices)` is q(z | x) for rows x: of the training set at `indices`, or new ones (None).
    It never touches theta; the whole field is None for a method that has no q.
    `theta_posterior(state)` is q(theta), for `Settings.theta` vb: a program with a site for each of theta's names,
    whose two args are mean and log standard deviation of a diagonal normal; None where theta is a point. With a
    q(theta) `theta(state)` is its mean.
    """

    init: Callable[..., State]
    step: Callable[[Key, State, Batch], tuple[State, Info]]
    theta: Callable[[State], Params]
    posterior: Callable[[Key, State, Array, Array | None], Posterior] | None
    theta_posterior: Callable[[State], Posterior] | None = None


class Method(NamedTuple):
    """A backend's card: what is known of it before it is built. A bare `build` makes one: Method(build).

    `build(engine, model, settings) -> Backend`, with settings of the card's class. `has_q` says whether it has a
    q(z | x), `has_q_theta` whether it can have a q(theta) (`Settings.theta` vb); None: ask what was built.
    `full_batch(settings)` says whether a step consumes the full training set, in one order at every step, and not a
    minibatch; `evaluations(settings)` how often p(x | z) is evaluated or differentiated for each datapoint
    consumed, `updates(settings)` how often the optimiser moves theta in a step: 0 where there is none, and so no step
    size. `refuses(model, settings)` says why it cannot fit a model so, and what can; nothing where it can.
    `version(settings)` is the version of its numbers, raised by a change that moves them.
    """

    build: Callable[["Engine", Model, Any], Backend]
    title: str = ""
    settings: type[Settings] = Settings
    has_q: bool | None = None
    has_q_theta: bool | None = None
    full_batch: Callable[[Any], bool] = lambda settings: False
    evaluations: Callable[[Any], float] = lambda settings: 2.0
    updates: Callable[[Any], int] = lambda settings: 1
    refuses: Callable[[Model, Any], str] = lambda model, settings: ""
    version: Callable[[Any], int] = lambda settings: 0

    def batch(self, settings: Settings, n_train: int) -> int:
        """Return how many datapoints a step consumes."""
        return n_train if self.full_batch(settings) else settings.minibatch


def taken(rows: Any, indices: Array) -> Any:
    """Return some of the rows of an array, or of each array in a flat dict."""
    if isinstance(rows, dict):
        return {name: values[indices] for name, values in rows.items()}
    return rows[indices]


def pick(params: Params, prefix: str) -> Params:
    """Return the entries `prefix.name` of a flat dict, by their bare names."""
    start = prefix + "."
    return {name.removeprefix(start): value for name, value in params.items() if name.startswith(start)}


def join(**groups: Params) -> Params:
    """Merge named groups into one flat dict with names `group.name`: the inverse of `pick`."""
    return {f"{group}.{name}": value for group, params in groups.items() for name, value in params.items()}


def numpys(engine: Engine, state: State) -> dict[str, Any]:
    """Copy a state to NumPy, nested as it is."""
    return {k: numpys(engine, v) if isinstance(v, dict) else engine.numpy(v) for k, v in state.items()}


def arrays(engine: Engine, state: dict[str, Any]) -> State:
    """Copy a state in NumPy to the engine, nested as it is."""
    return {k: arrays(engine, v) if isinstance(v, dict) else engine.array(v) for k, v in state.items()}


def repeated(program: Program, count: int) -> Program:
    """Return the program run `count` times at once: every site gains a leading axis."""

    def run(ppl: Ppl, *args: Any) -> None:
        with ppl.plate("repeated", count, dim=-2):
            program(ppl, *args)

    return run
