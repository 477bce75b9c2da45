"""Models that break what the judge counts on, each in one way, for either engine; and two that only look so.

A file as a user would write it: `--model tests/hostile.py:NAME`. `BREACHES` says of each what the refusal has to name.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.base import Array, Model, Params, Ppl, small_normal, standard_normal_latents, zeros


@dataclass(frozen=True)
class Sound(Model):
    """Factor analysis in pieces that each of the models below replaces one of."""

    n_x: int
    n_latent: int
    n_hidden: int

    @property
    def theta_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"w": (self.n_latent, self.n_x), "b": (self.n_x,), "log_scale": (self.n_x,), "m": (self.n_latent,)}

    def init(self, seed: int) -> tuple[Params, Params]:
        rng = np.random.default_rng(seed)
        k, d = self.n_latent, self.n_x
        theta = {"w": small_normal(rng, k, d), "b": zeros(d), "log_scale": zeros(d), "m": zeros(k)}
        return theta, {"w": small_normal(rng, d, k), "b": zeros(k), "s": zeros(k)}

    def latent(self, ppl: Ppl, theta: Params, n: int) -> Array:
        return standard_normal_latents(ppl, self.n_latent)

    def loc(self, ppl: Ppl, theta: Params, z: Array) -> Array:
        return ppl.xp.matmul(z, theta["w"]) + theta["b"]

    def decoder(self, ppl: Ppl, theta: Params, z: Array) -> Any:
        return ppl.dist.Normal(self.loc(ppl, theta, z), ppl.xp.exp(theta["log_scale"])).to_event(1)

    def observe(self, ppl: Ppl, theta: Params, z: Array) -> None:
        ppl.sample("x", self.decoder(ppl, theta, z))

    def generative(self, ppl: Ppl, theta: Params, n: int) -> None:
        with ppl.plate("data", n):
            self.observe(ppl, theta, self.latent(ppl, theta, n))

    def mean(self, ppl: Ppl, phi: Params, x: Array) -> Array:
        return ppl.xp.matmul(x, phi["w"]) + phi["b"]

    def encoder(self, ppl: Ppl, phi: Params, x: Array) -> Any:
        return ppl.dist.Normal(self.mean(ppl, phi, x), ppl.xp.exp(phi["s"])).to_event(1)

    def recognition(self, ppl: Ppl, phi: Params, x: Array) -> None:
        with ppl.plate("data", x.shape[0]):
            ppl.sample("z", self.encoder(ppl, phi, x))


def library(ppl: Ppl) -> Any:
    """Return pyro or numpyro, whichever is handed in."""
    import importlib

    return importlib.import_module(ppl.dist.__name__.partition(".")[0])


def handlers(ppl: Ppl) -> Any:
    found = library(ppl)
    return found.poutine if found.__name__ == "pyro" else found.handlers


def like(ppl: Ppl, theta: Params, value: float) -> Array:
    """Return `value` as an array [n_latent]."""
    return ppl.xp.zeros_like(theta["m"]) + value


# Models that only look as if


class Spelt(Sound):
    """N(0, I) in another spelling, a scale of one, and a mean over a datapoint's own columns."""

    def latent(self, ppl: Ppl, theta: Params, n: int) -> Array:
        with ppl.scale(scale=1.0):
            return ppl.sample("z", ppl.dist.MultivariateNormal(like(ppl, theta, 0.0), ppl.xp.eye(self.n_latent)))

    def mean(self, ppl: Ppl, phi: Params, x: Array) -> Array:
        return super().mean(ppl, phi, x - x.mean(-1)[..., None])


class Wide(Sound):
    """A heavy-tailed guide, and a prior of theta written out."""

    def encoder(self, ppl: Ppl, phi: Params, x: Array) -> Any:
        return ppl.dist.StudentT(5.0, self.mean(ppl, phi, x), ppl.xp.exp(phi["s"])).to_event(1)

    def prior(self, ppl: Ppl) -> Params:
        return {
            name: ppl.sample(name, ppl.dist.Normal(0.0, 1.0).expand(list(shape)).to_event(len(shape)))
            for name, shape in self.theta_shapes.items()
        }


# The prior of z


class WidePrior(Sound):
    def latent(self, ppl: Ppl, theta: Params, n: int) -> Array:
        return ppl.sample("z", ppl.dist.Normal(like(ppl, theta, 0.0), 1.5).to_event(1))


class ShiftedPrior(Sound):
    def latent(self, ppl: Ppl, theta: Params, n: int) -> Array:
        return ppl.sample("z", ppl.dist.Normal(like(ppl, theta, 0.3), 1.0).to_event(1))


class HeavyPrior(Sound):
    def latent(self, ppl: Ppl, theta: Params, n: int) -> Array:
        return ppl.sample("z", ppl.dist.StudentT(4.0, like(ppl, theta, 0.0), 1.0).to_event(1))


class LearntPrior(Sound):
    """Standard at the initial theta alone."""

    def latent(self, ppl: Ppl, theta: Params, n: int) -> Array:
        return ppl.sample("z", ppl.dist.Normal(theta["m"], 1.0).to_event(1))


class FlowPrior(Sound):
    def latent(self, ppl: Ppl, theta: Params, n: int) -> Array:
        flow = ppl.dist.transforms.AffineTransform(0.0, 2.0)
        base = ppl.dist.Normal(like(ppl, theta, 0.0), 1.0)
        return ppl.sample("z", ppl.dist.TransformedDistribution(base, [flow]).to_event(1))


class MixturePrior(Sound):
    def latent(self, ppl: Ppl, theta: Params, n: int) -> Array:
        loc = ppl.xp.stack([like(ppl, theta, -1.0), like(ppl, theta, 1.0)])
        parts = ppl.dist.Categorical(logits=0.0 * loc[:, 0])
        return ppl.sample("z", ppl.dist.MixtureSameFamily(parts, ppl.dist.Normal(loc, 1.0).to_event(1)))


class PriorOfTheRow(Sound):
    def latent(self, ppl: Ppl, theta: Params, n: int) -> Array:
        rows = 0.1 * ppl.xp.arange(n)[:, None] + like(ppl, theta, 0.0)
        return ppl.sample("z", ppl.dist.Normal(rows, 1.0).to_event(1))


class DiscreteLatent(Sound):
    def latent(self, ppl: Ppl, theta: Params, n: int) -> Array:
        return 1.0 * ppl.sample("z", ppl.dist.Bernoulli(like(ppl, theta, 0.5)).to_event(1))


class CategoricalLatent(Sound):
    def latent(self, ppl: Ppl, theta: Params, n: int) -> Array:
        return ppl.sample("z", ppl.dist.Categorical(logits=theta["m"]))[..., None] + like(ppl, theta, 0.0)


class BoundedLatent(Sound):
    def latent(self, ppl: Ppl, theta: Params, n: int) -> Array:
        return ppl.sample("z", ppl.dist.Uniform(like(ppl, theta, -1.0), like(ppl, theta, 1.0)).to_event(1))


class PositiveLatent(Sound):
    def latent(self, ppl: Ppl, theta: Params, n: int) -> Array:
        return ppl.sample("z", ppl.dist.HalfNormal(like(ppl, theta, 1.0)).to_event(1))


# Shapes and plates


class TwiceAsMany(Sound):
    def latent(self, ppl: Ppl, theta: Params, n: int) -> Array:
        return standard_normal_latents(ppl, 2 * self.n_latent)[..., : self.n_latent]


class LatentsInTheBatch(Sound):
    def generative(self, ppl: Ppl, theta: Params, n: int) -> None:
        z = ppl.sample("z", ppl.dist.Normal(0.0, 1.0).expand([n, self.n_latent]))
        with ppl.plate("data", n):
            self.observe(ppl, theta, z)


class ColumnsInTheBatch(Sound):
    def generative(self, ppl: Ppl, theta: Params, n: int) -> None:
        with ppl.plate("data", n):
            z = self.latent(ppl, theta, n)
        ppl.sample("x", self.decoder(ppl, theta, z).base_dist)


class ExtraBatch(Sound):
    def observe(self, ppl: Ppl, theta: Params, z: Array) -> None:
        super().observe(ppl, theta, z[..., None, :, :])


class FewerColumns(Sound):
    def decoder(self, ppl: Ppl, theta: Params, z: Array) -> Any:
        return ppl.dist.Normal(self.loc(ppl, theta, z)[..., 1:], 1.0).to_event(1)


class NoPlate(Sound):
    def generative(self, ppl: Ppl, theta: Params, n: int) -> None:
        z = ppl.sample("z", ppl.dist.Normal(0.0, 1.0).expand([n, self.n_latent]).to_event(1))
        self.observe(ppl, theta, z)


class NoPlateInTheGuide(Sound):
    def recognition(self, ppl: Ppl, phi: Params, x: Array) -> None:
        ppl.sample("z", self.encoder(ppl, phi, x))


class JointGuide(Sound):
    """One number for all datapoints."""

    def recognition(self, ppl: Ppl, phi: Params, x: Array) -> None:
        ppl.sample("z", ppl.dist.Normal(self.mean(ppl, phi, x), 1.0).to_event(2))


class PlateOfColumns(Sound):
    def generative(self, ppl: Ppl, theta: Params, n: int) -> None:
        with ppl.plate("data", n, dim=-2):
            z = ppl.sample("z", ppl.dist.Normal(0.0, 1.0).expand([1, self.n_latent]).to_event(1))
            with ppl.plate("columns", self.n_x, dim=-1):
                ppl.sample("x", self.decoder(ppl, theta, z[..., 0, :]).base_dist)


class Subsampled(Sound):
    def generative(self, ppl: Ppl, theta: Params, n: int) -> None:
        with library(ppl).plate("data", 10 * n, subsample_size=n):
            self.observe(ppl, theta, self.latent(ppl, theta, n))


# Scales and masks


class Beta(Sound):
    """The beta-VAE of Higgins et al. 2017, by scaling the site z in both programs."""

    def latent(self, ppl: Ppl, theta: Params, n: int) -> Array:
        with ppl.scale(scale=4.0):
            return super().latent(ppl, theta, n)

    def recognition(self, ppl: Ppl, phi: Params, x: Array) -> None:
        with ppl.scale(scale=4.0):
            super().recognition(ppl, phi, x)


class ScaledX(Sound):
    def observe(self, ppl: Ppl, theta: Params, z: Array) -> None:
        with ppl.scale(scale=0.1):
            super().observe(ppl, theta, z)


class ScaledGuide(Sound):
    def recognition(self, ppl: Ppl, phi: Params, x: Array) -> None:
        with ppl.scale(scale=0.5):
            super().recognition(ppl, phi, x)


class ScaledByTheta(Sound):
    def observe(self, ppl: Ppl, theta: Params, z: Array) -> None:
        with ppl.scale(scale=ppl.xp.exp(theta["m"][0])):
            super().observe(ppl, theta, z)


class ScaledByRow(Sound):
    def observe(self, ppl: Ppl, theta: Params, z: Array) -> None:
        with ppl.scale(scale=ppl.xp.ones(z.shape[-2]) + 1.0):
            super().observe(ppl, theta, z)


class MaskedX(Sound):
    def observe(self, ppl: Ppl, theta: Params, z: Array) -> None:
        with handlers(ppl).mask(mask=ppl.xp.arange(z.shape[-2]) % 2 == 0):
            super().observe(ppl, theta, z)


class MaskedColumns(Sound):
    """As missing values are often written: within to_event."""

    def decoder(self, ppl: Ppl, theta: Params, z: Array) -> Any:
        columns = super().decoder(ppl, theta, z).base_dist
        return columns.mask(ppl.xp.arange(self.n_x) > 0).to_event(1)


class MaskedZ(Sound):
    def latent(self, ppl: Ppl, theta: Params, n: int) -> Array:
        return ppl.sample("z", ppl.dist.Normal(like(ppl, theta, 0.0), 1.0).to_event(1).mask(False))


class MaskedGuide(Sound):
    def recognition(self, ppl: Ppl, phi: Params, x: Array) -> None:
        with handlers(ppl).mask(mask=ppl.xp.arange(x.shape[0]) >= 0):
            super().recognition(ppl, phi, x)


# Parameters of their own


class Param(Sound):
    def decoder(self, ppl: Ppl, theta: Params, z: Array) -> Any:
        own = library(ppl).param("own", ppl.xp.ones(self.n_x))
        return ppl.dist.Normal(self.loc(ppl, theta, z) + own, 1.0).to_event(1)


class ParamInTheGuide(Sound):
    def mean(self, ppl: Ppl, phi: Params, x: Array) -> Array:
        return super().mean(ppl, phi, x) + library(ppl).param("own", ppl.xp.ones(self.n_latent))


class Module(Sound):
    """A network that Pyro registers by pyro.module; NumPyro's modules are one param statement too."""

    def mean(self, ppl: Ppl, phi: Params, x: Array) -> Array:
        if library(ppl).__name__ == "numpyro":
            own = library(ppl).param("net$params", {"w": ppl.xp.ones((self.n_x, self.n_latent))})
            return super().mean(ppl, phi, x) + ppl.xp.matmul(x, own["w"])
        torch: Any = ppl.xp
        net = library(ppl).module("net", torch.nn.Linear(self.n_x, self.n_latent))
        return super().mean(ppl, phi, x) + net(x)


class HiddenParam(Sound):
    """A parameter behind a handler that hides it. In NumPyro it is a constant there, and no breach."""

    def loc(self, ppl: Ppl, theta: Params, z: Array) -> Array:
        with handlers(ppl).block():
            return super().loc(ppl, theta, z) + library(ppl).param("own", ppl.xp.ones(self.n_x))


class Unregistered(Sound):
    """A torch network that nothing registers. A constant elsewhere."""

    def mean(self, ppl: Ppl, phi: Params, x: Array) -> Array:
        if library(ppl).__name__ == "numpyro":
            return super().mean(ppl, phi, x)
        torch: Any = ppl.xp
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net = torch.nn.Linear(self.n_x, self.n_latent)
        return super().mean(ppl, phi, x) + net(x)


# Sites


class Hierarchical(Sound):
    def latent(self, ppl: Ppl, theta: Params, n: int) -> Array:
        top = ppl.sample("top", ppl.dist.Normal(like(ppl, theta, 0.0), 1.0).to_event(1))
        return super().latent(ppl, theta, n) + top


class NoLatent(Sound):
    def latent(self, ppl: Ppl, theta: Params, n: int) -> Array:
        return like(ppl, theta, 0.0) + ppl.xp.zeros((n, 1))


class OtherName(Sound):
    def latent(self, ppl: Ppl, theta: Params, n: int) -> Array:
        return ppl.sample("latent", ppl.dist.Normal(like(ppl, theta, 0.0), 1.0).to_event(1))


class HiddenLatent(Sound):
    def latent(self, ppl: Ppl, theta: Params, n: int) -> Array:
        with handlers(ppl).block():
            seeded = handlers(ppl).seed(rng_seed=0)
            with seeded if library(ppl).__name__ == "numpyro" else nullcontext():
                return super().latent(ppl, theta, n)


class KnownLatent(Sound):
    def latent(self, ppl: Ppl, theta: Params, n: int) -> Array:
        value: Any = {"z": ppl.xp.zeros((n, self.n_latent))}
        return ppl.condition(lambda: super(KnownLatent, self).latent(ppl, theta, n), data=value)()


class NoX(Sound):
    def observe(self, ppl: Ppl, theta: Params, z: Array) -> None:
        pass


class XByOtherName(Sound):
    def observe(self, ppl: Ppl, theta: Params, z: Array) -> None:
        ppl.sample("y", self.decoder(ppl, theta, z))


class TwoObserved(Sound):
    def observe(self, ppl: Ppl, theta: Params, z: Array) -> None:
        super().observe(ppl, theta, z)
        ppl.sample("label", ppl.dist.Bernoulli(logits=z[..., 0]))


class Factor(Sound):
    def observe(self, ppl: Ppl, theta: Params, z: Array) -> None:
        super().observe(ppl, theta, z)
        library(ppl).factor("bonus", ppl.xp.ones(z.shape[:-1]))


class Deterministic(Sound):
    def loc(self, ppl: Ppl, theta: Params, z: Array) -> Array:
        return library(ppl).deterministic("loc", super().loc(ppl, theta, z))


class GuideOfTwo(Sound):
    def recognition(self, ppl: Ppl, phi: Params, x: Array) -> None:
        super().recognition(ppl, phi, x)
        ppl.sample("extra", ppl.dist.Normal(phi["b"], 1.0).to_event(1))


class GuideOfX(Sound):
    def recognition(self, ppl: Ppl, phi: Params, x: Array) -> None:
        super().recognition(ppl, phi, x)
        ppl.sample("x", ppl.dist.Delta(x, event_dim=2))


# Datapoints that see one another


class BatchNorm(Sound):
    def loc(self, ppl: Ppl, theta: Params, z: Array) -> Array:
        found = super().loc(ppl, theta, z)
        centred = found - found.mean(-2)[..., None, :]
        return centred / ppl.xp.sqrt((centred**2).mean(-2) + 1e-5)[..., None, :]


class BatchNormInTheGuide(Sound):
    def mean(self, ppl: Ppl, phi: Params, x: Array) -> Array:
        return super().mean(ppl, phi, x - x.mean(0))


class ChainOfRows(Sound):
    """Each datapoint depends on the one before, as in a time series."""

    def loc(self, ppl: Ppl, theta: Params, z: Array) -> Array:
        before = ppl.xp.roll(z, 1, -2) if library(ppl).__name__ == "pyro" else ppl.xp.roll(z, 1, axis=-2)
        return super().loc(ppl, theta, z + 0.5 * before)


class PlaceOfTheRow(Sound):
    def loc(self, ppl: Ppl, theta: Params, z: Array) -> Array:
        return super().loc(ppl, theta, z + 0.1 * ppl.xp.arange(z.shape[-2])[:, None])


class SizeOfTheBatch(Sound):
    def decoder(self, ppl: Ppl, theta: Params, z: Array) -> Any:
        return ppl.dist.Normal(self.loc(ppl, theta, z), 0.5 * z.shape[-2]).to_event(1)


class AcrossDraws(Sound):
    """Centres z over the draws of it, where there are several."""

    def loc(self, ppl: Ppl, theta: Params, z: Array) -> Array:
        return super().loc(ppl, theta, z - 0.1 * z.mean(0) if len(z.shape) > 2 else z)


class AttentiveGuide(Sound):
    def mean(self, ppl: Ppl, phi: Params, x: Array) -> Array:
        weights = ppl.xp.exp(0.1 * ppl.xp.matmul(x, x.T))
        return super().mean(ppl, phi, ppl.xp.matmul(weights / weights.sum(-1)[:, None], x))


# Noise and memory of their own


def noise(ppl: Ppl, like: Array) -> Array:
    if library(ppl).__name__ == "pyro":
        return ppl.xp.rand_like(like)
    import jax

    return jax.random.uniform(library(ppl).prng_key(), like.shape)


class Dropout(Sound):
    def loc(self, ppl: Ppl, theta: Params, z: Array) -> Array:
        found = super().loc(ppl, theta, z)
        return found * (noise(ppl, found) > 0.5)


class DropoutInTheGuide(Sound):
    def mean(self, ppl: Ppl, phi: Params, x: Array) -> Array:
        return super().mean(ppl, phi, x * (noise(ppl, x) > 0.5))


RNG, CALLS, LAST = np.random.default_rng(0), [0], [0.0]


class NumpyNoise(Sound):
    def loc(self, ppl: Ppl, theta: Params, z: Array) -> Array:
        return super().loc(ppl, theta, z) + float(RNG.standard_normal())


class Warming(Sound):
    """A temperature that falls from call to call."""

    def decoder(self, ppl: Ppl, theta: Params, z: Array) -> Any:
        CALLS[0] += 1
        return ppl.dist.Normal(self.loc(ppl, theta, z), 1.0 + 1.0 / CALLS[0]).to_event(1)


class Peeking(Sound):
    """A decoder that copies the size of what the encoder saw last."""

    def mean(self, ppl: Ppl, phi: Params, x: Array) -> Array:
        LAST[0] = x.shape[0]
        return super().mean(ppl, phi, x)

    def loc(self, ppl: Ppl, theta: Params, z: Array) -> Array:
        return super().loc(ppl, theta, z) + LAST[0]


# Guides


class DiscreteGuide(Sound):
    def encoder(self, ppl: Ppl, phi: Params, x: Array) -> Any:
        return ppl.dist.Bernoulli(logits=self.mean(ppl, phi, x)).to_event(1)


class ScoreFunctionGuide(Sound):
    """Continuous, and with no reparameterised samples."""

    def encoder(self, ppl: Ppl, phi: Params, x: Array) -> Any:
        normal = ppl.dist.Normal(ppl.xp.stack([self.mean(ppl, phi, x)] * 2, -2), ppl.xp.exp(phi["s"])).to_event(1)
        parts = ppl.dist.Categorical(logits=0.0 * normal.mean[..., 0])
        return ppl.dist.MixtureSameFamily(parts, normal)


class PositiveGuide(Sound):
    def encoder(self, ppl: Ppl, phi: Params, x: Array) -> Any:
        return ppl.dist.LogNormal(self.mean(ppl, phi, x), ppl.xp.exp(phi["s"])).to_event(1)


class BoundedGuide(Sound):
    def encoder(self, ppl: Ppl, phi: Params, x: Array) -> Any:
        mean = self.mean(ppl, phi, x)
        return ppl.dist.Uniform(mean - 1.0, mean + 1.0).to_event(1)


class PointGuide(Sound):
    def encoder(self, ppl: Ppl, phi: Params, x: Array) -> Any:
        return ppl.dist.Delta(self.mean(ppl, phi, x), event_dim=1)


# theta, and what is broken outright


class TightTheta(Sound):
    def prior(self, ppl: Ppl) -> Params:
        return {
            name: ppl.sample(name, ppl.dist.Normal(0.0, 0.5).expand(list(shape)).to_event(len(shape)))
            for name, shape in self.theta_shapes.items()
        }


class ScaledTheta(Sound):
    def prior(self, ppl: Ppl) -> Params:
        with ppl.scale(scale=0.1):
            return super().prior(ppl)


class LessTheta(Sound):
    """As many programs with weight decay on some parameters alone; the others would be drawn anew at each step."""

    def prior(self, ppl: Ppl) -> Params:
        return {
            **super().prior(ppl),
            "b": ppl.xp.zeros(self.n_x),
            **{"more": ppl.sample("more", ppl.dist.Normal(0.0, 1.0))},
        }


class UnknownTheta(Sound):
    def init(self, seed: int) -> tuple[Params, Params]:
        theta, phi = super().init(seed)
        return {**theta, "extra": zeros(3)}, phi


class PointDecoder(Sound):
    def decoder(self, ppl: Ppl, theta: Params, z: Array) -> Any:
        return ppl.dist.Delta(self.loc(ppl, theta, z), event_dim=1)


class Crashing(Sound):
    def loc(self, ppl: Ppl, theta: Params, z: Array) -> Array:
        return theta["missing"]


OTHER_PRIORS = ("WidePrior", "ShiftedPrior", "HeavyPrior", "LearntPrior", "FlowPrior", "MixturePrior")
SOUND = ("Sound", "Spelt", "Wide", *OTHER_PRIORS)
CONSTANT_IN_JAX = ("HiddenParam", "Unregistered")

# What a refusal names: the site, and what to do about it.
BREACHES: dict[str, tuple[str, str]] = {
    "PriorOfTheRow": ("sites z and x of generative", "across datapoints"),
    "DiscreteLatent": ("latent site z of generative that is discrete", "`summed`"),
    "CategoricalLatent": ("latent site z of generative that is discrete", "`summed`"),
    "BoundedLatent": ("site z of recognition that lies outside the support of its prior", "same support"),
    "PositiveLatent": ("site z of recognition that lies outside the support of its prior", "LogNormal"),
    "TwiceAsMany": ("site z of recognition of batch shape [4] and event shape [2]", "to_event"),
    "LatentsInTheBatch": ("site z of generative of batch shape [4, 2] and event shape []", "to_event"),
    "ColumnsInTheBatch": ("site x of generative of batch shape [4, 10] and event shape []", "to_event"),
    "ExtraBatch": ("site x of generative of batch shape [1, 4]", "to_event"),
    "FewerColumns": ("site x of generative of batch shape [4] and event shape [9]", "to_event"),
    "NoPlate": ("site z of generative outside every plate", "ppl.plate"),
    "NoPlateInTheGuide": ("site z of recognition outside every plate", "ppl.plate"),
    "JointGuide": ("site z of recognition of batch shape []", "ppl.plate"),
    "PlateOfColumns": ("site z of generative of batch shape [4, 1]", "ppl.plate"),
    "Subsampled": ("site z of generative with a scaled score", "subsample_size"),
    "Beta": ("site z of generative with a scaled score", "ppl.scale"),
    "ScaledX": ("site x of generative with a scaled score", "ppl.scale"),
    "ScaledGuide": ("site z of recognition with a scaled score", "ppl.scale"),
    "ScaledByTheta": ("site x of generative with a scaled score", "ppl.scale"),
    "ScaledByRow": ("site x of generative with a scaled score", "ppl.scale"),
    "MaskedX": ("site x of generative under a mask", "drop the mask"),
    "MaskedColumns": ("site x of generative under a mask", "drop the mask"),
    "MaskedZ": ("site z of generative under a mask", "drop the mask"),
    "MaskedGuide": ("site z of recognition under a mask", "drop the mask"),
    "Param": ("parameter own in generative", "theta_shapes"),
    "ParamInTheGuide": ("parameter own in recognition", "init's phi"),
    "Module": ("parameter net$", "init's phi"),
    "HiddenParam": ("parameter within the site x of generative", "theta_shapes"),
    "Unregistered": ("parameter within the site z of recognition", "init's phi"),
    "Hierarchical": ("no site top in recognition", "sample it once"),
    "NoLatent": ("no latent site in generative", "sample it once"),
    "OtherName": ("site z in recognition", "part of latent"),
    "HiddenLatent": ("no latent site in generative", "sample it once"),
    "KnownLatent": ("site z of generative with a value of its own", "its obs="),
    "NoX": ("no site x in generative", "sample it once"),
    "XByOtherName": ("no site x in generative", "sample it once"),
    "TwoObserved": ("latent site label of generative that is discrete", "`observed`"),
    "Factor": ("site bonus of generative with a value of its own", "drop it"),
    "Deterministic": ("loc", "drop it"),
    "GuideOfTwo": ("site extra in recognition", "part of z"),
    "GuideOfX": ("site x in recognition", "drop it"),
    "BatchNorm": ("sites z and x of generative", "batch normalisation"),
    "BatchNormInTheGuide": ("site z of recognition", "batch normalisation"),
    "ChainOfRows": ("sites z and x of generative", "across datapoints"),
    "PlaceOfTheRow": ("sites z and x of generative", "across datapoints"),
    "SizeOfTheBatch": ("sites z and x of generative", "across datapoints"),
    "AcrossDraws": ("sites z and x of generative", "draws of z"),
    "AttentiveGuide": ("site z of recognition", "across datapoints"),
    "Dropout": ("sites z and x of generative", "draw all noise with ppl.sample"),
    "DropoutInTheGuide": ("site z of recognition", "draw all noise with ppl.sample"),
    "NumpyNoise": ("sites z and x of generative", ""),
    "Warming": ("sites z and x of generative", ""),
    "Peeking": ("sites z and x of generative", ""),
    "DiscreteGuide": ("site z of recognition without reparameterised samples, of Bernoulli", "has_rsample"),
    "ScoreFunctionGuide": ("site z of recognition without reparameterised samples", "has_rsample"),
    "PositiveGuide": ("site z of recognition", "positive for every z"),
    "BoundedGuide": ("site z of recognition", "positive for every z"),
    "PointGuide": ("site z of recognition", "positive for every z"),
    "TightTheta": ("site theta of prior", "models.base.Model"),
    "ScaledTheta": ("site w of prior with a scaled score", ""),
    "LessTheta": ("more [] in prior", "models.base.Model"),
    "UnknownTheta": ("extra [3]", "init and theta_shapes"),
    "PointDecoder": ("sites z and x of generative", "positive for every z"),
    "Crashing": ("KeyError: 'missing' (hostile.py, line", ""),
}
