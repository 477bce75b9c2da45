"""The benchmark: what it counts and how it is told; the numbers themselves are a machine's."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from comparisons.benchmarks import peers, speed, speed_report
from comparisons.benchmarks.peers import Shape
from comparisons.reporting import markdown

TINY = Shape(5, 2, n_train=150, minibatch=10, n_x=6)


def test_the_roof_is_six_products_and_monte_carlo_em_has_37() -> None:
    forward, weights, inputs = peers._layer(TINY)
    assert [a[0] * a[1] * b[1] for a, b in (forward, weights, inputs)] == 3 * [10 * 5 * 6]
    for (_, inner), (again, _) in (forward, weights, inputs):
        assert inner == again
    for steps in (peers.step_products(TINY), peers.em_products(TINY, 10, 5)):
        steps(2)


@pytest.mark.parametrize("loss", ["Trace_ELBO", "JitTrace_ELBO"])
def test_stock_pyro_takes_steps(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pyro = pytest.importorskip("pyro")
    with pyro.get_param_store().scope():
        peers.pyro_svi(TINY, speed._images(TINY), loss)(2)


def test_the_others_take_steps() -> None:
    peers.torch_by_hand(TINY, speed._images(TINY))(2)
    peers.numpyro_svi(TINY, speed._images(TINY))(2)


def test_minibatches_are_those_of_a_comparison() -> None:
    batches = peers.minibatches(TINY)
    first, second = next(batches), next(batches)
    assert len(set(first)) == TINY.minibatch and max(first) < TINY.n_train and (first != second).any()


def test_several_seeds_at_once_are_each_alone() -> None:
    """One seed of the vectorised axis ends where it ends by itself."""
    from comparisons.runner.run import training
    from inference import engine
    from inference.base import Settings, arrays, numpys
    from models.vae import VaeBernoulli

    here = engine("numpyro", "cpu", 1)
    built, train = training(here, VaeBernoulli(6, 2, 5), "aevb", Settings(warmup=0, minibatch=10), False)
    x = here.array(speed._images(TINY))
    groups = [arrays(here, group) for group in VaeBernoulli(6, 2, 5).init(0)]
    start = numpys(here, built.init(here.key(0), *groups, x, here.array(0.01)))
    rows = np.arange(50).reshape(5, 10)
    keys = here.split(here.key(1), 3)
    numbers = here.array(np.arange(5))
    together, _ = peers.vectorised(train, 3)(
        arrays(here, speed._stacked(start, 3)), x, keys, numbers, here.array(np.stack(3 * [rows]))
    )
    alone, _ = train(arrays(here, start), x, keys[1], numbers, here.array(rows))
    for name, value in numpys(here, alone)["params"].items():
        np.testing.assert_allclose(numpys(here, together)["params"][name][1], value, rtol=1e-5, atol=1e-7)


def test_the_parts_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    """On one engine and a small shape: every contestant has its turns, and the units are those of the names."""
    monkeypatch.setattr(speed, "ENGINES", {"numpyro": ""})
    monkeypatch.setattr(speed, "SHAPES", (TINY,))
    monkeypatch.setattr(speed, "GROWTH", {"n_train": ("mean_field", TINY, (150, 200))})
    plan = speed.Plan(repeats=2, seconds=1e-4, threads=1)
    grown = list(speed.growth(plan))
    assert [row["n_train"] for row in grown].count(200) == 2 and all(row["value"] > 0 for row in grown)
    assert {row["contestant"] for row in speed.seeds(plan)} == {"one seed", f"{speed.SEEDS} seeds at once"}
    assert len(list(speed.bound(plan))) == 2 * len(speed.DRAWS)


def measured() -> pd.DataFrame:
    """Rows in which every median is known."""
    rows: list[dict[str, Any]] = []
    ms = {
        (speed_report.ROOF, "torch"): 1.0,
        (f"{speed_report.OWN}monte_carlo_em", "torch"): 5.0,
        ("by hand", "torch"): 3.0,
        ("SVI, Trace_ELBO", "pyro"): 8.0,
        ("SVI, CompiledELBO", "pyro"): 4.0,
        ("SVI, Python loop", "numpyro"): 2.5,
        ("aevb", "numpyro"): 1.25,
        ("aevb", "pyro"): 1.5,
        ("wake_sleep", "numpyro"): 2.0,
        ("wake_sleep", "pyro"): 2.4,
        ("monte_carlo_em", "numpyro"): 9.0,
        ("monte_carlo_em", "pyro"): 10.0,
    }
    told = {"n_hidden": 100, "n_latent": 3, "minibatch": 100, "leapfrog_steps": 0, "n_x": 784}
    for (name, engine), value in ms.items():
        one = {"part": "step", "contestant": name, "engine": engine, **told, "n_train": 50_000}
        rows.append({**one, "quantity": "compile_s", "repeat": 0, "value": 7.0})
        rows += [{**one, "quantity": "step_ms", "repeat": r, "value": value * f} for r, f in enumerate((0.9, 1.0, 5.0))]
    for n, value in ((1000, 2.0), (1_000_000, 2.1)):
        one = {"part": "growth", "axis": "n_train", "contestant": "mean_field", "engine": "numpyro", **told}
        rows.append({**one, "n_train": n, "quantity": "step_ms", "repeat": 0, "value": value})
    for name, value in (("2 workers of one thread", 60.0), ("one at a time, 2 threads", 100.0)):
        one = {"part": "grid", "contestant": name, "cells": 16, "repeat": 0}
        rows.append({**one, "quantity": "grid_s", "value": value})
        rows.append({**one, "quantity": "cells_per_hour", "value": 3600 * 16 / value})
    return pd.DataFrame(rows)


def test_ratios_are_of_medians() -> None:
    found = speed_report.ratios(measured())
    assert found["100/3 aevb numpyro / its products"] == 1.25 and found["100/3 aevb pyro / its products"] == 1.5
    assert found["100/3 SVI, Trace_ELBO pyro / aevb pyro"] == pytest.approx(8 / 1.5, abs=1e-3)
    assert found["100/3 wake_sleep pyro / aevb pyro"] == 1.6
    assert found["100/3 monte_carlo_em pyro / its products"] == 2.0
    assert found["mean_field numpyro, N = 1,000,000 / 1,000"] == 1.05
    assert found["grid, 2 workers of one thread / one at a time, 2 threads"] == 0.6


def test_the_report_is_a_function_of_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    measured().to_csv(path, index=False)
    rows = speed_report.read([path])
    text = markdown.printed(speed_report.blocks(rows))
    assert "| aevb, numpyro | 1.25 | 1.12 | 6.25 | 1.25 x | 6.40 x | 2.40 x | 7.0 |" in text
    assert "1,000: 2.00, 1,000,000: 2.10" in text and "| 960 |" in text
    assert speed_report.figure(rows) == speed_report.figure(speed_report.read([path]))
    empty = rows[rows.part == "nothing"]
    assert speed_report.blocks(empty) == [] and speed_report.ratios(empty) == {}
