"""Models of one library on the command line, in `compare` and in `check`: where they run, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from comparisons import check, compare, marginal_likelihood
from comparisons.cli import parts
from comparisons.errors import FlagError
from comparisons.runner.experiment import Experiment
from comparisons.runner.experiment import identity as name_of

TORCH = """
import torch
from inference.engines.torch_module import torch_model

def unseeded(n_x, n_latent, n_hidden):
    return torch_model(
        torch.nn.Linear(n_latent, n_x), torch.nn.Linear(n_x, 2 * n_latent), n_x=n_x, n_latent=n_latent,
        likelihood="bernoulli",
    )

def mine(*sizes):
    torch.manual_seed(0)
    return unseeded(*sizes)

def narrow(n_x, n_latent, n_hidden):
    return mine(n_x - 1, n_latent, n_hidden)
"""
PAIR = """
import pyro
import pyro.distributions as dist
import torch

def model(x):
    with pyro.plate("rows", x.shape[0]):
        z = pyro.sample("latent", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        logits = z @ pyro.param("weight", 0.1 * torch.ones(2, 6))
        pyro.sample("obs", dist.Bernoulli(logits=logits, validate_args=False).to_event(1), obs=x)

def guide(x):
    with pyro.plate("rows", x.shape[0]):
        pyro.sample("latent", dist.Normal(pyro.param("loc", torch.zeros(2)), 1.0).expand([x.shape[0], 2]).to_event(1))

def of_sizes(x, width=3, depth=4):
    return x
"""
X = (np.random.default_rng(0).random((60, 6)) < 0.5).astype(np.float32)
FLAGS: dict[str, Any] = {
    "n_latent": 2, "n_hidden": 5, "samples": 40, "minibatch": 10, "warmup": 0, "step_size": 0.05, "eval_points": 8,
    "elbo_draws": 2, "quiet": True, "backends": "aevb",
}  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(TORCH)
    (tmp_path / "pair.py").write_text(PAIR)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("told", [{"model": "net.py:mine"}, {"model": "pair.py:model", "guide": "pair.py:guide"}])
def test_it_runs_on_its_own_engine_and_another_is_refused(told: dict[str, Any]) -> None:
    found = compare(X, engines="pyro", seeds=[0, 1], **told, **FLAGS)
    assert set(found.rows.status) == {"ok"} and len(found.fit().theta) >= 1
    flags = [word for name, value in told.items() for word in (f"--{name}", value)]
    typed = [
        "--data",
        "results/marginal_likelihood/data/data.npz",
        "--backend",
        "aevb",
        "--engine",
        "numpyro",
        "--minibatch",
        "10",
    ]
    typed += ["--n-latent", "2"]
    calls = (
        lambda: compare(X, **told, **FLAGS),
        lambda: marginal_likelihood.main([*flags, *typed]),
        lambda: check.main([*flags, "--n-x", "6", "--n-latent", "2"]),
    )
    for call in calls:
        with pytest.raises(
            FlagError, match=rf"'{told['model']}' runs on pyro alone, not on numpyro; add --engine pyro"
        ):
            call()


def test_a_guide_is_part_of_what_tells_results_apart(here: Path) -> None:
    def identity() -> str:
        model, guide = (parts.find(kind, f"pair.py:{kind}") for kind in ("model", "guide"))
        return name_of(Experiment(data="digits", engine="pyro", model=model, guide=guide), "0" * 64)

    first = identity()
    assert identity() == first
    (here / "pair.py").write_text(PAIR + "# another\n")
    assert identity() != first
    assert name_of(Experiment(data="digits"), "0" * 64) == name_of(Experiment(data="digits", guide="none"), "0" * 64)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"model": "net.py:unseeded"}, "other initial values each time; begin it with torch.manual_seed"),
        ({"model": "net.py:narrow"}, r"\(n_x, n_latent\) \(5, 2\), not \(6, 2\)"),
        (
            {"model": "pair.py:model"},
            "takes x alone, as the model of a Pyro or NumPyro pair; add --guide path/to/file.py:",
        ),
        ({"model": "pair.py:of_sizes"}, "is a int, not a models.base.Model; to a model.x. add --guide"),
        ({"guide": "pair.py:guide"}, r"guide 'pair.py:guide' is for a model\(x\) of yours; add --model"),
        ({"model": "pair.py:model", "guide": "aevb"}, "unknown guide 'aevb'"),
        ({"model": "pair.py:model", "guide": "pair.py:absent"}, "defines no absent"),
        ({"model": "pair.py:model", "guide": "pair.py:guide", "n_latent": 3}, "'latent' has 2 .* n_latent be 2"),
        ({"model": "pair.py:guide", "guide": "pair.py:guide"}, "observes nothing and draws latent"),
    ],
)
def test_what_cannot_be_built_ends_with_one_line(told: dict[str, Any], words: str) -> None:
    with pytest.raises(FlagError, match=words) as caught:
        compare(X, engines="pyro", **{**FLAGS, **told})
    assert "\n" not in str(caught.value)
