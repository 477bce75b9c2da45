"""A cell's fit for whoever has none of this suite: its parameters by name, and a few words on what they are of."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from comparisons.cli import parts
from comparisons.errors import FlagError, StorageError
from comparisons.runner import store
from comparisons.runner.sizes import sized
from inference.base import join, pick
from models import MODELS

FACTS = ("model", "n_latent", "n_hidden", "data", "n_train", "backend", "engine", "seed", "samples", "method", "cell")
# How each form is read: what is imported, the call, and a value of it as jax takes it.
READ = {
    "npz": ("numpy", "numpy.load({!r})", "value"),
    "safetensors": ("safetensors.numpy", "safetensors.numpy.load_file({!r})", "value"),
    "pt": ("torch", "torch.load({!r}, weights_only=True)", "value.numpy()"),
}


def fit(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return a cell's arrays, `theta.*`, `phi.*` and `local.*` (each training point's q), and what they are of.

    With theta vb, `theta.*` are the means of q(theta) and `theta_log_scale.*` its log standard deviations. `n_x` is
    known of registered models. Raises StorageError for a cell without a fit, FlagError for one that names no theta.
    """
    out, cell = folder.parents[1], folder.name
    if not store.finished(out, cell, with_state=True):
        command = store.read_manifest(out, cell).get("command", "its command")
        raise StorageError(f"{cell} has no fit: it is not done, or git has not kept its state; run {command}")
    state = store.load_state(out, cell)
    arrays = {**state.get("params", {}), **join(local=state.get("local", {}))}
    if not pick(arrays, "theta"):
        raise FlagError(f"{cell} keeps no theta.* in its state's params; only its backend can read it")
    facts = store.read_rows(folder / "rows.csv")[[*FACTS]].iloc[0].tolist()
    told = {name: str(one) if isinstance(one, str) else int(one) for name, one in zip(FACTS, facts, strict=True)}
    if told["model"] in MODELS:
        told["n_x"] = sized(str(told["model"]), parts.model(str(told["model"])), join(theta=pick(arrays, "theta"))).n_x
    return dict(sorted(arrays.items())), told


def packed(arrays: dict[str, np.ndarray], facts: dict[str, Any], form: str) -> bytes:
    """Return the content of a file: arrays by name, and the facts as JSON under `metadata`. No form of it is pickled
    Python that a reader would have to run.
    """
    metadata = json.dumps(facts, sort_keys=True)
    if form == "safetensors":
        from safetensors.numpy import save

        return bytes(save(arrays, metadata={"metadata": metadata}))
    if form == "pt":
        from inference.engines import torch_files

        return torch_files.packed(arrays, {"metadata": metadata})
    np.savez(file := io.BytesIO(), metadata=np.array(metadata), **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def lines(path: Path, form: str) -> Iterator[list[str]]:
    """Yield the three lines that load theta into torch, and those that load it into jax."""
    module, read, value = READ[form]
    for library, taken in (("torch", "torch.as_tensor(value)"), ("jax", f"jax.numpy.asarray({value})")):
        made = f'{{name[6:]: {taken} for name, value in saved.items() if name.startswith("theta.")}}'
        yield [f"import {', '.join(sorted({library, module}))}", f"saved = {read.format(str(path))}", f"theta = {made}"]
