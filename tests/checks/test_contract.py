"""The contract of a model: whatever breaks it is refused before any training, in a line, on both engines."""

import re
import time
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest

import inference
from comparisons import cli, marginal_likelihood
from comparisons.checks import model as of_model
from comparisons.checks.base import FAIL, run
from comparisons.checks.contract import SHIPPED, apart, breach, hold
from comparisons.cli import parts
from comparisons.data import load
from comparisons.errors import FlagError
from comparisons.runner.cell import on
from comparisons.runner.experiment import Experiment
from comparisons.runner.run import run as run_experiment
from inference import ENGINES
from inference.base import Engine
from inference.latents import latents
from inference.rows import width
from models import MODELS

FILE = Path(hostile.__file__)
SIZES = (10, 2, 5)  # of the data set `synthetic`, and as small as can be
X = np.random.default_rng(0).random((2, 10), dtype=np.float32)
SMALL = [
    "--data", "synthetic", "--samples", "200", "--warmup", "0", "--step-size", "0.05", "--eval-points", "10",
    "--elbo-draws", "4", "--n-latent", "2", "--n-hidden", "5", "--evidence", "none",
]  # fmt: skip
PAIRS = [
    (name, engine)
    for name in hostile.BREACHES
    for engine in ENGINES
    if not (engine == "numpyro" and name in hostile.CONSTANT_IN_JAX)
]


@pytest.mark.parametrize(("name", "engine"), PAIRS)
def test_a_model_that_breaks_it_is_refused_before_any_training(
    name: str, engine: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model", f"{FILE}:{name}", "--engine", engine, "--backend", "aevb", "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as caught:
        cli.main(lambda: marginal_likelihood.main([*SMALL, *flags]))
    out, err = capfd.readouterr()
    assert caught.value.code == 2 and not out, err
    assert err.startswith(f"error: model 'hostile.py:{name}' on {engine} cannot be compared. Found ")
    assert err.count("\n") == 1 and "Traceback" not in err and str(FILE.parent) not in err
    assert all(words in err for words in hostile.BREACHES[name]), err
    assert "To mend it, " in err or name == "Crashing"
    assert not list(tmp_path.rglob("rows.csv")), "something has run"


@pytest.mark.parametrize("name", hostile.BREACHES)
def test_the_conformance_suite_says_the_same(name: str) -> None:
    case = of_model.Case(getattr(hostile, name), inference.engine("pyro"), *SIZES)
    (outcome,) = run((of_model.keeps_the_contract,), case)
    assert outcome.status == FAIL and outcome.text.startswith("Found "), outcome
    assert all(words in outcome.text for words in hostile.BREACHES[name]), outcome.text


@pytest.mark.parametrize("name", hostile.SOUND)
def test_what_only_looks_like_a_breach_is_none(name: str, engine: Engine) -> None:
    assert breach(engine, getattr(hostile, name)(*SIZES), X) == ""


@pytest.mark.parametrize("sizes", [(10, 1, 5), (784, 20, 50)])
@pytest.mark.parametrize("name", MODELS)
def test_registered_models_keep_it_in_seconds(name: str, sizes: tuple[int, int, int], engine: Engine) -> None:
    if name == "state_space":  # whose covariances over times are for some hundred of them
        sizes = min(sizes[0], 100), sizes[1], sizes[2]
    model = MODELS[name](*sizes)
    x = np.random.default_rng(1).random((2, width(model)), dtype=np.float32)
    if model.support == "count":
        x[:, : model.n_x] = np.floor(10 * x[:, : model.n_x])
    assert type(model).__module__ in SHIPPED  # a comparison takes this test's word for it
    start = time.process_time()
    assert breach(engine, model, x) == ""
    # 0.1 (pyro) and 0.6 (numpyro, which compiles), on a busy machine too; 3 for levels, which are a mixture of points.
    # What has other latents NumPyro runs op by op, to find them.
    assert time.process_time() - start < (8.0 if latents(engine, model).plain else 20.0)


def test_the_example_of_other_latents_keeps_it(tmp_path: Path, engine: Engine) -> None:
    text = (FILE.parents[1] / "docs" / "extending.md").read_text()
    (example,) = re.findall(r"### Other latent sites.*?```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "size_and_shares.py").write_text(example)
    build: Any = parts.model(parts.find("model", f"{tmp_path}/size_and_shares.py:SizeAndShares"))
    assert breach(engine, build(10, 3, 5), X) == ""


def test_the_example_of_a_model_keeps_it(tmp_path: Path, engine: Engine) -> None:
    text = (FILE.parents[1] / "docs" / "extending.md").read_text()
    (example,) = re.findall(r"`factor_analysis\.py`\. NAME.*?```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "factor_analysis.py").write_text(example)
    build: Any = parts.model(parts.find("model", f"{tmp_path}/factor_analysis.py:FactorAnalysis"))
    assert breach(engine, build(*SIZES), X) == ""


def test_every_run_holds_its_model_itself() -> None:
    """A fit that no grid has looked ahead for, as samples and calibration make them."""
    scaled = parts.find("model", f"{FILE}:Beta")
    experiment = Experiment(model=scaled, data="synthetic", n_latent=2, engine="pyro", samples=200, evidence=("none",))
    data = load("synthetic")
    cell = on(experiment, data)
    with pytest.raises(FlagError, match=r"Beta.*site z of generative"):
        next(run_experiment("fit", cell, data))


SAID = ("Sound", "Beta", "MaskedX", "MaskedColumns", "Hierarchical", "NoPlate", "PlateOfColumns", "Subsampled", "Param")


@pytest.mark.parametrize("name", SAID)
def test_both_engines_tell_the_same_of_a_program(name: str, engines: dict[str, Engine]) -> None:
    """Kinds, shapes, scales, masks and plates; with a value for a site, that it is known."""
    model = getattr(hostile, name)(*SIZES)
    told = []
    for one in engines.values():
        theta = {key: one.array(value) for key, value in model.init(0)[0].items()}
        for values in ({}, {"z": one.array(np.ones((4, 2)))}):
            sites = one.sites(one.key(0), model.generative, values, theta, 4)
            told.append(
                {
                    name: (
                        site.kind, site.observed, site.masked, site.plates, float(site.scale or 1.0),
                        site.fn and (tuple(site.fn.batch_shape), tuple(site.fn.event_shape)),
                        tuple(site.value.shape),
                    )
                    for name, site in sites.items()
                }
            )  # fmt: skip
    assert told[:2] == told[2:]
    assert told[1]["z"][1] and not told[0]["z"][1]


def test_it_leaves_the_caller_as_it_was() -> None:
    import pyro
    import torch

    pyro.clear_param_store()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    for name in ("Sound", "Param", "Module", "WidePrior"):
        breach(inference.engine("pyro"), getattr(hostile, name)(*SIZES), X)
    assert (torch.get_rng_state() == before).all() and not list(pyro.get_param_store())


def test_a_question_asked_again_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from comparisons.checks import contract

    asked = []

    def counted(*args: Any) -> str:
        asked.append(args)
        return ""

    contract._known.cache_clear()
    monkeypatch.setattr(contract, "breach", counted)
    for build in (hostile.Sound, hostile.Sound, *MODELS.values()):
        hold(inference.engine("pyro"), build(*SIZES), "one", X)
    contract._known.cache_clear()
    assert len(asked) == 1


def test_two_datapoints_that_differ_are_looked_at() -> None:
    x = np.zeros((50, 3), np.float32)
    x[7] = 1.0
    assert (apart(x) == [[0.0] * 3, [1.0] * 3]).all()
    assert apart(x[:1]).shape == (2, 3) and apart(x.astype(np.float64)).dtype == np.float32
