"""Two apply functions of jax, a decoder and an encoder, as a model for the numpyro engine: flax, equinox, haiku."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from models.base import Array, Params, Ppl
from models.networks import Network, Networks


def jax_model(
    decoder: Callable[[Any, Array], Any],
    encoder: Callable[[Any, Array], Any],
    theta: Any,
    phi: Any,
    *,
    n_x: int,
    n_latent: int,
    likelihood: str | Callable[[Ppl, Any], Any],
    scale: str = "log_variance",
    shape: tuple[int, ...] = (),
    support: str = "real",
) -> Networks:
    """Return the model p(x | z) by decoder(theta, z), q(z | x) = N(mean, diag scale^2) by encoder(phi, x).

    theta and phi are pytrees, such as flax, haiku and `equinox.partition` give. Their floating arrays are parameters,
    in float32, by the names on the way to them, joined by dots: "Dense_0.kernel". Other leaves are constants. The
    initial values are those given, for every seed.

    What the functions take and give is said at `inference.engines.torch_module.torch_model`, with `scale`, `shape` and
    `likelihood`. They draw no noise: apply dropout and batch normalisation as in evaluation.

    Raises ValueError for functions that do not take or give these shapes.
    """
    (decode, theta), (encode, phi) = _function(decoder, theta), _function(encoder, phi)
    model = Networks(n_x, n_latent, decode, encode, theta, phi, likelihood, ("numpyro",), scale, shape, support)
    return model.hold(jax.eval_shape, lambda width: jax.ShapeDtypeStruct((2, width), jnp.float32), theta, phi)


def flattened(tree: Any, stem: str = "") -> tuple[Params, Callable[[Params], Any]]:
    """Return a pytree's floating arrays by name, float32 NumPy, and what makes the tree of such a dict again."""
    leaves, form = jax.tree_util.tree_flatten_with_path(tree)
    named = {".".join(filter(None, (stem, _name(path)))): leaf for path, leaf in leaves}
    if len(named) < len(leaves):
        raise ValueError("two parameters have one name; rename one of them")
    params = {
        name: np.asarray(leaf, np.float32)
        for name, leaf in named.items()
        if hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
    }

    def grown(params: Params) -> Any:
        return jax.tree_util.tree_unflatten(form, [params.get(name, leaf) for name, leaf in named.items()])

    return params, grown


def _name(path: Any) -> str:
    """Join the names on a path by dots; a slash parts groups in the files of fits."""
    return jax.tree_util.keystr(path, simple=True, separator=".").replace("/", ".")


def _function(apply: Callable[[Any, Array], Any], tree: Any) -> tuple[Network, Params]:
    params, grown = flattened(tree)
    return lambda params, rows: apply(grown(params), rows), params
