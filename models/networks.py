"""A model of two networks that somebody else has written, decoder and encoder: functions of parameters and rows."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from models.base import Array, Model, Params, Ppl, standard_normal_latents

Network = Callable[[Params, Array], Any]  # (params, rows [m, ...]) -> an array [m, ...], or several


class Likelihood(NamedTuple):
    """What a column of x is, given so many decoder outputs of x's width. `support`, `columns`: a Model's."""

    outputs: int
    columns_of: Callable[..., Any]  # (ppl, *outputs) -> the library's distribution, a column's alone
    support: str = "real"
    columns: str = ""


LIKELIHOODS = {
    # A grey value is outside the support {0, 1}: the libraries' validation would refuse it.
    "bernoulli": Likelihood(
        1, lambda ppl, logits: ppl.dist.Bernoulli(logits=logits, validate_args=False), support="unit"
    ),
    "normal": Likelihood(2, lambda ppl, loc, log_variance: ppl.dist.Normal(loc, ppl.xp.exp(0.5 * log_variance))),
    "poisson": Likelihood(1, lambda ppl, log_rate: ppl.dist.Poisson(ppl.xp.exp(log_rate)), support="count"),
    "unit_normal": Likelihood(1, lambda ppl, loc: ppl.dist.Normal(loc, 1.0), columns="unit normal"),
}
SCALES: dict[str, Callable[[Ppl, Array], Array]] = {
    "log_variance": lambda ppl, value: ppl.xp.exp(0.5 * value),
    "log_std": lambda ppl, value: ppl.xp.exp(value),
    "std": lambda ppl, value: value,
}


@dataclass(frozen=True, eq=False)  # two networks are the same where they are one object: compiled code is kept by it
class Networks(Model):
    """p(x | z) by decoder(theta, z), and q(z | x) = N(mean, diag scale^2) by encoder(phi, x).

    The decoder sees rows z [m, n_latent], whatever the leading axes of z, the encoder rows x [m, *shape]. What they
    return is flattened to [m, d]. The decoder gives what `likelihood` takes: a name of LIKELIHOODS, or a function
    (ppl, output) -> a distribution of x or of its columns. The encoder gives the mean and what `scale` names, as two
    arrays or as one of twice the width; so does the decoder of "normal".

    `theta` and `phi` are the initial values, float32 NumPy, for every seed: they are the networks' own.
    """

    n_x: int
    n_latent: int
    decoder: Network
    encoder: Network
    theta: Params
    phi: Params
    likelihood: str | Callable[[Ppl, Any], Any]
    engines: tuple[str, ...] = ()
    scale: str = "log_variance"
    shape: tuple[int, ...] = ()
    support: str = "real"
    columns: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.likelihood, str):
            if self.likelihood not in LIKELIHOODS:
                known = ", ".join(LIKELIHOODS)
                raise ValueError(
                    f"likelihood {self.likelihood!r} is not one of {known}; or give a function of (ppl, output)"
                )
            card = LIKELIHOODS[self.likelihood]
            object.__setattr__(self, "support", card.support)
            object.__setattr__(self, "columns", card.columns)
        if self.scale not in SCALES:
            raise ValueError(f"scale {self.scale!r} is not one of {', '.join(SCALES)}")
        if self.shape and math.prod(self.shape) != self.n_x:
            raise ValueError(f"shape {self.shape} has {math.prod(self.shape)} numbers, and a row of x {self.n_x}")

    @property
    def theta_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: value.shape for name, value in self.theta.items()}

    def init(self, seed: int) -> tuple[Params, Params]:
        """Return the networks' own values, whatever the seed."""
        return {**self.theta}, {**self.phi}

    def decoded(self, theta: Params, z: Array) -> Any:
        """Return the decoder's output for z [..., n_latent]: an array [..., d], or a tuple of them."""
        return _by_rows(self.decoder, theta, z, (self.n_latent,))

    def encoded(self, phi: Params, x: Array) -> Any:
        """Return the encoder's output for x [n, n_x]: an array [n, d], or a tuple of them."""
        return _by_rows(self.encoder, phi, x, self.shape or (self.n_x,))

    def generative(self, ppl: Ppl, theta: Params, n: int) -> None:
        with ppl.plate("data", n):
            output = self.decoded(theta, standard_normal_latents(ppl, self.n_latent))
            if isinstance(self.likelihood, str):
                card = LIKELIHOODS[self.likelihood]
                found = card.columns_of(ppl, *_parts(output, card.outputs, self.n_x))
            else:
                found = self.likelihood(ppl, output)
            ppl.sample("x", found.to_event(1 - len(found.event_shape)))

    def recognition(self, ppl: Ppl, phi: Params, x: Array) -> None:
        loc, scale = _parts(self.encoded(phi, x), 2, self.n_latent)
        with ppl.plate("data", x.shape[0]):
            ppl.sample("z", ppl.dist.Normal(loc, SCALES[self.scale](ppl, scale)).to_event(1))

    def hold(self, run: Callable[..., Any], rows: Callable[[int], Array], theta: Params, phi: Params) -> "Networks":
        """Return it, once run(function, params, rows(width)) has shown that both networks give what they have to.

        Of what is returned the shapes alone are looked at. Raises ValueError, in one line.
        """
        decoded = _tried("decoder", run, self.decoded, theta, rows(self.n_latent))
        encoded = _tried("encoder", run, self.encoded, phi, rows(self.n_x))
        two = f"{self.n_latent}: the mean, and as many of {self.scale}"
        _hold("encoder", encoded, 2, self.n_latent, two, "n_latent")
        if isinstance(self.likelihood, str):
            count = LIKELIHOODS[self.likelihood].outputs
            _hold("decoder", decoded, count, self.n_x, f"{self.n_x} for {self.likelihood!r}", "n_x")
        return self


def _by_rows(network: Network, params: Params, values: Array, shape: tuple[int, ...]) -> Any:
    """Run a network on values [..., d] as rows [m, *shape]: one with convolutions has no place for other axes."""
    lead = tuple(values.shape[:-1])
    output = network(params, values.reshape((-1, *shape)))
    if isinstance(output, tuple | list):
        return tuple(each.reshape((*lead, -1)) for each in output)
    return output.reshape((*lead, -1))


def _parts(output: Any, count: int, width: int) -> tuple[Array, ...]:
    """Return the outputs one by one: those of a tuple, or the columns of one array, `width` each."""
    if isinstance(output, tuple):
        return output
    return tuple(output[..., i * width : (i + 1) * width] for i in range(count))


def _tried(network: str, run: Callable[..., Any], function: Callable[..., Any], params: Params, rows: Array) -> Any:
    try:
        return run(function, params, rows)
    except Exception as error:  # of somebody else's code, which may say anything
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"the {network} cannot be run on rows of {rows.shape[-1]} numbers: {reason}") from error


def _hold(network: str, output: Any, count: int, width: int, expected: str, name: str) -> None:
    several = isinstance(output, tuple)
    found = [each.shape[-1] for each in output] if several else [output.shape[-1]]
    if found != ([width] * count if several else [width * count]):
        times = f"{count} x " if count > 1 else ""
        raise ValueError(
            f"the {network} gives {' and '.join(map(str, found))} numbers a row, not {times}{expected}; "
            f"change it, or {name}"
        )
