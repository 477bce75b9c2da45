"""Networks of any depth, with the units that came after the paper's, and its Bernoulli decoder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from models.base import Array, Params, Ppl, standard_normal_latents
from models.guides import LogVarianceWeights

ACTIVATIONS = ("tanh", "relu", "elu", "gated")


@dataclass(frozen=True)
class VaeDeep(LogVarianceWeights):
    """x ~ Bernoulli(sigmoid(g(z) w_out + b_out)) and q(z | x) = N(f(x) w_loc + b_loc, diag exp(f(x) w_var + b_var)).

    f has `hidden` units in each of its layers, from x on, and g the same in reverse; none told are two layers of
    n_hidden. Layer i is a(h w{i} + b{i}) for the `activation` a, or "gated", (h w{i} + b{i}) sigmoid(h v{i} + c{i}), as
    Tomczak & Welling (2018) have it. Weights and biases start at U(-1 / sqrt(m), 1 / sqrt(m)) for the m inputs of their
    layer, as torch's do: N(0, 0.01^2) would all but silence the second layer.

    Grey values in [0, 1] are accepted, as by `vae_bernoulli`. Raises ValueError for another activation, and for a layer
    without units.
    """

    n_x: int
    n_latent: int
    n_hidden: int
    hidden: tuple[int, ...] = field(default=(), kw_only=True)
    activation: str = field(default="tanh", kw_only=True)
    support = "unit"
    standard = True

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation {self.activation!r}; choose from {', '.join(ACTIVATIONS)}")
        if min(self.widths) < 1:
            raise ValueError(f"hidden {self.hidden} has a layer without units; give each at least 1")

    @property
    def widths(self) -> tuple[int, ...]:
        """The units of each hidden layer, from x to z."""
        return tuple(self.hidden) or (self.n_hidden, self.n_hidden)

    @property
    def theta_shapes(self) -> Mapping[str, tuple[int, ...]]:
        *_, last = sizes = self.n_latent, *reversed(self.widths)
        return {**self._layers(sizes), "w_out": (last, self.n_x), "b_out": (self.n_x,)}

    @property
    def phi_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The name and shape of each parameter of q(z | x)."""
        *_, last = sizes = self.n_x, *self.widths
        heads = {f"{kind}_{of}": shape for of in ("loc", "var") for kind, shape in self._linear(last).items()}
        return {**self._layers(sizes), **heads}

    def init(self, seed: int) -> tuple[Params, Params]:
        rng = np.random.default_rng(seed)
        return _uniform(rng, self.theta_shapes), _uniform(rng, self.phi_shapes)

    def generative(self, ppl: Ppl, theta: Params, n: int) -> None:
        with ppl.plate("data", n):
            hidden = self._through(ppl, theta, standard_normal_latents(ppl, self.n_latent))
            logits = ppl.nn.linear(hidden, theta["w_out"], theta["b_out"])
            # A grey value is outside the support {0, 1}: the libraries' validation would refuse it.
            ppl.sample("x", ppl.dist.Bernoulli(logits=logits, validate_args=False).to_event(1))

    def recognition(self, ppl: Ppl, phi: Params, x: Array) -> None:
        hidden = self._through(ppl, phi, x)
        loc = ppl.nn.linear(hidden, phi["w_loc"], phi["b_loc"])
        log_variance = self.weighted(ppl.xp.matmul(hidden, phi["w_var"])) + phi["b_var"]
        with ppl.plate("data", x.shape[0]):
            ppl.sample("z", ppl.dist.Normal(loc, ppl.xp.exp(0.5 * log_variance)).to_event(1))

    def _linear(self, inputs: int) -> dict[str, tuple[int, ...]]:
        return {"w": (inputs, self.n_latent), "b": (self.n_latent,)}

    def _layers(self, sizes: Sequence[int]) -> dict[str, tuple[int, ...]]:
        kinds = (("w", "b"), ("v", "c"))[: 2 if self.activation == "gated" else 1]
        layers = [(f"{w}{i}", f"{b}{i}", pair) for i, pair in enumerate(pairwise(sizes), 1) for w, b in kinds]
        return {name: shape for w, b, pair in layers for name, shape in ((w, pair), (b, pair[1:]))}

    def _through(self, ppl: Ppl, params: Params, h: Array) -> Array:
        """Return the last hidden layer [..., n, widths] of the network that begins with h."""
        units = {"tanh": ppl.xp.tanh, "relu": ppl.nn.relu, "elu": ppl.nn.elu}
        for i in range(1, len(self.widths) + 1):
            linear = ppl.nn.linear(h, params[f"w{i}"], params[f"b{i}"])
            if self.activation == "gated":
                h = linear * ppl.nn.sigmoid(ppl.nn.linear(h, params[f"v{i}"], params[f"c{i}"]))
            else:
                h = units[self.activation](linear)
        return h


def _uniform(rng: np.random.Generator, shapes: Mapping[str, tuple[int, ...]]) -> Params:
    params, inputs = {}, 1
    for name, shape in shapes.items():
        inputs = shape[0] if len(shape) == 2 else inputs  # a bias stands behind its weights
        params[name] = (rng.uniform(-1.0, 1.0, shape) / np.sqrt(inputs)).astype(np.float32)
    return params
