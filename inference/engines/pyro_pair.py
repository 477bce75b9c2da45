"""A Pyro program of x, run with its parameters passed in and under the suite's names: see `models.pairs`."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch.distributions import constraints, transform_to
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from inference.engines import torch_graphs
from models.base import Array, Params
from models.pairs import Look, Seen

UNIT = constraints.boolean, constraints.unit_interval


def rows(n: int, shape: tuple[int, ...], values: Any = 0.0) -> Array:
    """Return rows [n, *shape] on the default device."""
    return torch.zeros(n, *shape) + torch.as_tensor(values, dtype=torch.float32)


def look(program: Callable[[Any], Any], x: Array, seed: int, given: Mapping[str, Any]) -> Look:
    """Run a program on x from a seed, in a parameter store of its own. Raises ValueError."""
    store = pyro.get_param_store()
    with store.scope(), torch.random.fork_rng(devices=[]), pyro.validation_enabled(False), _Whole():
        torch.manual_seed(seed)
        trace = poutine.trace(program).get_trace(x)
        own, transforms = dict(store.named_parameters()), store.get_state()["constraints"]
    transforms = {name: transform_to(constraint) for name, constraint in transforms.items()}
    held = own | {name: transforms[name].inv(torch.as_tensor(given[name])) for name in own if name in given}
    params = {name: value.detach().cpu().numpy().astype(np.float32) for name, value in held.items()}
    sites = {
        name: Seen(site["is_observed"], site["value"].detach().cpu().numpy(), site["fn"])
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not poutine.util.site_is_subsample(site) and not _said(site)
    }

    def run(params: Params, names: Mapping[str, str], x: Array) -> None:
        values = {name: transforms[name](value) for name, value in params.items()}
        with _Handed(values, names), _Swapped({id(tensor): params[name] for name, tensor in own.items()}):
            program(x)

    return Look(params, sites, {id(tensor): name for name, tensor in own.items()}, run)


def score(look: Look, x: Array) -> Array:
    """Return the sum of a program's log densities at the values that it had, [] in nats."""
    params, values = ({name: torch.as_tensor(v) for name, v in one.items()} for one in (look.params, _values(look)))
    program = poutine.condition(partial(look.run, params, {}), data=values)
    with pyro.validation_enabled(False):
        nodes = poutine.trace(program).get_trace(x).nodes
    return sum(nodes[name]["fn"].log_prob(value).sum() for name, value in values.items())


def branches(function: Callable[[Array], Array], x: Array) -> str:
    """Say whether a function decides by a tensor's value, or draws noise; nothing where it does neither."""
    try:
        torch_graphs.trace(lambda x: [function(x)], [x])
    except torch_graphs.TraceError as error:
        if "draws" in str(error):
            return "draws noise that is of no site, such as dropout's; call eval() on its modules"
        return "decides by a tensor's value, which may be another datapoint's; use torch.where, not if and while"
    return ""


class _Handed(Messenger):  # type: ignore[misc]
    """Hand a program the values of its parameters, rename its sites, and let none be observed."""

    def __init__(self, values: Params, names: Mapping[str, str]) -> None:
        super().__init__()
        self._values, self._names = values, names

    def _pyro_param(self, message: Any) -> None:
        message.update(value=self._values[message["name"]], done=True, stop=True)

    def _pyro_sample(self, message: Any) -> None:
        if _said(message):
            message["stop"] = True
        elif not poutine.util.site_is_subsample(message):
            message["name"] = self._names.get(message["name"], message["name"])
            if message["is_observed"]:
                message.update(is_observed=False, value=None, done=False)


class _Swapped(TorchFunctionMode):  # type: ignore[misc]
    """Put tensors in the place of a module's own parameters, wherever a program finds these."""

    def __init__(self, values: dict[int, Array]) -> None:
        super().__init__()
        self._values = values

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func != torch.Tensor.requires_grad.__get__:  # by which pyro.module knows what is a parameter
            args, kwargs = tree_map(self._swapped, (args, kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _swapped(self, value: Any) -> Any:
        return self._values.get(id(value), value)


class _Whole(Messenger):  # type: ignore[misc]
    """Refuse a plate that draws a part of the data."""

    def _pyro_sample(self, message: Any) -> None:
        part = getattr(message["fn"], "subsample_size", None)
        if poutine.util.site_is_subsample(message) and part not in (None, message["fn"].size):
            raise ValueError(f"the plate {message['name']!r} takes {part} of {message['fn'].size}; drop subsample_size")


def _values(look: Look) -> dict[str, np.ndarray]:
    return {name: site.value for name, site in look.sites.items()}


def _said(site: Any) -> bool:
    """Say whether a site is of `pyro.deterministic`, which is no density."""
    return bool(site["infer"].get("_deterministic"))
