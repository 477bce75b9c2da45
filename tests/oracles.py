"""The models' densities once more, in float64 NumPy and scipy, written from the paper and not from `models`."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy import special, stats

Values = Mapping[str, np.ndarray]


def float64(values: Values) -> dict[str, np.ndarray]:
    return {name: np.array(value, np.float64) for name, value in values.items()}


def log_joint(name: str, theta: Values, z: np.ndarray | Values, x: np.ndarray) -> np.ndarray:
    """Return log p(x, z | theta) in nats [..., n], for z [..., n, k] or all latent sites by name, and rows x [n, d]."""
    values = z if isinstance(z, Mapping) else {"z": z}
    return log_prior_of_z(name, theta, values) + LOG_LIKELIHOOD[name](theta, values[decoded_site(name)], x)


def decoded_site(name: str) -> str:
    """Return which latent site it is that the others of a model reach x through."""
    return {"hierarchical_vae": "z1", "state_space": "h"}.get(name, "z")


def log_prior_of_z(name: str, theta: Values, values: Values) -> np.ndarray:
    """Return log p(z | theta) in nats [..., n] of all latent sites, but of those that are summed out."""
    if name == "gaussian_mixture":
        each = stats.norm.logpdf(values["z"][..., None, :], theta["mu"], np.exp(theta["s"])).sum(-1)
        return np.asarray(special.logsumexp(each + special.log_softmax(theta["logits"]), axis=-1))
    u, log_det = whitened(name, theta, values)
    return np.asarray(stats.norm.logpdf(u).sum(-1) - log_det)


def whitened(name: str, theta: Values, values: Values) -> tuple[np.ndarray, Any]:
    """Return u [..., n, m], N(0, I) where the latent sites are draws of the prior, and log |d sites / d u| [..., n]."""
    if name == "hierarchical_vae":
        hidden = np.tanh(values["z2"] @ theta["v1"] + theta["c1"])
        scale = np.sqrt(np.exp(hidden @ theta["v3"] + theta["c3"]))
        below = (values["z1"] - hidden @ theta["v2"] - theta["c2"]) / scale
        return np.concatenate([values["z2"], below], -1), np.log(scale).sum(-1)
    if name == "state_space":  # one step after the other: what each adds to the last is new
        a, h = np.tanh(theta["raw"])[:, None], values["h"]
        new = (h[..., 1:] - a * h[..., :-1]) * np.cosh(theta["raw"])[:, None]
        u = np.concatenate([h[..., :1], new], -1)
        return u.reshape(*h.shape[:-2], -1), -(h.shape[-1] - 1) * np.log(np.cosh(theta["raw"])).sum()
    if name == "group_effects":
        return (values["z"] - theta["mu"]) / np.exp(theta["log_tau"]), theta["log_tau"].sum()
    if name == "gaussian_mixture":  # given c
        s = theta["s"][values["c"]]
        return (values["z"] - theta["mu"][values["c"]]) * np.exp(-s), s.sum(-1)
    return values["z"], 0.0


def log_prior(theta: Values) -> float:
    """Return log N(theta; 0, I) in nats, summed over all parameters."""
    return float(sum(stats.norm.logpdf(value).sum() for value in theta.values()))


def mean_and_variance(
    name: str, theta: Values, z: np.ndarray, x: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance of what is observed, given z and the covariates in rows x, both [..., n, d]."""
    if name == "state_space":
        mean = np.einsum("k,...kt->...t", theta["c"], z) + theta["b"]
        return mean, np.full_like(mean, np.exp(2 * theta["log_scale"]))
    if name == "group_effects":
        columns = len(theta["log_sigma"])
        mean = np.tile(z, -(-columns // z.shape[-1]))[..., :columns]
        return mean, np.broadcast_to(np.exp(2 * theta["log_sigma"]), mean.shape)
    if name == "supervised":
        assert x is not None
        mean = np.tanh(x[:, :-1] @ theta["v1"] + z @ theta["w1"] + theta["b1"]) @ theta["w2"] + theta["b2"]
        return mean, np.broadcast_to(np.exp(2 * theta["log_scale"]), mean.shape)
    if name in ("linear_gaussian", "gaussian_mixture"):
        mean = z @ theta["w"] + theta["b"]
        return mean, np.full_like(mean, np.exp(2 * theta["log_scale"]))
    if name == "vae_deep":
        mean = special.expit(deep(theta, z) @ theta["w_out"] + theta["b_out"])
        return mean, mean * (1 - mean)
    if name == "vae_categorical":
        probability, levels = special.softmax(categorical_logits(theta, z), axis=-1), np.arange(LEVELS)
        mean = probability @ levels
        return mean, probability @ levels**2 - mean**2
    hidden = np.tanh(z @ theta["w1"] + theta["b1"])
    activation = hidden @ theta["w2"] + theta["b2"]
    if name == "vae_poisson":
        return np.exp(activation), np.exp(activation)
    if name == "vae_negative_binomial":
        return np.exp(activation), np.exp(activation) + np.exp(2 * activation - theta["log_r"])
    if name == "vae_negative_binomial_sized":
        assert x is not None
        mean = x[:, -1:] * special.softmax(activation, axis=-1)
        return mean, mean + mean**2 / np.exp(theta["log_r"])
    if name == "vae_gaussian_unit":
        return activation, np.ones_like(activation)
    mean = special.expit(activation)
    if name in ("vae_bernoulli", "hierarchical_vae"):
        return mean, mean * (1 - mean)
    return mean, np.exp(hidden @ theta["w3"] + theta["b3"])


def log_q(name: str, phi: Values, x: np.ndarray, z: np.ndarray | Values) -> np.ndarray:
    """Return log q(z | x, phi) in nats [..., n], of z or of all latent sites by name."""
    u, log_det = whitened_by_q(name, phi, x, z if isinstance(z, Mapping) else {"z": z})
    return np.asarray(stats.norm.logpdf(u).sum(-1) - log_det)


def whitened_by_q(name: str, phi: Values, x: np.ndarray, values: Values) -> tuple[np.ndarray, Any]:
    """Return u [..., n, m], N(0, I) where the latent sites are draws of q(z | x), and log |d sites / d u| [..., n]."""
    if name == "state_space":
        k, t = phi["b"].shape
        factor = np.tril(phi["factor"], -1) + np.exp(phi["log_scale"])[:, :, None] * np.eye(t)
        off = values["h"] - (x @ phi["w"]).reshape(-1, k, t) - phi["b"]
        u = np.einsum("kts,...ks->...kt", np.linalg.inv(factor), off)
        return u.reshape(*off.shape[:-2], -1), phi["log_scale"].sum()
    if name == "hierarchical_vae":
        below = {key.removeprefix("below_"): value for key, value in phi.items() if key.startswith("below_")}
        z2 = values["z2"]
        x_and_z2 = np.concatenate([np.broadcast_to(x, (*z2.shape[:-1], x.shape[-1])), z2], -1)
        pairs = [(z2, q_moments(name, phi, x)), (values["z1"], q_moments(name, below, x_and_z2))]
    else:
        pairs = [(values["z"], q_moments(name, phi, x))]
    u = np.concatenate([(value - loc) / scale for value, (loc, scale) in pairs], -1)
    return u, sum(np.log(scale).sum(-1) for _, (_, scale) in pairs)


def q_moments(name: str, phi: Values, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of q(z | x, phi), both [n, k]."""
    if name in ("linear_gaussian", "group_effects"):
        loc = x @ phi["w"] + phi["b"]
        return loc, np.broadcast_to(np.exp(phi["log_scale"]), loc.shape)
    if name == "vae_deep":
        hidden = deep(phi, x)
        return hidden @ phi["w_loc"] + phi["b_loc"], np.sqrt(np.exp(hidden @ phi["w_var"] + phi["b_var"]))
    if name == "vae_categorical":
        x = np.eye(LEVELS)[x.astype(int)].reshape(len(x), -1)
    if name == "vae_negative_binomial_sized":
        x = x[:, :-1]
    seen = np.log(1.0 + x) if name in ("vae_poisson", "vae_negative_binomial", "vae_negative_binomial_sized") else x
    hidden = np.tanh(seen @ phi["w3"] + phi["b3"])
    return hidden @ phi["w4"] + phi["b4"], np.sqrt(np.exp(hidden @ phi["w5"] + phi["b5"]))


LEVELS = 10  # of vae_categorical where none are told
UNITS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "tanh": np.tanh,
    "relu": lambda a: np.maximum(a, 0.0),
    "elu": lambda a: np.where(a > 0, a, np.exp(np.minimum(a, 0.0)) - 1.0),
}


def deep(params: Values, h: np.ndarray, activation: str = "tanh") -> np.ndarray:
    """Return the last hidden layer of `vae_deep`, of as many layers as there are weights."""
    for i in range(1, 1 + sum(name[0] == "w" and name[1:].isdigit() for name in params)):
        a = h @ params[f"w{i}"] + params[f"b{i}"]
        h = a * special.expit(h @ params[f"v{i}"] + params[f"c{i}"]) if activation == "gated" else UNITS[activation](a)
    return h


def categorical_logits(theta: Values, z: np.ndarray) -> np.ndarray:
    """Return the logits [..., n, d, LEVELS] of `vae_categorical`: those of column j begin at LEVELS j."""
    flat = np.tanh(z @ theta["w1"] + theta["b1"]) @ theta["w2"] + theta["b2"]
    return np.stack([flat[..., level::LEVELS] for level in range(LEVELS)], -1)


def kl_to_standard_normal(loc: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return KL(N(loc, diag scale^2) || N(0, I)) in nats [n] (the paper's appendix B)."""
    return 0.5 * (loc**2 + scale**2 - 1 - 2 * np.log(scale)).sum(-1)


def linear_gaussian_elbo(theta: Values, phi: Values, x: np.ndarray) -> np.ndarray:
    """Return the bound of `linear_gaussian` in closed form, in nats [n]: E_q[log p(x | z)] is a quadratic's mean."""
    loc, scale = q_moments("linear_gaussian", phi, x)
    mean, variance = mean_and_variance("linear_gaussian", theta, loc)
    spread = scale**2 @ theta["w"] ** 2  # the part of the mean's variance that comes from z
    expected = stats.norm.logpdf(x, mean, np.sqrt(variance)) - 0.5 * spread / variance
    return expected.sum(-1) - kl_to_standard_normal(loc, scale)


def exact_recognition(theta: Values) -> dict[str, np.ndarray]:
    """Return the phi whose q(z | x) is `linear_gaussian`'s exact posterior, for theta with orthogonal rows of w."""
    variance = np.exp(2 * theta["log_scale"])
    covariance = np.diag(1 / (1 + np.square(theta["w"]).sum(1) / variance))
    gain = theta["w"].T @ covariance / variance
    return {"w": gain, "b": -theta["b"] @ gain, "log_scale": 0.5 * np.log(np.diag(covariance))}


def finite_differences(function: Callable[[dict[str, np.ndarray]], float], at: Values, step: float = 1e-5) -> Values:
    """Return the gradient of function(values) at `at` by central differences in float64."""
    values = float64(at)
    gradient = {name: np.zeros_like(value) for name, value in values.items()}
    for name, value in values.items():
        for index in np.ndindex(value.shape):
            centre = value[index]
            value[index] = centre + step
            above = function(values)
            value[index] = centre - step
            gradient[name][index] = (above - function(values)) / (2 * step)
            value[index] = centre
    return gradient


def _bernoulli(theta: Values, z: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return sum x log p + (1 - x) log(1 - p), also for grey x: appendix C.1, equation 11."""
    logits = np.tanh(z @ theta["w1"] + theta["b1"]) @ theta["w2"] + theta["b2"]
    return (x * special.log_expit(logits) + (1 - x) * special.log_expit(-logits)).sum(-1)


def _vae_gaussian(theta: Values, z: np.ndarray, x: np.ndarray) -> np.ndarray:
    mean, variance = mean_and_variance("vae_gaussian", theta, z)
    return stats.norm.logpdf(x, mean, np.sqrt(variance)).sum(-1)


def _linear_gaussian(theta: Values, z: np.ndarray, x: np.ndarray) -> np.ndarray:
    mean, variance = mean_and_variance("linear_gaussian", theta, z)
    return stats.norm.logpdf(x, mean, np.sqrt(variance)).sum(-1)


def _vae_gaussian_unit(theta: Values, z: np.ndarray, x: np.ndarray) -> np.ndarray:
    return stats.norm.logpdf(x, mean_and_variance("vae_gaussian_unit", theta, z)[0]).sum(-1)


def _vae_poisson(theta: Values, z: np.ndarray, x: np.ndarray) -> np.ndarray:
    return stats.poisson.logpmf(x, mean_and_variance("vae_poisson", theta, z)[0]).sum(-1)


def _vae_negative_binomial(theta: Values, z: np.ndarray, x: np.ndarray) -> np.ndarray:
    mean, r = mean_and_variance("vae_negative_binomial", theta, z)[0], np.exp(theta["log_r"])
    return stats.nbinom.logpmf(x, r, r / (r + mean)).sum(-1)


def _vae_deep(theta: Values, z: np.ndarray, x: np.ndarray) -> np.ndarray:
    logits = deep(theta, z) @ theta["w_out"] + theta["b_out"]
    return (x * special.log_expit(logits) + (1 - x) * special.log_expit(-logits)).sum(-1)


def _vae_categorical(theta: Values, z: np.ndarray, x: np.ndarray) -> np.ndarray:
    log_p = special.log_softmax(categorical_logits(theta, z), axis=-1)
    return (log_p * np.eye(LEVELS)[x.astype(int)]).sum((-1, -2))


def _normal(name: str) -> Callable[[Values, np.ndarray, np.ndarray], np.ndarray]:
    """Return the likelihood of a model that observes as many normal columns, the last of a row, as it has means."""

    def log_likelihood(theta: Values, z: np.ndarray, x: np.ndarray) -> np.ndarray:
        mean, variance = mean_and_variance(name, theta, z, x)
        return np.asarray(stats.norm.logpdf(x[:, -mean.shape[-1] :], mean, np.sqrt(variance)).sum(-1))

    return log_likelihood


def _sized(theta: Values, z: np.ndarray, x: np.ndarray) -> np.ndarray:
    mean, variance = mean_and_variance("vae_negative_binomial_sized", theta, z, x)
    share = mean / variance
    return stats.nbinom.logpmf(x[:, :-1], mean * share / (1 - share), share).sum(-1)


LOG_LIKELIHOOD: dict[str, Callable[[Values, np.ndarray, np.ndarray], np.ndarray]] = {
    "vae_bernoulli": _bernoulli,
    "vae_gaussian": _vae_gaussian,
    "vae_gaussian_unit": _vae_gaussian_unit,
    "vae_poisson": _vae_poisson,
    "vae_negative_binomial": _vae_negative_binomial,
    "vae_categorical": _vae_categorical,
    "vae_deep": _vae_deep,
    "linear_gaussian": _linear_gaussian,
    "hierarchical_vae": _bernoulli,
    "state_space": _normal("state_space"),
    "supervised": _normal("supervised"),
    "group_effects": _normal("group_effects"),
    "gaussian_mixture": _normal("gaussian_mixture"),
    "vae_negative_binomial_sized": _sized,
}
