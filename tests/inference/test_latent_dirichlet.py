"""Latent Dirichlet allocation: its bound rises, below an evidence by enumeration, step by step with scikit-learn."""

from typing import Any

import numpy as np
import pytest
from scipy.special import betaln
from sklearn.decomposition import LatentDirichletAllocation

from inference.latent_dirichlet import Prior, bound, init, log_evidence, step

PRIOR = Prior(0.4, 0.2)
FEW = np.array([[2.0, 1, 0, 0], [0, 0, 2, 1], [1, 0, 1, 0]])
EXACT: dict[str, Any] = {"sweeps": 5000, "tolerance": 1e-12}


def corpus(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    topics = rng.dirichlet(np.full(30, 0.2), 3)
    return rng.poisson(80 * rng.dirichlet(np.full(3, 0.4), 60) @ topics).astype(float)


@pytest.mark.parametrize("sweeps", [1, 100])
@pytest.mark.parametrize("seed", range(3))
def test_the_bound_rises_at_every_step(seed: int, sweeps: int) -> None:
    counts = corpus(seed)
    state, reached = init(np.random.default_rng(seed).gamma(100, 0.01, (3, 30)), len(counts)), []
    for _ in range(60):
        state, info = step(state, counts, PRIOR, sweeps)
        reached.append(info.bound)
    assert (np.diff(reached) > -1e-9).all() and reached[-1] > reached[0] + 1.0


@pytest.mark.parametrize("seed", range(4))
def test_the_bound_stays_below_the_evidence(seed: int) -> None:
    state = init(np.random.default_rng(seed).gamma(1, 1, (2, 4)) + 0.1, len(FEW))
    for _ in range(100):
        state, info = step(state, FEW, PRIOR)
    assert info.bound < log_evidence(FEW, 2, PRIOR)


def test_of_one_topic_the_bound_is_the_evidence() -> None:
    _, info = step(init(np.ones((1, 4)), len(FEW)), FEW, PRIOR)
    assert info.bound == pytest.approx(log_evidence(FEW, 1, PRIOR), abs=1e-10)


def test_of_one_token_a_document_and_two_words_the_evidence_is_a_beta_function() -> None:
    """One token is each of two words alike; two tokens of one topic are a Beta's second moment."""
    assert log_evidence(np.array([[1.0, 0.0]]), 3, PRIOR) == pytest.approx(np.log(0.5))
    both = log_evidence(np.array([[2.0, 0.0]]), 1, PRIOR)
    assert both == pytest.approx(betaln(PRIOR.eta + 2, PRIOR.eta) - betaln(PRIOR.eta, PRIOR.eta))


@pytest.mark.parametrize("seed", range(3))
def test_it_goes_step_by_step_with_scikit_learn(seed: int) -> None:
    """With alpha = 1. Below, documents have several optima, and scikit-learn begins each E-step at another place."""
    counts, prior = corpus(seed), Prior(1.0, 0.2)
    state = init(np.random.RandomState(seed).gamma(100.0, 0.01, (3, 30)), len(counts))  # where it begins
    for steps in range(1, 6):
        state, _ = step(state, counts, prior, **EXACT)
        sk = LatentDirichletAllocation(
            n_components=3,
            doc_topic_prior=prior.alpha,
            topic_word_prior=prior.eta,
            learning_method="batch",
            max_iter=steps,
            mean_change_tol=1e-12,
            max_doc_update_iter=5000,
            evaluate_every=0,
            random_state=seed,
        ).fit(counts)
        np.testing.assert_allclose(state.topics, sk.components_, atol=1e-4)
    refitted = state._replace(documents=step(state, counts, prior, **EXACT)[0].documents)  # as its score does
    mine = bound(refitted, counts, prior)
    assert mine == pytest.approx(sk.score(counts), abs=1e-4)
    assert np.exp(-mine / counts.sum()) == pytest.approx(sk.perplexity(counts), rel=1e-6)
