"""What a card says of a backend or an engine before it is built is what is found when it is."""

from dataclasses import fields
from typing import Any

import numpy as np
import pytest

import inference
from inference import BACKENDS, ENGINES, AllSettings
from inference.base import Batch, Engine, Settings, arrays
from models.linear_gaussian import LinearGaussian

MODEL = LinearGaussian(6, 2)
X = np.random.default_rng(0).standard_normal((12, 6)).astype(np.float32)


def told(name: str, **changes: Any) -> Settings:
    """The settings of a backend's own class, small."""
    small: dict[str, Any] = {
        "warmup": 0,
        "minibatch": 4,
        "particles": 2,
        "local_steps": 3,
        "leapfrog_steps": 2,
        "weight_updates": 2,
    }
    kind = BACKENDS[name].settings
    known = {f.name for f in fields(kind)}
    return kind(**{key: value for key, value in {**small, **changes}.items() if key in known})


@pytest.mark.parametrize("name", BACKENDS)
def test_a_card_says_what_the_built_backend_has(name: str, engine: Engine) -> None:
    card = BACKENDS[name]
    built = card.build(engine, MODEL, told(name))
    assert card.title and card.has_q == (built.posterior is not None) and built.theta_posterior is None
    if card.has_q_theta:
        assert card.build(engine, MODEL, told(name, theta="vb")).theta_posterior is not None
    else:
        with pytest.raises(ValueError, match="vb"):
            card.build(engine, MODEL, told(name, theta="vb"))


@pytest.mark.parametrize("name", BACKENDS)
def test_a_card_knows_what_a_step_costs(name: str, engine: Engine) -> None:
    """`evaluations` for each datapoint of `batch`, as the step itself counts them."""
    card, settings = BACKENDS[name], told(name)
    built = card.build(engine, MODEL, settings)
    theta, phi = (arrays(engine, group) for group in MODEL.init(0))
    x = engine.array(X)
    state = built.init(engine.key(0), theta, phi, x, engine.array(0.01))
    count = card.batch(settings, len(X))
    rows = engine.array(np.arange(count))
    _, info = built.step(engine.key(1), state, Batch(x[rows], rows, count / len(X)))
    assert float(info.decoder_evals) == count * card.evaluations(settings)


def test_every_setting_of_a_backend_is_one_of_all_and_of_one_meaning() -> None:
    """The flat record has each once, in the order of registration, with the default that its class declares."""
    flat = {f.name: f for f in fields(AllSettings)}
    for card in BACKENDS.values():
        for f in fields(card.settings):
            assert flat[f.name].default == f.default and flat[f.name].metadata == f.metadata
    assert list(flat)[: len(fields(Settings))] == [f.name for f in fields(Settings)]


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_is_found_by_its_card(name: str) -> None:
    inference.look(name)
    assert inference.engine(name).name == name and ENGINES[name].title.lower() == name
