"""The latent sites of a model as one vector of real numbers for each datapoint.

A model says nothing of them: its program is run once, and every site of a datapoint that is drawn and not observed is
one, of any support that the libraries have a bijection for. What moves through a space (HMC, a normal fitted to each
datapoint, annealing, a grid) moves through coordinates z [..., n, k],

    u = loc + scale z,   value = T(u),   log p(x, z) = log p(x, value | theta) + log |d value / d z|,

where T is the library's own bijection from real numbers to the support, and loc and scale are those of u under the
prior, so that a coordinate is about N(0, 1) whatever the prior is. One site z ~ N(0, I) is its own coordinates.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

from inference import rows
from inference.base import Engine, Key, Posterior, arrays, repeated
from models.base import Array, Model, Params, Ppl, standard_normal_latents

DRAWS = 1000  # from the prior, that tell where a site lies and how wide it is


class LatentSite(NamedTuple):
    """One site: the shape of its value, and of what the library's bijection makes it from; None is the identity."""

    name: str
    event: tuple[int, ...]
    shape: tuple[int, ...]
    bijection: Any
    support: Any  # the library's, None where it is known to be all real numbers

    @property
    def size(self) -> int:
        """How many coordinates it has."""
        return int(np.prod(self.shape, dtype=int))


class Place(NamedTuple):
    """A theta, and where the prior that it gives lies: location and scale [k] of the coordinates."""

    theta: Params
    loc: Array
    scale: Array


@dataclass(frozen=True, eq=False)
class Layout:
    """How sites lie side by side in one vector u [..., k]; `xp` is the engine's array library."""

    sites: tuple[LatentSite, ...]
    xp: Any

    @property
    def size(self) -> int:
        """k, the number of coordinates."""
        return sum(site.size for site in self.sites)

    def cut(self, u: Array) -> list[Array]:
        """Cut numbers [..., k] into those of each site, in its own shape."""
        parts, start = [], 0
        for site in self.sites:
            parts.append(u[..., start : start + site.size].reshape(*u.shape[:-1], *site.shape))
            start += site.size
        return parts

    def constrained(self, u: Array) -> tuple[Params, Array]:
        """Return the value of each site, and log |d value / d u| [...]."""
        log_det = 0.0 * u[..., :1].sum(-1)
        found = {}
        for site, part in zip(self.sites, self.cut(u), strict=True):
            found[site.name] = part if site.bijection is None else site.bijection(part)
            if site.bijection is not None:
                each = site.bijection.log_abs_det_jacobian(part, found[site.name])
                log_det = log_det + each.reshape(*log_det.shape, -1).sum(-1)
        return found, log_det

    def unconstrained(self, values: Mapping[str, Array]) -> Array:
        """Return u [..., k] for the value of each site."""
        parts = []
        for site in self.sites:
            value = values[site.name]
            u = value if site.bijection is None else site.bijection.inv(value)
            parts.append(u.reshape(*value.shape[: value.ndim - len(site.event)], site.size))
        return self.xp.concatenate(parts, -1)


class Latents:
    """The latent sites of a model on an engine, in the order in which its program draws them.

    `size` is k, the number of coordinates. `plain`: one site z ~ N(0, I), which is its own coordinates. Raises
    ValueError, in one line, for a discrete site that is not summed out, a support without a bijection, or one that
    changes with theta or with other sites.
    """

    def __init__(self, engine: Engine, model: Model) -> None:
        self.engine, self.model = engine, model
        self.sites: tuple[LatentSite, ...]
        # By its own class alone, because a subclass may sample otherwise; and a user's word is looked at all the same.
        said = "standard" in vars(type(model)) and model.standard and type(model).__module__.split(".")[0] == "models"
        with engine.pinned():
            theta = {} if said else arrays(engine, model.init(0)[0])
            k = (model.n_latent,)
            self.sites = (LatentSite("z", k, k, None, None),) if said else _found(engine, model, theta, 1)
            if not self.sites and not model.summed:
                raise ValueError("no latent site in generative; sample one inside the plate over datapoints")
            self.layout = Layout(self.sites, engine.ppl.xp)
            self.size = self.layout.size
            self.plain = said or _is_plain(self, theta)
            if not self.plain:
                _hold_fixed(self, theta)
                self._initial = self.place(theta, ones(engine, model, 2))

    def place(self, theta: Params, x: Array) -> Any:
        """Return where theta puts the prior, for rows like x; of a plain model that is theta itself."""
        if self.plain:
            return theta
        like = x[:100] if self.model.given else ones(self.engine, self.model, 1)
        u = self.engine.numpy(self.engine.at_once(self._prior, self.engine.key(0), theta, like)).reshape(-1, self.size)
        low, middle, high = np.quantile(u.astype(np.float64), (0.1587, 0.5, 0.8413), axis=0)
        return Place(theta, *map(self.engine.array, (middle, np.maximum((high - low) / 2, 1e-6))))

    def _prior(self, key: Key, theta: Params, like: Array) -> Array:
        """Draw u [DRAWS / m, m, k] from the prior, for m rows like these."""
        program = repeated(rows.generative(self.model, like), -(-DRAWS // len(like)))
        return self.layout.unconstrained(self.engine.draw(key, program, theta))

    def at(self, theta: Params) -> Any:
        """Return theta with the coordinates of the model's initial one, which training keeps to."""
        return theta if self.plain else self._initial._replace(theta=theta)

    def values(self, place: Any, z: Array) -> Params:
        """Return the value of each site at coordinates z [..., n, k]."""
        return {"z": z} if self.plain else self._values(place, z)[0]

    def coordinates(self, place: Any, values: Mapping[str, Array]) -> Array:
        """Return the coordinates [..., n, k] of values of the sites."""
        return values["z"] if self.plain else (self.layout.unconstrained(values) - place.loc) / place.scale

    def score(self, theta: Params, x: Array, values: Mapping[str, Array], only: tuple[str, ...] | None = None) -> Array:
        """Return log p(x, values | theta) in nats [..., n], of all sites or of some alone."""
        engine, model = self.engine, self.model
        if model.summed:
            leading = max([1, *(values[s.name].ndim - len(s.event) for s in self.sites)])
            return rows.summed(engine.ppl, model, theta, x, lambda name, fn: values[name], leading, only)
        program, told = rows.generative(model, x), {**rows.values(engine.ppl, model, x), **self.own(values)}
        if only is None:
            return engine.log_prob(program, told, theta)
        sites = engine.sites(engine.key(0), program, told, theta)
        total: Any = 0.0
        for name in only:
            total = total + sites[name].fn.log_prob(told[name])
        return total

    def log_joint(self, place: Any, x: Array, z: Array) -> Array:
        """Return log p(x, z | theta) in nats [..., n], for coordinates z [..., n, k]."""
        if self.plain:
            return self.score(place, x, {"z": z})
        values, log_det = self._values(place, z)
        return self.score(place.theta, x, values) + log_det

    def log_prior(self, place: Any, x: Array, z: Array) -> Array:
        """Return log p(z | theta) in nats [..., n], for coordinates z [..., n, k]."""
        if self.plain:
            return self.score(place, x, {"z": z}, ("z",))
        values, log_det = self._values(place, z)
        return self.score(place.theta, x, values, tuple(values)) + log_det

    def log_q(self, q: Posterior, place: Any, z: Array) -> Array:
        """Return log q(z | x) in nats [..., n], for coordinates z [..., n, k], of a q that samples the sites."""
        if self.plain:
            return self.engine.log_prob(q.program, {"z": z}, *q.args)
        values, log_det = self._values(place, z)
        return self.engine.log_prob(q.program, values, *q.args) + log_det

    def drawn(self, key: Key, place: Any, x: Array, count: int | None = None) -> Array:
        """Draw coordinates [n, k] from p(z), for as many datapoints as there are rows x; [count, n, k] of several."""
        program = rows.generative(self.model, x)
        if self.plain:  # no decoder is run for it
            program = partial(_standard_normals, n=x.shape[0], n_latent=self.size)
        program = program if count is None else repeated(program, count)
        return self.coordinates(place, self.engine.draw(key, program, place if self.plain else place.theta))

    def own(self, values: Mapping[str, Array]) -> Params:
        """Return what of the values of a program's sites are those of latent ones."""
        return {site.name: values[site.name] for site in self.sites}

    def normal(self, ppl: Ppl, local: Params) -> None:
        """Sample the sites from q = N(loc, diag exp(log_scale)^2) of the coordinates, both [n, k]."""
        loc, scale = local["loc"], ppl.xp.exp(local["log_scale"])
        if not self.plain:
            loc, scale = self._initial.loc + self._initial.scale * loc, self._initial.scale * scale
        with ppl.plate("data", loc.shape[0]):
            for site, at, width in zip(self.sites, self.layout.cut(loc), self.layout.cut(scale), strict=True):
                fn = ppl.dist.Normal(at, width).to_event(len(site.shape))
                moved = site.bijection is not None
                ppl.sample(site.name, ppl.dist.TransformedDistribution(fn, [site.bijection]) if moved else fn)

    def _values(self, place: Place, z: Array) -> tuple[Params, Array]:
        """Return the value of each site, and log |d value / d z| [..., n]."""
        found, log_det = self.layout.constrained(place.loc + place.scale * z)
        return found, log_det + self.layout.xp.log(place.scale).sum()


@cache
def latents(engine: Engine, model: Model) -> Latents:
    """Return the latent sites of a model on an engine: the same object for the same two. Raises ValueError."""
    return Latents(engine, model)


def _found(engine: Engine, model: Model, theta: Params, level: int) -> tuple[LatentSite, ...]:
    """Run the generative program, with covariates and a key that are all `level`, and return its latent sites."""
    program = rows.generative(model, ones(engine, model, 2) * level)
    found = []
    for name, site in engine.outline(engine.key(level), program, theta).items():
        if site.kind != "sample" or site.observed or name in (*model.observed, *model.summed):
            continue
        support = site.fn.support
        support = getattr(support, "base_constraint", support) if "Mixture" in type(support).__name__ else support
        if support.is_discrete:
            raise ValueError(
                f"the latent site {name} is discrete; name it in `summed` of the model, which sums it out exactly, or "
                "make it continuous"
            )
        event = tuple(site.fn.event_shape)
        try:
            bijection = engine.ppl.biject_to(support)
            shape = tuple(bijection.inverse_shape(event))
            like = engine.array(np.linspace(-1.0, 1.0, 2 * int(np.prod(shape, dtype=int))).reshape(2, *shape))
            value = engine.at_once(partial(_image, bijection), like)
        except (NotImplementedError, TypeError, RuntimeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"the latent site {name} has the support {support}, to which the library has no bijection from real "
                "numbers that is the same for all datapoints; choose another distribution"
            ) from error
        same = tuple(value.shape) == tuple(like.shape) and np.array_equal(*map(engine.numpy, (value, like)))
        found.append(LatentSite(name, event, shape, None if same else bijection, support))
    return tuple(found)


def _image(bijection: Any, u: Array) -> Array:
    return bijection(u)


def images(sites: Latents, site: LatentSite, z: Array, support: Any) -> Array:
    """Return what the library's bijection to another support makes of coordinates z, for one of the sites."""
    u, bijection = sites.layout.cut(z)[sites.sites.index(site)], sites.engine.ppl.biject_to(support)
    shape = tuple(bijection.inverse_shape(site.event))
    return bijection(u if shape == site.shape else z[..., :1] + sites.engine.array(np.zeros(shape)))


def _standard_normals(ppl: Ppl, theta: Params, n: int, n_latent: int) -> None:
    with ppl.plate("data", n):
        standard_normal_latents(ppl, n_latent)


def _is_plain(sites: Latents, theta: Params) -> bool:
    """Return whether there is one site z ~ N(0, I), whatever theta and the covariates are."""
    engine, model = sites.engine, sites.model
    site = sites.sites[0] if len(sites.sites) == 1 and not model.summed else None
    if site is None or site.name != "z" or site.bijection is not None or site.event != (model.n_latent,):
        return False
    rng = np.random.default_rng(3)
    z = 3.0 * rng.standard_normal((4, *site.event))
    expected = -0.5 * (z**2 + np.log(2 * np.pi)).sum(-1)
    score = engine.compile(partial(sites.score, only=("z",)))
    for changed, level in ((theta, 1.0), (_other(engine, theta), 2.0)):
        x = ones(engine, model, 4) * level
        scores = engine.numpy(score(changed, x, {"z": engine.array(z)}))
        if scores.shape != (4,) or not np.allclose(scores, expected, rtol=2e-5, atol=1e-4):
            return False
    return True


def _hold_fixed(sites: Latents, theta: Params) -> None:
    """Raise ValueError for a support that changes with theta, with covariates or with other sites."""
    engine, rng = sites.engine, np.random.default_rng(4)
    others = _found(engine, sites.model, _other(engine, theta), 2)
    for site, other in zip(sites.sites, others, strict=True):
        same = site.name == other.name and site.event == other.event
        if same and site.support is not other.support:
            u = engine.array(rng.standard_normal((3, *site.shape)))
            images = [u if one.bijection is None else one.bijection(u) for one in (site, other)]
            same = np.array_equal(*map(engine.numpy, images))
        if not same:
            raise ValueError(
                f"the support of the latent site {site.name} changes with theta, covariates or other sites; sample it "
                "on a fixed one, and shift or scale the value"
            )


def ones(engine: Engine, model: Model, n: int) -> Array:
    """Return rows whose every column is 1, which any covariate may be."""
    return engine.array(np.ones((n, rows.width(model))))


def _other(engine: Engine, theta: Params) -> Params:
    """Return a theta that differs from this one in every number."""
    rng = np.random.default_rng(5)
    moved = {name: engine.numpy(value) for name, value in theta.items()}
    return {name: engine.array(value + 0.1 * rng.standard_normal(value.shape)) for name, value in moved.items()}
