"""What jax's and NumPyro's global settings have to be for an engine's numbers, whatever the process has them at.

They come from the environment (JAX_ENABLE_X64), from a user's file, or from a context around the call. Each can change
numbers (precision, generators), break a run (a rank promotion that is refused, a NaN that is raised), or both.
"""

import os
import time
import warnings
from contextlib import ExitStack
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import jax
import jax.monitoring
import numpyro
from jax._src.xla_bridge import backends_are_initialized
from numpyro.distributions.distribution import Distribution

from inference.engines.pins import Setting, hold


def enter(stack: ExitStack, device: jax.Device) -> None:
    """Set them, on the stack: 32 bits, jax's default generator and promotions, compiled code, no checks of values."""
    for context in (
        # Always, even where they are so already: within its context, a setting is deaf to whoever sets it meanwhile.
        jax.enable_x64(False),
        jax.default_device(device),
        jax.default_matmul_precision(matmul_precision(device.platform)),
        jax.default_prng_impl("threefry2x32"),
        jax.threefry_partitionable(True),
        jax.enable_custom_prng(False),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.softmax_custom_jvp(False),
    ):
        stack.enter_context(context)
    for name, needed, context_of in BREAKING:
        if getattr(jax.config, name) != needed:
            stack.enter_context(context_of(needed))
    hold(stack, SETTINGS)


def matmul_precision(platform: str) -> str | None:
    """Return what a product of matrices is to be worked out in: 32 bits, which is the default on a CPU alone.

    NVIDIA's cards since Ampere round the factors to the 10 bits of TF32 by default: an element of a gradient was off by
    two thousandths there.
    """
    return None if platform == "cpu" else "float32"


# Settings that change no number and may break a run: entered where they differ, since some of them cost more.
BREAKING: tuple[tuple[str, Any, Any], ...] = (
    ("jax_disable_jit", False, jax.disable_jit),
    # `Info` has a NaN where there is no acceptance, and whoever takes the steps looks for numbers that are lost.
    ("jax_debug_nans", False, jax.debug_nans),
    ("jax_debug_infs", False, jax.debug_infs),
    ("jax_debug_key_reuse", False, jax.debug_key_reuse),
    ("jax_check_tracer_leaks", False, jax.check_tracer_leaks),
    ("jax_legacy_prng_key", "allow", jax.legacy_prng_key),
    ("jax_transfer_guard_host_to_device", None, lambda _: jax.transfer_guard_host_to_device("allow")),
    ("jax_transfer_guard_device_to_device", None, lambda _: jax.transfer_guard_device_to_device("allow")),
    ("jax_transfer_guard_device_to_host", None, lambda _: jax.transfer_guard_device_to_host("allow")),
)

# Settings without a context of their own; which of them there are depends on the version.
UPDATED = {
    "jax_disable_most_optimizations": False,
    "jax_exec_time_optimization_effort": 0.0,
    "jax_high_dynamic_range_gumbel": False,
    "jax_memory_fitting_effort": 0.0,
    "jax_optimization_level": "UNKNOWN",
    "jax_use_direct_linearize": True,
}
SETTINGS = (
    *(
        Setting(partial(getattr, jax.config, name), partial(jax.config.update, name), needed)
        for name, needed in UPDATED.items()
        if hasattr(jax.config, name)
    ),
    # Data are checked once, where they are loaded, and grey values under a Bernoulli are meant.
    Setting(lambda: Distribution._validate_args, numpyro.enable_validation, False),
)


compiling_seconds = 0.0  # of this process: tracing, lowering, compiling or reading back, by jax's own clocks


def _count(event: str, seconds: float, **told: Any) -> None:
    global compiling_seconds
    if event.startswith("/jax/core/compile/"):
        compiling_seconds += seconds


jax.monitoring.register_event_duration_secs_listener(_count)


def take_threads(threads: int) -> None:
    """Start jax with so many CPU threads. Raises RuntimeError where it has started with others: it cannot change.

    XLA sizes its pool once in a process, by NPROC, or else by the cores that the process may run on.
    """
    global _started_with
    before = os.environ.get("NPROC", "")
    if _started_with is None and backends_are_initialized():
        _started_with = int(before) if before.isdigit() else _cores()
    if _started_with not in (None, threads):
        raise RuntimeError(
            f"jax has started with {_started_with} threads in this process and cannot take {threads}; ask for "
            f"{_started_with}, or for the engine before jax computes anything"
        )
    if _started_with is None:
        os.environ["NPROC"] = str(threads)
        try:
            _begin()
        finally:
            del os.environ["NPROC"]
            os.environ |= {"NPROC": before} if before else {}
        _started_with = threads


_started_with: int | None = None


def _begin() -> None:
    """Start jax; on its CPU alone where JAX_PLATFORMS names nothing that this machine has."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError):  # jax says the latter without a word
        jax.config.update("jax_platforms", "cpu")
        jax.devices()


def device_of(kind: str) -> jax.Device:
    """Return jax's first device of a kind. Raises RuntimeError, which says why there is none."""
    try:
        return jax.devices(kind)[0]
    except (RuntimeError, AssertionError) as error:
        names = os.environ.get("JAX_PLATFORMS", "")
        why = f"JAX_PLATFORMS is {names!r}" if names else next(iter(str(error).splitlines()), "it does not say why")
        raise RuntimeError(f"jax has no {kind} here: {why}") from error


QUIET = "TF_CPP_MIN_LOG_LEVEL", "3"  # else each program that is read back is called foreign, for two of LLVM's hints
DAYS = 30  # that a program is kept
PROCESSOR = (
    "vendor_id",
    "cpu family",
    "model",
    "stepping",
    "flags",
    "CPU implementer",
    "CPU variant",
    "CPU part",
    "Feat",
)


MAPS, MAPS_AT_MOST = Path("/proc/self/maps"), Path("/proc/sys/vm/max_map_count")


def let_go_of_programs() -> None:
    """Have jax forget its programs where this process holds over half of the maps of memory that Linux lets it have.

    A small program takes six maps of 65,530, and a process that is refused one is killed: a notebook or a worker that
    runs hundreds of different cells came to it. What is asked for again is compiled or read from disk again.
    """
    try:
        with MAPS.open("rb") as maps:
            crowded = sum(1 for _ in maps) > int(MAPS_AT_MOST.read_text()) / 2
    except (OSError, ValueError):  # a system that has no such limit, or does not tell
        return
    if crowded:
        jax.clear_caches()


def keep_programs(threads: int) -> None:
    """Have jax keep what it compiles on disk, for other processes; not where the user has told it otherwise.

    That is where jax has been made QUIET before it was imported, as commands do. A folder is of one jaxlib, one kind of
    processor and one number of threads: programs are compiled for all three, and jax's own key leaves out the last.
    """
    told = jax.config.jax_compilation_cache_dir is not None or not jax.config.jax_enable_compilation_cache
    if told or os.environ.get(QUIET[0]) != QUIET[1]:
        return
    try:
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
        kind = sha256("".join(line for line in first.splitlines() if line.startswith(PROCESSOR)).encode()).hexdigest()
        root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "aevb-comparison" / "jax"
        folder = root / f"{jax.lib.__version__}-{kind[:12]}-{threads}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "used").touch()  # so that one which cannot be written is known here
        for program in root.glob("*/*-cache"):
            if program.stat().st_mtime < time.time() - DAYS * 86_400:
                program.unlink(missing_ok=True)
    except (OSError, RuntimeError):  # no such place or file, or another process was faster: it works as well without
        return
    # Of one that is half written, or not to be written: it is then compiled here.
    warnings.filterwarnings("ignore", r"Error (reading|writing) persistent compilation cache entry", UserWarning)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _cores() -> int:
    """Return how many cores the process may run on, where the system can say, or all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
