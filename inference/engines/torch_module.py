"""Two torch modules, a decoder and an encoder, as a model for the pyro engine: theta and phi are their parameters."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch.func import functional_call

from models.base import Array, Params, Ppl
from models.networks import Network, Networks


def torch_model(
    decoder: torch.nn.Module,
    encoder: torch.nn.Module,
    *,
    n_x: int,
    n_latent: int,
    likelihood: str | Callable[[Ppl, Any], Any],
    scale: str = "log_variance",
    shape: tuple[int, ...] = (),
    support: str = "real",
) -> Networks:
    """Return the model p(x | z) by `decoder`, q(z | x) = N(mean, diag scale^2) by `encoder`; see `models.networks`.

    theta and phi are all parameters of the modules by their names in `state_dict`, in float32; buffers are constants.
    Their initial values are those that the modules hold, for every seed: load a state dict, or call torch.manual_seed
    before you build them. The modules are copied, and the copies put into evaluation mode: batch normalisation by the
    averages that it has, and no dropout. So a datapoint's score is its own, and repeats.

    The decoder maps z [m, n_latent] to logits ("bernoulli"), mean and log variance ("normal"), log rate ("poisson") or
    mean ("unit_normal") [m, n_x], or to what your function (ppl, output) makes a distribution of, for data of `support`
    "unit", "count" or "real". The encoder maps x [m, *shape], by default [m, n_x], to the mean and `scale`:
    "log_variance", "log_std" or "std" [m, n_latent]. Two outputs may be one of twice the width.

    Raises ValueError for modules that do not take or give these shapes, or that share a parameter.
    """
    shared = {id(one) for one in decoder.parameters()} & {id(one) for one in encoder.parameters()}
    if shared:
        names = [name for name, one in decoder.named_parameters() if id(one) in shared]
        raise ValueError(
            f"decoder and encoder share {', '.join(names)}, and theta and phi cannot; copy it into one of them"
        )
    (decode, theta), (encode, phi) = _function(decoder), _function(encoder)
    ours, theirs = ({name: value.numpy() for name, value in group.items()} for group in (theta, phi))
    model = Networks(n_x, n_latent, decode, encode, ours, theirs, likelihood, ("pyro",), scale, shape, support)
    with torch.no_grad():
        return model.hold(lambda function, *args: function(*args), lambda width: torch.zeros(2, width), theta, phi)


def _function(module: torch.nn.Module) -> tuple[Network, Params]:
    """Return a module as a function of its parameters, and the parameters."""
    module = copy.deepcopy(module).to("cpu", torch.float32).eval()
    constants = dict(module.named_buffers())

    def run(params: Params, rows: Array) -> Any:
        held = {name: value.to(rows.device) for name, value in constants.items()}
        return functional_call(module, {**held, **params}, (rows,))

    return run, {name: value.detach().clone() for name, value in module.named_parameters()}
