"""A model's programs on rows of data: what is observed, what is given, what is missing, and what is summed out.

A row [d] of data holds the columns of every site that a model observes, and of all that it is given, side by side: x
first, then the others by name. Whoever takes, stores or sends rows needs not know what is in them.
"""

from collections.abc import Callable, Mapping
from functools import cache
from itertools import accumulate, pairwise
from typing import Any

from inference.base import Program
from models.base import Array, Model, Params, Ppl


def widths(model: Model) -> dict[str, int]:
    """Return how many columns of a row each site that is observed has, and all that is given, by name."""
    names = sorted({*model.observed, *model.given}, key=lambda name: (name != "x", name))
    return {name: getattr(model, f"n_{name}") for name in names}


def width(model: Model) -> int:
    """Return d, how many columns a row has."""
    return sum(widths(model).values())


def columns(model: Model, x: Array) -> dict[str, Array]:
    """Cut rows x [n, d] into the columns of each name, [n, d_name]."""
    each = widths(model)
    if len(each) == 1:
        return dict.fromkeys(each, x)
    ends = pairwise([0, *accumulate(each.values())])
    return {name: x[:, start:end] for name, (start, end) in zip(each, ends, strict=True)}


def observed(model: Model, x: Array) -> Params:
    """Return the values of the observed sites in rows x [n, d]."""
    cut = columns(model, x)
    return {name: cut[name] for name in model.observed}


def given(model: Model, x: Array) -> Params:
    """Return what rows x [n, d] hold of covariates."""
    cut = columns(model, x)
    return {name: cut[name] for name in model.given}


def packed(ppl: Ppl, model: Model, drawn: Mapping[str, Array], x: Array) -> Array:
    """Return rows with the values `drawn` at the observed sites, and with the covariates and the gaps of rows x."""
    if len(widths(model)) > 1:
        cut = columns(model, x) | {name: drawn[name] for name in model.observed}
        rows = ppl.xp.concatenate([*cut.values()], -1)
    else:
        (rows,) = (drawn[name] for name in model.observed)
    return ppl.xp.where(ppl.xp.isnan(x), x, rows) if model.missing else rows


def generative(model: Model, x: Array, masked: bool = True) -> Program:
    """Return program(ppl, theta): p(z) p(x | z, theta) for as many datapoints as x has rows, with their covariates.

    Where a model takes rows with gaps, the columns that x lacks are `masked` out of the likelihood.
    """
    covariates, n = given(model, x), x.shape[0]
    run: Any = model.generative

    def program(ppl: Ppl, theta: Params) -> None:
        run(_masking(ppl, observed(model, x)) if model.missing and masked else ppl, theta, n, **covariates)

    return program


def values(ppl: Ppl, model: Model, x: Array) -> Params:
    """Return what rows x say of the observed sites; a gap is 1, a value that all likelihoods here can score."""
    told = observed(model, x)
    if not model.missing:
        return told
    xp = ppl.xp
    return {name: xp.where(xp.isnan(value), xp.ones_like(value), value) for name, value in told.items()}


def joint(model: Model, x: Array) -> Program:
    """Return program(ppl, theta) for p(x, z | theta), with rows x observed and what is `summed` out of it."""

    def program(ppl: Ppl, theta: Params) -> None:
        if model.summed:
            _marginal(ppl, model, theta, x)
        else:
            ppl.condition(generative(model, x), values(ppl, model, x))(ppl, theta)

    return program


@cache
def recognition(model: Model) -> Program:
    """Return program(ppl, phi, x) for q(z | x, phi), on rows x."""
    if len(widths(model)) == 1:
        return model.recognition

    def program(ppl: Ppl, phi: Params, x: Array) -> None:
        run: Any = model.recognition
        run(ppl, phi, *observed(model, x).values(), **given(model, x))

    return program


class Saying:
    """A ppl with some words of its own."""

    def __init__(self, ppl: Ppl, **words: Any) -> None:
        self._ppl = ppl
        vars(self).update(words)

    def __getattr__(self, word: str) -> Any:
        return getattr(self._ppl, word)


def _masking(ppl: Ppl, told: Params) -> Any:
    """Return a ppl that masks the gaps, which are NaN, of the sites told [n, d]."""

    def sample(name: str, fn: Any) -> Array:
        return ppl.sample(name, _masked(name, fn, ~ppl.xp.isnan(told[name])) if name in told else fn)

    return Saying(ppl, sample=sample)


def _masked(name: str, fn: Any, there: Array) -> Any:
    if len(fn.event_shape) == 0:
        return fn.mask(there[..., 0])
    if len(fn.event_shape) == 1 and type(fn).__name__ == "Independent":
        return fn.base_dist.mask(there).to_event(1)
    raise ValueError(
        f"the site {name}, of {type(fn).__name__}, has columns that no mask can take one by one; give it a "
        "distribution of single columns with .to_event(1), or drop missing = True"
    )


def summed(
    ppl: Ppl,
    model: Model,
    theta: Params,
    x: Array,
    latent: Callable[[str, Any], Array],
    leading: int = 1,
    only: Any = None,
) -> Array:
    """Return log sum_c p(x, z, c | theta) over the support of each site c that a model has `summed`, [..., n].

    `latent(name, fn)` is the value at each other latent site; the datapoints are the last of its `leading` axes. Where
    only some sites are asked for, the density is that of these, and of the c.
    """
    axes = {name: at for at, name in enumerate(reversed(model.summed))}
    told, scores = values(ppl, model, x), []

    def sample(name: str, fn: Any) -> Array:
        if name in axes:  # each on an axis of its own, in front
            value = fn.enumerate_support(expand=False).reshape(-1, *(1,) * (axes[name] + leading))
        else:
            value = told[name] if name in told else latent(name, fn)
        if only is None or name in only or name in axes:
            scores.append(fn.log_prob(value))
        return value

    generative(model, x)(Saying(ppl, sample=sample), theta)
    score = sum(scores[1:], start=scores[0]) + ppl.xp.zeros_like(x[:, 0])
    score = score.reshape(-1, *score.shape[len(axes) :])
    return ppl.nn.logsumexp(ppl.xp.moveaxis(score, 0, -1))


def _marginal(ppl: Ppl, model: Model, theta: Params, x: Array) -> None:
    """Sample the latent sites that remain, and score log sum_c p(x, z, c | theta) as one factor."""
    n = x.shape[0]

    def latent(name: str, fn: Any) -> Array:  # its density is in the factor
        return ppl.sample(name, ppl.dist.ImproperUniform(fn.support, (n,), tuple(fn.event_shape)))

    score = summed(ppl, model, theta, x, latent)
    with ppl.plate("summed", n):
        ppl.factor("log_prob", score)
