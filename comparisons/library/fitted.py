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

        A q that has no mean is drawn from 100 times, and a warning says so. Raises UnfitError for a method without
        q(z | x), DataError for rows that the model cannot score.
        """
        engine, backend = self.fit.engine, self.fit.experiment.backend
        q = self.fit.posterior(engine.array(rows(x, self.fit.model.n_x, self.fit.model.support)))
        if q is None:
            raise UnfitError(f"{backend} has no q(z | x) to embed by; choose the fit of another backend")
        key = engine.key(self.fit.experiment.seed)
        with engine.pinned():
            sites = engine.sites(key, q.program, {}, *q.args)
            if [name for name, site in sites.items() if site.kind == "sample"] == ["z"]:
                with suppress(AttributeError, NotImplementedError):
                    return np.asarray(engine.numpy(sites["z"].fn.mean))
            warnings.warn(f"the q(z | x) of {backend} has no mean: it is that of {DRAWS} draws", stacklevel=2)
            return np.asarray(engine.numpy(engine.draw(key, repeated(q.program, DRAWS), *q.args)["z"])).mean(0)

    def decode(self, z: Any) -> np.ndarray:
        """Return E[x | z] [n, n_x] for z [n, k]."""
        return decoded(self.fit, np.asarray(z, np.float32))

    def reconstruct(self, x: Any) -> np.ndarray:
        """Return E[x | z] [n, n_x] at z = embed(x). Raises what that does."""
        return self.decode(self.embed(x))

    def sample(self, n: int, seed: int = 0, mean: bool = False) -> np.ndarray:
        """Return x ~ p(x | z) p(z) [n, n_x]; with `mean` E[x | z] of the same z. Raises FlagError for no n."""
        if n < 1:
            raise FlagError(f"n {n} is out of range; it must be at least 1")
        engine = self.fit.engine
        drawn = engine.draw(engine.key(seed), self.fit.model.generative, self.fit.theta, n)
        return self.decode(engine.numpy(drawn["z"])) if mean else np.asarray(engine.numpy(drawn["x"]))

    def __repr__(self) -> str:
        return f"<fit {self.fit.cell.name}>"
