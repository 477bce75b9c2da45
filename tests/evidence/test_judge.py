"""The registry of estimators: what their cards say, what `auto` makes of them, and the record of their settings."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pytest

from comparisons.evidence.base import Facts, Target
from comparisons.evidence.exact import exact
from comparisons.evidence.judge import ESTIMATORS, JudgeSettings, automatic
from comparisons.evidence.pairs import Scorer
from inference.base import Engine
from models.base import Ppl, standard_normal_latents
from models.linear_gaussian import LinearGaussian

SMALL = Facts("mine", 2, closed_form=False, has_q=False, backend="mine.py:fit")


def test_settings_keep_their_order() -> None:
    """`method` strings and the names of cells hang on it."""
    assert [f.name for f in fields(JudgeSettings)] == [
        *("evidence", "max_memory", "tolerance", "importance_samples", "proposal", "start", "temperatures"),
        *("annealed_chains", "annealed_leapfrog", "chains", "chain_interval", "hmc_draws", "hmc_chains", "hmc_warmup"),
        *("hmc_leapfrog", "density", "reuse_draws", "force"),
    ]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_record_holds_the_settings_of_each(name: str) -> None:
    assert issubclass(JudgeSettings, ESTIMATORS[name].settings)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_refusal_waits_for_what_is_not_known(name: str) -> None:
    settings = JudgeSettings(proposal="q", start="recognition", chains="anew")
    assert ESTIMATORS[name].refuses(SMALL._replace(closed_form=None, has_q=None), settings) == ""


@pytest.mark.parametrize(
    ("name", "facts", "settings", "words"),
    [
        (
            "quadrature",
            SMALL._replace(n_latent=4),
            {},
            ["'quadrature'", "n_latent <= 3, not 4", "--evidence importance"],
        ),
        ("exact", SMALL, {}, ["'exact'", "closed form", "mine", "--evidence quadrature"]),
        ("importance", SMALL, {"proposal": "q"}, ["mine.py:fit has no q(z|x)", "--proposal hmc"]),
        ("annealed", SMALL, {"start": "recognition"}, ["mine.py:fit has no q(z|x)", "--start prior"]),
        ("annealed", SMALL, {"start": "annealed"}, ["where it ends", "--start prior or recognition"]),
        ("appendix_d", SMALL, {"start": "recognition"}, ["mine.py:fit has no q(z|x)", "--start prior"]),
        ("appendix_d", SMALL._replace(n_latent=11), {}, ["10", "11", "--evidence importance"]),
        ("appendix_d", SMALL, {"start": "annealed", "chains": "kept"}, ["'kept'", "--chains anew or --start prior"]),
    ],
)
def test_a_refusal_is_a_line_with_the_remedy(
    name: str, facts: Facts, settings: dict[str, Any], words: list[str]
) -> None:
    line = ESTIMATORS[name].refuses(facts, JudgeSettings(**settings))
    assert all(word in line for word in words) and "\n" not in line, line


@pytest.mark.parametrize(
    ("facts", "chosen"),
    [
        (SMALL._replace(closed_form=True, n_latent=20), "exact"),
        (SMALL, "quadrature"),
        (SMALL._replace(closed_form=None), "quadrature"),
        (SMALL._replace(n_latent=4), "importance"),
    ],
)
def test_auto_takes_the_first_that_serves(facts: Facts, chosen: str) -> None:
    assert automatic(facts, JudgeSettings()) == chosen


# What an estimator asks of a model, whoever wrote it


@dataclass(frozen=True)
class Coins(LinearGaussian):
    """x ~ Bernoulli, said by its logits or its probabilities, or a family of which nothing is known."""

    word: str = "logits"

    def generative(self, ppl: Ppl, theta: dict[str, np.ndarray], n: int) -> None:
        with ppl.plate("data", n):
            logits = ppl.xp.matmul(standard_normal_latents(ppl, self.n_latent), theta["w"]) + theta["b"]
            half = 0.5 * (ppl.xp.tanh(0.5 * logits) + 1.0)
            said = {"logits": {"logits": logits}, "probs": {"probs": half}}
            dist = ppl.dist.Bernoulli(**said[self.word]) if self.word in said else ppl.dist.Laplace(logits, 1.0)
            ppl.sample("x", dist.to_event(1))


def target(engine: Engine, model: LinearGaussian) -> Target:
    rng = np.random.default_rng(0)
    theta = {"w": rng.standard_normal((2, 5)), "b": rng.standard_normal(5), "log_scale": np.zeros(())}
    placed = {name: engine.array(value) for name, value in theta.items()}
    return Target(engine, model, placed, engine.array(rng.random((3, 5)) < 0.5))


@pytest.mark.parametrize(("word", "factored"), [("logits", True), ("probs", True), ("laplace", False)])
def test_a_decoder_is_known_by_its_words(engine: Engine, word: str, factored: bool) -> None:
    """By a product of matrices or pair by pair: a node's score is the program's own."""
    problem, z = target(engine, Coins(5, 2, word)), np.random.default_rng(1).standard_normal((4, 2))
    scorer = Scorer(problem, 1e9)
    assert scorer.factored == factored
    pairs = np.broadcast_to(z[:, None], (4, 3, 2))
    own = engine.numpy(problem.log_joint(engine.array(pairs)))
    np.testing.assert_allclose(scorer.grid(z), own.T, atol=1e-4)


def test_a_model_that_knows_its_evidence_is_asked(engine: Engine) -> None:
    class Known(LinearGaussian):
        def log_px(self, theta: object, x: np.ndarray) -> np.ndarray:
            return np.full(len(x), -1.5)

    found = exact(target(engine, Known(5, 2)))
    assert found.mean() == (-1.5, 0.0) and found.points == 3
