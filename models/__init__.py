"""What is modelled. A name stands for one density: change the density, change the name.

To add a model: write a `Model` in a file of its own and give it a line here. `MODELS[name](n_x, n_latent, n_hidden)`
builds one.
"""

from collections.abc import Callable

from models.base import Model
from models.gaussian_mixture import GaussianMixture
from models.group_effects import group_effects
from models.hierarchical_vae import HierarchicalVae
from models.linear_gaussian import linear_gaussian
from models.state_space import state_space
from models.supervised import Supervised
from models.vae import VaeBernoulli, VaeGaussian, VaeGaussianUnit
from models.vae_categorical import VaeCategorical
from models.vae_deep import VaeDeep
from models.vae_negative_binomial_sized import VaeNegativeBinomialSized
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
    "hierarchical_vae": HierarchicalVae,
    "state_space": state_space,
    "supervised": Supervised,
    "group_effects": group_effects,
    "gaussian_mixture": GaussianMixture,
    "vae_negative_binomial_sized": VaeNegativeBinomialSized,
}
