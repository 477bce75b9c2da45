"""The Gaussian decoder with a floor under its variance: a model that an attempt on Frey Face names as a user would."""

from dataclasses import dataclass

from models.base import Params, Ppl, standard_normal_latents
from models.vae import VaeGaussian

# The standard deviation at which every pixel's best density is the paper's best on train, 1462 nats in 560 pixels.
# A higher floor would keep a curve from where the paper's ends.
FLOOR = 0.0178


@dataclass(frozen=True)
class Floored(VaeGaussian):
    """x ~ N(sigmoid(h w2 + b2), diag(exp(h w3 + b3) + FLOOR^2))."""

    def generative(self, ppl: Ppl, theta: Params, n: int) -> None:
        with ppl.plate("data", n):
            z = standard_normal_latents(ppl, self.n_latent)
            hidden = ppl.xp.tanh(ppl.xp.matmul(z, theta["w1"]) + theta["b1"])
            activation = ppl.xp.matmul(hidden, theta["w2"]) + theta["b2"]
            variance = ppl.xp.exp(ppl.xp.matmul(hidden, theta["w3"]) + theta["b3"]) + FLOOR**2
            loc = 0.5 * (ppl.xp.tanh(0.5 * activation) + 1.0)
            ppl.sample("x", ppl.dist.Normal(loc, ppl.xp.sqrt(variance)).to_event(1))
