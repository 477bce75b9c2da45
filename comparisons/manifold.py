"""The learned two-dimensional manifolds of MNIST and Frey Face, as in the paper's Figure 4.

An equally spaced grid on the unit square goes through the inverse distribution function of the normal, and the decoder
shows its mean at each z.

Examples:

    python -m comparisons.manifold --data mnist
    python -m comparisons.manifold --data frey --samples 1e5
"""

import sys
from dataclasses import dataclass

import numpy as np

from comparisons import cli
from comparisons.cli import parts
from comparisons.cli.flags import FITTED
from comparisons.data import load
from comparisons.disk import writing
from comparisons.paper import pictures
from comparisons.reporting.folder import beside, where
from inference.base import setting

SETS = ("mnist", "frey")
TITLES = {"mnist": "MNIST", "frey": "Frey Face"}


@dataclass(frozen=True, kw_only=True)
class Plan(cli.Plan):
    """What is run. Each field is a flag."""

    data: tuple[str, ...] = setting(SETS, "data sets, each a sheet of images", choices=SETS)
    model: str = parts.model_setting()
    backend: str = parts.backend_setting()
    samples: int = setting(1_000_000, "training points of each fit [datapoints]", low=100, high=10**10, about=FITTED)
    mnist_hidden: int = setting(pictures.HIDDEN["mnist"], "hidden units for mnist", low=1, high=20_000)
    frey_hidden: int = setting(pictures.HIDDEN["frey"], "hidden units for frey", low=1, high=20_000)
    grid: int = setting(20, "images along each side of a sheet [images]", low=2, high=100)


def main(arguments: list[str] | None = None) -> int:
    """Fit, decode, write a PNG for each data set and table.md; return 0. Raises UserError."""
    plan, out, data_dir = cli.parse_plan("manifold", __doc__ or "", Plan, arguments)
    writing.prepare(out)
    for name in dict.fromkeys(plan.data):
        data = load(name, data_dir)
        experiment = pictures.experiment(plan, name, 2, getattr(plan, f"{name}_hidden"))
        fit = pictures.drawn(experiment, data, out)
        pixels = pictures.sheet(pictures.decoder_means(fit, manifold(plan.grid)), data.shape, plan.grid)
        latents = (
            f"{plan.grid} x {plan.grid} values of z: the normal's inverse distribution function at the centres of an "
            "equal grid on the unit square, z1 rising to the right and z2 upwards"
        )
        title = f"The 2-dimensional latent manifold of {TITLES[name]}"
        pictures.keep(out, name, title, pixels, latents, fit, data)
        beside(out, {"table.md": lambda: pictures.table("Learned manifolds", pictures.read(out))})
    print(where(out))
    return 0


def manifold(side: int) -> np.ndarray:
    """Return z [side * side, 2], row by row from the top left: z1 rises to the right, z2 upwards."""
    from scipy.stats import norm

    line = norm.ppf((np.arange(side) + 0.5) / side)
    z2, z1 = np.meshgrid(line[::-1], line, indexing="ij")
    return np.stack([z1.ravel(), z2.ravel()], axis=1)


if __name__ == "__main__":
    cli.main(lambda: main(sys.argv[1:]))
