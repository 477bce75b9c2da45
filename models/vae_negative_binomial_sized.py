"""Counts of which as many are drawn as a library holds, such as reads of a cell: its size is a covariate."""

from dataclasses import dataclass, field

from models.base import Array, Params, Ppl
from models.vae_poisson import VaeNegativeBinomial


@dataclass(frozen=True)
class VaeNegativeBinomialSized(VaeNegativeBinomial):
    """scVI's decoder with an observed library size (Lopez et al. 2018), and the paper's MLPs:

    x ~ NB with mean m = size softmax(tanh(z w1 + b1) w2 + b2) and variance m + m^2 exp(-log_r)

    for the positive size [n, 1] of each datapoint, often its total count: z then says of what x is made, and not how
    much of it there is. The encoder sees log(1 + x).
    """

    n_size: int = field(default=1, kw_only=True)
    given = ("size",)
    standard = True

    def generative(self, ppl: Ppl, theta: Params, n: int, size: Array = None) -> None:
        xp = ppl.xp
        with ppl.plate("data", n):
            _, activation = self.decoded(ppl, theta)
            log_mean = xp.log(size) + activation - ppl.nn.logsumexp(activation)[..., None]
            rate = xp.exp(theta["log_r"] - log_mean)
            ppl.sample("x", ppl.dist.GammaPoisson(xp.exp(theta["log_r"]), rate).to_event(1))

    def recognition(self, ppl: Ppl, phi: Params, x: Array, size: Array = None) -> None:
        super().recognition(ppl, phi, x)
