"""Coordinate ascent for latent Dirichlet allocation, smoothed (Blei, Ng & Jordan 2003, sections 5.2 and 5.4).

    beta_k ~ Dirichlet(eta) over words,  theta_d ~ Dirichlet(alpha) over topics
    z_di ~ Categorical(theta_d),         w_di ~ Categorical(beta_{z_di})
    q = prod_k Dirichlet(beta_k; lambda_k)  prod_d Dirichlet(theta_d; gamma_d)  prod_di Categorical(z_di; phi_di)

Documents are counts [D, V]. Tokens of one word of a document have one phi, which is best in closed form: it is not
kept. In float64 NumPy, as `bayesian_mixture`, and for the same reason; a step is scikit-learn's batch update.
"""

from itertools import product
from typing import NamedTuple

import numpy as np
from scipy.special import gammaln, logsumexp

from inference.bayesian_mixture import dirichlet_kl, expected_log

Array = np.ndarray


class Prior(NamedTuple):
    """alpha of topics in a document, and eta of words in a topic, the same for each."""

    alpha: float
    eta: float


class State(NamedTuple):
    """q: lambda [K, V], the topics, and gamma [D, K], the documents' proportions."""

    topics: Array
    documents: Array


class Info(NamedTuple):
    """`bound` is L(q) <= log p(words), in nats for all tokens; `sweeps` how often the documents were swept."""

    bound: float
    sweeps: int


def init(topics: Array, documents: int) -> State:
    """Return the state at topics lambda [K, V], with proportions that say nothing."""
    return State(topics, np.ones((documents, len(topics))))


def step(state: State, counts: Array, prior: Prior, sweeps: int = 100, tolerance: float = 1e-6) -> tuple[State, Info]:
    """Fit proportions and assignments with the topics held, until gamma moves less than `tolerance`; then the topics.

    Each of these maximises the bound over its factor (Blei et al., equations 6 and 7, and lambda's of section 5.4).
    """
    words = np.exp(expected_log(state.topics))
    documents, taken, moved = state.documents, 0, np.inf
    while taken < sweeps and moved >= tolerance:
        shares = np.exp(expected_log(documents))
        found = prior.alpha + shares * ((counts / (shares @ words)) @ words.T)
        moved, documents, taken = np.abs(found - documents).mean(1).max(), found, taken + 1
    shares = np.exp(expected_log(documents))
    topics = prior.eta + words * (shares.T @ (counts / (shares @ words)))
    state = State(topics, documents)
    return state, Info(bound(state, counts, prior), taken)


def bound(state: State, counts: Array, prior: Prior) -> float:
    """Return L = sum_d E_q[log p(w, z) - log q(z)] - KL of proportions - KL of topics, in nats for all tokens."""
    shares, words = np.exp(expected_log(state.documents)), np.exp(expected_log(state.topics))
    of_tokens = (counts * np.log(shares @ words)).sum()
    of_documents = dirichlet_kl(state.documents, np.full_like(state.documents, prior.alpha)).sum()
    return float(of_tokens - of_documents - dirichlet_kl(state.topics, np.full_like(state.topics, prior.eta)).sum())


def log_evidence(counts: Array, topics: int, prior: Prior) -> float:
    """Return log p(words) in nats, exact: a sum over the topics of all tokens, proportions and topics integrated out.

    It has topics^tokens terms.
    """
    of_document, words = np.nonzero(counts)
    each = counts[of_document, words].astype(int)
    of_document, words = np.repeat(of_document, each), np.repeat(words, each)
    scores = []
    for z in product(range(topics), repeat=len(words)):
        of_topic = np.eye(topics)[list(z)]  # [tokens, K]
        in_document = np.eye(len(counts))[of_document].T @ of_topic
        in_topic = of_topic.T @ np.eye(counts.shape[1])[words]
        scores.append(_log_polya(in_document, prior.alpha) + _log_polya(in_topic, prior.eta))
    return float(logsumexp(scores))


def _log_polya(counts: Array, alpha: float) -> float:
    """Return the log probability of sequences with these counts [..., m], each drawn from its own Dirichlet(alpha)."""
    m = counts.shape[-1]
    rows = (
        gammaln(alpha + counts).sum(-1) - gammaln(m * alpha + counts.sum(-1)) - m * gammaln(alpha) + gammaln(m * alpha)
    )
    return float(rows.sum())
