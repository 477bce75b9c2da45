"""What does theta see? Over an epoch every row of the training set, and each as often as any other.

The optimiser is replaced by one that adds gradients up and moves nothing, and row i of the data is the i-th unit
vector. Where the decoder looks at nothing but its biases, the gradient of bias i then counts how often theta saw row i.
"""

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import inference
from comparisons.data import Data, find
from comparisons.runner.cell import on
from comparisons.runner.experiment import Experiment, built
from comparisons.runner.training import Standing, Trainer, training
from inference import BACKENDS, ENGINES, optim
from inference.base import Optimizer, Params, State, arrays, numpys

N, M, UPDATES = 23, 3, 5  # no multiple of each other: the last block of an epoch is not a whole one
WAYS = [(backend, "minibatch") for backend in BACKENDS] + [("monte_carlo_em", "full")]
SEED, SOON = 831, 11  # with this seed, so few minibatches hold every row
# Per model with a bias for each column: that, and the gradient there of a row that has a 1 in that column, and of one
# that has a 0.
BIASES = {
    "vae_bernoulli": ("b2", 0.5, -0.5),
    "vae_gaussian": ("b2", 0.125, -0.125),
    "vae_gaussian_unit": ("b2", 1.0, 0.0),
    "vae_poisson": ("b2", 0.0, -1.0),
    "vae_negative_binomial": ("b2", 0.0, -0.5),
    "vae_categorical": ("b2", 0.9, -0.1),
    "vae_deep": ("b_out", 0.5, -0.5),
    "linear_gaussian": ("b", 1.0, 0.0),
    "hierarchical_vae": ("b2", 0.5, -0.5),
    "gaussian_mixture": ("b", 1.0, 0.0),
}

# Which rows theta sees is the backend's and the engine's doing, and a model's no more than that its gradient tells: so
# all ways and engines with two models, of which one is linear, and one way with each of the others.
FULL = ("vae_bernoulli", "linear_gaussian")
SEEN = [(model, *way, engine) for model in FULL for way in WAYS for engine in ENGINES]
QUICK = next(name for name, card in ENGINES.items() if card.compiling_is_a_choice)
SEEN += [(model, *WAYS[0], QUICK) for model in BIASES if model not in FULL]

ways = pytest.mark.parametrize(("backend", "e_step"), WAYS)
engines = pytest.mark.parametrize("engine", list(ENGINES))


def counting(warmup: int) -> Optimizer:
    """An optimiser that moves nothing, and whose state is the sum and the number of all gradients."""

    def init(xp: Any, params: Params, step_size: Any) -> State:
        sums = {name: xp.zeros_like(value) for name, value in params.items()}
        return {"step_size": step_size, "sum": sums, "count": xp.zeros_like(step_size)}

    def update(xp: Any, grads: Params, state: State) -> tuple[Params, State]:
        total = {name: state["sum"][name] + g for name, g in grads.items()}
        after = {**state, "sum": total, "count": state["count"] + 1.0}
        return {name: xp.zeros_like(g) for name, g in grads.items()}, after

    return Optimizer(init, update)


@cache
def zeros_and_ones() -> str:
    """Data that every model can score; which, a test says itself."""
    path = Path(tempfile.mkdtemp()) / "eye.npy"
    np.save(path, np.eye(30))
    return find(str(path))


def experiment(backend: str, e_step: str, engine: str, model: str, **changes: Any) -> Experiment:
    return Experiment(
        backend=backend, e_step=e_step, engine=engine, model=model, data=zeros_and_ones(), theta="ml",
        minibatch=M, n_latent=2,
        n_hidden=2, local_steps=1, leapfrog_steps=2, weight_updates=UPDATES, samples=10_000, evidence=("none",),
        **changes,
    )  # fmt: skip


def fit(told: Experiment, x: np.ndarray) -> tuple[Trainer, Standing]:
    """A fit at its start, not cached: what is patched must not stay behind."""
    data = Data("frey", x, x, (1, x.shape[1]), "unit", "", False)
    engine = inference.engine(told.engine, "cpu", 1)
    model = built(told, x.shape[1])
    backend, steps = training.__wrapped__(engine, model, told.backend, told.settings, False)
    train = Trainer(on(told, data), data, engine, model, backend, steps, engine.array(x))
    return train, Standing(state=train.initial(float(told.step_size)))


@cache
def drawn(steps: int, seed: int = 0) -> np.ndarray:
    """How often each row is in a minibatch of a comparison's first steps."""
    told = experiment("aevb", "minibatch", "numpyro", "vae_bernoulli", step_size=0.1, seed=seed)
    rows = fit(told, np.eye(N, dtype=np.float32))[0].minibatch
    return np.bincount(np.concatenate([rows(step) for step in range(steps)]), minlength=N)


@pytest.mark.parametrize(("model", "backend", "e_step", "engine"), SEEN)
def test_theta_sees_every_row_equally_often(
    engine: str, backend: str, e_step: str, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a full E-step to the row: after N updates each was seen M times. In minibatches as often as it was drawn."""
    monkeypatch.setitem(optim.OPTIMIZERS, "adagrad", counting)
    # Not 0: at a logit of exactly 0 the library's Bernoulli has another gradient, a matter of its subgradients.
    told = experiment(backend, e_step, engine, model, step_size=0.1, initial_scale=1e-6)
    train, standing = fit(told, np.eye(N, dtype=np.float32))
    name, seen, unseen = BIASES[model]
    for steps in range(1, N + 1):  # one by one: all share one program
        train.advance(standing, steps)
        updates = float(train.engine.numpy(standing.state["optimizer"]["count"])) / steps
        total = train.engine.numpy(standing.state["optimizer"]["sum"][f"theta.{name}"])
        each = total.reshape(N, -1)  # a column's one bias, or one for each of its levels 0, 1, ...
        total = each[:, min(1, each.shape[1] - 1)]
        counts = (-total - unseen * M * updates * steps) / (seen - unseen)
        if e_step == "full":
            assert np.ptp(np.rint(counts)) <= 1 and np.rint(counts).sum() == M * updates * steps
            np.testing.assert_allclose(counts, np.rint(counts), atol=1e-3)
        else:
            np.testing.assert_allclose(counts, updates * drawn(steps), atol=1e-3)
    assert updates == UPDATES or backend != "monte_carlo_em"
    if e_step == "full":
        np.testing.assert_allclose(counts, M * updates, atol=1e-3)


@ways
@engines
def test_every_row_changes_theta(engine: str, backend: str, e_step: str) -> None:
    """With a real optimiser: another value in one row, whichever it is, leads to another theta."""
    told = experiment(backend, e_step, engine, "linear_gaussian", step_size=0.1, warmup=0, seed=SEED)
    x = np.random.default_rng(0).random((N, 6)).astype(np.float32)
    steps = 5 if e_step == "full" else SOON
    assert drawn(steps, SEED).min() > 0 or e_step == "full"
    train, standing = fit(told, x)
    start = numpys(train.engine, standing.state)

    def theta(x: np.ndarray) -> np.ndarray:
        other, begun = replace(train, x=train.engine.array(x)), Standing(state=arrays(train.engine, start))
        other.advance(begun, steps)
        return np.concatenate([train.engine.numpy(v).ravel() for v in train.theta(begun).values()])

    base = theta(x)
    for row in range(N):
        other = x.copy()
        other[row] += 0.5
        assert np.abs(theta(other) - base).max() > 1e-4, f"row {row}"
    np.testing.assert_array_equal(theta(x), base)


def test_minibatches_draw_every_row_equally_often() -> None:
    """Chi-square over rows, and no row twice in one minibatch."""
    steps = 2000
    counts = drawn(steps)
    expected = steps * M / N
    # Without repetition within a minibatch, the variance of a count is that of a binomial times (N - M) / (N - 1).
    chi_square = np.square(counts - expected).sum() / (expected * (1 - M / N)) * (N - 1) / N
    assert abs(chi_square - (N - 1)) < 4 * np.sqrt(2 * (N - 1))
