"""The scans by hand: each takes the steps of ours."""

from typing import Any

import numpy as np
import pytest

import inference
from comparisons.benchmarks import scans
from comparisons.benchmarks.peers import Shape
from comparisons.benchmarks.speed import images
from inference import BACKENDS, AllSettings
from inference.base import Batch, arrays, pick
from models.vae import VaeBernoulli

TINY = Shape(5, 2, n_train=150, minibatch=10, n_x=6)
KEYS = 1000


def layers(params: dict[str, Any], *names: tuple[str, ...]) -> list[tuple[Any, Any]]:
    """Weights and bias of each layer, of which one may be two of ours side by side."""
    beside = [np.concatenate([np.asarray(params[name]) for name in each], -1) for each in names]
    return [(beside[i], beside[i + 1]) for i in range(0, len(beside), 2)]


def encoder(phi: dict[str, Any]) -> list[tuple[Any, Any]]:
    return layers(phi, ("w3",), ("b3",), ("w4", "w5"), ("b4", "b5"))


def decoder(theta: dict[str, Any]) -> list[tuple[Any, Any]]:
    return layers(theta, ("w1",), ("b1",), ("w2",), ("b2",))


@pytest.mark.parametrize("backend", [name for name, card in BACKENDS.items() if card.title in scans.SCANS])
def test_a_scan_by_hand_takes_our_steps(backend: str) -> None:
    """In the mean over draws: Adagrad's sums after one step, and what the method has of each datapoint.

    Statistical, 5 standard errors.
    """
    jax = pytest.importorskip("jax")
    assert scans.SCANS.keys() <= {card.title for card in BACKENDS.values()}
    engine, card, rng = inference.engine("numpyro", "cpu", 1), BACKENDS[backend], np.random.default_rng(0)
    model, by_hand = VaeBernoulli(TINY.n_x, TINY.n_latent, TINY.n_hidden), scans.SCANS[card.title]
    theta, phi = ({n: rng.normal(0, 0.5, v.shape).astype(np.float32) for n, v in g.items()} for g in model.init(0))
    begun = jax.device_put(by_hand.start(TINY, encoder(phi), decoder(theta)))
    built = card.build(engine, model, AllSettings(warmup=0, minibatch=TINY.minibatch))
    with engine.pinned():
        x, rows = engine.array(images(TINY)), engine.array(np.arange(TINY.minibatch))
        state = built.init(engine.key(0), arrays(engine, theta), arrays(engine, phi), x, engine.array(0.01))
        if "z" in state:  # the same chains
            state["z"] = engine.array(begun[1][0])
        batch = Batch(x[rows], rows, TINY.fraction)
        keys = jax.numpy.stack([engine.key(seed) for seed in range(KEYS)])
        ours = jax.jit(jax.vmap(lambda key: built.step(key, state, batch)[0]))(keys)
        theirs = jax.vmap(lambda key: by_hand.step(key, begun, scans.Minibatch(x[rows], rows, TINY.fraction))[0])
        (_, sums), own = jax.jit(theirs)(keys)
    squares, has_own = ours["optimizer"]["sum"], {"z", "local"} & set(ours)
    expected: Any = decoder(pick(squares, "theta"))
    expected = (
        [encoder(pick(squares, "phi")), expected] if any(name.startswith("phi") for name in squares) else expected
    )
    moved = [ours["local"]["loc"], ours["local"]["log_scale"]] if "local" in ours else [ours.get("z")]
    pairs = [*zip(jax.tree.leaves(sums), jax.tree.leaves(expected), strict=True), *zip(own, moved, strict=False)]
    assert len(own) == 2 * len(has_own)
    for one, other in (map(np.asarray, pair) for pair in pairs):
        assert one.shape == other.shape and one.any()
        error = np.sqrt((one.var(0, dtype=np.float64) + other.var(0, dtype=np.float64)) / KEYS)
        off = np.abs(one.mean(0, dtype=np.float64) - other.mean(0, dtype=np.float64))
        assert (off <= 5 * error + 1e-6).all()
