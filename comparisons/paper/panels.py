"""How the paper's figures are run here: the panels of each, as other defaults of a command's flags."""

from typing import Any

Panels = dict[str, tuple[dict[str, Any], ...]]  # by the name of a preset

# Without the authors' 100 steps of warm-up, which cost wake-sleep 2 nats and more at a million points. 300 steps choose
# a step size that is best for 300 steps: wake-sleep's curves cross after 3000. Four draws of z for each of 10,000
# points leave 0.01 nat of noise.
FIGURE2: dict[str, Any] = {"warmup": 0, "pilot_steps": 3000, "elbo_draws": 4}
RIVALS = ("aevb", "wake_sleep")  # whom Figure 2 compares
_MNIST = {**FIGURE2, "data": "mnist", "n_hidden": 500, "n_latent": (3, 5, 10, 20, 200)}
_FREY = {**FIGURE2, "data": "frey", "n_hidden": 200, "n_latent": (2, 5, 10, 20)}
BOUNDS: Panels = {
    "quick": (
        {**FIGURE2, "data": "digits", "n_hidden": 100, "n_latent": (3, 10), "samples": 200_000, "pilot_steps": 300},
        {**_MNIST, "n_latent": (3,), "samples": 200_000, "pilot_steps": 300},
    ),
    "standard": ({**_MNIST, "samples": 10_000_000}, {**_FREY, "samples": 10_000_000}),
    "paper": ({**_MNIST, "samples": 100_000_000}, {**_FREY, "samples": 100_000_000}),
}

FIGURE3: dict[str, Any] = {
    "data": "mnist",
    "n_train": 1000,
    "n_latent": 3,
    "n_hidden": 100,
    "warmup": 0,
    "pilot_steps": 3000,
    "engine": "numpyro",
    "evidence": ("quadrature", "appendix_d"),
}
# The authors' code moves all chains at once. A step is N points and five weight updates: the pilot of each step size
# takes some 300,000 points at N = 1000, and 20 steps at 50,000.
_FULL = {"backend": "monte_carlo_em", "e_step": "full"}


def _figure3(samples: int) -> tuple[dict[str, Any], ...]:
    """Return the panels of Figure 3: three seeds at N = 1000, one at 50,000; last, the other engine at N = 1000."""
    small = {**FIGURE3, "seed": (0, 1, 2), "samples": samples}
    large = {**FIGURE3, "n_train": 50_000, "samples": samples}
    full = {**small, **_FULL, "pilot_steps": 300}, {**large, **_FULL, "pilot_steps": 20}
    return small, large, *full, {**small, "engine": "pyro"}


EVIDENCE: Panels = {
    "quick": (
        {"data": "digits", "samples": 30_000},
        {**FIGURE3, "samples": 50_000, "pilot_steps": 300, "eval_points": 100},
    ),
    "standard": _figure3(10_000_000),
    "paper": _figure3(60_000_000),
}
