"""Conjugate models with a posterior over all parameters, beside scikit-learn and beside the exact evidence."""

from collections.abc import Iterator
from typing import Any

import numpy as np

Row = dict[str, Any]


def pair(
    words: str, data: str, first: list[float], second: float | list[float], below: bool = False, n: int = 1
) -> Row:
    """Return the row of two numbers, in nats of n datapoints: means over seeds, which give the error of the difference.

    `below` says that the first is a bound of the second, and not the same number.
    """
    off = (np.array(first) - second) / n
    told: Row = {"pair": words, "data": data, "relation": "below" if below else "equal", "seeds": len(first)}
    told |= {"first": float(np.mean(first)) / n, "second": float(np.mean(second)) / n, "difference": float(off.mean())}
    return {**told, "stderr": float(off.std(ddof=1) / np.sqrt(len(off))) if len(off) > 1 else 0.0}


def mixtures(seed: int, curves: dict[str, np.ndarray]) -> Iterator[Row]:
    """Yield the Bayesian mixture of Gaussians beside scikit-learn's fit, and beside the evidence of nine datapoints."""
    from sklearn.mixture import BayesianGaussianMixture

    from inference import bayesian_mixture as of

    rng, prior = np.random.default_rng(seed), of.Prior(0.7, 0.5, np.zeros(2), 1.5 * np.eye(2), 3.0)
    x = rng.standard_normal((300, 2)) + np.array([[-3.0, 0.0], [3.0, 1.0], [0.0, 4.0]])[rng.choice(3, 300)]
    name, few = "300 rows of three normals", np.concatenate([rng.normal(-2, 1, (5, 2)), rng.normal(2, 0.5, (4, 2))])
    state = of.init(x, rng.dirichlet(np.ones(3), 300), prior)
    bounds = [of.bound(state, x, prior)]
    for _ in range(200):
        state, info = of.step(state, x, prior)
        bounds.append(info.bound)
    curves["Bayesian mixture"] = np.array(bounds) / len(x)
    told = {"alpha": "weight_concentration", "beta": "mean_precision", "mean": "mean", "nu": "degrees_of_freedom"}
    theirs = {f"{word}_prior": getattr(prior, field) for field, word in told.items()}
    sk = BayesianGaussianMixture(
        n_components=3,
        tol=1e-12,
        max_iter=5000,
        reg_covar=0.0,
        weight_concentration_prior_type="dirichlet_distribution",
        covariance_prior=prior.inverse,
        random_state=seed,
        **theirs,
    ).fit(x)
    at = of.init(x, sk.predict_proba(x), prior)
    yield pair("CAVI, scikit-learn: bound of the Bayesian mixture", name, [bounds[-1]], of.bound(at, x, prior), n=300)
    moved = np.abs(at.mean - sk.means_).max()
    yield pair("CAVI, scikit-learn: means from its assignments", name, [float(moved)], 0.0)
    best = -np.inf
    for start in rng.dirichlet(np.ones(2), (10, len(few))):
        state = of.init(few, start, prior)
        for _ in range(100):
            state, info = of.step(state, few, prior)
        best = max(best, info.bound)
    evidence, _ = of.log_evidence(few, 2, prior)
    yield pair("CAVI's bound, log p(X) by enumeration: mixture", "9 rows", [best], evidence, below=True, n=len(few))


def allocation(seed: int, curves: dict[str, np.ndarray]) -> Iterator[Row]:
    """Yield latent Dirichlet allocation beside scikit-learn's from one start, and beside the evidence of 9 tokens."""
    from sklearn.decomposition import LatentDirichletAllocation

    from inference import latent_dirichlet as of

    rng, prior, steps = np.random.default_rng(seed), of.Prior(1.0, 0.2), 5  # below 1 documents have several optima
    topics = rng.dirichlet(np.full(30, 0.2), 3)
    counts = rng.poisson(80 * rng.dirichlet(np.full(3, 0.4), 60) @ topics).astype(float)
    start = np.random.RandomState(seed).gamma(100.0, 0.01, topics.shape)  # where scikit-learn begins with this seed
    state, bounds = of.init(start, len(counts)), []
    for _ in range(100):
        state, info = of.step(state, counts, prior, 5000, 1e-12)
        bounds.append(info.bound)
        if len(bounds) == steps:
            early = state
    curves["latent Dirichlet"] = np.array(bounds) / len(counts)
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
    name = "60 documents drawn from three topics"
    off = float(np.abs(early.topics - sk.components_).max())
    yield pair(f"CAVI, scikit-learn: topics after {steps} steps from one start", name, [off], 0.0)
    documents = of.step(early, counts, prior, 5000, 1e-12)[0].documents  # its score fits them to the last topics
    mine = of.bound(early._replace(documents=documents), counts, prior)
    yield pair(f"CAVI, scikit-learn: bound after {steps} steps", name, [mine], float(sk.score(counts)), n=len(counts))
    few = np.array([[2.0, 1, 0, 0], [0, 0, 2, 1], [1, 0, 1, 0]])
    best = -np.inf
    for begin in rng.gamma(1.0, 1.0, (10, 2, 4)) + 0.1:
        state = of.init(begin, len(few))
        for _ in range(100):
            state, info = of.step(state, few, prior)
        best = max(best, info.bound)
    exact = of.log_evidence(few, 2, prior)
    yield pair("CAVI's bound, log p(words) by enumeration: topics", "8 tokens", [best], exact, below=True, n=len(few))
