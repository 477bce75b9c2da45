"""PyTorch's example: its own loop is its loss and its steps, and the table says what the rows say."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pandas as pd
import pytest
from frames import frame, pipes, row
from scipy import special

from comparisons import pytorch_example
from comparisons.benchmarks import pytorch_example as room
from comparisons.benchmarks.peers import torch_example
from comparisons.benchmarks.pytorch_example import EPOCH, HAND, PRESET, PUBLISHED, blocks, report
from comparisons.reporting import markdown
from comparisons.runner.experiment import Experiment, built
from comparisons.runner.grid import parse
from models.vae_deep import VaeDeep


def test_the_loop_is_of_the_loss_that_it_says_and_takes_the_rows_once_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    kept: dict[str, Any] = {"steps": 0}

    class Adam(torch.optim.Adam):  # type: ignore[misc, name-defined]
        def __init__(self, weights: Any, lr: float) -> None:
            kept["weights"], kept["lr"] = weights, lr
            super().__init__(weights, lr=lr)

        def step(self, closure: Any = None) -> Any:
            kept["steps"] += 1
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "Adam", Adam)
    monkeypatch.setattr(torch, "randn_like", lambda mean: torch.full_like(mean, 0.3))
    x = np.random.default_rng(0).random((300, 12), np.float32)
    epoch, loss = torch_example(x, 0)
    (w1, b1, w2, b2, w3, b3, w4, b4, w5, b5) = [one.detach().numpy().T.astype(np.float64) for one in kept["weights"]]
    phi, theta = {"w1": w1, "b1": b1}, {"w1": w4, "b1": b4}
    hidden = oracles.deep(phi, x, "relu")
    mean, scale = hidden @ w2 + b2, np.exp(0.5 * (hidden @ w3 + b3))
    logits = oracles.deep(theta, mean + 0.3 * scale, "relu") @ w5 + b5
    cross_entropy = -(x * special.log_expit(logits) + (1 - x) * special.log_expit(-logits)).sum(-1)
    expected = (cross_entropy + oracles.kl_to_standard_normal(mean, scale)).mean()
    before = loss(x)
    assert before == pytest.approx(expected, rel=1e-5) and kept["lr"] == 1e-3
    epoch()
    assert kept["steps"] == 3 and loss(x) < before  # of 128, 128 and 44 rows


def test_the_preset_is_the_examples_network_on_all_images_of_mnist() -> None:
    experiments = parse("pytorch_example", "", PRESET, []).experiments
    assert [(e.engine, e.seed) for e in experiments] == [(name, s) for name in ("pyro", "numpyro") for s in (0, 1, 2)]
    (e,) = {_alike(e) for e in experiments}
    model = built(e, 784)
    assert model == VaeDeep(784, 20, 400, hidden=(400,), activation="relu")
    assert (e.minibatch, e.n_train, e.theta, e.optimizer, e.step_size, e.warmup) == (128, 60_000, "ml", "adam", 1e-3, 0)
    assert [stop / EPOCH for stop in e.stops] == [*PUBLISHED] and EPOCH // 128 == 469 and e.samples == 10 * EPOCH


def _alike(e: Experiment) -> Experiment:
    return replace(e, engine="numpyro", seed=0)


def made(far: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of two seeds, which end `far` from what is published, and what stands beside them."""
    common: dict[str, Any] = {"n_train": 60_000, "data": "mnist_255", "split": "test"}
    rows = [
        row(
            engine=engine,
            seed=seed,
            n_seen=EPOCH * epoch,
            value=-loss - far + 0.1 * (2 * seed - 1),
            seconds=9.0,
            **common,
        )
        for engine in ("pyro", "numpyro")
        for seed in (0, 1)
        for epoch, loss in PUBLISHED.items()
    ]
    beside = [
        {"quantity": "loss", "by": HAND, "seed": 0, "epoch": e, "value": v, "seconds": 3} for e, v in PUBLISHED.items()
    ]
    beside += [
        {"quantity": "epoch_s", "by": by, "value": 3 * v, "core": v}
        for by, v in ((HAND, 2.0), ("pyro", 5.0), ("numpyro", 1.5))
    ]
    beside += [
        {"quantity": "log_px", "by": "pyro", "seed": s, "value": -99.0 - s, "stderr": 0.02, "flagged": 0.25}
        for s in (0, 1)
    ]
    return frame(*rows), pd.DataFrame(beside)


@pytest.mark.parametrize(("far", "verdict"), [(0.6, "Within"), (-0.6, "Within"), (0.8, "Not within")])
def test_the_table_says_how_far_ours_are_and_whether_that_is_near(far: float, verdict: str) -> None:
    text = markdown.printed(blocks(*made(far)), "title")
    assert f"{verdict} 0.7 nats of every published number: ours lie {far:+.2f} to {far:+.2f} nats from them." in text
    lines = pipes(text)
    assert [line[:2] for line in lines if line[0] in ("4", "7", "10")] == [
        [str(epoch), by] for epoch in PUBLISHED for by in ("numpyro", "pyro", HAND)
    ]
    assert ["10", "pyro", f"{105.6 + far:.2f} ± 0.10", "105.6", f"{far:+.2f}", "9"] in lines
    assert ["10", HAND, "105.60", "105.6", "+0.00", "3"] in lines
    assert [line for line in lines if line[0] in ("numpyro", "pyro", HAND)] == [
        ["numpyro", "4.50", "1.50", "0.75", "-"], [HAND, "6.00", "2.00", "1.00", "-"],
        ["pyro", "15.00", "5.00", "2.50", "-99.50 ± 0.50"],
    ]  # fmt: skip
    assert "for 25% the weights are too uneven to trust" in text


def test_what_is_finished_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(__file__).parents[3] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the MNIST files")
    monkeypatch.setattr(room, "POINTS", 4)
    small = "--n-train 128 --samples 1280 --stops 512 896 --seeds 0 --eval-points 4 --engine pyro"
    asked = [*shlex.split(small), "--out", str(tmp_path), "--data-dir", str(folder)]
    assert pytorch_example.main(asked) == 0
    before = {path.name: path.read_bytes() for path in (*tmp_path.glob("*.*"), *tmp_path.glob("parts/*"))}
    monkeypatch.setattr(room, "torch_example", None)
    assert pytorch_example.main(asked) == 0
    assert {name: next(tmp_path.rglob(name)).read_bytes() for name in before} == before
    report(tmp_path)
    assert (tmp_path / "table.md").read_bytes() == before["table.md"]
    assert pytorch_example.main([*asked, "--dry-run"]) == 0
