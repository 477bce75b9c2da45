"""A NumPyro program of x, run with its parameters passed in and under the suite's names: see `models.pairs`."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro import handlers
from numpyro.distributions import biject_to, constraints
from numpyro.primitives import Messenger

from inference.engines.jax_apply import flattened
from models.base import Array, Params
from models.pairs import Look, Seen

UNIT = constraints.boolean, constraints.unit_interval


def rows(n: int, shape: tuple[int, ...], values: Any = 0.0) -> Array:
    """Return rows [n, *shape]."""
    return jnp.broadcast_to(jnp.asarray(values, jnp.float32), (n, *shape))


def look(program: Callable[[Any], Any], x: Array, seed: int, given: Mapping[str, Any]) -> Look:
    """Run a program on x from a seed. Raises ValueError."""
    seeded = handlers.seed(program, jax.random.PRNGKey(seed))
    with handlers.trace() as trace, handlers.substitute(data=given), _Whole(), numpyro.validation_enabled(False):
        seeded(x)
    params: Params = {}
    grown: dict[str, Callable[[Params], Any]] = {}
    for name, site in trace.items():
        if site["type"] == "param" and site["value"] is not None:  # a module asks for its own before it has any
            transform = biject_to(site["kwargs"].get("constraint", constraints.real))
            mine, tree = flattened(jax.tree.map(transform.inv, site["value"]), name)
            params |= mine
            grown[name] = partial(_grown, tree, transform)
    sites = {
        name: Seen(site["is_observed"], np.asarray(site["value"]), site["fn"])
        for name, site in trace.items()
        if site["type"] == "sample"
    }

    def run(params: Params, names: Mapping[str, str], x: Array) -> None:
        with _Handed({name: grow(params) for name, grow in grown.items()}, names, x.shape[0]):
            program(x)

    return Look(params, sites, {}, run)


def score(look: Look, x: Array) -> Array:
    """Return the sum of a program's log densities at the values that it had, [] in nats."""
    values = {name: jnp.asarray(site.value) for name, site in look.sites.items()}
    program = handlers.seed(handlers.condition(partial(look.run, look.params, {}), data=values), 0)
    with numpyro.validation_enabled(False):
        trace = handlers.trace(program).get_trace(x)
        return sum(trace[name]["fn"].log_prob(value).sum() for name, value in values.items())


def branches(function: Callable[[Array], Array], x: Array) -> str:
    """Say whether a function decides by an array's value; nothing where it does not."""
    try:
        jax.eval_shape(function, x)
    except jax.errors.ConcretizationTypeError:
        return "decides by an array's value, which may be another datapoint's; use jnp.where, not if and while"
    return ""


def _grown(tree: Callable[[Params], Any], transform: Any, params: Params) -> Any:
    return jax.tree.map(transform, tree(params))


class _Handed(Messenger):  # type: ignore[misc]
    """Hand a program the values of its parameters, rename its sites, and let none be observed."""

    def __init__(self, values: Params, names: Mapping[str, str], n: int) -> None:
        super().__init__()
        self._values, self._names, self._n = values, names, n

    def process_message(self, message: Any) -> None:
        if message["type"] == "param":
            message.update(value=self._values[message["name"]], stop=True)
        elif message["type"] == "deterministic":
            message["stop"] = True
        elif message["type"] == "plate" and message["args"][0] == self._n:
            message["name"] = "data"  # as in guides of the suite's own, or NumPyro warns of one that the model lacks
        elif message["type"] == "sample":
            message["name"] = self._names.get(message["name"], message["name"])
            if message["is_observed"]:
                message.update(is_observed=False, value=None)


class _Whole(Messenger):  # type: ignore[misc]
    """Refuse a plate that draws a part of the data, and what a program keeps from one call to the next."""

    def process_message(self, message: Any) -> None:
        name = message.get("name")
        if message["type"] == "mutable":
            raise ValueError(f"{name!r} is kept from one call to the next; hold it fixed, as in evaluation")
        if message["type"] == "plate" and message["args"][1] not in (None, message["args"][0]):
            size, part = message["args"]
            raise ValueError(f"the plate {name!r} takes {part} of {size}; drop subsample_size")
