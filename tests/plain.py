"""The paper's methods once more, in plain NumPy: gradients by hand, no inference library, draws of their own.

The decoder and the encoder are those of `models.vae`, one hidden layer of tanh units, with the same names of weights;
everything else is written from the paper. Each method is a backend that flags can name, on Pyro without compilation,
for NumPy cannot run inside a compiled step:

    python -m comparisons.lower_bound --backend tests/plain.py:wake_sleep --engine pyro --compile off

Arrays: x [n, d], z and noise [n, k], hidden [n, h]. Gradients are of sums over datapoints, to be climbed.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from inference.base import Backend, Batch, Engine, Info, Posterior, Settings, join, pick
from inference.theta import normal
from models.base import Model

Values = Mapping[str, np.ndarray]
Gradients = dict[str, np.ndarray]
Ascent = tuple[float, Gradients, Gradients]  # the objective, and the gradients by theta and phi
Gradient = Callable[[Values, Values, np.ndarray, float, np.random.Generator], Ascent]

LOG_2PI = float(np.log(2 * np.pi))
NUDGE = 1.02  # what HMC's step size is multiplied or divided by after each E-step
GLANCE = 10  # rows of a minibatch that a step's objective is taken over: to see it live, not to judge by


class Outputs(NamedTuple):
    """What the decoder says of x given z: `log_variance` is None for a Bernoulli decoder."""

    hidden: np.ndarray
    logits: np.ndarray
    log_variance: np.ndarray | None


# The methods as backends


def aevb(engine: Engine, model: Model, settings: Settings) -> Backend:
    """AEVB with estimator B and one draw."""
    factor = getattr(model, "log_variance_factor", 1.0)

    def gradient(theta: Values, phi: Values, x: np.ndarray, fraction: float, rng: np.random.Generator) -> Ascent:
        noise = rng.standard_normal((len(x), model.n_latent), np.float32)
        of_theta, of_phi = aevb_gradient(theta, phi, x, noise, factor)
        glance = bound(theta, phi, x[:GLANCE], 1, rng, factor).mean()
        return float(glance), with_prior(of_theta, theta, fraction, settings.theta), of_phi

    return _climber(engine, model, settings, gradient, evaluations=1)


def wake_sleep(engine: Engine, model: Model, settings: Settings) -> Backend:
    """Wake-sleep: theta learns at q's draws for data, phi at what theta dreams."""
    factor = getattr(model, "log_variance_factor", 1.0)

    def gradient(theta: Values, phi: Values, x: np.ndarray, fraction: float, rng: np.random.Generator) -> Ascent:
        shape = (len(x), model.n_latent)
        _, loc, log_variance = encode(phi, x, factor)
        awake = loc + np.exp(0.5 * log_variance) * rng.standard_normal(shape, np.float32)
        asleep = rng.standard_normal(shape, np.float32)
        of_theta = decoder_gradient(theta, awake, x)[0]
        of_phi = sleep_gradient(phi, asleep, dream(theta, asleep, rng), factor)
        glance = bound(theta, phi, x[:GLANCE], 1, rng, factor).mean()
        return float(glance), with_prior(of_theta, theta, fraction, settings.theta), of_phi

    return _climber(engine, model, settings, gradient, evaluations=2)


def monte_carlo_em(engine: Engine, model: Model, settings: Settings) -> Backend:
    """Monte Carlo EM, HMC's step size 2 % up or down after each move, as the authors' code has it."""

    def tuned(size: np.float32, acceptance: float) -> np.float32:
        return size * np.float32(NUDGE if acceptance > settings.target_acceptance else 1 / NUDGE)

    return _monte_carlo_em(engine, model, settings, tuned)


def monte_carlo_em_fast(engine: Engine, model: Model, settings: Settings) -> Backend:
    """Monte Carlo EM, HMC's step size after each move times exp((acceptance - target) / 2), as the suite has it."""

    def tuned(size: np.float32, acceptance: float) -> np.float32:
        return size * np.float32(np.exp(0.5 * (acceptance - settings.target_acceptance)))

    return _monte_carlo_em(engine, model, settings, tuned)


def full_vb(engine: Engine, model: Model, settings: Settings) -> Backend:
    """AEVB with a normal q(theta), whose noise is drawn for each datapoint: the gradient of the same bound, less noisy.

    Kingma, Salimans & Welling (2015), "Variational Dropout and the Local Reparameterization Trick". For Bernoulli
    decoders. The log standard deviations start at log 0.01, as ours do.
    """

    def gradient(theta: Values, phi: Values, x: np.ndarray, fraction: float, rng: np.random.Generator) -> Ascent:
        loc, scale = _q_theta(theta)
        noises = [rng.standard_normal((len(x), width), np.float32) for width in _widths(loc)]
        of_loc, of_scale, of_phi = full_vb_gradient(loc, scale, phi, x, noises, fraction)
        glance = bound(loc, phi, x[:GLANCE], 1, rng).mean()
        return float(glance), of_loc | {f"scale_{name}": value for name, value in of_scale.items()}, of_phi

    plain = _climber(engine, model, settings, gradient, evaluations=1)

    def init(key: Any, theta: Any, phi: Any, x: Any, step_size: Any) -> dict[str, Any]:
        scales = {f"scale_{name}": np.full(value.shape, np.log(0.01)) for name, value in theta.items()}
        return plain.init(key, theta | scales, phi, x, step_size)

    def groups(state: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        return _q_theta(plain.theta(state))

    def theta_posterior(state: dict[str, Any]) -> Posterior:
        return Posterior(normal(model), groups(state))

    return Backend(init, plain.step, lambda state: groups(state)[0], plain.posterior, theta_posterior)


# Gradients by hand


def aevb_gradient(
    theta: Values, phi: Values, x: np.ndarray, noise: np.ndarray, factor: float = 1.0
) -> tuple[Gradients, Gradients]:
    """Gradients of sum_i log p(x_i | z_i) - KL(q(z_i | x_i) || p(z)) at z = mu + sigma noise (equation 7)."""
    hidden, loc, log_variance = encode(phi, x, factor)
    scale = np.exp(0.5 * log_variance)
    of_theta, of_z = decoder_gradient(theta, loc + scale * noise, x)
    of_loc = of_z - loc
    of_log_variance = 0.5 * of_z * noise * scale - 0.5 * (scale**2 - 1)
    return of_theta, encoder_gradient(phi, x, hidden, of_loc, of_log_variance, factor)


def sleep_gradient(phi: Values, z: np.ndarray, x: np.ndarray, factor: float = 1.0) -> Gradients:
    """Gradient of sum_i log q(z_i | x_i, phi)."""
    hidden, loc, log_variance = encode(phi, x, factor)
    precision = np.exp(-log_variance)
    of_loc = (z - loc) * precision
    return encoder_gradient(phi, x, hidden, of_loc, 0.5 * (of_loc * (z - loc) - 1), factor)


def decoder_gradient(theta: Values, z: np.ndarray, x: np.ndarray) -> tuple[Gradients, np.ndarray]:
    """Gradients of sum_i log p(x_i | z_i, theta): by theta, and by z [n, k]."""
    outputs = decode(theta, z)
    heads = residuals(outputs, x)
    gradients = {}
    of_hidden: Any = 0.0
    for weight, bias, residual in heads:
        gradients[weight], gradients[bias] = outputs.hidden.T @ residual, residual.sum(0)
        of_hidden = of_hidden + residual @ theta[weight].T
    before = of_hidden * (1 - outputs.hidden**2)
    return gradients | {"w1": z.T @ before, "b1": before.sum(0)}, before @ theta["w1"].T


def encoder_gradient(
    phi: Values, x: np.ndarray, hidden: np.ndarray, of_loc: np.ndarray, of_log_variance: np.ndarray, factor: float
) -> Gradients:
    """Carry gradients by mu and log sigma^2 [n, k] back to phi."""
    before = (of_loc @ phi["w4"].T + factor * (of_log_variance @ phi["w5"].T)) * (1 - hidden**2)
    return {
        "w3": x.T @ before, "b3": before.sum(0), "w4": hidden.T @ of_loc, "b4": of_loc.sum(0),
        "w5": factor * (hidden.T @ of_log_variance), "b5": of_log_variance.sum(0),
    }  # fmt: skip


def full_vb_gradient(
    loc: Values, scale: Values, phi: Values, x: np.ndarray, noises: list[np.ndarray], fraction: float
) -> tuple[Gradients, Gradients, Gradients]:
    """Gradients of sum_i L(x_i) - fraction KL(q(theta) || N(0, I)): by means, log scales and phi.

    A layer's input u meets weights N(m, s^2) as u m + sqrt(u^2 s^2) noise, with noise for each datapoint and unit.
    `noises` are those of z [n, k], the hidden layer [n, h] and the logits [n, d].
    """
    hidden, z_loc, log_variance = encode(phi, x)
    z_scale = np.exp(0.5 * log_variance)
    z = z_loc + z_scale * noises[0]
    variances = {name: np.exp(2 * value) for name, value in scale.items()}
    spread1 = np.sqrt(z**2 @ variances["w1"] + variances["b1"])
    units = np.tanh(z @ loc["w1"] + loc["b1"] + spread1 * noises[1])
    spread2 = np.sqrt(units**2 @ variances["w2"] + variances["b2"])
    logits = units @ loc["w2"] + loc["b2"] + spread2 * noises[2]

    of_loc: Gradients = {}
    of_variance: Gradients = {}

    def back(layer: str, entered: np.ndarray, of_out: np.ndarray, spread: np.ndarray, noise: np.ndarray) -> np.ndarray:
        of_spread = 0.5 * of_out * noise / spread
        of_loc[f"w{layer}"], of_loc[f"b{layer}"] = entered.T @ of_out, of_out.sum(0)
        of_variance[f"w{layer}"], of_variance[f"b{layer}"] = (entered**2).T @ of_spread, of_spread.sum(0)
        return of_out @ loc[f"w{layer}"].T + 2 * entered * (of_spread @ variances[f"w{layer}"].T)

    of_units = back("2", units, x - special.expit(logits), spread2, noises[2])
    of_z = back("1", z, of_units * (1 - units**2), spread1, noises[1])
    of_phi = encoder_gradient(
        phi, x, hidden, of_z - z_loc, 0.5 * of_z * noises[0] * z_scale - 0.5 * (z_scale**2 - 1), 1.0
    )
    of_scale = {n: 2 * variances[n] * of_variance[n] - fraction * (variances[n] - 1) for n in variances}
    return {name: of_loc[name] - fraction * loc[name] for name in loc}, of_scale, of_phi


def with_prior(gradient: Gradients, theta: Values, fraction: float, kind: str) -> Gradients:
    """Add fraction * d log N(theta; 0, I), for MAP."""
    if kind == "ml":
        return gradient
    return {name: value - np.float32(fraction) * theta[name] for name, value in gradient.items()}


# The model


def decode(theta: Values, z: np.ndarray) -> Outputs:
    """Appendix C: h = tanh(z w1 + b1), logits h w2 + b2; a Gaussian decoder has w3, log sigma^2 = h w3 + b3."""
    hidden = np.tanh(z @ theta["w1"] + theta["b1"])
    log_variance = hidden @ theta["w3"] + theta["b3"] if "w3" in theta else None
    return Outputs(hidden, hidden @ theta["w2"] + theta["b2"], log_variance)


def encode(phi: Values, x: np.ndarray, factor: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the hidden layer, mu and log sigma^2 of q(z | x, phi)."""
    hidden = np.tanh(x @ phi["w3"] + phi["b3"])
    return hidden, hidden @ phi["w4"] + phi["b4"], factor * (hidden @ phi["w5"]) + phi["b5"]


def residuals(outputs: Outputs, x: np.ndarray) -> list[tuple[str, str, np.ndarray]]:
    """Return, for each output layer, its weights' and biases' names and d log p(x | z) / d output [n, d]."""
    mean = special.expit(outputs.logits)
    if outputs.log_variance is None:
        return [("w2", "b2", x - mean)]
    weighted = (x - mean) * np.exp(-outputs.log_variance)
    of_log_variance = 0.5 * ((x - mean) * weighted - 1)
    return [("w2", "b2", weighted * mean * (1 - mean)), ("w3", "b3", of_log_variance)]


def log_joint(theta: Values, z: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return log p(x, z | theta) in nats [..., n], for z [..., n, k] and x [n, d]."""
    _, logits, log_variance = decode(theta, z)
    if log_variance is None:
        each = x * logits - np.maximum(logits, 0) - np.log1p(np.exp(-np.abs(logits)))
    else:
        each = -0.5 * (LOG_2PI + log_variance + (x - special.expit(logits)) ** 2 * np.exp(-log_variance))
    return each.sum(-1) - 0.5 * (z**2 + LOG_2PI).sum(-1)


def dream(theta: Values, z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw x ~ p(x | z)."""
    _, logits, log_variance = decode(theta, z)
    mean = special.expit(logits)
    if log_variance is None:
        return (rng.random(mean.shape, np.float32) < mean).astype(mean.dtype)
    return mean + np.exp(0.5 * log_variance) * rng.standard_normal(mean.shape, np.float32)


def hmc_move(
    theta: Values, z: np.ndarray, x: np.ndarray, size: Any, steps: int, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """Move each chain z [n, k] once; return the chains and the mean acceptance probability."""
    step = np.float32(size)
    start = rng.standard_normal(z.shape, np.float32)
    place, momentum = z, start + 0.5 * step * (decoder_gradient(theta, z, x)[1] - z)
    for number in range(steps):
        place = place + step * momentum
        force = decoder_gradient(theta, place, x)[1] - place
        momentum = momentum + (step if number < steps - 1 else 0.5 * step) * force
    change = log_joint(theta, place, x) - log_joint(theta, z, x) + 0.5 * (start**2 - momentum**2).sum(-1)
    acceptance = np.where(np.isfinite(change), np.exp(np.minimum(change, 0.0)), 0.0)
    accepted = rng.random(len(z)) < acceptance
    return np.where(accepted[:, None], place, z), float(acceptance.mean())


# The judge


def bound(
    theta: Values, phi: Values, x: np.ndarray, draws: int, rng: np.random.Generator, factor: float = 1.0
) -> np.ndarray:
    """Estimate E_q[log p(x, z) - log q(z | x)] for each row of x, in nats [n], from draws of z."""
    _, loc, log_variance = encode(phi, x, factor)
    total = np.zeros(len(x))
    for _ in range(draws):
        noise = rng.standard_normal(loc.shape)
        log_q = -0.5 * (LOG_2PI + log_variance + noise**2).sum(-1)
        total += log_joint(theta, loc + np.exp(0.5 * log_variance) * noise, x) - log_q
    return total / draws


class LogPx(NamedTuple):
    """Per datapoint: log p(x), its standard error (delta method) in nats, and the effective number of draws."""

    value: np.ndarray
    stderr: np.ndarray
    effective: np.ndarray


def log_px(
    theta: Values, x: np.ndarray, rng: np.random.Generator, draws: int = 300, seeds: int = 20_000, modes: int = 12
) -> LogPx:
    """Estimate log p(x) of a Bernoulli decoder by importance sampling from a mixture at the posterior's own modes.

    The prior's `seeds` draws are decoded once. For each datapoint the best of them, `modes`, climb by Fisher scoring;
    there a Student's t with 5 degrees of freedom and the inverse Fisher information as scale makes a component,
    weighted half by its mass in Laplace's approximation and half alike. For a few latent variables.
    """
    theta = {name: np.asarray(value, np.float32) for name, value in theta.items()}
    k = theta["w1"].shape[0]
    z = rng.standard_normal((seeds, k)).astype(np.float32)
    logits = decode(theta, z).logits
    costs = np.logaddexp(0, logits, dtype=np.float32).sum(1)
    found = [_mixture_estimate(theta, rows, z, logits, costs, rng, draws, modes) for rows in _blocks(x, 25)]
    return LogPx(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _mixture_estimate(
    theta: Values, x: np.ndarray, seeds: np.ndarray, logits: np.ndarray, costs: np.ndarray, rng: np.random.Generator,
    draws: int, modes: int,
) -> LogPx:  # fmt: skip
    n, k = len(x), seeds.shape[1]
    prior = -0.5 * np.square(seeds).sum(1)
    scores = x @ logits.T - costs + prior
    best = np.argpartition(-scores, modes, axis=1)[:, :modes]
    centre = seeds[best]  # [n, modes, k]
    for _ in range(8):
        gradient, information = _fisher(theta, centre, x)
        ahead = centre + np.linalg.solve(information, gradient[..., None])[..., 0]
        better = _scored(theta, ahead, x) > _scored(theta, centre, x)
        centre = np.where(better[..., None], ahead, centre)
    _, information = _fisher(theta, centre, x)
    root = np.linalg.cholesky(information)
    log_det = 2 * np.log(np.diagonal(root, axis1=-2, axis2=-1)).sum(-1)
    mass = _scored(theta, centre, x) - 0.5 * log_det
    share = 0.5 * special.softmax(mass, axis=1) + 0.5 / modes

    chosen = (rng.random((n, draws, 1)) > np.cumsum(share, 1)[:, None, :-1]).sum(-1)
    rows = np.arange(n)[:, None]
    stretch = np.sqrt(5.0 / rng.chisquare(5.0, (n, draws, 1)))
    white = rng.standard_normal((n, draws, k)) * stretch
    z = centre[rows, chosen] + np.linalg.solve(np.swapaxes(root, -1, -2)[rows, chosen], white[..., None])[..., 0]
    apart = z[:, :, None, :] - centre[:, None]  # [n, draws, modes, k]
    distance = np.square(np.einsum("nmab,nsma->nsmb", root, apart)).sum(-1)
    constant = special.gammaln(0.5 * (5 + k)) - special.gammaln(2.5) - 0.5 * k * np.log(5 * np.pi)
    log_t = constant + 0.5 * log_det[:, None] - 0.5 * (5 + k) * np.log1p(distance / 5)
    log_q = special.logsumexp(log_t + np.log(share)[:, None], axis=-1)
    log_w = _scored(theta, z.astype(np.float32), x) - log_q
    value = special.logsumexp(log_w, axis=1) - np.log(draws)
    w = np.exp(log_w - value[:, None])
    return LogPx(value, w.std(1, ddof=1) / np.sqrt(draws), np.square(w.sum(1)) / np.square(w).sum(1))


def _fisher(theta: Values, z: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradient of log p(x, z) by z [n, m, k], and the Fisher information of z, prior included [.., k, k]."""
    hidden, logits, _ = decode(theta, z)
    mean = special.expit(logits)
    slope = (theta["w1"] * (1 - hidden**2)[..., None, :]) @ theta["w2"]  # [n, m, k, d]
    gradient = (slope @ (x[:, None] - mean)[..., None])[..., 0] - z
    information = (slope * (mean * (1 - mean))[..., None, :]) @ np.swapaxes(slope, -1, -2)
    return gradient.astype(np.float64), information.astype(np.float64) + np.eye(z.shape[-1])


def _scored(theta: Values, z: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return log p(x_i, z_ij) [n, m] for z [n, m, k], each datapoint with its own draws."""
    return log_joint(theta, np.swapaxes(z.astype(np.float32), 0, 1), x).T.astype(np.float64)


# Adagrad, and a backend's state in NumPy


def adagrad(state: dict[str, Any], gradient: Values, warmup: int) -> dict[str, Any]:
    """Return the state one step further up: p += s g / sqrt(sum g^2 + 1e-8), after `warmup` steps that only sum."""
    count = state["count"] + 1
    total = {name: state["sum"][name] + g * g for name, g in gradient.items()}
    rate = state["step_size"] * np.float32(count > warmup)
    params = {
        name: state["params"][name] + rate * (g / np.sqrt(total[name] + np.float32(1e-8)))
        for name, g in gradient.items()
    }
    return {**state, "params": params, "sum": total, "count": count}


def _climber(engine: Engine, model: Model, settings: Settings, gradient: Gradient, evaluations: int) -> Backend:
    """Return the backend that climbs by Adagrad along gradient(theta, phi, x, fraction, rng)."""
    if settings.particles != 1 or settings.optimizer != "adagrad":
        raise ValueError("the plain methods take one draw for each datapoint, and Adagrad")

    def init(key: Any, theta: Any, phi: Any, x: Any, step_size: Any) -> dict[str, Any]:
        return _start(join(theta=theta, phi=phi), step_size)

    def step(key: Any, state: dict[str, Any], batch: Batch) -> tuple[dict[str, Any], Info]:
        rng, mine, x = _rng(key), _numpy(state), np.asarray(batch.x)
        theta, phi = pick(mine["params"], "theta"), pick(mine["params"], "phi")
        objective, of_theta, of_phi = gradient(theta, phi, x, batch.fraction, rng)
        mine = adagrad(mine, join(theta=of_theta, phi=of_phi), settings.warmup)
        return mine, Info(objective, evaluations * len(x), float("nan"))

    def posterior(key: Any, state: dict[str, Any], x: Any, indices: Any) -> Posterior:
        return Posterior(model.recognition, (_arrays(engine, pick(state["params"], "phi")), x))

    return Backend(init, step, lambda state: _arrays(engine, pick(state["params"], "theta")), posterior)


def _monte_carlo_em(
    engine: Engine, model: Model, settings: Settings, tuned: Callable[[np.float32, float], np.float32]
) -> Backend:
    """A kept chain per datapoint, one HMC move of the minibatch's chains, then updates of theta."""

    def init(key: Any, theta: Any, phi: Any, x: Any, step_size: Any) -> dict[str, Any]:
        z = _rng(key).standard_normal((len(x), model.n_latent), np.float32)
        return _start(join(theta=theta), step_size) | {"z": z, "hmc_step": np.float32(0.1)}

    def step(key: Any, state: dict[str, Any], batch: Batch) -> tuple[dict[str, Any], Info]:
        rng, mine = _rng(key), _numpy(state)
        x, rows = np.asarray(batch.x), np.asarray(batch.indices)
        theta, size = pick(mine["params"], "theta"), mine["hmc_step"]
        z, acceptance = hmc_move(theta, mine["z"][rows], x, size, settings.leapfrog_steps, rng)
        chains = mine["z"].copy()
        chains[rows] = z
        mine |= {"z": chains, "hmc_step": tuned(size, acceptance)}
        for _ in range(settings.weight_updates):
            theta = pick(mine["params"], "theta")
            of_theta = with_prior(decoder_gradient(theta, z, x)[0], theta, batch.fraction, settings.theta)
            mine = adagrad(mine, join(theta=of_theta), settings.warmup)
        glance = log_joint(pick(mine["params"], "theta"), z[:GLANCE], x[:GLANCE]).mean()
        evaluations = len(x) * (settings.leapfrog_steps + 1 + settings.weight_updates)
        return mine, Info(float(glance), evaluations, acceptance)

    return Backend(init, step, lambda state: _arrays(engine, pick(state["params"], "theta")), None)


def _start(params: Mapping[str, Any], step_size: Any) -> dict[str, Any]:
    values = {name: np.array(value, np.float32) for name, value in params.items()}
    zeros = {name: np.zeros_like(value) for name, value in values.items()}
    return {"params": values, "sum": zeros, "count": np.float32(0), "step_size": np.float32(step_size)}


def _numpy(state: dict[str, Any]) -> dict[str, Any]:
    return {name: _numpy(value) if isinstance(value, dict) else np.asarray(value) for name, value in state.items()}


def _arrays(engine: Engine, values: Values) -> dict[str, Any]:
    return {name: engine.array(value) for name, value in values.items()}


def _rng(key: Any) -> np.random.Generator:
    return np.random.default_rng(int(key) % 2**63)


def _q_theta(theta: Values) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part what `full_vb` keeps as theta into means and log standard deviations."""
    loc = {name: value for name, value in theta.items() if not name.startswith("scale_")}
    return loc, {name: theta[f"scale_{name}"] for name in loc}


def _widths(theta: Values) -> tuple[int, int, int]:
    (k, h), d = theta["w1"].shape, theta["b2"].shape[0]
    return k, h, d


def _blocks(x: np.ndarray, size: int) -> list[np.ndarray]:
    return [x[start : start + size] for start in range(0, len(x), size)]
