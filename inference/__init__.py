"""How a model is fitted: each backend once, for every engine.

To add a backend: write `name(engine, model, settings) -> Backend` in a file of its own and give it a line here.
Engines are imported when asked for, since torch or jax take seconds to load.
"""

import os
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec

from inference.aevb import aevb
from inference.base import Backend, Engine, Settings
from inference.mean_field import mean_field
from inference.monte_carlo_em import monte_carlo_em
from inference.wake_sleep import wake_sleep
from models.base import Model

BACKENDS: dict[str, Callable[[Engine, Model, Settings], Backend]] = {
    "aevb": aevb,
    "mean_field": mean_field,
    "monte_carlo_em": monte_carlo_em,
    "wake_sleep": wake_sleep,
}

ENGINES = {"pyro": "inference.engines.pyro_torch:PyroEngine", "numpyro": "inference.engines.numpyro_jax:NumpyroEngine"}
CHOICE = ("pyro",)  # engines that can run compiled or not; the others always are
PACKAGES = {"pyro": "pyro-ppl torch", "numpyro": "numpyro jax optax"}
LIBRARIES = {"pyro": ("pyro", "torch"), "numpyro": ("numpyro", "jax", "optax")}
# Variables of the process that change how numbers are rounded, and are read where no engine can set them.
VARIABLES = {
    "pyro": ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE", "NVIDIA_TF32_OVERRIDE"),
    "numpyro": ("XLA_FLAGS", "NVIDIA_TF32_OVERRIDE"),
}
HARMLESS = ("--xla_force_host_platform_device_count=", "--xla_dump_", "--xla_gpu_cuda_data_dir=")


def look(name: str) -> None:
    """See that an engine's libraries are installed, without the seconds of importing them. Raises ImportError."""
    for library in LIBRARIES[name]:
        if find_spec(library) is None:
            raise ImportError(f"No module named {library!r}")


def unpinned(name: str) -> dict[str, str]:
    """Return what in the environment changes an engine's numbers, and it cannot help: mostly nothing."""
    values = {name: os.environ.get(name, "").split() for name in VARIABLES[name]}
    told = {name: " ".join(flag for flag in flags if not flag.startswith(HARMLESS)) for name, flags in values.items()}
    return {name: text for name, text in told.items() if text}


@cache
def engine(name: str, device: str = "cpu", threads: int = 1, compiled: bool = False) -> Engine:
    """Import and build an engine; the same arguments give the same object, so what it compiled is kept.

    `compiled` is for an engine in `CHOICE`: whether it compiles, which long runs repay, or runs as it is written.

    Results repeat bit for bit at one thread count only. Raises ImportError where the library is missing, RuntimeError
    where it has no such device, cannot take so many threads any more, or is to compile and has no compiler.
    """
    module, _, attribute = ENGINES[name].partition(":")
    return getattr(import_module(module), attribute)(device, threads, compiled)
