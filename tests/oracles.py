"""The models' densities once more, in float64 NumPy and scipy, written from the paper and not from `models`."""

from collections.abc import Callable, Mapping

import numpy as np
from scipy import special, stats

Values = Mapping[str, np.ndarray]


def float64(values: Values) -> dict[str, np.ndarray]:
    return {name: np.array(value, np.float64) for name, value in values.items()}


def log_joint(name: str, theta: Values, z: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return log p(x, z | theta), in nats [..., n], for z [..., n, k] and x [n, d]."""
    return stats.norm.logpdf(z).sum(-1) + LOG_LIKELIHOOD[name](theta, z, x)


def log_prior(theta: Values) -> float:
    """Return log N(theta; 0, I) in nats, summed over all parameters."""
    return float(sum(stats.norm.logpdf(value).sum() for value in theta.values()))


def mean_and_variance(name: str, theta: Values, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return E[x | z] and Var[x | z], both [..., n, d]."""
    if name == "linear_gaussian":
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
    if name == "vae_gaussian_unit":
        return activation, np.ones_like(activation)
    mean = special.expit(activation)
    if name == "vae_bernoulli":
        return mean, mean * (1 - mean)
    return mean, np.exp(hidden @ theta["w3"] + theta["b3"])


def log_q(name: str, phi: Values, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return log q(z | x, phi) in nats [..., n]."""
    loc, scale = q_moments(name, phi, x)
    return stats.norm.logpdf(z, loc, scale).sum(-1)


def q_moments(name: str, phi: Values, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of q(z | x, phi), both [n, k]."""
    if name == "linear_gaussian":
        loc = x @ phi["w"] + phi["b"]
        return loc, np.broadcast_to(np.exp(phi["log_scale"]), loc.shape)
    if name == "vae_deep":
        hidden = deep(phi, x)
        return hidden @ phi["w_loc"] + phi["b_loc"], np.sqrt(np.exp(hidden @ phi["w_var"] + phi["b_var"]))
    if name == "vae_categorical":
        x = np.eye(LEVELS)[x.astype(int)].reshape(len(x), -1)
    seen = np.log(1.0 + x) if name in ("vae_poisson", "vae_negative_binomial") else x
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


LOG_LIKELIHOOD: dict[str, Callable[[Values, np.ndarray, np.ndarray], np.ndarray]] = {
    "vae_bernoulli": _bernoulli,
    "vae_gaussian": _vae_gaussian,
    "vae_gaussian_unit": _vae_gaussian_unit,
    "vae_poisson": _vae_poisson,
    "vae_negative_binomial": _vae_negative_binomial,
    "vae_categorical": _vae_categorical,
    "vae_deep": _vae_deep,
    "linear_gaussian": _linear_gaussian,
}
