"""Estimators of the gradient of a bound, from K draws z_k ~ q(z | x, phi) of each datapoint: what SVI climbs by.

With w_k = p(x, z_k | theta) / q(z_k | x, phi), `sg` a constant to whoever differentiates, and z_k = z(eps_k, phi) drawn
by the reparameterisation (section 2.4) unless it is said to be a constant, each is the gradient of a function:

    A          mean_k log w_k                                                     equation 6; Kingma & Welling 2013
    B          mean_k log p(x | z_k) - KL(q(z | x) || p(z))                       equation 7
    stl        mean_k log p(x, z_k | theta) - log q(z_k | x, sg phi)              Roeder, Wu & Duvenaud 2017
    score      mean_k log p(x, sg z_k) + sg(log w_k) log q(sg z_k | x, phi)       section 2.2; Paisley et al. 2012
    score_loo  the same, with log w_k less its mean over the other draws          Mnih & Rezende 2016; Kool et al. 2019
    iwae       log mean_k w_k, another bound and nearer to log p(x)               Burda, Grosse & Salakhutdinov 2016
    dreg       the same bound; phi by sum_k sg(v_k^2) log w_k(sg phi), theta by   Tucker et al. 2019
               sum_k sg(v_k) log p(x, sg z_k | theta), with v_k = w_k / sum_j w_j

`A` and `B` train by the libraries' own SVI; here they are for whoever measures gradients, beside the others, which the
libraries lack for a latent per datapoint on both engines (the tests hold all to the libraries' where there is one).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from inference import rows
from inference.base import Array, Engine, Key, Optimizer, Params, Posterior, Settings, State, repeated
from inference.latents import Latents, latents
from inference.optim import apply
from models.base import Model


@dataclass(frozen=True)
class Draws:
    """K draws of the latent sites of datapoints x [n, n_x], and the two densities that they are scored by."""

    sites: Latents
    theta: Params
    x: Array
    q: Posterior
    values: Params  # of each site [K, n, ...], reparameterised

    @property
    def fixed(self) -> "Draws":
        """The same draws as constants."""
        return replace(self, values={name: self.sites.engine.ppl.stop(value) for name, value in self.values.items()})

    def log_p(self) -> Array:
        """Return log p(x, z_k | theta) in nats [K, n]."""
        return self.sites.score(self.theta, self.x, self.values)

    def log_q(self, fixed: bool = False) -> Array:
        """Return log q(z_k | x, phi) in nats [K, n]; with phi as a constant where that is `fixed`."""
        args = _stopped(self.sites.engine.ppl, self.q.args) if fixed else self.q.args
        return self.sites.engine.log_prob(self.q.program, self.values, *args)

    def log_px_given_z(self) -> Array:
        """Return log p(x | z_k, theta) in nats [K, n]."""
        return self.sites.score(self.theta, self.x, self.values, self.sites.model.observed)

    def divergence(self) -> Array:
        """Return KL(q || p) in nats [n] or [K, n]: of each site given those before it, in the order of the model.

        Where there is no closed form that is its estimate log q(z_k) - log p(z_k), as in the libraries.
        """
        engine, model = self.sites.engine, self.sites.model
        p = rows.generative(model, self.x)
        told = {**rows.values(engine.ppl, model, self.x), **self.values}
        of_q = engine.sites(engine.key(0), self.q.program, self.values, *self.q.args)
        of_p = engine.sites(engine.key(0), p, told, self.theta)
        total: Any = 0.0
        for name, value in self.values.items():
            try:
                total = total + engine.ppl.kl_divergence(of_q[name].fn, of_p[name].fn)
            except NotImplementedError:
                total = total + of_q[name].fn.log_prob(value) - of_p[name].fn.log_prob(value)
        return total


Terms = tuple[Array, Array]  # [n] each: the bound, and what has the gradient of its estimate


def sampled(draws: Draws) -> Terms:
    """Estimator A (equation 6): all of the bound is sampled."""
    bound = (draws.log_p() - draws.log_q()).mean(0)
    return bound, bound


def analytic(draws: Draws) -> Terms:
    """Estimator B (equation 7): the KL is in closed form where the libraries have one."""
    if draws.sites.model.summed:  # what is summed out joins p(z) and p(x | z)
        return sampled(draws)
    bound = (draws.log_px_given_z() - draws.divergence()).mean(0)
    return bound, bound


def sticking_the_landing(draws: Draws) -> Terms:
    """A without its score term, whose mean is zero: no variance is left where q is the exact posterior."""
    bound = (draws.log_p() - draws.log_q(fixed=True)).mean(0)
    return bound, bound


def score_function(draws: Draws) -> Terms:
    """The score-function or REINFORCE gradient, E_q[log w d log q / d phi], which asks no gradient of log p by z."""
    return _scored(draws.fixed, lambda log_w: log_w)


def leave_one_out(draws: Draws) -> Terms:
    """The score function with the mean over a datapoint's other K - 1 draws as its baseline."""
    return _scored(draws.fixed, lambda log_w: (log_w - log_w.mean(0)) * (len(log_w) / (len(log_w) - 1)))


def importance_weighted(draws: Draws) -> Terms:
    """The K-sample bound (Burda et al. 2016, equation 8), reparameterised."""
    bound = _log_mean_exp(draws, draws.log_p() - draws.log_q())
    return bound, bound


def doubly_reparameterised(draws: Draws) -> Terms:
    """The K-sample bound, with the score terms of phi reparameterised once more (Tucker et al. 2019, equation 8)."""
    ppl = draws.sites.engine.ppl
    constant = replace(draws, theta=_stopped(ppl, draws.theta))
    log_w = constant.log_p() - constant.log_q(fixed=True)
    weight = ppl.stop(ppl.nn.softmax(ppl.xp.moveaxis(log_w, 0, -1)))  # [n, K]
    weight = ppl.xp.moveaxis(weight, -1, 0)
    surrogate = (weight**2 * log_w + weight * draws.fixed.log_p()).sum(0)
    return _log_mean_exp(draws, log_w), surrogate


class Estimator(NamedTuple):
    """A way to estimate a bound's gradient: `terms` of draws, at least so many, each decoded once or more."""

    terms: Callable[[Draws], Terms]
    title: str
    least: int = 1
    evaluations: int = 1  # of p(x | z) for each draw
    multi_sample: bool = False  # of the K-sample bound
    zero_mean: bool = False  # takes E_q[d log q / d phi] as 0, which it is where the support of q does not move


ESTIMATORS = {
    "A": Estimator(sampled, "SGVB A"),
    "B": Estimator(analytic, "SGVB B"),
    "stl": Estimator(sticking_the_landing, "sticking the landing", zero_mean=True),
    "score": Estimator(score_function, "score function", zero_mean=True),
    "score_loo": Estimator(leave_one_out, "score function, leave-one-out baseline", 2, zero_mean=True),
    "iwae": Estimator(importance_weighted, "K-sample bound", multi_sample=True),
    "dreg": Estimator(doubly_reparameterised, "K-sample bound, doubly reparameterised", 1, 2, True, True),
}
LIBRARIES = ("A", "B")  # those that train by the libraries' own SVI


def refusal(model: Model, settings: Settings) -> str:
    """Say why a method that climbs a bound cannot by these settings, and what to choose; nothing where it can."""
    name, least = settings.estimator, ESTIMATORS[settings.estimator].least
    if settings.particles < least:
        return (
            f"has particles {settings.particles}, and estimator {name!r} needs {least} draws of z for each datapoint; "
            "raise --particles, or choose --estimator score"
        )
    if ESTIMATORS[name].zero_mean and not model.covers:
        able = ", ".join(name for name, card in ESTIMATORS.items() if not card.zero_mean)
        return (
            f"has a q(z | x) whose support moves with phi, and estimator {name!r} is biased there; choose --estimator "
            f"{able}"
        )
    if settings.theta == "vb" and name not in LIBRARIES:
        return f"takes theta as a point by estimator {name!r}; choose --theta map or ml, or --estimator A or B"
    return ""


def unread(model: Model, settings: Settings) -> str:
    """Say that a method climbs no bound that the estimator could be of, where another than the default is asked for."""
    if settings.estimator == Settings.estimator:
        return ""
    return (
        f"climbs no bound whose gradient estimator {settings.estimator!r} could be; drop --estimator, or choose "
        "--backend aevb or mean_field"
    )


def evaluations(settings: Settings) -> int:
    """Return how often p(x | z) is evaluated for a datapoint's gradient."""
    return settings.particles * ESTIMATORS[settings.estimator].evaluations


def estimator(engine: Engine, model: Model, name: str, count: int) -> Callable[[Key, Params, Array, Posterior], Terms]:
    """Return f(key, theta, x [n, n_x], q) -> (bound [n], surrogate [n]) of one estimator, from `count` draws, in nats.

    The surrogate's gradient by theta, and by the parameters in q's args, is the estimate; its value is of no meaning.
    """
    terms, sites = ESTIMATORS[name].terms, latents(engine, model)

    def estimate(key: Key, theta: Params, x: Array, q: Posterior) -> Terms:
        drawn = engine.draw(key, repeated(q.program, count), *q.args)
        return terms(Draws(sites, theta, x, q, sites.own(drawn)))

    return estimate


class Ascent:
    """An `inference.base.Svi` on `objective(key, params, *args) -> (value, surrogate)`, two scalars in nats."""

    def __init__(self, engine: Engine, optimizer: Optimizer, objective: Callable[..., Terms]) -> None:
        def negative(params: Params, key: Key, *args: Any) -> Terms:
            value, surrogate = objective(key, params, *args)
            return -surrogate, -value

        self._xp, self._optimizer = engine.ppl.xp, optimizer
        self._differentiate = engine.value_and_grad(negative, has_aux=True)

    def init(self, params: Params, step_size: Array) -> State:
        return {"params": params, "optimizer": self._optimizer.init(self._xp, params, step_size)}

    def update(self, key: Key, state: State, *args: Any) -> tuple[State, Array]:
        (_, loss), grads = self._differentiate(state["params"], key, *args)
        updates, optimizer = self._optimizer.update(self._xp, grads, state["optimizer"])
        return {"params": apply(state["params"], updates), "optimizer": optimizer}, loss


def _scored(draws: Draws, centred: Callable[[Array], Array]) -> Terms:
    """Return the score function's terms of constant draws, with log w as `centred` leaves it."""
    log_p, log_q = draws.log_p(), draws.log_q()
    log_w = draws.sites.engine.ppl.stop(log_p - log_q)
    return log_w.mean(0), (log_p + centred(log_w) * log_q).mean(0)


def _log_mean_exp(draws: Draws, log_w: Array) -> Array:
    """Return log mean_k exp(log_w) of log_w [K, n], [n]."""
    ppl = draws.sites.engine.ppl
    shift = ppl.xp.log(ppl.xp.zeros_like(log_w).sum(0) + len(log_w))
    return ppl.nn.logsumexp(ppl.xp.moveaxis(log_w, 0, -1)) - shift


def _stopped(ppl: Any, tree: Any) -> Any:
    """Return arrays, and what of dicts and tuples holds them, as constants."""
    if isinstance(tree, dict):
        return {name: _stopped(ppl, value) for name, value in tree.items()}
    return tuple(_stopped(ppl, value) for value in tree) if isinstance(tree, tuple) else ppl.stop(tree)
