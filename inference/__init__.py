"""How a model is fitted: each backend once, for every engine.

To add a backend: write `name(engine, model, settings) -> Backend` and its card in a file of its own, and give it a line
in `BACKENDS`, or in `CLOSED_FORM` if it is for some models alone. Engines are imported when asked for, since torch or
jax take seconds to load.
"""

import os
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass, make_dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

from inference.aevb import AEVB
from inference.base import Engine, Method, Settings
from inference.cavi import CAVI
from inference.em import EM
from inference.local import LocalSettings
from inference.mean_field import MEAN_FIELD
from inference.monte_carlo_em import MONTE_CARLO_EM, MonteCarloEMSettings
from inference.wake_sleep import WAKE_SLEEP

BACKENDS: dict[str, Method] = {
    "aevb": AEVB,
    "mean_field": MEAN_FIELD,
    "monte_carlo_em": MONTE_CARLO_EM,
    "wake_sleep": WAKE_SLEEP,
}
CLOSED_FORM: dict[str, Method] = {"cavi": CAVI, "em": EM}  # for models that have their updates; others they refuse
METHODS: Mapping[str, Method] = ChainMap(CLOSED_FORM, BACKENDS)  # all that a flag may name: BACKENDS, then these


class EngineCard(NamedTuple):
    """What is known of an engine before its libraries are imported."""

    path: str  # module:class
    title: str
    packages: str  # what to install
    libraries: tuple[str, ...]  # what that gives to import
    compiling_is_a_choice: bool  # an engine without it always compiles
    variables: tuple[str, ...]  # of the process, that change how numbers are rounded, and are read before we set them


ENGINES = {
    "pyro": EngineCard(
        "inference.engines.pyro_torch:PyroEngine",
        "Pyro",
        "pyro-ppl torch",
        ("pyro", "torch"),
        True,
        ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE", "NVIDIA_TF32_OVERRIDE"),
    ),
    "numpyro": EngineCard(
        "inference.engines.numpyro_jax:NumpyroEngine",
        "NumPyro",
        "numpyro jax optax",
        ("numpyro", "jax", "optax"),
        False,
        ("XLA_FLAGS", "NVIDIA_TF32_OVERRIDE"),
    ),
}
HARMLESS = ("--xla_force_host_platform_device_count=", "--xla_dump_", "--xla_gpu_cuda_data_dir=")


def _settings_of_all() -> type[Settings]:
    """Return one flat class with the fields of every backend's settings, in the order in which they are registered."""
    kinds = dict.fromkeys(method.settings for method in reversed(BACKENDS.values()))
    bases = tuple(one for one in kinds if not any(one is not other and issubclass(other, one) for other in kinds))
    return make_dataclass("AllSettings", (), bases=bases, frozen=True, kw_only=True)


if TYPE_CHECKING:  # as far as it can be said without running anything

    @dataclass(frozen=True, kw_only=True)
    class AllSettings(MonteCarloEMSettings, LocalSettings):
        """One flat class with the fields of every backend's settings."""

else:
    AllSettings = _settings_of_all()


def look(name: str) -> None:
    """See that an engine's libraries are installed, without the seconds of importing them. Raises ImportError."""
    for library in ENGINES[name].libraries:
        if find_spec(library) is None:
            raise ImportError(f"No module named {library!r}")


def unpinned(name: str) -> dict[str, str]:
    """Return what in the environment changes an engine's numbers, and it cannot help: mostly nothing."""
    values = {name: os.environ.get(name, "").split() for name in ENGINES[name].variables}
    told = {name: " ".join(flag for flag in flags if not flag.startswith(HARMLESS)) for name, flags in values.items()}
    return {name: text for name, text in told.items() if text}


@cache
def engine(name: str, device: str = "cpu", threads: int = 1, compiled: bool = False) -> Engine:
    """Import and build an engine; the same arguments give the same object, so what it compiled is kept.

    `compiled` is for an engine that has a choice: whether it compiles, which long runs repay, or runs as it is written.

    Results repeat bit for bit at one thread count only. Raises ImportError where the library is missing, RuntimeError
    where it has no such device, cannot take so many threads any more, or is to compile and has no compiler.
    """
    module, _, attribute = ENGINES[name].path.partition(":")
    return getattr(import_module(module), attribute)(device, threads, compiled)
