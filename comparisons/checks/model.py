"""What the suite counts on in a model, in the order in which a new one is best mended."""

from collections.abc import Callable
from functools import cache, cached_property, partial
from types import SimpleNamespace
from typing import Any

import numpy as np

import inference
from comparisons.checks import base
from comparisons.checks.base import NothingToCheckError, attempt, expect, expect_close, expect_shapes, needed, same_bits
from comparisons.checks.contract import apart, breach, latent_sites
from comparisons.errors import in_one_line
from inference import ENGINES
from inference.base import Array, Engine, Params, Posterior, Program, arrays, join, numpys, repeated
from inference.latents import Latents, latents
from inference.rows import generative, packed, recognition, width, widths
from models.base import Model

Factory = Callable[[int, int, int], Model]
Values = dict[str, np.ndarray]

N = 5  # datapoints that are scored
DRAWS = 20_000  # of one site, whose range a density is integrated over
NUMPY: Any = SimpleNamespace(xp=np)
PROGRAMS = ("generative", "recognition")
HEAVY = 25  # interquartile ranges: a range beyond is one of heavy tails (a normal's is 6, an exponential's 9)


def check_model(
    factory: Factory, engine: Engine, n_x: int = 6, n_latent: int = 2, n_hidden: int = 5
) -> list[base.Outcome]:
    """Hold factory(n_x, n_latent, n_hidden) -> Model against every check, on one engine."""
    return base.run(CHECKS, Case(factory, engine, n_x, n_latent, n_hidden))


class Case:
    """A model on an engine, and what it is tried on: theta and phi at random, datapoints that it draws itself."""

    def __init__(self, factory: Factory, engine: Engine, n_x: int, n_latent: int, n_hidden: int) -> None:
        self.factory, self.engine = factory, engine
        self.n_x, self.n_latent, self.n_hidden = n_x, n_latent, n_hidden
        self._compiled = cache(engine.compile)

    @cached_property
    def model(self) -> Model:
        """The model at the sizes of the case."""
        with needed("the model could not be built; see is_a_model"):
            built = self.factory(self.n_x, self.n_latent, self.n_hidden)
        if not isinstance(built, Model):
            raise NothingToCheckError("what was built is not a Model; see is_a_model")
        if (getattr(built, "n_x", None), getattr(built, "n_latent", None)) != (self.n_x, self.n_latent):
            raise NothingToCheckError("the model has other sizes; see is_a_model")
        return built

    @cached_property
    def latents(self) -> Latents:
        """The latent sites."""
        model = self.model
        with needed("the latent sites cannot be had; see generative_draws_latents_and_x"):
            return latents(self.engine, model)

    def like(self, n: int) -> np.ndarray:
        """Return rows [n, d] with covariates at random, which are positive."""
        return np.random.default_rng(7).uniform(0.5, 1.5, (n, width(self.model))).astype(np.float32)

    def of_q(self, *leading: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes [*leading, ...] of what recognition draws, by name."""
        return {site.name: (*leading, *site.event) for site in self.latents.sites}

    def shapes(self, n: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of what generative draws for n datapoints, by name."""
        seen = {name: (n, widths(self.model)[name]) for name in self.model.observed}
        return {**self.of_q(n), **dict.fromkeys(self.model.summed, (n,)), **seen}

    @cached_property
    def params(self) -> tuple[Values, Values]:
        """Theta and phi at random."""
        with needed("init gives no parameters; see init_matches_theta_shapes"):
            theta, phi = ({**group} for group in self.model.init(0))
        return base.random_like(theta, 1), base.random_like(phi, 2)

    @property
    def theta(self) -> Values:
        return self.params[0]

    @property
    def phi(self) -> Values:
        return self.params[1]

    @cached_property
    def z(self) -> np.ndarray:
        """Coordinates of the latent sites at random [N, k]."""
        return np.random.default_rng(3).standard_normal((N, self.latents.size)).astype(np.float32)

    @cached_property
    def x(self) -> np.ndarray:
        """Datapoints that the model draws [N, d]: whatever its decoder is, they are in its support."""
        with needed("the model does not draw z and x as it should; see generative_draws_latents_and_x") as hold:
            drawn = self.draw_joint(N)
            hold({name: value.shape for name, value in drawn.items()} == self.shapes(N))
        return np.asarray(packed(NUMPY, self.model, drawn, self.like(N)), np.float32)

    @cached_property
    def base_scores(self) -> Values:
        """Both programs' scores of (z, x), one finite number for each datapoint, by name."""
        with needed("a program does not draw or score; see recognition_draws_the_latents"):
            drawn = self.draw_q(self.x)
            found = {program: self.score(program, self.z, self.x) for program in PROGRAMS}
        if {name: value.shape for name, value in drawn.items()} != self.of_q(N):
            raise NothingToCheckError("recognition does not draw z as it should; see recognition_draws_the_latents")
        if not all(value.shape == (N,) and np.isfinite(value).all() for value in found.values()):
            raise NothingToCheckError("a score is not one finite number; see one_score_per_datapoint")
        return found

    def draw(self, program: Program, *args: Any, key: int = 0) -> Values:
        """Draw every site of a program: not compiled, since compiling a draw takes far longer than making a few."""
        return numpys(self.engine, self.engine.draw(self.engine.key(key), program, *args))

    def draw_joint(self, n: int, key: int = 0) -> Values:
        """Draw n datapoints of the model."""
        program = generative(self.model, self.engine.array(self.like(n)))
        return self.draw(program, arrays(self.engine, self.theta), key=key)

    def draw_q(self, x: np.ndarray, key: int = 0, copies: int = 0) -> Values:
        """Draw from q(z | x), `copies` times inside one more plate where that is told."""
        program = recognition(self.model)
        program = repeated(program, copies) if copies else program
        return self.draw(program, arrays(self.engine, self.phi), self.engine.array(x), key=key)

    @cached_property
    def densities(self) -> dict[str, Callable[[Params, Array, Array], Array]]:
        """Log densities [..., n] in nats at (theta, z, x), the last at (phi, z, x), on arrays of the engine."""
        model, sites = self.model, self.latents
        return {
            "generative": lambda theta, z, x: sites.log_joint(sites.at(theta), x, z),
            "prior": lambda theta, z, x: sites.log_prior(sites.at(theta), x, z),
            "x given z": lambda theta, z, x: sites.score(theta, x, sites.values(sites.at(theta), z), model.observed),
            "recognition": lambda phi, z, x: sites.log_q(Posterior(recognition(model), (phi, x)), sites.at({}), z),
        }

    def score(self, density: str, z: np.ndarray, x: np.ndarray, params: Values | None = None) -> np.ndarray:
        """Score a density [..., n] at theta or phi, those of the case unless told: compiled, as the suite does."""
        own = self.phi if density == "recognition" else self.theta
        return self.run(self.densities[density], own if params is None else params, z, x)

    def run(self, function: Callable[..., Array], *args: Any) -> np.ndarray:
        """Call a function compiled, on NumPy arrays and dicts of them."""
        placed = (arrays(self.engine, a) if isinstance(a, dict) else self.engine.array(a) for a in args)
        return np.asarray(self.engine.numpy(self._compiled(function)(*placed)))


@cache
def resized(case: Case, n_x: int, n_latent: int) -> Case:
    """Return the case of the same model at other sizes, which it may refuse."""
    _ = case.model
    try:
        case.factory(n_x, n_latent, case.n_hidden)
    except ValueError as error:
        sizes = f"n_x = {n_x} and n_latent = {n_latent}"
        raise NothingToCheckError(f"the model refuses {sizes}: {in_one_line(error, with_type=False)}") from None
    return Case(case.factory, case.engine, n_x, n_latent, case.n_hidden)


# What a model is built from


def is_a_model(case: Case) -> None:
    """factory(n_x, n_latent, n_hidden) returns a models.base.Model that has these n_x and n_latent."""
    sizes = case.n_x, case.n_latent, case.n_hidden
    with attempt(f"a Model from the sizes {sizes}", "accept (n_x, n_latent, n_hidden)"):
        built = case.factory(*sizes)
    mend = "subclass models.base.Model, and implement all that it marks abstract"
    expect(isinstance(built, Model), f"a {type(built).__name__}", "a models.base.Model", mend)
    found = getattr(built, "n_x", None), getattr(built, "n_latent", None)
    expect(found == sizes[:2], f"(n_x, n_latent) = {found}", f"{sizes[:2]}", "keep both as attributes, as they came")


def equal_settings_are_one_model(case: Case) -> None:
    """Two models built alike are equal and hash alike, and others are not, because compiled code is kept by model."""
    if case.model.engines:
        raise NothingToCheckError("it is made of somebody's own code, and known by itself: commands build it once")
    one, two = case.model, case.factory(case.n_x, case.n_latent, case.n_hidden)
    mend = "make the class a frozen dataclass: @dataclass(frozen=True)"
    expect(one == two, "two models of the same sizes that differ", "that they are equal", mend)
    with attempt("a model that can be hashed", mend):
        found = hash(one), hash(two)
    expect(found[0] == found[1], "two hashes of equal models", "one", mend)
    try:
        other = case.factory(case.n_x + 1, case.n_latent, case.n_hidden)
    except ValueError:
        return
    expect(one != other, f"equal models for n_x = {case.n_x} and {case.n_x + 1}", "that they differ", mend)


def init_matches_theta_shapes(case: Case) -> None:
    """init(seed) returns (theta, phi), two dicts, and theta has the names and shapes of theta_shapes, in that order."""
    theta, phi = case.model.init(0)
    expected = {name: tuple(shape) for name, shape in case.model.theta_shapes.items()}
    expect(isinstance(theta, dict) and isinstance(phi, dict), "no two dicts", "(theta, phi)", "return two dicts")
    same = [(name, np.shape(value)) for name, value in theta.items()] == list(expected.items())
    mend = "let init and theta_shapes list the same parameters in the same order"
    expect(same, f"theta of {base.shapes(theta)}", base.listed(expected), mend)


def init_is_float32_numpy(case: Case) -> None:
    """Every initial value is a finite NumPy array of float32, so that both engines start from the same bits."""
    for group, values in zip(("theta", "phi"), case.model.init(0), strict=True):
        for name, value in values.items():
            kind = f"{value.dtype} array" if isinstance(value, np.ndarray) else type(value).__name__
            mend = "end it with .astype(np.float32); models.base has small_normal and zeros"
            expect(kind == "float32 array", f"{group}[{name!r}], a {kind}", "a NumPy array of float32", mend)
            finite = np.isfinite(value).all()
            expect(finite, f"{group}[{name!r}] not finite", "finite numbers", "look at how it is computed")


def init_is_a_function_of_the_seed(case: Case) -> None:
    """init gives the same bits for the same seed, and other ones for another seed."""
    first, again, other = (join(theta=theta, phi=phi) for theta, phi in map(case.model.init, (7, 7, 8)))
    mend = "draw every value from np.random.default_rng(seed)"
    expect(same_bits(first, again), "other values from the same seed", "the same bits", mend)
    if case.model.engines and same_bits(first, other):
        raise NothingToCheckError("its initial values are those of its own networks, whatever the seed")
    expect(not same_bits(first, other), "the same values from seeds 7 and 8", "values that depend on the seed", mend)


def keeps_the_contract(case: Case) -> None:
    """What every comparison asks before any training holds: one line there says the same."""
    try:
        x = case.x
    except NothingToCheckError:
        _ = case.model
        x = case.like(N)
    found = breach(case.engine, case.model, apart(x))
    if found:
        raise base.BrokenError(found)


# What the programs draw and score


def generative_draws_latents_and_x(case: Case) -> None:
    """generative samples latent sites, x [n, n_x] and what else the model observes, for each of n datapoints."""
    mend = 'sample each inside ppl.plate("data", n), with .to_event(1) on its distribution'
    drawn = case.draw_joint(N)
    latent_sites(case.engine, case.model)
    expect_shapes(drawn, case.shapes(N), mend, f" for n = {N}")


def recognition_draws_the_latents(case: Case) -> None:
    """recognition samples every latent site of generative, in the same shape, and no others."""
    mend = 'sample each inside ppl.plate("data", x.shape[0]), with .to_event(1) on its distribution'
    expect_shapes(case.draw_q(case.x), case.of_q(N), mend, f" for x [{N}, {case.n_x}]")


def draws_are_functions_of_the_key(case: Case) -> None:
    """Both programs draw the same values from the same key, and other ones from another key."""
    x = case.x
    for name, draw in {"generative": partial(case.draw_joint, N), "recognition": partial(case.draw_q, x)}.items():
        first, again, other = draw(0), draw(0), draw(1)
        mend = "draw all noise with ppl.sample, and none with NumPy or the library's own generator"
        expect(same_bits(first, again), f"other draws of {name} from the same key", "the same bits", mend)
        for site in case.of_q():
            differ = (first[site] != other[site]).any()
            expect(differ, f"the same {site} of {name} from two keys", "other draws", mend)


def one_score_per_datapoint(case: Case) -> None:
    """log_prob of either program is one finite number, in nats, for each datapoint [n]."""
    x = case.x
    if case.draw_q(x).keys() != case.of_q().keys():
        raise NothingToCheckError("recognition does not draw z as it should; see recognition_draws_the_latents")
    for name in PROGRAMS:
        found = case.score(name, case.z, x)
        mend = "put .to_event(1) on every distribution, so that a datapoint's numbers are summed"
        expect(found.shape == (N,), f"{name} scores of shape {list(found.shape)}", f"[{N}] for n = {N}", mend)
        finite = "finite numbers for draws of the model itself"
        expect(np.isfinite(found).all(), f"{name} scores {found}", finite, "look for a logarithm or exp that overflows")


def draws_gain_leading_axes(case: Case) -> None:
    """recognition runs inside one more plate to its left, as the judge runs it: z [L, n, ...], all fresh."""
    _ = case.base_scores
    mend = "keep every distribution inside the plate, and let none fix its batch shape by hand"
    for name, z in case.draw_q(case.x, copies=3).items():
        shape = case.of_q(3, N)[name]
        expected = f"{name} {list(shape)}"
        expect(z.shape == shape, f"{name} {list(z.shape)} for 3 draws of {N} datapoints", expected, mend)
        expect((z[0] != z[1]).any(), "the same draw three times", "three fresh ones", mend)


def one_datapoint_is_enough(case: Case) -> None:
    """Both programs draw and score a single datapoint."""
    _ = case.base_scores
    z, x = case.z[:1], case.x[:1]
    drawn = {**case.draw_joint(1), **{f"{name} of q": value for name, value in case.draw_q(x).items()}}
    expected = {**case.shapes(1), **{f"{name} of q": shape for name, shape in case.of_q(1).items()}}
    mend = "do not squeeze axes of length one"
    expect_shapes(drawn, expected, mend, " at n = 1")
    for name in PROGRAMS:
        found = case.score(name, z, x)
        expect(found.shape == (1,), f"a score of {name} of shape {found.shape}", "[1]", mend)


def one_latent_is_enough(case: Case) -> None:
    """The model draws and scores with one latent variable."""
    _ = case.base_scores
    small = resized(case, case.n_x, 1)
    mend = "neither squeeze the axis of the latent variables nor count on a second one"
    try:
        _ = small.x
    except NothingToCheckError:
        drawn = small.draw_joint(N)  # which says what is wrong, if it raises
        expect(False, base.shapes(drawn), base.listed(small.shapes(N)), mend)
    for name in PROGRAMS:
        found = small.score(name, small.z, small.x)
        expect(found.shape == (N,) and np.isfinite(found).all(), f"{name} scores {found}", f"{N} numbers", mend)
    expect_shapes(small.draw_q(small.x), small.of_q(N), mend)


def sample_axes_stay(case: Case) -> None:
    """z with leading sample axes [L, n, k] scores as L separate ones: [L, n], for both programs."""
    _ = case.base_scores
    z = np.random.default_rng(4).standard_normal((2, 3, N, case.latents.size)).astype(np.float32)
    for name in PROGRAMS:
        each = np.array([[case.score(name, z[i, j], case.x) for j in range(3)] for i in range(2)])
        mend = "use matmul and broadcasting from the right, and reshape nothing by n"
        expected = f"[2, 3, {N}] with the scores of six separate [{N}, {case.latents.size}]"
        expect_close(case.score(name, z, case.x), each, f"{name} scores of z [2, 3, n, k]", expected, mend)


def datapoints_are_independent(case: Case) -> None:
    """A datapoint's score does not depend on the others: permuted rows give permuted scores, a subset its own."""
    order = np.random.default_rng(5).permutation(N)
    for name, whole in case.base_scores.items():
        for rows in (order, np.array([3, 1])):
            what = f"{name} scores of rows {rows.tolist()} alone and among all"
            mend = "compute nothing across datapoints: no mean over a batch, no batch normalisation"
            expect_close(case.score(name, case.z[rows], case.x[rows]), whole[rows], what, "the same scores", mend)


def prior_of_z_is_normalised(case: Case) -> None:
    """p(z | theta) integrates to 1 over its coordinates, tried where there are one or two, over its draws' range."""
    small, _ = _fewest(case), case.base_scores
    engine, x = small.engine, small.x[:1]
    place = small.latents.at(arrays(engine, small.theta))
    draws = engine.numpy(small.latents.drawn(engine.key(1), place, engine.array(np.repeat(x, DRAWS, axis=0))))
    mend = "let one ppl.sample both draw and score each latent site; scale or add nothing"
    _hold_total(lambda z: small.score("prior", z, np.repeat(x, len(z), axis=0)), draws, mend)


def x_given_z_is_normalised(case: Case) -> None:
    """What is observed integrates, or for whole numbers sums, to 1 given z, tried with two columns of x."""
    small = resized(case, 2, case.n_latent)
    model, engine = small.model, small.engine
    each = [widths(model)[name] for name in model.observed]
    if sum(each) > 2:
        raise NothingToCheckError("at its fewest the model observes more than two columns, too many for a fine grid")
    z, like = np.repeat(small.z[:1], DRAWS, axis=0), np.repeat(small.like(1), DRAWS, axis=0)
    values = small.latents.values(small.latents.at(arrays(engine, small.theta)), engine.array(z))
    given = engine.ppl.condition(generative(model, engine.array(like)), values)
    _ = case.base_scores  # where there are none, there is nothing to say of their total
    drawn = small.draw(given, arrays(engine, small.theta))

    def score(seen: np.ndarray) -> np.ndarray:
        cut = dict(zip(model.observed, np.split(seen, np.cumsum(each)[:-1], axis=1), strict=True))
        at = np.zeros(len(seen), int)
        return small.score("x given z", z[at], packed(NUMPY, model, cut, like[at]))

    draws = np.concatenate([drawn[name] for name in model.observed], 1)
    _hold_total(score, draws, "add the density's normalising constant")


def recognition_is_normalised(case: Case) -> None:
    """q(z | x) integrates to 1 over z's coordinates, tried where there are one or two, over its draws' range."""
    small, _ = _fewest(case), case.base_scores
    engine, x = small.engine, small.x[:1]
    drawn = arrays(engine, small.draw_q(np.repeat(x, DRAWS, axis=0)))
    draws = engine.numpy(small.latents.coordinates(small.latents.at({}), drawn))
    mend = "let one ppl.sample both draw and score z; scale or add nothing"
    _hold_total(lambda z: small.score("recognition", z, np.repeat(x, len(z), axis=0)), draws, mend)


def _fewest(case: Case) -> Case:
    """Return the model with one latent variable, and two columns where it has a number for each.

    Raises NothingToCheckError where that makes more than two numbers.
    """
    for n_x in (case.n_x, 2):
        small = resized(case, n_x, 1)
        if small.latents.size <= 2:
            return small
    raise NothingToCheckError("its fewest latent sites have more than two coordinates, too many for a fine grid")


def not_finite_theta_is_no_crash(case: Case) -> None:
    """A theta of NaN gives scores that are not finite, and no exception: its caller stops a run that diverges."""
    _ = case.base_scores
    theta = {name: np.full_like(value, np.nan) for name, value in case.theta.items()}
    found = case.score("generative", case.z, case.x, theta)
    mend = "validate nothing inside the program, and replace no number that is not finite"
    expect(not np.isfinite(found).any(), f"scores {found}", "none that is finite", mend)


# What is differentiated


def gradients_are_finite_differences(case: Case) -> None:
    """The gradient of log p(x, z) in z and in every parameter of theta is finite and equals finite differences."""
    _ = case.base_scores

    def score(values: Params, x: Array) -> Array:
        theta = {name: value for name, value in values.items() if name != "z"}
        return case.densities["generative"](theta, values["z"], x)

    _hold_gradient(case, score, {**case.theta, "z": case.z}, case.x)


def recognition_gradients_are_finite_differences(case: Case) -> None:
    """The gradient of log q(z | x) in every parameter of phi is finite and equals finite differences."""
    _ = case.base_scores
    _hold_gradient(case, case.densities["recognition"], case.phi, case.z, case.x)


def recognition_is_reparameterised(case: Case) -> None:
    """A draw of z from recognition has a gradient in phi, as AEVB needs."""
    engine, _ = case.engine, case.base_scores
    x = engine.array(case.x)

    def total(phi: Params) -> Array:
        drawn = engine.draw(engine.key(0), recognition(case.model), phi, x)
        # Not the sum, which the shares of a simplex always have: 1.
        return sum((value**2).sum() for value in drawn.values())

    mend = "use a distribution that is reparameterised, such as Normal, and detach nothing"
    expected = "a gradient other than zero in some parameter of phi"
    with attempt(expected, mend):
        _, gradient = engine.value_and_grad(total)(arrays(engine, case.phi))
    found = numpys(engine, gradient)
    finite = all(np.isfinite(value).all() for value in found.values())
    expect(finite, "a gradient that is not finite", "finite numbers", mend)
    expect(any(value.any() for value in found.values()), "a gradient of zero in all of phi", expected, mend)


# theta's prior


def prior_samples_theta(case: Case) -> None:
    """prior samples and returns a site for each parameter, in the names, order and shapes of theta_shapes."""
    returned: dict[str, Any] = {}

    def program(ppl: Any) -> None:
        returned.update(case.model.prior(ppl))

    found = case.draw(program)
    expected = {name: tuple(shape) for name, shape in case.model.theta_shapes.items()}
    wanted = base.listed(expected)
    mend = "leave `prior` as models.base.Model has it, or sample the names of theta_shapes"
    same = [(name, value.shape) for name, value in found.items()] == list(expected.items())
    expect(same, f"sites {base.shapes(found)}", wanted, mend)
    expect(returned.keys() == expected.keys(), f"{sorted(returned)} returned", wanted, mend)


def prior_is_standard_normal(case: Case) -> None:
    """log p(theta) is one number, that of N(0, I) over every parameter: what --theta map stands for."""
    found = case.run(lambda theta: case.engine.log_prob(case.model.prior, theta), case.theta)
    flat = np.concatenate([value.ravel() for value in case.theta.values()]).astype(np.float64)
    expected = -0.5 * (np.square(flat) + np.log(2 * np.pi)).sum()
    mend = "leave `prior` as models.base.Model has it"
    expect(base.close(found, expected), base.distance(found, expected), f"{expected:.4f} nats", mend)


# Engines


def compiled_is_eager(case: Case) -> None:
    """Compiled scores of both programs are those of the program as it stands."""
    engine, z, x = case.engine, case.engine.array(case.z), case.engine.array(case.x)
    mend = "let nothing in the program depend on the values of arrays, only on their shapes"
    for (name, found), params in zip(case.base_scores.items(), case.params, strict=True):
        expected = engine.numpy(case.densities[name](arrays(engine, params), z, x))
        expect_close(found, expected, f"{name} scores", "the same numbers compiled and not", mend)


def engines_agree(case: Case) -> None:
    """Both engines score the same theta, phi, latent sites and x alike, to float32."""
    for name in ENGINES:
        if name == case.engine.name:
            continue
        if case.model.engines and name not in case.model.engines:
            raise NothingToCheckError(f"the model does not run on {name}")
        try:
            other = inference.engine(name, "cpu", 1)
        except ImportError as error:
            raise NothingToCheckError(f"the engine {name} is not installed ({in_one_line(error)})") from None
        twin, _ = Case(case.factory, other, case.n_x, case.n_latent, case.n_hidden), case.base_scores
        # The sites and not their coordinates, which each engine lays by draws of its own.
        values = numpys(case.engine, case.latents.values(case.latents.at({}), case.engine.array(case.z)))
        for program in PROGRAMS:
            here, there = (_score_of_sites(one, program, values, case.x) for one in (case, twin))
            what = f"{program} scores on {case.engine.name} and {name}"
            mend = "keep to names that torch and jax.numpy share and that mean the same in both"
            expect_close(here, there, what, "the same numbers", mend)


CHECKS = base.checks_of(__name__)


def _score_of_sites(case: Case, program: str, values: Values, x: np.ndarray) -> np.ndarray:
    """Score a program [n] at values of the latent sites."""
    if program == "generative":
        return case.run(case.latents.score, case.theta, x, values)
    return case.run(partial(case.engine.log_prob, recognition(case.model)), values, case.phi, x)


def _hold_gradient(case: Case, score: Callable[..., Array], at: Values, *args: np.ndarray) -> None:
    """Compare the gradient of score(at, *args).sum(), along one direction in each parameter, with central differences.

    Two step sizes, extrapolated; the tolerance covers float32's rounding of the scores.
    """
    engine, step = case.engine, 0.02
    differentiate = engine.compile(engine.value_and_grad(lambda values, *args: score(values, *args).sum()))
    evaluate, placed = engine.compile(score), [engine.array(value) for value in args]

    def total(values: Values) -> tuple[float, float]:
        each = engine.numpy(evaluate(arrays(engine, values), *placed)).astype(np.float64)
        return float(each.sum()), float(np.abs(each).sum())

    gradients = numpys(engine, differentiate(arrays(engine, at), *placed)[1])
    rng = np.random.default_rng(6)
    rounding = 4 * np.finfo(np.float32).eps * total(at)[1] / step
    for name, centre in at.items():
        found = gradients[name].astype(np.float64)
        words, mend = f"a gradient in {name} that is not finite", "look for sqrt, log or a division at 0"
        expect(np.isfinite(found).all(), words, "finite numbers", mend)
        direction = np.asarray(rng.choice([-1.0, 1.0], centre.shape)) / np.sqrt(max(1, centre.size))
        slopes = []
        for h in (step, step / 2):
            moved = ({**at, name: (centre + sign * h * direction).astype(np.float32)} for sign in (1, -1))
            above, below = (total(values)[0] for values in moved)
            slopes.append((above - below) / (2 * h))
        expected = (4 * slopes[1] - slopes[0]) / 3
        slope = float((found * direction).sum())
        tolerance = 0.05 * max(abs(expected), abs(slope)) + rounding + 5e-3
        words = f"a slope of {slope:.4g} along a direction in {name}"
        mend = "detach nothing and round nothing on the way from the parameters to the score"
        expect(abs(slope - expected) <= tolerance, words, f"{expected:.4g} by finite differences", mend)


def _hold_total(log_density: Callable[[np.ndarray], np.ndarray], draws: np.ndarray, mend: str) -> None:
    """Raise BrokenError unless a density integrates to 1 over the range of draws [m, d]."""
    total = _mass(log_density, draws)
    expect(abs(total - 1) < 0.02, f"a total of {total:.3f}", "1 within 2 %", mend)


def _mass(log_density: Callable[[np.ndarray], np.ndarray], draws: np.ndarray) -> float:
    """Return the total of a density over the range of draws [m, d]: a sum over whole numbers, or on a fine grid.

    Raises NothingToCheckError where the tails are heavy, or a grid of twice as many nodes has another total.
    """
    low, high = draws.min(0), draws.max(0)
    if (draws == np.round(draws)).all():
        axes = [np.arange(a, b + 1) for a, b in zip(low, high, strict=True)]
        if np.prod([len(axis) for axis in axes]) > 10**6:
            raise NothingToCheckError("its draws are whole numbers of too wide a range to sum over")
        return float(np.exp(log_density(_grid(axes)).astype(np.float64)).sum())
    quartiles = np.quantile(draws, [0.25, 0.75], axis=0)
    if (high - low > HEAVY * (quartiles[1] - quartiles[0])).any():
        raise NothingToCheckError("its density is too heavy in the tails for a grid")
    totals = []
    for count in (101, 201):
        axes = [np.linspace(a, b, count) for a, b in zip(low, high, strict=True)]
        density = np.exp(log_density(_grid(axes)).astype(np.float64)).reshape([count] * len(axes))
        for axis in reversed(axes):
            density = np.trapezoid(density, axis, axis=-1)
        totals.append(float(density))
    if not abs(totals[1] - totals[0]) < 0.005 * (1 + abs(totals[1])):
        raise NothingToCheckError("its density has features too narrow for a grid")
    return totals[1]


def _grid(axes: list[np.ndarray]) -> np.ndarray:
    return np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")], 1).astype(np.float32)
