"""What docs/your-model.md holds: its files are loaded, its commands and lines run, where their libraries are."""

import importlib
import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import inference
from comparisons.checks.contract import breach
from comparisons.cli import parts
from models.base import Model

TEXT = (Path(__file__).parents[1] / "docs" / "your-model.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
FILES = dict(re.findall(r"^`(\w+\.py)`.*?```python\n(.*?)```", TEXT, re.DOTALL | re.MULTILINE))
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()]
NEEDS = {"pythae_vae.py": "pythae", "scvi_nb.py": "scvi"}
SMALL = ["--samples", "400", "--warmup", "0", "--step-size", "0.05", "--eval-points", "20", "--elbo-draws", "4"]
CHEAP = [*SMALL, "--n-hidden", "5", "--backend", "aevb"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_block_is_a_file_or_is_run_below() -> None:
    assert [*FILES] == ["mine.py", "mine_jax.py", "pair.py", "pair_numpyro.py", *NEEDS]
    assert len(BLOCKS) == len(FILES) + 2 and len(COMMANDS) == 5


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_run(command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(command)
    assert words[:2] == ["python", "-m"]
    assert importlib.import_module(words[2]).main([*words[3:], *(CHEAP if "check" not in words[2] else [])]) == 0
    assert words[words.index("--model") + 1] in capsys.readouterr().out


@pytest.mark.parametrize(("file", "library"), NEEDS.items())
def test_modules_of_other_libraries_keep_the_contract(file: str, library: str, folder: Path) -> None:
    if not find_spec(library):
        pytest.skip(f"needs {library}")
    model = parts.model(parts.find("model", f"{file}:{file.removesuffix('.py')}"))(12, 2, 5)
    assert breach(inference.engine("pyro", "cpu", 1), model, np.eye(2, 12, dtype=np.float32)) == ""


def test_a_trained_network_is_judged() -> None:
    """Against importance sampling by hand, of the torch modules themselves."""
    (block,) = [text for text in BLOCKS if "estimate(" in text]
    torch.manual_seed(0)
    decoder, encoder = torch.nn.Linear(20, 784), torch.nn.Linear(784, 40)
    x = (torch.rand(4, 784) < 0.3).float()
    names: dict[str, Any] = {"decoder": decoder, "encoder": encoder, "images": x.numpy()}
    exec(block, names)
    with torch.no_grad():
        mean, log_variance = encoder(x).chunk(2, -1)
        q = torch.distributions.Normal(mean, torch.exp(0.5 * log_variance))
        z = q.sample((20_000,))
        log_px_z = torch.distributions.Bernoulli(logits=decoder(z)).log_prob(x).sum(-1)
        log_w = log_px_z + (torch.distributions.Normal(0.0, 1.0).log_prob(z) - q.log_prob(z)).sum(-1)
        error = torch.sqrt((torch.softmax(log_w, 0) ** 2).sum(0))
        expected = torch.logsumexp(log_w, 0) - np.log(20_000)
    off = np.abs(names["found"].value - expected.numpy()) / np.hypot(names["found"].stderr, error.numpy())
    assert off.max() < 4.0


@pytest.mark.parametrize("library", ["flax", "haiku", "equinox"])
def test_lines_of_other_libraries_make_a_model(library: str) -> None:
    if not find_spec(library):
        pytest.skip(f"needs {library}")
    import jax

    from inference.engines.jax_apply import jax_model

    engine = inference.engine("numpyro", "cpu", 1)
    (block,) = [text for text in BLOCKS if "equinox.partition" in text]
    lines = dict(zip(("flax", "haiku", "equinox"), block.split("\n\n"), strict=True))
    key, z = jax.random.PRNGKey(0), np.zeros((1, 2), np.float32)
    names: dict[str, Any] = {"jax": jax, "key": key, "z": z}
    found: Any = importlib.import_module("flax.linen" if library == "flax" else library)
    if library == "flax":
        names["module"] = found.Dense(6)
    elif library == "haiku":
        names["transformed"] = found.without_apply_rng(found.transform(lambda z: found.Linear(6)(z)))
    else:
        names |= {"equinox": found, "network": found.nn.Linear(2, 6, key=key)}
    exec(lines[library], names)
    phi = {"w": 0.1 * np.ones((6, 4))}
    how: dict[str, Any] = {"n_x": 6, "n_latent": 2, "likelihood": "bernoulli"}
    model: Model = jax_model(names["decoder"], lambda phi, x: x @ phi["w"], names["theta"], phi, **how)
    assert len(model.theta_shapes) == 2
    assert breach(engine, model, np.eye(2, 6, dtype=np.float32)) == ""
