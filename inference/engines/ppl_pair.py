"""An ordinary Pyro or NumPyro pair, model(x) with obs= and guide(x), as a model: taken as it is written."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from models.pairs import Pair, paired, written_in

LIBRARIES = {"pyro": "inference.engines.pyro_pair", "numpyro": "inference.engines.numpyro_pair"}  # by engine


def ppl_pair(
    model: Callable[[Any], Any],
    guide: Callable[[Any], Any],
    *,
    n_x: int,
    n_latent: int,
    shape: tuple[int, ...] = (),
    params: Mapping[str, Any] | None = None,
) -> Pair:
    """Return functions of x [n, *shape], by default [n, n_x], as a model; their file tells which library they are in.

    The site that the model observes is x, the one that it draws z, whatever they are called. theta are the model's
    parameters and phi the guide's, by the library's names: pyro.param, pyro.module and PyroModule; numpyro.param, and
    flax and equinox modules by it. They are held unconstrained, by the library's own transform; p(theta) = N(0, I) is
    of these. Initial values are the program's own, from the seed where it draws them, or `params`, constrained: what
    `pyro.get_param_store().items()` and NumPyro's `SVI.get_params` have after training.

    Raises ValueError, in one line, for a pair that is no p(x, z) and q(z | x): without obs=, with x read or changed on
    its way there, a parameter of both or one a datapoint, a plate that subsamples, a branch on a tensor's value.
    """
    engine = written_in(model, LIBRARIES)
    library: Any = import_module(LIBRARIES[engine])
    return paired(library, engine, (model, guide), (n_x, n_latent), shape or (n_x,), dict(params or {}))
