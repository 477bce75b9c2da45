"""Turns against the clock: each contestant has as many, in an order that chance gives."""

import numpy as np
import pytest

from comparisons.benchmarks import speed
from comparisons.benchmarks.peers import Shape
from comparisons.benchmarks.speed import CHUNK, Contestant, compilation, images, ours, turns
from comparisons.benchmarks.traits import leaps, recognises, remembers
from inference import BACKENDS
from inference.base import Engine

TINY = Shape(5, 2, n_train=150, minibatch=10, n_x=6)


class Clock:
    """Time that passes with steps alone: `first` seconds more for the first call of each contestant."""

    def __init__(self) -> None:
        self.now, self.calls = 0.0, list[tuple[str, int]]()

    def perf_counter(self) -> float:
        return self.now

    def contestant(self, name: str, each: float, first: float = 0.0) -> Contestant:
        def steps(number: int) -> None:
            new = name not in {other for other, _ in self.calls}
            self.now += number * each + first * new
            self.calls.append((name, number))

        return Contestant(name, "torch", TINY, steps)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(speed, "time", clock)
    return clock


def test_turns_are_random_and_everybody_has_as_many(clock: Clock) -> None:
    costs = {"quick": 1e-4, "slow": 2e-3, "slower": 4e-3}
    rows = list(turns([clock.contestant(*each) for each in costs.items()], repeats=20, least=0.5, seed=0))
    order = np.array([row["contestant"] for row in rows]).reshape(20, 3)
    assert all(set(turn) == set(costs) for turn in order)
    assert len({tuple(turn) for turn in order}) == 6  # every order there is
    for row in rows:
        assert row["value"] == pytest.approx(1e3 * costs[row["contestant"]]) and row["quantity"] == "step_ms"
    lengths = dict(clock.calls)  # the last of each
    assert lengths == {"quick": 5000, "slow": 300, "slower": 200}  # whole chunks, of at least half a second
    again = list(turns([clock.contestant(*each) for each in costs.items()], repeats=20, least=0.5, seed=0))
    assert [row["contestant"] for row in again] == order.ravel().tolist()


def test_compilation_is_what_the_first_steps_took_longer(clock: Clock) -> None:
    row = compilation(clock.contestant("compiled", 1e-3, first=7.0))
    assert row["value"] == pytest.approx(7.0) and row["quantity"] == "compile_s"
    assert clock.calls == 2 * [("compiled", CHUNK)]


def test_ours_takes_whole_chunks_and_does_not_go_on_from_nonsense(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = ours("aevb", "numpyro", TINY, threads=1)
    steps(1)
    monkeypatch.setattr(speed, "images", lambda shape: np.full((shape.n_train, shape.n_x), np.nan, np.float32))
    with pytest.raises(RuntimeError, match="aevb on numpyro left the finite numbers"):
        ours("aevb", "numpyro", TINY, threads=1)(1)


def test_images_are_grey() -> None:
    x = images(TINY)
    assert x.shape == (150, 6) and x.dtype == np.float32 and x.min() >= 0 and x.max() <= 1


def test_traits_are_those_that_each_backend_is_known_for(engine: Engine) -> None:
    asked = {trait: {name for name in BACKENDS if trait(engine, name)} for trait in (remembers, leaps, recognises)}
    assert asked == {
        remembers: {"mean_field", "monte_carlo_em"},
        leaps: {"monte_carlo_em"},
        recognises: {"aevb", "wake_sleep"},
    }
