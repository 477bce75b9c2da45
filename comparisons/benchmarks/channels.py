"""What is seen of an image: its pixels through a noise of a known kind, some of them alone, or the sum of each block.

Pixels that are independent given z, Bernoulli or normal, leave p(y | z) = sum_x p(y | x) p(x | z, theta) in closed
form. So what is seen has a model of its own, with the same theta and the same z, and whatever draws z or estimates
log p(y) does so of it as of any other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from inference.base import Engine
from inference.rows import Saying
from models.base import Array, Model, Params, Ppl

FLOOR = 1e-6  # of a pixel's probability, in whoever's prediction: about what float32 has of 1 - p


@dataclass(frozen=True)
class Channel:
    """How y [n, m] comes about from images x [n, d] of this shape: noise, then the sum of each block of pixels.

    `noise` is the probability that a 0-1 pixel is flipped, or the standard deviation of what is added to each y of real
    pixels. A NaN in y is not seen.
    """

    shape: tuple[int, int]
    block: int = 1
    noise: float = 0.0

    @cached_property
    def pixels(self) -> np.ndarray:
        """Which pixels each y sums up, [m, block^2]."""
        (height, width), b = self.shape, self.block
        number = np.arange(height * width).reshape(height // b, b, width // b, b)
        return number.swapaxes(1, 2).reshape(-1, b * b)

    @cached_property
    def owner(self) -> np.ndarray:
        """Which y each pixel is part of, [d]."""
        return np.argsort(self.pixels.ravel()) // self.block**2

    def seen(self, rng: np.random.Generator, x: np.ndarray, unseen: np.ndarray, binary: bool) -> np.ndarray:
        """Draw y [n, m] from p(y | x), for images x [n, d]; the pixels `unseen` [d] are gaps."""
        if binary:
            x = np.abs(x - (rng.random(x.shape) < self.noise))
        y = x[:, self.pixels].sum(-1)
        if not binary:
            y = y + self.noise * rng.standard_normal(y.shape)
        return np.where(unseen[self.pixels].any(-1), np.nan, y).astype(np.float32)

    def filled(self, xp: Any, y: Array, gaps: Any) -> Array:
        """Return images [n, d] that look like y: each pixel its block's mean, and `gaps` where nothing is seen."""
        spread = y[..., self.owner] / self.block**2
        return xp.where(xp.isnan(spread), gaps + xp.zeros_like(spread), spread)

    def through(self, ppl: Ppl, x: Any) -> Any:
        """Return the distribution of each y [..., m], for that of each pixel [..., d]: Bernoulli or normal.

        The sum of a block's 0-1 pixels is Poisson-binomial. Raises ValueError for pixels of another kind.
        """
        size, xp = self.block**2, ppl.xp
        if is_normal(ppl, x):
            variance = x.scale**2 + xp.zeros_like(x.loc)
            loc, variance = (each[..., self.pixels].sum(-1) for each in (x.loc, variance))
            return ppl.dist.Normal(loc, xp.sqrt(variance + self.noise**2))
        if not type(x).__name__.startswith("Bernoulli"):
            raise ValueError(f"a decoder of {type(x).__name__}; what is seen of Bernoulli and normal pixels is known")
        logits = x.logits
        if self.noise:
            flipped = self.noise + (1.0 - 2.0 * self.noise) * ppl.nn.sigmoid(logits)
            logits = xp.log(flipped) - xp.log1p(-flipped)
        if size == 1:
            return ppl.dist.Bernoulli(logits=logits, validate_args=False)
        logits = logits[..., self.pixels]
        on, off = -ppl.nn.softplus(-logits), -ppl.nn.softplus(logits)
        log_p, none = 0.0 * on[..., :1], 0.0 * on[..., :1] - 1e30  # of the counts of the first pixels, one by one
        for i in range(size):
            fewer, more = xp.concatenate([log_p + off[..., i, None], none], -1), [none, log_p + on[..., i, None]]
            log_p = xp.logaddexp(fewer, xp.concatenate(more, -1))
        points = ppl.dist.Delta(1.0 * xp.arange(size + 1)).expand(log_p.shape)  # as in `vae_categorical`
        return ppl.dist.MixtureSameFamily(ppl.dist.Categorical(logits=log_p), points)

    def restored(self, engine: Engine, pixel: Any, x: Array, y: Array) -> tuple[Array, Array]:
        """Return E[x | z, y] and log p(x | z, y) of each pixel, [n, d] each, for the distribution of pixels given z.

        Bernoulli: E[x | z, y] = p + d log p(y | logits) / d logits, as of every exponential family. Normal: by the
        regression of x on the y that it is part of.
        """
        ppl, xp = engine.ppl, engine.ppl.xp
        gap = xp.isnan(y)
        told = xp.where(gap, xp.ones_like(y), y)
        if is_normal(ppl, pixel):
            seen, variance = self.through(ppl, pixel), pixel.scale**2 + xp.zeros_like(pixel.loc)
            gain = variance * xp.where(gap, xp.zeros_like(y), seen.scale**-2.0)[..., self.owner]
            mean = pixel.loc + gain * (told - seen.loc)[..., self.owner]
            left = variance * xp.clip(1.0 - gain, min=FLOOR)
            return mean, ppl.dist.Normal(mean, xp.sqrt(left)).log_prob(x)

        def log_p(logits: Array) -> Array:
            each = self.through(ppl, ppl.dist.Bernoulli(logits=logits, validate_args=False)).log_prob(told)
            return xp.where(gap, xp.zeros_like(each), each).sum()

        _, slope = engine.value_and_grad(log_p)(pixel.logits)
        mean = xp.clip(ppl.nn.sigmoid(pixel.logits) + slope, min=FLOOR, max=1.0 - FLOOR)
        return mean, x * xp.log(mean) + (1.0 - x) * xp.log1p(-mean)


@dataclass(frozen=True)
class Degraded(Model):
    """The model of what is seen: p(z) p(y | z, theta), for a model of images and a channel; the site x is y [n, m].

    Its recognition is the model's own, of images that look like y, grey where nothing is seen.
    """

    of: Model
    channel: Channel

    missing = True

    @property
    def n_x(self) -> int:  # type: ignore[override]
        """How many y there are."""
        return len(self.channel.pixels)

    @property
    def n_latent(self) -> int:  # type: ignore[override]
        """That of the model of images."""
        return self.of.n_latent

    @property
    def theta_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self.of.theta_shapes

    def init(self, seed: int) -> tuple[Params, Params]:
        return self.of.init(seed)

    def generative(self, ppl: Ppl, theta: Params, n: int) -> None:
        def sample(name: str, fn: Any) -> Array:
            return ppl.sample(name, self.channel.through(ppl, fn.base_dist).to_event(1) if name == "x" else fn)

        said: Any = Saying(ppl, sample=sample)
        self.of.generative(said, theta, n)

    def recognition(self, ppl: Ppl, phi: Params, x: Array) -> None:
        self.of.recognition(ppl, phi, self.channel.filled(ppl.xp, x, 0.5))


def is_normal(ppl: Ppl, pixel: Any) -> bool:
    """Say whether pixels are normal, of the distribution of each given z."""
    return isinstance(pixel, ppl.dist.Normal)
