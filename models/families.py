"""Families for q(z | x) and p(z), by the routes along which the paper draws them (section 2.4).

    location-scale          z = loc + scale eps, for eps of the standard member
    inverse CDF             z = F^-1(eps), for eps ~ U(0, 1)
    composition             z is a function of several draws of the other two
    approximated inverse    F(z; phi) = eps solved for z, where F has no inverse in closed form

What both libraries draw with gradients is theirs. What one of them lacks is written once: noise, the path from it to
z, and the density (`Ppl.reparameterised`). Along every path dz / dphi is exact, so E[f(z)] has a gradient by draws.

For each latent variable a family has parameters, all free as raw numbers r: a real one is start + r, a positive one
low + (start - low) exp(r / 2), which makes r the paper's log sigma^2, a share sigmoid(r). At r = 0 it is the standard
member, which is the prior of that name.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from models import paths
from models.base import Array, Ppl

PLACED_BY, INVERSE, COMPOSED, APPROXIMATED = "location-scale", "inverse CDF", "composition", "approximated inverse CDF"
SUPPORTS = {
    "real": "all real numbers",
    "positive": "positive numbers",
    "unit": "numbers between 0 and 1",
    "simplex": "positive numbers that add up to 1",
}


class Parameter(NamedTuple):
    """A parameter: `kind` is real, positive, share or triangle, the Cholesky factor of a covariance [k, k]."""

    name: str
    kind: str = "positive"
    start: float = 1.0
    low: float = 0.0

    def numbers(self, k: int) -> int:
        """Return how many raw numbers it is for k latent variables."""
        return k * (k + 1) // 2 if self.kind == "triangle" else k

    def of(self, ppl: Ppl, raw: Array) -> Array:
        """Return the parameter for raw numbers [..., numbers(k)]."""
        if self.kind == "triangle":
            return paths.triangle(ppl, raw)
        if self.kind == "real":
            return raw + self.start if self.start else raw
        if self.kind == "share":
            return ppl.nn.sigmoid(raw)
        scale = ppl.xp.exp(0.5 * raw)
        return scale if (self.low, self.start) == (0.0, 1.0) else self.low + (self.start - self.low) * scale


@dataclass(frozen=True)
class Family:
    """A family: its `law` is a class that both libraries have, or law(ppl, *parameters [..., k]) -> a distribution.

    That is of each z by itself, or of all of them `joint`. `path` says how noise becomes z, `drawn_as` which class of
    the libraries a law of ours draws from, if any. Where the `support` moves with the parameters, it does not `cover`
    all that z may be: E_q[log p(x, z) - log q] is a lower bound all the same, since q lies within p(z); but weights
    p / q tell nothing of the rest, and q cannot score a z that it would not draw.

    `moments` is up to which order E|z|^m is finite whatever the parameters are. `growth` is of what order log p(z)
    falls as a prior, so that KL(q || p) asks q for moments of that order; None: it is no prior.
    """

    title: str
    route: str
    path: str
    law: str | Callable[..., Any]
    parameters: tuple[Parameter, ...]
    drawn_as: str = ""
    support: str = "real"
    covers: bool = True
    joint: bool = False
    moments: float = math.inf
    growth: float | None = None

    def rest(self, k: int) -> int:
        """Return how many raw numbers the parameters after the first are, for k latent variables."""
        return sum(parameter.numbers(k) for parameter in self.parameters[1:])

    def distribution(self, ppl: Ppl, first: Array, rest: Array | None) -> Any:
        """Return q(z | x) [n] of k latent variables for raw numbers: the first parameter's [n, k], and the others'."""
        k, at, raw = first.shape[-1], 0, [first]
        for parameter in self.parameters[1:]:
            end = at + parameter.numbers(k)
            raw.append(rest if len(self.parameters) == 2 else rest[..., at:end])  # type: ignore[index]
            at = end
        values = [parameter.of(ppl, each) for parameter, each in zip(self.parameters, raw, strict=True)]
        return self.of(ppl, *values)

    def standard(self, ppl: Ppl, k: int) -> Any:
        """Return p(z) for k latent variables: the standard member, independent for each unless `joint`."""
        return self.of(ppl, *(ppl.xp.zeros(k) + parameter.start for parameter in self.parameters))

    def of(self, ppl: Ppl, *parameters: Array) -> Any:
        """Return the distribution of all k latent variables for parameters [..., k]."""
        law = getattr(ppl.dist, self.law)(*parameters) if isinstance(self.law, str) else self.law(ppl, *parameters)
        return law if self.joint else law.to_event(1)

    @property
    def library(self) -> str:
        """The class that both libraries draw it from; none where the path is ours."""
        return self.law if isinstance(self.law, str) else self.drawn_as


LOC, SCALE, RATE, SHAPE = Parameter("loc", "real", 0.0), Parameter("scale"), Parameter("rate"), Parameter("shape")
PLACED = (LOC, SCALE)
TRIL, DF, WIDTH = Parameter("scale_tril", "triangle"), Parameter("df", start=5.0, low=2.0), Parameter("width")
TAIL, RATIO = Parameter("alpha", start=3.0, low=1.0), Parameter("ratio", start=30.0, low=1.0)
TWO, HEAVY = Parameter("shape", start=2.0), Parameter("d2", start=6.0, low=2.0)
MIXED = (Parameter("loc", "real", -0.5), Parameter("other", "real", 0.5), SCALE, Parameter("other_scale"))
POSITIVE: dict[str, Any] = {"support": "positive"}
MOVING: dict[str, Any] = {"covers": False}
# fmt: off
FAMILIES = {
    "normal": Family("normal", PLACED_BY, "loc + scale eps, eps ~ N(0, 1)", "Normal", PLACED, growth=2),
    "full_normal": Family("normal, full covariance", PLACED_BY, "loc + L eps, eps ~ N(0, I), L lower triangular",
                          paths.full_normal, (LOC, TRIL), "MultivariateNormal", joint=True),
    "laplace": Family("Laplace", PLACED_BY, "loc + scale eps, eps ~ Laplace(0, 1)", "Laplace", PLACED, growth=1),
    "logistic": Family("logistic", PLACED_BY, "loc + scale eps, eps ~ Logistic(0, 1)", "Logistic", PLACED, growth=1),
    "student_t": Family("Student's t", PLACED_BY, "loc + scale eps, eps ~ t(df)",
                        paths.student_t, (*PLACED, DF), "StudentT", moments=2, growth=0),
    "uniform": Family("uniform", PLACED_BY, "low + width eps",
                      paths.uniform, (Parameter("low", "real", 0.0), WIDTH), **MOVING, growth=0),
    "triangular": Family("triangular", PLACED_BY, "loc + scale t, t on (-1, 1) by its inverse CDF",
                         paths.triangular, PLACED, **MOVING),
    "exponential": Family("exponential", INVERSE, "-log(eps) / rate", "Exponential", (RATE,), **POSITIVE, growth=1),
    "cauchy": Family("Cauchy", INVERSE, "loc + scale tan(pi (eps - 1/2))", "Cauchy", PLACED, moments=0, growth=0),
    "logistic_by_inverse": Family("logistic, by its inverse CDF", INVERSE, "loc + scale log(eps / (1 - eps))",
                                  paths.logistic, PLACED),
    "rayleigh": Family("Rayleigh", INVERSE, "scale sqrt(-2 log eps)",
                       paths.rayleigh, (SCALE,), "Weibull", **POSITIVE, growth=2),
    "pareto": Family("Pareto", INVERSE, "scale eps^(-1 / alpha)",
                     "Pareto", (Parameter("scale", start=0.5), TAIL), **POSITIVE, **MOVING, moments=1),
    "weibull": Family("Weibull", INVERSE, "scale (-log eps)^(1 / shape)", "Weibull", (SCALE, SHAPE), **POSITIVE),
    "reciprocal": Family("reciprocal (log-uniform)", INVERSE, "low ratio^eps",
                         paths.reciprocal, (Parameter("low", start=0.1), RATIO), **POSITIVE, **MOVING),
    "gompertz": Family("Gompertz", INVERSE, "log(1 - log(1 - eps) / shape) / rate",
                       paths.gompertz, (RATE, SHAPE), **POSITIVE),
    "gumbel": Family("Gumbel", INVERSE, "loc - scale log(-log eps)", "Gumbel", PLACED),
    "erlang": Family("Erlang of shape 2", INVERSE, "-(log eps1 + log eps2) / rate", paths.erlang, (RATE,), **POSITIVE),
    "log_normal": Family("log-normal", COMPOSED, "exp of a normal", "LogNormal", PLACED, **POSITIVE, growth=0),
    "gamma": Family("gamma", COMPOSED, "a sum of exponentials, if its shape is whole; else the libraries' own",
                    "Gamma", (TWO, RATE), **POSITIVE, growth=1),
    "dirichlet": Family("Dirichlet", COMPOSED, "k gammas over their sum",
                        "Dirichlet", (SHAPE,), support="simplex", joint=True, growth=0),
    "beta": Family("beta", COMPOSED, "g1 / (g1 + g2) of two gammas",
                   "Beta", (TWO, TWO._replace(name="other")), support="unit", growth=0),
    "chi_squared": Family("chi-squared", COMPOSED, "a gamma of shape df / 2 and rate 1 / 2",
                          "Chi2", (Parameter("df", start=3.0),), **POSITIVE, growth=1),
    "f": Family("F", COMPOSED, "(g1 / d1) / (g2 / d2) of two chi-squared",
                paths.fisher, (Parameter("d1", start=4.0), HEAVY), **POSITIVE, moments=1),
    "normal_mixture": Family("mixture of two normals", APPROXIMATED, "F(z) = eps by bisection, dz = -dF / f(z)",
                             paths.normal_mixture, (*MIXED, Parameter("share", "share", 0.5))),
}
# fmt: on
PRIORS = tuple(name for name, family in FAMILIES.items() if family.growth is not None)


def refusal(guide: str, prior: str, k: int) -> str:
    """Say why a guide of k latent variables does not go with a prior, and what does; nothing where it does."""
    q, p, on = FAMILIES[guide], FAMILIES[prior], supported(prior)
    choose = f"choose {', '.join(suited(prior))}"
    if q.support != on:
        others = [name for name in PRIORS if supported(name) == q.support]
        other = f", or --prior-family {' or '.join(others)}" if others else ""
        return (
            f"guide_family {guide!r} lives on {SUPPORTS[q.support]}, and z ~ {prior} on {SUPPORTS[on]}; {choose}{other}"
        )
    if guide not in suited(prior):
        return f"guide_family {guide!r} has no finite E|z|^{p.growth:g}, and under z ~ {prior} no bound; {choose}"
    return f"a simplex of {k} has no inside; give it --n-latent 2 or more" if on == "simplex" and k < 2 else ""


def suited(prior: str) -> list[str]:
    """Return the families for q(z | x) that live where a prior does, and under which the bound is finite."""
    growth = FAMILIES[prior].growth or 0.0
    on = supported(prior)
    return [name for name, family in FAMILIES.items() if family.support == on and family.moments >= growth]


def supported(prior: str) -> str:
    """Return where a prior lives: that of uniform, whose support moves as a guide, is the unit interval."""
    return "unit" if prior == "uniform" else FAMILIES[prior].support
