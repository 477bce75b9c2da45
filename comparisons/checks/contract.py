"""What every number of a comparison counts on in a model, looked at in a fraction of a second before any training.

    p(theta) = N(0, I)    p(z | theta)    p(x | z, theta)    q(z | x, phi), reparameterised

Each is one or several sites, with one density a datapoint: neither scaled nor masked, the same whoever its neighbours
are, and with no parameter or noise of its own. q samples every latent site, on the whole of its support. Quadrature,
annealing, HMC and the closed-form KL assume all of it and see none of it: where it does not hold, they return numbers,
and small errors.

Whether the densities are normalised, and their draws and gradients right, takes longer: see `checks.model`.
"""

import warnings
from collections.abc import Callable, Collection, Mapping
from functools import cache, partial
from typing import Any

import numpy as np

from comparisons.checks.base import BrokenError, close, expect, listed, random_like
from comparisons.errors import FlagError, in_one_line
from inference import rows
from inference.base import Array, Engine, Key, Params, Site, arrays, repeated
from inference.latents import Latents, images, latents
from models import MODELS
from models.base import Model

SHIPPED = {build.__module__ for build in MODELS.values()}  # whose models the tests hold to the contract
LOOKED_AT = 100  # datapoints, for two that differ
RTOL = 2e-5  # float32 sums over some hundred columns, in another order
LOG_2PI = float(np.log(2 * np.pi))

# What mends each kind of breach.
IN_PLATE = 'sample it once, inside ppl.plate("data", n) alone, with .to_event(1) on its distribution'
SUM_OUT = "name it in `summed`, which sums it out exactly, or in `observed` where it is data"
NO_SCALE = "drop ppl.scale, and give no plate a subsample_size: training takes its own minibatches"
NO_MASK = "drop the mask; a model of rows with gaps says missing = True, and is masked where they are"
THETA_OR_PHI = "name it in theta_shapes and init, or in init's phi, and read it from the theta or phi passed in"
NO_NOISE = "draw all noise with ppl.sample at z and x, and keep nothing from one call to the next"
NO_COUPLING = "let nothing go across datapoints or draws of z: no batch normalisation, no mean but over the last axis"
POSITIVE = "use densities that are positive for every z and for the data, or other --data"
SUPPORT = "give q a distribution of the same support as the prior's, such as a LogNormal for a positive site"
BASE_PRIOR = "leave `prior` as models.base.Model has it"


def hold(engine: Engine, model: Model, name: str, x: np.ndarray) -> None:
    """Raise FlagError, in one line, where a model called `name` is not what the suite counts on, for data x [n, n_x].

    Two datapoints serve. Asked again about the same, it answers at once; so it does of a model that comes with the
    suite, which the tests hold to the contract.
    """
    if type(model).__module__ in SHIPPED:
        return
    found = _known(engine, model, apart(x).tobytes())
    if found:
        raise FlagError(f"model '{name}' on {engine.name} cannot be compared. {found}")


def apart(x: np.ndarray) -> np.ndarray:
    """Return the first datapoint and that of the next which is farthest from it, float32 [2, n_x]."""
    x = np.asarray(x[:LOOKED_AT], np.float32)
    return x[[0, int(np.nan_to_num(np.square(x - x[0])).sum(-1).argmax())]]


@cache
def _known(engine: Engine, model: Model, rows: bytes) -> str:
    return breach(engine, model, np.frombuffer(rows, np.float32).reshape(2, -1))


def breach(engine: Engine, model: Model, x: np.ndarray) -> str:
    """Say how a model breaks the contract at datapoints x [2, n_x], and how to mend it; nothing where it keeps it."""
    try:
        with engine.pinned(), np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the user's own code, which is about to run in earnest
            keep_the_contract(engine, model, x)
    except BrokenError as reason:
        return str(reason)
    except (Exception, SystemExit) as error:
        return f"Found an exception; expected none. It is {in_one_line(error)}."
    return ""


def keep_the_contract(engine: Engine, model: Model, x: np.ndarray) -> None:
    """Raise BrokenError unless a model is what is written above, at datapoints x [2, n_x]."""
    initial, phi = model.init(0)
    shapes = {name: tuple(shape) for name, shape in model.theta_shapes.items()}
    found = {name: np.shape(value) for name, value in initial.items()}
    expect(found == shapes, f"theta of {listed(found)} from init", listed(shapes), "let init and theta_shapes agree")
    theta, phi = _moved(initial, 1), _moved(phi, 2)
    key, other_key = engine.key(0), engine.key(1)
    score = _compiled(engine, partial(_scores, engine, model))
    _compiled(engine, partial(_hold_programs, engine, model))(key, theta, phi, x[[0, 1, 0, 1]])

    # Each datapoint stands twice, under two z, the last of which is far out.
    sites = latent_sites(engine, model)
    z = np.array([[1], [1], [2], [3]]) * np.random.default_rng(3).standard_normal((4, sites.size))
    twice = x[[0, 1, 0, 1]]
    scores = score(key, theta, phi, z, twice)
    if "theta" in scores:
        _hold_prior("theta of prior", scores["theta"], np.concatenate([np.ravel(value) for value in theta.values()]))
    for site in sites.sites:
        missed, beyond = (scores[f"{word} {site.name}"] == 0 for word in ("supported", "within"))
        bounded = f"a site {site.name} of recognition that leaves out {missed.mean():.0%} of some {site.name}"
        expect(not missed.any(), bounded, f"a density that is positive for every {site.name}", POSITIVE)
        outside = f"a site {site.name} of recognition that lies outside the support of its prior"
        expect(not beyond.any(), outside, "the same support", SUPPORT)
    if sites.plain:
        _hold_prior("z of generative", scores["prior"], z)
    again = score(other_key, theta, phi, z, twice)
    # The second datapoint beside itself, under its two z at once: in other company, and in another place.
    moved = score(other_key, theta, phi, z[[[1, 1], [3, 3]]], x[[1, 1]])
    for program in ("generative", "recognition"):
        _hold_scores(_label(sites, program), scores[program], again[program], moved[program])


def latent_sites(engine: Engine, model: Model) -> Latents:
    """Return the latent sites of a model whose programs say what they should. Raises BrokenError."""
    try:
        return latents(engine, model)
    except ValueError as error:
        raise BrokenError(f"Found that {error}.") from error


def _label(sites: Latents, program: str) -> str:
    observed = sites.model.observed if program == "generative" else ()
    return f"{_named([*(site.name for site in sites.sites), *observed])} of {program}"


def _named(names: Collection[str]) -> str:
    return f"the site{'s' * (len(names) > 1)} {' and '.join(names)}" if names else "no site"


def _moved(values: Params, seed: int) -> dict[str, np.ndarray]:
    """Return float32 parameters some way from their initial values, at which much would not show."""
    by = random_like(values, seed)
    return {name: np.asarray(value + 0.5 * by[name], np.float32) for name, value in values.items()}


def _compiled(engine: Engine, function: Callable[..., Params]) -> Callable[..., dict[str, np.ndarray]]:
    """Return a function of a key and of NumPy arrays, or dicts of them, compiled: its arrays by name, in float64."""
    compiled = engine.compile(function)

    def run(key: Key, *args: Any) -> dict[str, np.ndarray]:
        found = compiled(key, *(arrays(engine, a) if isinstance(a, dict) else engine.array(a) for a in args))
        return {name: np.asarray(engine.numpy(value), np.float64) for name, value in found.items()}

    return run


def _scores(engine: Engine, model: Model, key: Key, theta: Params, phi: Params, z: Array, x: Array) -> Params:
    """Score z [..., n, k] and x [n, d] under both programs, in nats per datapoint, and where z lies in their supports.

    Where the model has a prior of theta of its own, that is scored too. Raises BrokenError for what can be seen of the
    programs without a number.
    """
    sites, told = latents(engine, model), rows.values(engine.ppl, model, x)
    values = sites.values(sites.at({**theta}), z)
    guide = engine.sites(key, rows.recognition(model), values, {**phi}, x)
    joint = {} if model.summed else engine.sites(key, rows.generative(model, x), {**values, **told}, {**theta})
    own = [_score(joint[name], f"{name} of generative") for name in (*values, *told) if joint]
    generative = sum(own) if own else sites.score({**theta}, x, values)
    scores = {
        "generative": generative,
        "recognition": sum(_score(guide[name], f"{name} of recognition") for name in values),
    }
    if sites.plain:
        scores["prior"] = sites.log_prior({**theta}, x, z)
    for site in sites.sites:
        support, drawn = guide[site.name].fn.support, images(sites, site, z, guide[site.name].fn.support)
        scores[f"supported {site.name}"] = 1.0 * support.check(values[site.name])
        scores[f"within {site.name}"] = 1.0 * (support if site.support is None else site.support).check(drawn)
    if type(model).prior is not Model.prior:
        weights = engine.sites(key, model.prior, theta)
        scores["theta"] = sum(_score(site, f"{name} of prior") for name, site in weights.items())
    return scores


def _score(site: Site, label: str) -> Array:
    score = site.fn.log_prob(site.value)
    # Nothing that was passed in asks for gradients: whatever does so is a parameter of the program's own.
    own = getattr(score, "requires_grad", False)
    found = f"a parameter within the site {label} that is neither of theta nor of phi, and that nothing would train"
    expect(not own, found, "theta and phi alone", THETA_OR_PHI)
    return score


# What the programs say: looked at while they run, or while they are recorded to be compiled


def _hold_programs(engine: Engine, model: Model, key: Key, theta: Params, phi: Params, x: Array) -> Params:
    """Run each program once, to look at all that it says."""
    n = x.shape[0]
    joint = engine.sites(key, rows.generative(model, x, masked=False), {}, {**theta})
    seen = {name: (getattr(model, f"n_{name}"),) for name in model.observed}
    latent = {
        name: tuple(site.fn.event_shape)
        for name, site in joint.items()
        if site.kind == "sample" and name not in seen and name not in model.summed
    }
    _hold_sites("generative", joint, {**latent, **dict.fromkeys(model.summed, ()), **seen}, n)
    for name in latent:
        found = f"the latent site {name} of generative that is discrete{_of(joint[name])}"
        expect(not joint[name].fn.support.is_discrete, found, "real numbers, or a name in `summed`", SUM_OUT)
    for name in model.summed:
        found = f"the site {name} of generative, which cannot be summed out{_of(joint[name])}"
        expect(joint[name].fn.has_enumerate_support, found, "a discrete site of finitely many values", SUM_OUT)
    expect(latent or model.summed, "no latent site in generative", "one or more of them", IN_PLATE)
    program = rows.recognition(model)
    guide = engine.sites(key, program, {}, {**phi}, x)
    _hold_sites("recognition", guide, latent, n)
    copies = engine.sites(key, repeated(program, 2), {}, {**phi}, x)
    for name, event in latent.items():
        found = f"the site {name} of recognition without reparameterised samples{_of(guide[name])}"
        mend = "use a distribution whose has_rsample is true, such as Normal"
        expect(guide[name].fn.has_rsample, found, "draws that can be differentiated in phi, as AEVB does", mend)
        shape = list(copies[name].value.shape)
        found = f"the site {name} of recognition of shape {shape} for two draws at once"
        expect(shape == [2, n, *event], found, f"{[2, n, *event]}", "let nothing fix its batch shape by hand")

    weights, shapes = engine.sites(key, model.prior, {}), {name: tuple(s) for name, s in model.theta_shapes.items()}
    said = {name: tuple(site.value.shape) for name, site in weights.items()}
    same = list(said.items()) == list(shapes.items())
    expect(same, f"the sites {listed(said)} in prior", f"{listed(shapes)}, in this order", BASE_PRIOR)
    for name, site in weights.items():
        drawn = site.kind == "sample" and not site.observed and not site.plates
        found = f"the site {name} of prior that is not drawn, or in a plate"
        expect(drawn, found, "a draw in no plate", BASE_PRIOR)
        _hold_plain(f"the site {name} of prior", site)
    return {}


def _hold_sites(program: str, sites: Mapping[str, Site], expected: Mapping[str, tuple[int, ...]], n: int) -> None:
    """Hold what a program said: these sites of these event shapes, each drawn once a datapoint, and nothing else."""
    names = _named(expected)
    for name, site in sites.items():
        if site.kind == "param":
            found = f"the parameter {name} in {program}, which nothing would train"
            expect(False, found, "theta and phi alone", THETA_OR_PHI)
        found = f"the {'site' if site.kind == 'sample' else site.kind} {name} in {program}{_of(site)}"
        mend = f"write it as part of {' or '.join(expected) or 'another'}, or drop it"
        expect(site.kind == "sample" and name in expected, found, f"{names} alone", mend)
    for name, event in expected.items():
        label = f"the site {name} of {program}"
        mend = IN_PLATE if program == "generative" else f"{IN_PLATE}; what is observed is named in `observed`"
        expect(name in sites, f"no site {name} in {program}", names, mend)
        site = sites[name]
        mend = "drop it, or its obs= and condition: the suite says itself what is known"
        expect(not site.observed, f"{label} with a value of its own", "that it is drawn", mend)
        _hold_plain(label, site)
        shapes = tuple(site.fn.batch_shape), tuple(site.fn.event_shape)
        found = f"{label} of batch shape {list(shapes[0])} and event shape {list(shapes[1])}{_of(site)}"
        expect(shapes == ((n,), event), found, f"{[n]} and {list(event)} for {n} datapoints", IN_PLATE)
        inside = f"in plates of (dim, size) {list(site.plates)}" if site.plates else "outside every plate"
        expect(site.plates == ((-1, n),), f"{label} {inside}", f"one plate, of dim -1 and size {n}", IN_PLATE)


def _hold_plain(label: str, site: Site) -> None:
    """Hold that nothing scales or hides a site's score."""
    try:
        plain = site.scale is None or float(site.scale) == 1.0
    except Exception:  # an array of several numbers, or one whose value is not known while it is recorded
        plain = False
    expect(plain, f"{label} with a scaled score", "the score as it stands", NO_SCALE)
    expect(not site.masked, f"{label} under a mask", "the whole score", NO_MASK)


def _of(site: Site) -> str:
    """Name a site's distribution: what is within to_event and expand."""
    inner = site.fn
    while type(inner).__name__ in ("Independent", "ExpandedDistribution"):
        inner = inner.base_dist
    return "" if inner is None else f", of {type(inner).__name__}"


# What they scored


def _hold_prior(label: str, found: np.ndarray, values: np.ndarray) -> None:
    """Hold that a site's score is that of N(0, I) at its values [..., d]."""
    expected = -0.5 * (np.square(np.asarray(values, np.float64)) + LOG_2PI).sum(-1)
    words = f"a score of the site {label} {_off(found, expected)} from that of N(0, I)"
    expect(close(found, expected, RTOL), words, "N(0, I), whatever theta is", BASE_PRIOR)


def _hold_scores(label: str, base: np.ndarray, again: np.ndarray, moved: np.ndarray) -> None:
    """Hold a program's scores [4] against the same `again`, and those of [[1, 1], [3, 3]] by themselves, `moved`."""
    expect(base.shape == (4,), f"scores of {label} of shape {list(base.shape)}", "[4] for 4 datapoints", IN_PLATE)
    finite = np.isfinite(base).all()
    expect(finite, f"scores of {label} that are not finite", "finite numbers at the data and at any z", POSITIVE)
    words = f"scores of {label} {_off(again, base)} when they are asked for again"
    expect(close(again, base, RTOL), words, "the same numbers", NO_NOISE)
    expected = base[[[1, 1], [3, 3]]]
    words = f"a datapoint's score of {label} {_off(moved, expected)} in other company, or for two draws of z at once"
    expect(close(moved, expected, RTOL), words, "the same number", NO_COUPLING)


def _off(found: np.ndarray, expected: np.ndarray) -> str:
    if found.shape != expected.shape:
        return f"of shape {list(found.shape)}, not {list(expected.shape)},"
    return f"off by up to {np.abs(found - expected).max():.3g} nats"
