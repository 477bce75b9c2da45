"""Counts, such as words or reads of genes: the paper's MLPs with a Poisson or a negative binomial decoder."""

from collections.abc import Mapping
from dataclasses import dataclass

from models.base import Array, Params, Ppl
from models.vae import OneHiddenLayer


@dataclass(frozen=True)
class VaePoisson(OneHiddenLayer):
    """Poisson decoder with a log link: x ~ Poisson(exp(tanh(z w1 + b1) w2 + b2)), columns independent given z.

    The encoder sees log(1 + x), which keeps its hidden units from saturating where counts are large.
    """

    support = "count"
    standard = True

    def generative(self, ppl: Ppl, theta: Params, n: int) -> None:
        with ppl.plate("data", n):
            _, log_mean = self.decoded(ppl, theta)
            ppl.sample("x", ppl.dist.Poisson(ppl.xp.exp(log_mean)).to_event(1))

    def recognition(self, ppl: Ppl, phi: Params, x: Array) -> None:
        super().recognition(ppl, phi, ppl.xp.log1p(x))


@dataclass(frozen=True)
class VaeNegativeBinomial(VaePoisson):
    """Negative binomial decoder: counts that vary more than a Poisson's, by a dispersion of each column's own.

    x ~ NB with mean m = exp(tanh(z w1 + b1) w2 + b2) and variance m + m^2 exp(-log_r): a Poisson whose rate is drawn
    from a gamma of shape exp(log_r) and mean m. log_r starts at 0.
    """

    columns = "negative binomial"
    standard = True

    @property
    def theta_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {**super().theta_shapes, "log_r": (self.n_x,)}

    def generative(self, ppl: Ppl, theta: Params, n: int) -> None:
        with ppl.plate("data", n):
            _, log_mean = self.decoded(ppl, theta)
            rate = ppl.xp.exp(theta["log_r"] - log_mean)
            ppl.sample("x", ppl.dist.GammaPoisson(ppl.xp.exp(theta["log_r"]), rate).to_event(1))
