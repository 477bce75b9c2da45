"""`Experiment`: its defaults, its limits, when it is judged, and what its identity stands for."""

import math
import re
import tempfile
from collections.abc import Iterator
from dataclasses import Field, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from comparisons.data import DATA, Data, find
from comparisons.errors import FlagError
from comparisons.evidence.judge import ESTIMATORS, JudgeSettings
from comparisons.runner.cell import Cell, on
from comparisons.runner.experiment import Experiment, built, identity, method, numbers_version
from inference import BACKENDS, ENGINES, AllSettings
from inference.optim import STEP_SIZES
from models import MODELS
from models.vae import VaeBernoulli, VaeGaussian
from models.vae_deep import VaeDeep

DIGEST = "0" * 64


def message(**changes: Any) -> str:
    """The FlagError's message, which must be one line."""
    with pytest.raises(FlagError) as caught:
        Experiment(**changes)
    text = str(caught.value)
    assert text and "\n" not in text
    return text


def out_of_range() -> Iterator[tuple[str, Any]]:
    """Every field with values just beyond each of its limits."""
    for f in fields(Experiment):
        limits, real = f.metadata, "float" in str(f.type)
        if isinstance(f.default, bool):
            continue
        if "choices" in limits:
            yield from ((f.name, bad) for bad in ("nonsense", "", limits["choices"][0].swapcase(), " "))
            continue
        if "low" in limits:
            yield f.name, limits["low"] - 1
        if "high" in limits:
            yield f.name, limits["high"] * 1.001 if real else limits["high"] + 1
        if "above" in limits:
            yield f.name, limits["above"]
            yield f.name, limits["above"] - 1e-6
        if real:
            yield from ((f.name, bad) for bad in (math.nan, math.inf, -math.inf))


def changed(f: Field[Any]) -> Any:
    """Another allowed value of a field."""
    if f.name == "evidence":
        return ("none",)
    if f.name == "model":
        return "vae_gaussian"
    if f.name == "n_train":
        return 1000
    if f.default == ():
        return (50,)
    if f.name == "levels":
        return 5
    if isinstance(f.default, bool):
        return not f.default
    if "choices" in f.metadata:
        return next(choice for choice in f.metadata["choices"] if choice != f.default)
    if f.name == "step_size":
        return 0.05
    default: Any = f.default
    return default / 2 if isinstance(default, float) else default + 1


# Defaults and limits


def test_the_defaults_are_a_valid_experiment_with_everything_decided() -> None:
    experiment = Experiment()
    assert (experiment.model, experiment.evidence) == ("vae_bernoulli", ("quadrature",))
    assert (experiment.data, experiment.backend, experiment.engine) == ("digits", "aevb", "numpyro")
    assert experiment.minibatch == 100 and experiment.optimizer == "adagrad" and experiment.step_size == "auto"


@pytest.mark.parametrize(
    ("settings", "model", "evidence"),
    [
        ({"data": "mnist"}, "vae_bernoulli", ("quadrature",)),
        ({"data": "mnist_binary", "n_latent": 4}, "vae_bernoulli", ("importance",)),
        ({"data": "frey", "n_latent": 2}, "vae_gaussian", ("quadrature",)),
        ({"data": "frey", "n_latent": 20}, "vae_gaussian", ("importance",)),
        ({"data": "synthetic"}, "linear_gaussian", ("exact",)),
        ({"data": "digits", "model": "linear_gaussian", "n_latent": 10}, "linear_gaussian", ("exact",)),
        ({"data": "synthetic", "evidence": ("quadrature",)}, "linear_gaussian", ("quadrature",)),
        ({"data": "synthetic", "model": "vae_gaussian"}, "vae_gaussian", ("quadrature",)),
        # Of two latent sites each variable counts twice.
        ({"data": "mnist", "model": "hierarchical_vae", "n_latent": 1}, "hierarchical_vae", ("quadrature",)),
        ({"data": "mnist", "model": "hierarchical_vae", "n_latent": 2}, "hierarchical_vae", ("importance",)),
    ],
)
def test_auto_takes_what_fits(settings: dict[str, Any], model: str, evidence: tuple[str, ...]) -> None:
    experiment = Experiment(**settings)
    assert (experiment.model, experiment.evidence) == (model, evidence)


def test_every_field_has_a_help_text_and_limits() -> None:
    for f in fields(Experiment):
        assert f.metadata["help"], f.name
        assert {"choices", "low", "high", "above"} & set(f.metadata) or isinstance(f.default, bool), f.name


@pytest.mark.parametrize(("name", "bad"), list(out_of_range()))
def test_a_value_beyond_its_limits_is_refused_by_name(name: str, bad: Any) -> None:
    text, limits = message(**{name: bad}), Experiment.__dataclass_fields__[name].metadata
    assert name in text or name.replace("_", " ") in text
    if "choices" in limits:
        assert repr(bad) in text and all(choice in text for choice in limits["choices"])
    else:
        assert str(bad) in text and any(str(limits[limit]) in text for limit in ("low", "above") if limit in limits)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"n_latent": 0}, ["n_latent", "0", "1000"]),
        ({"n_latent": 10**9}, ["n_latent", "1000000000", "1000"]),
        ({"samples": 99}, ["samples", "99", "minibatch", "100"]),
        ({"samples": 0}, ["samples", "0"]),
        ({"minibatch": -1}, ["minibatch", "-1"]),
        ({"seed": -1}, ["seed", "-1"]),
        ({"seed": 2**31}, ["seed", str(2**31)]),
        ({"step_size": "fast"}, ["step_size", "'fast'", "auto"]),
        ({"step_size": 0.0}, ["step_size", "0.0"]),
        ({"target_acceptance": "auto"}, ["target_acceptance", "'auto'"]),
        ({"local_step_size": "auto"}, ["local_step_size", "'auto'"]),
        ({"backend": "avb"}, ["'avb'", *BACKENDS]),
        ({"engine": "stan"}, ["'stan'", *ENGINES]),
        ({"model": "vae"}, ["'vae'", *MODELS]),
        ({"data": "cifar"}, ["'cifar'", *DATA]),
        ({"evidence": ("appendix",)}, ["'appendix'", *ESTIMATORS]),
        ({"evidence": ("quadrature",), "n_latent": 4}, ["quadrature", "n_latent", "3", "4"]),
        ({"evidence": ("exact",)}, ["exact", "closed form", "vae_bernoulli"]),
        ({"evidence": ("none", "quadrature")}, ["none", "quadrature"]),
        ({"evidence": ("bidirectional",), "data": "mnist"}, ["'bidirectional'", *ESTIMATORS]),
        ({"evidence": ("appendix_d",), "n_latent": 11}, ["appendix_d", "10", "11", "importance"]),
        (
            {"evidence": ("importance",), "backend": "monte_carlo_em", "proposal": "q"},
            ["monte_carlo_em", "--proposal hmc"],
        ),
        (
            {"evidence": ("annealed",), "backend": "monte_carlo_em", "start": "recognition"},
            ["monte_carlo_em", "--start prior"],
        ),
        ({"evidence": ("annealed",), "start": "annealed"}, ["annealed", "--start prior or recognition"]),
        ({"evidence": ("exact",), "data": "frey"}, ["exact", "closed form", "vae_gaussian"]),
        ({"model": "vae_bernoulli", "data": "synthetic"}, ["vae_bernoulli", "synthetic"]),
    ],
)
def test_the_message_names_the_value_and_what_is_allowed(settings: dict[str, Any], words: list[str]) -> None:
    text = message(**settings)
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("settings", "shape", "words"),
    [
        ({"minibatch": 200}, (150, 64), ["minibatch", "200", "150"]),
        (
            {"backend": "monte_carlo_em", "e_step": "full", "samples": 1000},
            (1297, 64),
            ["samples", "1000", "1297"],
        ),
        ({"model": "linear_gaussian", "n_latent": 10}, (2000, 10), ["n_latent", "10"]),
    ],
)
def test_what_does_not_fit_the_data_is_refused(
    settings: dict[str, Any], shape: tuple[int, int], words: list[str]
) -> None:
    with pytest.raises(FlagError) as caught:
        on(Experiment(**settings), of_shape(*shape))
    assert all(word in str(caught.value) for word in words)
    on(Experiment(), of_shape(1297, 64))


# Checkpoints


def of_shape(n_train: int, n_x: int) -> Data:
    x = np.zeros((n_train, n_x), np.float32)
    return Data("digits", x, x[:2], (1, n_x), "unit", "", False)


def cell(n_train: int, **settings: Any) -> Cell:
    return Cell(Experiment(**settings), n_train, 64, DIGEST)


def seen(experiment: Experiment, n_train: int) -> list[int]:
    found = Cell(experiment, n_train, 64, DIGEST)
    return [step * found.rows_per_step for step in found.stops]


def test_checkpoints_are_1_2_5_from_a_hundred_thousand_on() -> None:
    experiment = Experiment(samples=10_000_000)
    assert seen(experiment, 50_000) == [100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000]


def test_checkpoints_of_a_short_run_start_at_a_tenth_of_it() -> None:
    assert seen(Experiment(samples=100_000), 1000) == [10_000, 20_000, 50_000, 100_000]


def test_the_last_checkpoint_is_the_last_whole_step() -> None:
    assert seen(Experiment(samples=777, minibatch=100), 1000) == [100, 200, 500, 700]
    assert seen(Experiment(samples=100, minibatch=100), 1000) == [100]


@pytest.mark.parametrize("samples", [100, 101, 999, 1000, 12_345, 10**6, 3 * 10**7])
@pytest.mark.parametrize("minibatch", [1, 7, 100])
def test_checkpoints_increase_strictly_and_end_with_the_run(samples: int, minibatch: int) -> None:
    steps = list(cell(1000, samples=samples, minibatch=minibatch).stops)
    assert steps == sorted(set(steps)) and steps[0] >= 1 and steps[-1] == samples // minibatch
    assert len(steps) < 12


def test_a_full_e_step_counts_every_training_point() -> None:
    full = cell(1297, backend="monte_carlo_em", e_step="full", samples=100_000)
    assert full.rows_per_step == 1297
    assert list(full.stops) == [10_000 // 1297, 20_000 // 1297, 50_000 // 1297, 100_000 // 1297]


def test_e_step_is_a_matter_of_monte_carlo_em_alone() -> None:
    assert cell(1297, backend="aevb", e_step="full").rows_per_step == 100


# Identity


@pytest.mark.parametrize("f", fields(Experiment), ids=lambda f: f.name)
def test_every_setting_changes_the_identity(f: Field[Any], tmp_path: Path) -> None:
    asked: dict[str, Any] = {"evidence": ("appendix_d",)} if f.name == "chains" else {}  # else it is no setting
    if f.name == "guide":  # a file or none: `test_foreign_models` holds it
        return
    if f.name in ("test_share", "scale"):  # of data of one's own
        np.save(tmp_path / "mine.npy", np.eye(30))
        asked = {"data": find(str(tmp_path / "mine.npy")), "model": "linear_gaussian"}
    change: Any = "anew" if f.name == "chains" else changed(f)
    assert identity(Experiment(**asked, **{f.name: change}), DIGEST) != identity(Experiment(**asked), DIGEST)


def test_what_is_compiled_depends_on_the_settings_alone() -> None:
    """Long runs on pyro, unless told otherwise; and what is compiled bears one name, whoever decided it."""
    for engine, samples, compile, compiled in (
        ("pyro", 499_900, "auto", False),
        ("pyro", 500_000, "auto", True),
        ("pyro", 500_000, "off", False),
        ("pyro", 100, "on", True),
        ("numpyro", 500_000, "on", False),
    ):
        assert Experiment(engine=engine, samples=samples, compile=compile).compiled == compiled
    full: dict[str, Any] = {"backend": "monte_carlo_em", "e_step": "full", "engine": "pyro", "data": "mnist"}
    # A step of a full E-step takes all points: these are 200 steps, and 10,000.
    assert not Experiment(**full, n_train=50_000, samples=10_000_000).compiled
    assert not Experiment(**full, samples=10_000_000).compiled
    assert Experiment(**full, n_train=1000, samples=10_000_000).compiled
    auto, on, off = (
        identity(Experiment(engine="pyro", samples=500_000, compile=compile), DIGEST)
        for compile in ("auto", "on", "off")
    )
    assert auto == on != off
    with pytest.raises(FlagError, match="compile 'on' is for the cpu, not cuda"):
        Experiment(engine="pyro", compile="on", device="cuda")


def test_the_data_change_the_identity() -> None:
    assert identity(Experiment(), DIGEST) != identity(Experiment(), "1" + DIGEST[1:])


def test_the_version_of_the_numbers_changes_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    before = identity(Experiment(), DIGEST)
    monkeypatch.setitem(ESTIMATORS, "quadrature", ESTIMATORS["quadrature"]._replace(version=5))
    assert identity(Experiment(), DIGEST) != before


def test_a_change_raises_the_version_of_the_cells_it_touches() -> None:
    """Those whose theta saw 500 rows, and those whose estimator missed what it did not see; the others keep theirs."""
    full = {"backend": "monte_carlo_em", "e_step": "full", "samples": 10_000}
    for settings, version in (
        ({"evidence": ("none",)}, 2),
        ({"evidence": ("appendix_d",)}, 2),
        ({"evidence": ("none",), **full}, 3),
        ({}, 4),
        ({"evidence": ("appendix_d", "importance")}, 4),
        (full, 4),
        ({"device": "cuda", "compile": "off", "evidence": ("none",)}, 5),
    ):
        assert numbers_version(Experiment(**settings)) == version


def test_saying_what_auto_decides_does_not_change_the_identity() -> None:
    spelled = Experiment(model="vae_bernoulli", evidence=("quadrature",))
    assert identity(spelled, DIGEST) == identity(Experiment(), DIGEST)


def test_the_identity_is_a_safe_file_name() -> None:
    for backend in BACKENDS:
        for data in DATA:
            name = identity(Experiment(backend=backend, data=data, seed=2**31 - 1), DIGEST)
            assert re.fullmatch(r"[a-z0-9_-]{1,100}", name)
            assert data in name and backend in name and "numpyro" in name and f"seed{2**31 - 1}" in name


# Method


def test_method_names_the_settings_that_are_not_the_defaults() -> None:
    assert method(Experiment()) == ""
    assert method(Experiment(seed=3, n_latent=2, samples=200, backend="mean_field")) == ""
    assert method(Experiment(step_size=0.05)) == "step_size=0.05"
    assert (
        method(Experiment(initial_scale=10.0, log_variance_factor=0.1)) == "initial_scale=10.0 log_variance_factor=0.1"
    )
    assert method(Experiment(theta="ml", particles=5, step_size=0.1)) == "theta=ml particles=5 step_size=0.1"


@pytest.mark.parametrize("f", [*fields(AllSettings), *fields(JudgeSettings)], ids=lambda f: f.name)
def test_method_tells_every_setting_of_backend_and_judge_apart(f: Field[Any]) -> None:
    if f.name in ("evidence", "max_memory"):  # which estimators ran is told by the metrics
        pytest.skip("does not tell two numbers apart")
    if f.name == "chains":  # no setting, where appendix D is not asked for
        assert method(Experiment(evidence=("appendix_d",))) == "chains=kept"
        assert method(Experiment(evidence=("appendix_d",), chains="anew")) == "chains=anew"
        return
    assert method(Experiment(**{f.name: changed(f)})) == f"{f.name}={changed(f)}"


def test_only_models_with_log_variance_weights_take_a_factor_on_them() -> None:
    expected = VaeBernoulli(64, 3, 100, log_variance_factor=0.1), VaeGaussian(560, 3, 100, log_variance_factor=0.1)
    assert built(Experiment(log_variance_factor=0.1), 64) == expected[0]
    assert built(Experiment(log_variance_factor=0.1, data="frey"), 560) == expected[1]
    with pytest.raises(FlagError, match=r"linear_gaussian.* log_variance_factor 0\.1 .*; drop --log-variance-factor"):
        on(Experiment(log_variance_factor=0.1, data="synthetic"), of_shape(2000, 10))


def test_the_layers_of_a_network_are_fields_of_a_model_that_has_them() -> None:
    told: dict[str, Any] = {"model": "vae_deep", "hidden": [40, 30], "activation": "gated"}
    assert built(Experiment(**told), 64) == VaeDeep(64, 3, 100, hidden=(40, 30), activation="gated")
    assert built(Experiment(model="vae_deep"), 64) == VaeDeep(64, 3, 100)
    assert method(Experiment(**told)) == "hidden=40,30 activation=gated"  # words are told apart at spaces
    for flag, value in (("hidden", (40,)), ("activation", "relu"), ("levels", 5)):
        alone: dict[str, Any] = {flag: value}
        with pytest.raises(FlagError, match=rf"^model 'vae_bernoulli': it has no {flag}; drop --{flag}, or .* --model"):
            built(Experiment(**alone), 64)


def test_settings_of_models_rename_no_cell_at_their_defaults() -> None:
    plain = identity(Experiment(model="vae_deep"), DIGEST)
    assert plain == identity(Experiment(model="vae_deep", hidden=(), activation="tanh", levels="auto"), DIGEST)
    assert plain != identity(Experiment(model="vae_deep", hidden=(100, 100)), DIGEST)  # the same, and said
    listed: Any = [5]  # as JSON has it
    assert identity(Experiment(hidden=listed), DIGEST) == identity(Experiment(hidden=(5,)), DIGEST)


@pytest.mark.parametrize(("largest", "told", "levels"), [(9, "auto", 10), (9, 12, 12), (0, "auto", 2), (16, 17, 17)])
def test_the_levels_of_a_column_are_the_datas_unless_told(largest: int, told: int | str, levels: int) -> None:
    """The largest value may lie in the test set; a cell tells the number, and asked for by it keeps its name."""
    data = counts(largest)
    cell = on(Experiment(model="vae_categorical", data=mine(), levels=told), data)
    assert cell.experiment.levels == levels and built(cell.experiment, 6).levels == levels  # type: ignore[attr-defined]
    assert on(cell.experiment, data).name == cell.name
    assert f"levels={levels}" in method(cell.experiment)


def test_too_few_levels_are_refused_with_the_value_and_too_many_with_the_limit() -> None:
    with pytest.raises(FlagError, match=r"levels 9 is too few for the value 9 of mine; choose 10 or more"):
        on(Experiment(model="vae_categorical", data=mine(), levels=9), counts(9))
    with pytest.raises(FlagError, match="levels 20001 is out of range; it must be at least 2 and at most 10000"):
        on(Experiment(model="vae_categorical", data=mine()), counts(20_000))


@cache
def mine() -> str:
    path = Path(tempfile.mkdtemp()) / "mine.npy"
    np.save(path, np.arange(60).reshape(10, 6) % 3)
    return find(str(path))


def counts(largest: int) -> Data:
    train = np.zeros((150, 6), np.float32)
    test = train.copy()
    test[3, 2] = largest
    return Data("mine", train, test, (1, 6), "count", "", False)


def test_stops_are_as_told_and_the_last() -> None:
    one: Any = 5
    told = Experiment(samples=1000, stops=(250, 70, 5000))  # in any order; what lies beyond the end is none
    assert seen(told, 1000) == [200, 1000] and told.stops == (250, 70, 5000)
    assert seen(Experiment(samples=1000, stops=one), 1000) == [1000]
    assert method(told) == ""


def test_the_step_sizes_are_the_papers() -> None:
    assert STEP_SIZES["adagrad"] == STEP_SIZES["adam"] == (0.01, 0.02, 0.1)
