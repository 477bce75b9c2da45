"""The closed-form updates of models x ~ N(z w + b, s^2 I): of one normal z, and of a mixture of normals.

Expectation maximisation of probabilistic principal components (Tipping & Bishop 1999, appendix B) and of a mixture of
factor analysers with common loadings (Baek, McLachlan & Flack 2010); coordinate ascent of the first (Bishop 2006,
section 10.1). Systems are of k latent variables, never of n_x columns.
"""

import math
from typing import Any

from models.base import Array, Conjugate, Params, Ppl

LOG_2PI = math.log(2 * math.pi)
TINY = 1e-30  # the mass of a component that holds nothing, the squares that one datapoint leaves: above 0 in float32


def e_step(xp: Any, theta: Params, x: Array) -> tuple[Params, Array]:
    """Return p(z | x) = N(loc [n, k], covariance [k, k]), the same covariance for all x, and log p(x) [n]."""
    precision, seen = _conditional(xp, theta, x)
    q = {"loc": xp.linalg.solve(precision, seen.T).T, "covariance": xp.linalg.inv(precision)}
    return q, bound(xp, theta, x, q)


def sweep(xp: Any, theta: Params, x: Array, loc: Array) -> tuple[Params, Array]:
    """Maximise the bound over each q(z_j) = N(loc_j, 1 / A_jj) in turn, A the posterior's precision; return it.

    loc_j <- (h_j - sum_{l != j} A_jl loc_l) / A_jj, with h = A E[z | x]: the sweep of Gauss and Seidel, which is one
    triangular system. Its fixed point is the exact mean, and a variance below the exact one (Bishop 2006, 10.1.2).
    """
    precision, seen = _conditional(xp, theta, x)
    lower, variance = xp.tril(precision), 1.0 / xp.einsum("ii->i", precision)
    loc = xp.linalg.solve(lower, (seen - xp.matmul(loc, (precision - lower).T)).T).T
    q = {"loc": loc, "covariance": xp.diag(variance), "variance": variance}
    return q, bound(xp, theta, x, q)


def bound(xp: Any, theta: Params, x: Array, q: Params) -> Array:
    """Return L = E_q[log p(x | z)] - KL(q || p(z)) in nats [n], for q = N(loc [n, k], covariance [k, k])."""
    loc, covariance, w = q["loc"], q["covariance"], theta["w"]
    left = xp.square(x - theta["b"] - xp.matmul(loc, w)).sum(-1) + xp.einsum("ij,id,jd->", covariance, w, w)
    half_log_det = xp.log(xp.einsum("ii->i", xp.linalg.cholesky(covariance))).sum()
    of_z = xp.square(loc).sum(-1) + (xp.einsum("ii->i", covariance) - 1.0).sum()
    of_x = x.shape[1] * (LOG_2PI + 2 * theta["log_scale"]) + left * xp.exp(-2 * theta["log_scale"])
    return half_log_det - 0.5 * (of_x + of_z)


def m_step(xp: Any, theta: Params, x: Array, q: Params, weight: Any = 0.0) -> Params:
    """Return argmax E_q[log p(x, z | theta)] + weight log p(theta): EM's for weight 0, else ECM's."""
    return regression(xp, theta, x, q["loc"], len(x) * q["covariance"], weight)


def regression(xp: Any, theta: Params, x: Array, loc: Array, scatter: Array, weight: Any = 0.0) -> Params:
    """Regress x on z, of which E[z] = loc [n, k] and sum_i Cov[z_i] = scatter [k, k] are known; return w, b, log_scale.

    Data are centred before any product. w and b have the ridge `weight` times the noise as it was; then the noise has
    the root of n d + weight t = S exp(-2 t), S the squares that are left, by Newton's method from that of weight 0.
    """
    n, noise = len(x), weight * xp.exp(2 * theta["log_scale"])
    z, mean, share = loc.mean(0), x.mean(0), n / (n + noise)
    off, one = loc - z, xp.ones_like(z)
    second = xp.matmul(off.T, off) + scatter + noise * (xp.diag(one) + share * z[:, None] * z)
    w = xp.linalg.solve(second, xp.matmul(off.T, x - mean) + noise * share * z[:, None] * mean)
    b = share * (mean - xp.matmul(z, w))
    squares = TINY + xp.square(x - b - xp.matmul(loc, w)).sum() + xp.einsum("ij,id,jd->", scatter, w, w)
    count = n * x.shape[1]
    t = start = 0.5 * xp.log(squares / count)
    for _ in range(3):
        rest = count * xp.exp(2 * (start - t))
        t = t + (rest - count - weight * t) / (2 * rest + weight)
    return {"w": w, "b": b, "log_scale": t}


def mixture_e_step(xp: Any, theta: Params, x: Array) -> tuple[Params, Array]:
    """Return r = p(c | x) [n, C], z | x, c ~ N(loc [n, C, k], covariance [C, k, k]), and log p(x) [n].

    log p(x, c) = log p(c) + log p(z | c) + log p(x | z) - log p(z | x, c), at z = loc.
    """
    w, mu, s = theta["w"], theta["mu"], theta["s"]
    y, tight, noise = x - theta["b"], xp.exp(-2 * s), xp.exp(-2 * theta["log_scale"])
    unit = xp.diag(xp.ones_like(w[:, 0]))
    precision = tight[:, :, None] * unit + xp.matmul(w, w.T) * noise
    covariance = xp.linalg.inv(precision)
    seen = (xp.matmul(y, w.T) * noise)[:, None] + tight * mu
    loc = xp.einsum("ncj,cjk->nck", seen, covariance)
    left = [xp.square(y - xp.matmul(loc[:, c], w)).sum(-1) for c in range(len(mu))]
    half_log_det = xp.log(xp.einsum("cii->ci", xp.linalg.cholesky(precision))).sum(-1)
    of_z = (xp.square(loc - mu) * tight).sum(-1) + 2 * s.sum(-1) + 2 * half_log_det
    of_x = x.shape[1] * (LOG_2PI + 2 * theta["log_scale"]) + xp.stack(left, -1) * noise
    joint = theta["logits"] - _log_sum_exp(xp, theta["logits"])[..., None] - 0.5 * (of_z + of_x)
    log_px = _log_sum_exp(xp, joint)
    return {"r": xp.exp(joint - log_px[:, None]), "joint": joint, "loc": loc, "covariance": covariance}, log_px


def mixture_m_step(xp: Any, theta: Params, x: Array, q: Params, weight: Any = 0.0) -> Params:
    """Return argmax E_q[log p(x, z, c | theta)]: masses, means and variances of z under r, and x regressed on z."""
    r, loc, covariance = q["r"], q["loc"], q["covariance"]
    mass = r.sum(0) + TINY
    mu = xp.einsum("nc,nck->ck", r, loc) / mass[:, None]
    spread = xp.einsum("nc,nck->ck", r, xp.square(loc - mu)) / mass[:, None]
    mean = xp.einsum("nc,nck->nk", r, loc)
    off = loc - mean[:, None]
    scatter = xp.einsum("nc,nci,ncj->ij", r, off, off) + xp.einsum("c,cij->ij", mass, covariance)
    s = 0.5 * xp.log(spread + xp.einsum("cii->ci", covariance))
    return {"logits": xp.log(mass / len(x)), "mu": mu, "s": s, **regression(xp, theta, x, mean, scatter)}


def _normal(ppl: Ppl, covariance: Array, loc: Array) -> None:
    with ppl.plate("data", loc.shape[0]):
        ppl.sample("z", ppl.dist.MultivariateNormal(loc, covariance_matrix=covariance))


def _mixture(ppl: Ppl, covariance: Array, rows: Params) -> None:
    each = ppl.dist.MultivariateNormal(rows["loc"], covariance_matrix=covariance)
    with ppl.plate("data", rows["loc"].shape[0]):
        ppl.sample("z", ppl.dist.MixtureSameFamily(ppl.dist.Categorical(logits=rows["joint"]), each))


def _log_sum_exp(xp: Any, x: Array) -> Array:
    top = xp.amax(x, -1)
    return top + xp.log(xp.exp(x - top[..., None]).sum(-1))


def _conditional(xp: Any, theta: Params, x: Array) -> tuple[Array, Array]:
    """Return A [k, k], the precision of p(z | x), and A E[z | x] [n, k]."""
    w, precision = theta["w"], xp.exp(-2 * theta["log_scale"])
    unit = xp.diag(xp.ones_like(w[:, 0]))
    return unit + xp.matmul(w, w.T) * precision, xp.matmul(x - theta["b"], w.T) * precision


FACTORS = Conjugate(e_step, m_step, lambda q: (q["covariance"], q["loc"]), _normal, sweep, prior=True)
MIXTURE = Conjugate(
    mixture_e_step,
    mixture_m_step,
    lambda q: (q["covariance"], {"loc": q["loc"], "joint": q["joint"]}),
    _mixture,
)
