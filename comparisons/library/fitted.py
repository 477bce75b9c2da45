"""A fit to look into: its parameters, where it puts datapoints, and what it makes of them. NumPy in, NumPy out.

Every x is as the models see it, [n, n_x]: divided by `scale`; images may be [n, rows, columns]. With `theta="vb"` the
generative parameters are the mean of q(theta).
"""

import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from comparisons.data import Data
from comparisons.errors import FlagError, UnfitError
from comparisons.library.given import rows
from comparisons.runner.fits import Fit, decoded
from inference.base import numpys, pick, repeated
from inference.latents import latents
from inference.rows import generative, width

DRAWS = 100  # that stand for the mean of a q that has none


@dataclass(frozen=True, repr=False)
class Fitted:
    """A fit and its data, `data.train` [n, n_x] and `data.test` [m, n_x]; `fit` has the engine's own arrays."""

    fit: Fit
    data: Data

    @property
    def theta(self) -> dict[str, np.ndarray]:
        """The generative parameters by name."""
        return numpys(self.fit.engine, self.fit.theta)

    @property
    def phi(self) -> dict[str, np.ndarray] | None:
        """The variational parameters that all datapoints share, by name; None for a method without."""
        return numpys(self.fit.engine, pick(self.fit.state.get("params", {}), "phi")) or None

    def embed(self, x: Any) -> np.ndarray:
        """Return E_q[z | x] [n, k]. Rows are new to the fit: where each has a q of its own, that is fitted here.

        Of sites other than one z ~ N(0, I) it is the mean of their coordinates, as real numbers. A q that has no mean
        is drawn from 100 times, and a warning says so. Raises UnfitError for a method without q(z | x), DataError for
        rows that the model cannot score.
        """
        engine, backend = self.fit.engine, self.fit.experiment.backend
        q = self.fit.posterior(engine.array(rows(x, self.fit.model)))
        if q is None:
            raise UnfitError(f"{backend} has no q(z | x) to embed by; choose the fit of another backend")
        key, sites = engine.key(self.fit.experiment.seed), latents(engine, self.fit.model)
        with engine.pinned():
            if sites.plain:
                said = engine.sites(key, q.program, {}, *q.args)
                if [name for name, site in said.items() if site.kind == "sample"] == ["z"]:
                    with suppress(AttributeError, NotImplementedError):
                        return np.asarray(engine.numpy(said["z"].fn.mean))
                warnings.warn(f"the q(z | x) of {backend} has no mean: it is that of {DRAWS} draws", stacklevel=2)
            drawn = engine.draw(key, repeated(q.program, DRAWS), *q.args)
            return np.asarray(engine.numpy(sites.coordinates(sites.at(self.fit.theta), drawn))).mean(0)

    def decode(self, z: Any, x: Any = None) -> np.ndarray:
        """Return E[x | z] [n, n_x] for z [n, k], with the covariates of rows x where the model is given some."""
        return decoded(self.fit, np.asarray(z, np.float32), self._like(len(z), x))

    def reconstruct(self, x: Any) -> np.ndarray:
        """Return E[x | z] [n, n_x] at z = embed(x). Raises what that does."""
        return self.decode(self.embed(x), x)

    def _like(self, n: int, x: Any) -> np.ndarray:
        """Return rows [n, d] that covariates are taken from; others are 0. Raises FlagError where there are none."""
        model = self.fit.model
        if x is None and model.given:
            raise FlagError(f"the model is given {', '.join(model.given)}; give rows x that have them")
        return np.zeros((n, width(model)), np.float32) if x is None else rows(x, model)

    def sample(self, n: int, seed: int = 0, mean: bool = False, x: Any = None) -> Any:
        """Return x ~ p(x | z) p(z) [n, n_x], or a dict of all that a model observes, where that is more than x.

        With `mean` it is E[x | z] of the same z. Covariates are those of n rows x. Raises FlagError for no n, and where
        the model is given something and x is not told.
        """
        if n < 1:
            raise FlagError(f"n {n} is out of range; it must be at least 1")
        engine, model, like = self.fit.engine, self.fit.model, self._like(n, x)[:n]
        drawn = engine.draw(engine.key(seed), generative(model, engine.array(like)), self.fit.theta)
        if mean:
            sites = latents(engine, model)
            return decoded(self.fit, engine.numpy(sites.coordinates(sites.at(self.fit.theta), drawn)), like)
        seen = {name: np.asarray(engine.numpy(drawn[name])) for name in model.observed}
        return seen["x"] if seen.keys() == {"x"} else seen

    def __repr__(self) -> str:
        return f"<fit {self.fit.cell.name}>"
