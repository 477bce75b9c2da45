"""Columns of levels, such as answers to a questionnaire or states of a site: the paper's MLPs, and a choice of one."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from models.base import Array, Params, Ppl
from models.vae import OneHiddenLayer, VaeBernoulli


@dataclass(frozen=True)
class VaeCategorical(OneHiddenLayer):
    """Each column of x is one of K = `levels` numbers 0 to K - 1, whose order means nothing to the model:

    p(x = k | z) = softmax(tanh(z w1 + b1) w2 + b2)[k], with the logits [..., n, n_x, K] of all columns in one row of w2
    [n_hidden, n_x K]. The encoder sees as many zeros and ones, one 1 for each column.

    Of a comparison's data, K is one more than the largest value, of training and test, unless it is told.
    """

    support = "count"
    columns = "categorical"
    standard = True
    levels: int = field(default=10, kw_only=True)

    @property
    def on_levels(self) -> VaeBernoulli:
        """The networks of `vae_bernoulli` for n_x K columns: its parameters are this model's."""
        sizes = self.n_x * self.levels, self.n_latent, self.n_hidden
        return VaeBernoulli(*sizes, guide_family=self.guide_family, prior_family=self.prior_family)

    @property
    def theta_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self.on_levels.theta_shapes

    def init(self, seed: int) -> tuple[Params, Params]:
        return self.on_levels.init(seed)

    def generative(self, ppl: Ppl, theta: Params, n: int) -> None:
        with ppl.plate("data", n):
            _, flat = self.decoded(ppl, theta)
            logits = flat.reshape((*flat.shape[:-1], self.n_x, self.levels))
            # A mixture of points is the libraries' Categorical, but scores numbers that are no integers of theirs, and
            # has a mean.
            points = ppl.dist.Delta(1.0 * ppl.xp.arange(self.levels)).expand(logits.shape)
            ppl.sample("x", ppl.dist.MixtureSameFamily(ppl.dist.Categorical(logits=logits), points).to_event(1))

    def recognition(self, ppl: Ppl, phi: Params, x: Array) -> None:
        chosen = 1.0 * (x[..., None] == ppl.xp.arange(self.levels))
        super().recognition(ppl, phi, chosen.reshape((*x.shape[:-1], self.n_x * self.levels)))
