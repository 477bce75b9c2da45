"""Random samples of MNIST from models with 2, 5, 10 and 20 latent variables, as in the paper's Figure 5.

z is drawn from the prior N(0, I), and the decoder shows its mean at each z.

Examples:

    python -m comparisons.samples --data digits --n-latent 2 10 --samples 1e5
    python -m comparisons.samples --data mnist --backend wake_sleep
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


@dataclass(frozen=True, kw_only=True)
class Plan(cli.Plan):
    """What is run. Each field is a flag."""

    data: str = setting("mnist", "the data set", choices=("mnist", "mnist_binary", "digits"))
    latents: tuple[int, ...] = setting(
        (2, 5, 10, 20),
        "latent variables, each a sheet of images",
        low=1,
        high=1000,
        flag="--n-latent",
        also=("--latents",),
    )
    model: str = parts.model_setting()
    backend: str = parts.backend_setting()
    samples: int = setting(1_000_000, "training points of each fit [datapoints]", low=100, high=10**10, about=FITTED)
    n_hidden: int = setting(pictures.HIDDEN["mnist"], "hidden units", low=1, high=20_000)
    grid: int = setting(10, "images along each side of a sheet [images]", low=2, high=100)


def main(arguments: list[str] | None = None) -> int:
    """Fit, draw, write a PNG for each number of latent variables and table.md; return 0. Raises UserError."""
    plan, out, data_dir = cli.parse_plan("samples", __doc__ or "", Plan, arguments)
    writing.prepare(out)
    data = load(plan.data, data_dir)
    for k in dict.fromkeys(plan.latents):
        experiment = pictures.experiment(plan, plan.data, k, plan.n_hidden)
        fit = pictures.drawn(experiment, data, out)
        pixels = pictures.sheet(pictures.decoder_means(fit, prior(plan.seed, k, plan.grid**2)), data.shape, plan.grid)
        latents = f"{plan.grid**2} draws of z from the prior N(0, I), by NumPy from the seeds {plan.seed} and {k}"
        title = f"Random samples, {k} latent variables"
        pictures.keep(out, f"{plan.data}-{k}", title, pixels, latents, fit, data)
        beside(out, {"table.md": lambda: pictures.table("Random samples", pictures.read(out))})
    print(where(out))
    return 0


def prior(seed: int, n_latent: int, count: int) -> np.ndarray:
    """Return `count` draws of z ~ N(0, I) [count, n_latent], the same for every engine."""
    return np.random.default_rng([seed, n_latent]).standard_normal((count, n_latent))


if __name__ == "__main__":
    cli.main(lambda: main(sys.argv[1:]))
