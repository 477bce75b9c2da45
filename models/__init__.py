"""What is modelled. A name stands for one density: change the density, change the name.

To add a model: write a `Model` in a file of its own and give it a line here. `MODELS[name](n_x, n_latent, n_hidden)`
builds one.
"""

from collections.abc import Callable

from models.base import Model
from models.linear_gaussian import linear_gaussian
from models.vae import VaeBernoulli, VaeGaussian, VaeGaussianUnit
from models.vae_categorical import VaeCategorical
from models.vae_deep import VaeDeep
from models.vae_poisson import VaeNegativeBinomial, VaePoisson

MODELS: dict[str, Callable[[int, int, int], Model]] = {
    "vae_bernoulli": VaeBernoulli,
    "vae_gaussian": VaeGaussian,
    "vae_gaussian_unit": VaeGaussianUnit,
    "vae_poisson": VaePoisson,
    "vae_negative_binomial": VaeNegativeBinomial,
    "vae_categorical": VaeCategorical,
    "vae_deep": VaeDeep,
    "linear_gaussian": linear_gaussian,
}
