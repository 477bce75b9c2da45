"""Coordinate ascent for a Bayesian mixture of Gaussians (Bishop 2006, section 10.2).

    pi ~ Dirichlet(alpha_0),  Lambda_k ~ Wishart(W_0, nu_0),  mu_k ~ N(m_0, (beta_0 Lambda_k)^-1)
    c_i ~ Categorical(pi),    x_i ~ N(mu_{c_i}, Lambda_{c_i}^-1)
    q = prod_i Categorical(c_i; r_i)  Dirichlet(pi; alpha)  prod_k N(mu_k; m_k, (beta_k Lambda_k)^-1) Wishart(Lambda_k)

theta is no point here, and all of it has a posterior: so this is no backend, but the same two functions. In float64
NumPy, in which the bound rises at every step to rounding; on small data `log_evidence` is what it stays below.
"""

from itertools import product
from typing import NamedTuple

import numpy as np
from scipy.special import digamma, gammaln, logsumexp, multigammaln

Array = np.ndarray


class Prior(NamedTuple):
    """alpha_0 [], beta_0 [], m_0 [d], the inverse of W_0 [d, d], and nu_0 [] > d - 1."""

    alpha: float
    beta: float
    mean: Array
    inverse: Array
    nu: float


class State(NamedTuple):
    """q: responsibilities r [n, K], alpha [K], beta [K], means [K, d], inverses of W_k [K, d, d] and nu [K]."""

    r: Array
    alpha: Array
    beta: Array
    mean: Array
    inverse: Array
    nu: Array


class Info(NamedTuple):
    """`bound` is L(q) <= log p(X), in nats for all data."""

    bound: float


def init(x: Array, r: Array, prior: Prior) -> State:
    """Return the best factors of pi, mu and Lambda for responsibilities r [n, K] (equations 10.58 to 10.63)."""
    mass = r.sum(0)
    beta, total = prior.beta + mass, r.T @ x
    mean = (prior.beta * prior.mean + total) / beta[:, None]
    off, of_prior = x[:, None] - mean, prior.mean - mean
    inverse = prior.inverse + np.einsum("nk,nki,nkj->kij", r, off, off)
    inverse += prior.beta * of_prior[:, :, None] * of_prior[:, None]
    return State(r, prior.alpha + mass, beta, mean, inverse, prior.nu + mass)


def step(state: State, x: Array, prior: Prior) -> tuple[State, Info]:
    """Maximise the bound over the assignments (equations 10.46 and 10.49), then over all other factors."""
    log_rho = _expected_log_joint(state, x)
    state = init(x, np.exp(log_rho - logsumexp(log_rho, axis=1, keepdims=True)), prior)
    return state, Info(bound(state, x, prior))


def bound(state: State, x: Array, prior: Prior) -> float:
    """Return L = E_q[log p(X, c | pi, mu, Lambda) - log q(c)] - KL of each other factor, in nats for all data."""
    (k, d), precision = state.mean.shape, np.linalg.inv(state.inverse)
    at_zero = np.where(state.r > 0, state.r, 1.0)
    of_data = (state.r * (_expected_log_joint(state, x) - np.log(at_zero))).sum()
    of_weights = dirichlet_kl(state.alpha, np.full(k, prior.alpha))
    off = state.mean - prior.mean
    ratio = prior.beta / state.beta
    of_means = d * (ratio - 1 - np.log(ratio)) + prior.beta * state.nu * np.einsum("ki,kij,kj->k", off, precision, off)
    of_precisions = (
        (state.nu - prior.nu) * _expected_log_det(state)
        + state.nu * (np.einsum("ij,kji->k", prior.inverse, precision) - d)
        + 2 * (_log_wishart(state.inverse, state.nu) - _log_wishart(prior.inverse, np.asarray(prior.nu)))
    )
    return float(of_data - of_weights - 0.5 * (of_means + of_precisions).sum())


def log_evidence(x: Array, components: int, prior: Prior) -> tuple[float, Array]:
    """Return log p(X) [] in nats, and the posterior probability [n, n] that two datapoints share a component.

    Exact, by a sum over all K^n assignments, each of which has a conjugate evidence.
    """
    n, d = x.shape
    scores, shared = [], []
    for c in product(range(components), repeat=n):
        r = np.eye(components)[list(c)]
        q = init(x, r, prior)
        weights = gammaln(q.alpha).sum() - gammaln(q.alpha.sum())
        weights -= components * gammaln(prior.alpha) - gammaln(components * prior.alpha)
        normals = _log_wishart(np.asarray(prior.inverse), np.asarray(prior.nu)) - _log_wishart(q.inverse, q.nu)
        ratios = 0.5 * d * np.log(prior.beta / q.beta) - 0.5 * d * (q.nu - prior.nu) * np.log(2 * np.pi)
        scores.append(weights + (normals + ratios).sum())
        shared.append(r @ r.T)
    total = logsumexp(scores)
    return float(total), np.einsum("c,cij->ij", np.exp(np.array(scores) - total), np.array(shared))


def dirichlet_kl(alpha: Array, prior: Array) -> Array:
    """Return KL(Dirichlet(alpha) || Dirichlet(prior)) in nats, over the last axis."""
    log_norm = gammaln(alpha.sum(-1)) - gammaln(alpha).sum(-1) - gammaln(prior.sum(-1)) + gammaln(prior).sum(-1)
    return np.asarray(log_norm + ((alpha - prior) * expected_log(alpha)).sum(-1))


def expected_log(alpha: Array) -> Array:
    """Return E[log pi] under Dirichlet(alpha), over the last axis (equation 10.66)."""
    return np.asarray(digamma(alpha) - digamma(alpha.sum(-1, keepdims=True)))


def _expected_log_joint(state: State, x: Array) -> Array:
    """Return E_q[log p(x_i, c_i = k)] [n, k] (equations 10.46 and 10.64)."""
    d, off, precision = x.shape[1], x[:, None] - state.mean, np.linalg.inv(state.inverse)
    distance = d / state.beta + state.nu * np.einsum("nki,kij,nkj->nk", off, precision, off)
    return np.asarray(expected_log(state.alpha) + 0.5 * (_expected_log_det(state) - d * np.log(2 * np.pi) - distance))


def _expected_log_det(state: State) -> Array:
    """Return E_q[log |Lambda_k|] [k] (equation 10.65)."""
    d = state.mean.shape[1]
    halves = digamma(0.5 * (state.nu[:, None] - np.arange(d))).sum(1)
    return np.asarray(halves + d * np.log(2) - np.linalg.slogdet(state.inverse)[1])


def _log_wishart(inverse: Array, nu: Array) -> Array:
    """Return log B(W, nu), what a Wishart density begins with (equation B.79)."""
    d = inverse.shape[-1]
    return np.asarray(0.5 * nu * (np.linalg.slogdet(inverse)[1] - d * np.log(2)) - multigammaln(0.5 * nu, d))
