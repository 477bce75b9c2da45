"""A model whose programs somebody else has written for one library: model(x) with obs=, guide(x), their own names."""

import inspect
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import numpy as np

from models.base import Array, Model, Params, Ppl


class Seen(NamedTuple):
    """A sample site as it ran: observed or not, its value, the library's distribution."""

    observed: bool
    value: np.ndarray
    fn: Any


class Look(NamedTuple):
    """What a program of x was found to be when it was run once.

    `params` are its parameters by name, unconstrained, float32; `sites` what it samples, by name, in order; `memory`
    names the parameters by what tells their memory apart. `run(params, names, x)` runs it under the engine's handlers,
    with these values, its sites renamed, and nothing observed.
    """

    params: Params
    sites: dict[str, Seen]
    memory: dict[Any, str]
    run: Callable[[Params, Mapping[str, str], Array], None]


class Library(Protocol):
    """What is asked of a PPL: `look` runs a program, `score` sums its sites' log densities at the values that it had.

    `branches` says whether a function of x looks at values; `rows` makes rows [n, *shape]; UNIT are the supports of
    values in [0, 1].
    """

    UNIT: tuple[Any, ...]

    def rows(self, n: int, shape: tuple[int, ...], values: Any = 0.0) -> Array: ...

    def look(self, program: Callable[[Any], Any], x: Array, seed: int, given: Mapping[str, Any]) -> Look: ...

    def score(self, look: Look, x: Array) -> Array: ...

    def branches(self, function: Callable[[Array], Array], x: Array) -> str: ...


@dataclass(frozen=True, eq=False)  # two pairs are the same where they are one object: compiled code is kept by it
class Pair(Model):
    """p(x, z) by `model` and q(z | x) by `guide`, programs of x [n, *shape] that `library` runs."""

    n_x: int
    n_latent: int
    library: Library
    model: Look
    guide: Look
    names: Mapping[str, str]  # of sites, by the program's own
    shape: tuple[int, ...]
    again: Callable[[int], tuple[Look, Look]]  # the programs, run from another seed
    support: str = "real"
    engines: tuple[str, ...] = ()

    @property
    def theta_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: value.shape for name, value in self.model.params.items()}

    def init(self, seed: int) -> tuple[Params, Params]:
        of_model, of_guide = self.again(seed)
        return of_model.params, of_guide.params

    def generative(self, ppl: Ppl, theta: Params, n: int) -> None:
        """Run the model on n rows of zeros: obs= is dropped, and nothing else of them is in the joint density."""
        self.model.run(theta, self.names, self.library.rows(n, self.shape))

    def recognition(self, ppl: Ppl, phi: Params, x: Array) -> None:
        self.guide.run(phi, self.names, x.reshape((-1, *self.shape)))


def paired(
    library: Library,
    engine: str,
    programs: tuple[Callable[[Any], Any], Callable[[Any], Any]],
    sizes: tuple[int, int],
    shape: tuple[int, ...],
    given: Mapping[str, Any],
) -> Pair:
    """Return model and guide as a Pair. Raises ValueError, in one line, for what is no p(x, z) and q(z | x)."""

    def again(seed: int) -> tuple[Look, Look]:
        model, guide = (library.look(program, library.rows(2, shape), seed, given) for program in programs)
        return model, guide

    model, guide = (_held(library, *item, shape, given) for item in zip(programs, ("model", "guide"), strict=True))
    names = _names(model, *sizes)
    both = [name for name in model.params if name in guide.params]
    both += [name for tensor, name in model.memory.items() if tensor in guide.memory]
    if both:
        raise ValueError(
            f"model and guide share the parameter {both[0]!r}, and theta and phi cannot; give each its own"
        )
    for look, kind in ((model, "model"), (guide, "guide")):
        _hold_score(library, look, kind, shape)
    support = _support(model.sites[next(iter(names))].fn, library.UNIT)
    return Pair(*sizes, library, model, guide, names, shape, again, support, (engine,))


def written_in(program: Callable[..., Any], libraries: Mapping[str, str]) -> str:
    """Return which of the libraries a program's file imports. Raises ValueError where that is not one."""
    while hasattr(program, "func"):  # of functools.partial
        program = program.func
    module = sys.modules.get(getattr(inspect.unwrap(program), "__module__", ""))
    homes = (v.__name__ if isinstance(v, ModuleType) else getattr(v, "__module__", "") for v in vars(module).values())
    found = {str(home).partition(".")[0] for home in homes} & libraries.keys()
    if len(found) != 1:
        many = " and ".join(sorted(found)) or f"none of {', '.join(libraries)}"
        raise ValueError(f"the model's file imports {many}; let it import the one that it is written in")
    return found.pop()


def _held(
    library: Library, program: Callable[[Any], Any], kind: str, shape: tuple[int, ...], given: Mapping[str, Any]
) -> Look:
    """Run a program on rows at random, and hold what can be seen of it. Raises ValueError."""
    x = library.rows(2, shape, np.random.default_rng(0).random((2, *shape)))
    try:
        look, more = (library.look(program, rows, 0, given) for rows in (x, library.rows(3, shape)))
    except Exception as error:  # of somebody else's code, which may say anything
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(f"the {kind} cannot be run on rows x {[2, *shape]}: {reason}") from error
    for name, value in look.params.items():
        if name not in more.params or more.params[name].shape != value.shape:
            raise ValueError(
                f"the {kind}'s parameter {name!r} depends on the number of rows; for a q of each datapoint's own "
                "take --backend mean_field"
            )
    for name, site in look.sites.items():
        if site.observed and not np.array_equal(site.value.ravel(), np.asarray(x).ravel()):
            raise ValueError(f"obs= of {name!r} is not x as it was given; change the data, and leave x as it is")
    return look


def _hold_score(library: Library, look: Look, kind: str, shape: tuple[int, ...]) -> None:
    """Hold that a score follows no branch, and that a model's does not hang on x, but for obs=. Raises ValueError."""
    x = library.rows(2, shape, 0.5)
    if reason := library.branches(lambda x: library.score(look, x), x):
        raise ValueError(f"the {kind} {reason}")
    if kind == "model" and float(library.score(look, 0 * x)) != float(library.score(look, 0 * x + 1)):
        raise ValueError("the model reads x elsewhere than in obs=, and so has no p(x | z); let it read x.shape alone")


def _names(look: Look, n_x: int, n_latent: int) -> dict[str, str]:
    """Return the suite's names of a model's sites: x of the one that it observes, and z where there is one other."""
    observed = [name for name, site in look.sites.items() if site.observed]
    latent = [name for name in look.sites if name not in observed]
    if len(observed) != 1 or not latent:
        words = f"observes {' and '.join(observed) or 'nothing'} and draws {' and '.join(latent) or 'nothing'}"
        raise ValueError(f"the model {words}; it has to observe one site, by obs=x, and to draw what is latent")
    sized = {observed[0]: ("n_x", n_x), **({latent[0]: ("n_latent", n_latent)} if len(latent) == 1 else {})}
    for name, (label, size) in sized.items():
        found = math.prod(look.sites[name].fn.event_shape)
        if found != size:
            raise ValueError(f"the site {name!r} has {found} numbers a datapoint, not {size}; let {label} be {found}")
    return {name: "x" if label == "n_x" else "z" for name, (label, _) in sized.items()}


def _support(fn: Any, unit: tuple[Any, ...]) -> str:
    while type(fn).__name__ in ("Independent", "ExpandedDistribution", "MaskedDistribution"):
        fn = fn.base_dist
    return "unit" if fn.support in unit else "count" if fn.support.is_discrete else "real"
