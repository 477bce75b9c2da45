"""What torch's and Pyro's global settings have to be for an engine's numbers, whatever the process has them at.

They come from a user's file (`torch.set_default_dtype`), from a context around the call (`torch.no_grad`), or from
another library. Each can change numbers (types, reduced precision, threads), break a run (no gradients), or both.
"""

import getpass
import os
import re
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch
from pyro import poutine

from inference.engines.pins import Setting, hold

# Pyro's defaults.
PYRO = {
    "binomial_approx_log_prob_tol": 0.0,
    "binomial_approx_sample_thresh": float("inf"),
    "cholesky_relative_jitter": 4.0,
    "module_local_params": False,
}
# Matrix products and convolutions may round float32 to fewer bits where these say so; old versions have not all.
REDUCED: list[Any] = [
    kind
    for kind in (
        getattr(torch.backends.mkldnn, "matmul", None),
        getattr(torch.backends.mkldnn, "conv", None),
        torch.backends.cuda.matmul,
    )
    if hasattr(kind, "fp32_precision")
]
FULL = ("none", "ieee")

SMALLEST = np.finfo(np.float32).tiny


def enter(stack: ExitStack, device: torch.device, threads: int) -> None:
    """Set them, on the stack: float32 in full precision, gradients, one device, one number of threads, no checks."""
    if torch.is_inference_mode_enabled():
        stack.enter_context(torch.inference_mode(False))
    # Distributions built from Python numbers land on the default device.
    if torch.get_default_device() != device:
        stack.enter_context(device)
    kind = device.type
    here = (
        Setting(torch.get_num_threads, torch.set_num_threads, threads),
        Setting(lambda: torch.is_autocast_enabled(kind), lambda on: torch.set_autocast_enabled(kind, on), False),
    )
    hold(stack, SETTINGS + here)
    _hold_precision(stack)


SETTINGS = (
    Setting(torch.get_default_dtype, torch.set_default_dtype, torch.float32),
    Setting(torch.is_grad_enabled, torch.set_grad_enabled, True),
    # Other kernels; on a GPU some operations would be refused.
    Setting(torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode, 0),
    Setting(
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda value: torch.autograd.set_detect_anomaly(*value),
        (False, True),
    ),
    # torch does not say, but the processor does: it then has no number below the smallest normal one.
    Setting(lambda: bool(SMALLEST * np.float32(0.5) == 0.0), torch.set_flush_denormal, False),
    Setting(lambda: {name: pyro.settings.get(name) for name in PYRO}, lambda values: pyro.settings.set(**values), PYRO),
    # It looks at every value of every site: data are checked once where they are loaded, and a run that turns
    # non-finite is stopped by its caller.
    Setting(lambda: _validation(), lambda values: _validate(*values), (False, False, False, False)),
)


def _validation() -> tuple[bool, bool, bool, bool]:
    """Say where values are checked. One by one: torch's own may differ from Pyro's, whose context would not keep it."""
    return (
        pyro.distributions.is_validation_enabled(),
        torch.distributions.Distribution._validate_args,
        pyro.infer.is_validation_enabled(),
        poutine.is_validation_enabled(),
    )


def _validate(of_pyro: bool, of_torch: bool, infer: bool, handlers: bool) -> None:
    pyro.distributions.enable_validation(of_pyro)  # torch's too
    torch.distributions.Distribution.set_default_validate_args(of_torch)
    pyro.infer.enable_validation(infer)
    poutine.enable_validation(handlers)


def _hold_precision(stack: ExitStack) -> None:
    """Have float32 rounded as float32. torch has two ways to say otherwise, and no answer where they disagree."""
    before = [kind.fp32_precision for kind in REDUCED]
    for kind, value in zip(REDUCED, before, strict=True):
        if value not in FULL:
            stack.callback(setattr, kind, "fp32_precision", value)
            kind.fp32_precision = "ieee"
    legacy: Any = torch.get_float32_matmul_precision()
    if legacy != "highest":
        stack.callback(torch.set_float32_matmul_precision, legacy)
        torch.set_float32_matmul_precision("highest")


def name_cache() -> None:
    """Give what torch compiles a folder, where the user has no name that torch would call it by."""
    try:
        getpass.getuser()
    except (KeyError, OSError):  # a number alone, as containers have it
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", f"{tempfile.gettempdir()}/torchinductor_{os.getuid()}")


def drop_half_written(error: Exception) -> bool:
    """Remove the compiled file that an error names as cut short, and say whether there was one.

    A process that is killed while it compiles leaves half a file in torch's cache, which every later one would load.
    """
    half = re.search(r"(/\S+\.so): (file too short|invalid ELF header)", str(error))
    if half:
        Path(half[1]).unlink(missing_ok=True)
    return half is not None
