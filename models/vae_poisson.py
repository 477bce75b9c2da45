"""Counts, such as words or reads of genes: the paper's MLPs with a Poisson decoder."""

from dataclasses import dataclass

from models.base import Array, Params, Ppl, standard_normal_latents
from models.vae import OneHiddenLayer


@dataclass(frozen=True)
class VaePoisson(OneHiddenLayer):
    """Poisson decoder with a log link: x ~ Poisson(exp(tanh(z w1 + b1) w2 + b2)), columns independent given z.

    The encoder sees log(1 + x), which keeps its hidden units from saturating where counts are large.
    """

    support = "count"

    def generative(self, ppl: Ppl, theta: Params, n: int) -> None:
        with ppl.plate("data", n):
            z = standard_normal_latents(ppl, self.n_latent)
            hidden = ppl.xp.tanh(ppl.xp.matmul(z, theta["w1"]) + theta["b1"])
            log_rate = ppl.xp.matmul(hidden, theta["w2"]) + theta["b2"]
            ppl.sample("x", ppl.dist.Poisson(ppl.xp.exp(log_rate)).to_event(1))

    def recognition(self, ppl: Ppl, phi: Params, x: Array) -> None:
        super().recognition(ppl, phi, ppl.xp.log1p(x))
