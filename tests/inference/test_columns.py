"""Several observed sites, covariates, gaps and what is summed out: densities and fits against closed forms."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from latent_models import Linear
from scipy import stats

from comparisons.evidence.base import Target
from comparisons.evidence.judge import ESTIMATORS, JudgeSettings
from inference import BACKENDS
from inference.base import Batch, Engine, Params, arrays, numpys
from inference.latents import latents
from inference.rows import columns, observed, packed, widths
from models.base import Array, Model, Ppl, small_normal, standard_normal_latents, zeros

N = 6


@dataclass(frozen=True)
class Regression(Model):
    """y ~ N((c, z) w + b, exp(s)^2 I) given c, beside x, a column of counts with rate exp(z v)."""

    n_x: int = 1
    n_latent: int = 1
    n_hidden: int = 1
    n_y: int = 2
    n_c: int = 3
    observed = ("x", "y")
    given = ("c",)
    support = "count"

    @property
    def theta_shapes(self) -> dict[str, tuple[int, ...]]:
        k = self.n_latent
        return {"w": (self.n_c + k, self.n_y), "b": (self.n_y,), "s": (), "v": (k, self.n_x)}

    def init(self, seed: int) -> tuple[Params, Params]:
        rng, k = np.random.default_rng(seed), self.n_latent
        theta = {name: small_normal(rng, *shape) for name, shape in self.theta_shapes.items()}
        return theta, {"u": small_normal(rng, self.n_x + self.n_y + self.n_c, k), "a": zeros(k), "t": zeros(k)}

    def generative(self, ppl: Ppl, theta: Params, n: int, c: Array = None) -> None:
        with ppl.plate("data", n):
            z = standard_normal_latents(ppl, self.n_latent)
            both = ppl.xp.concatenate([c + ppl.xp.zeros_like(z[..., :1]), z], -1)
            loc = ppl.xp.matmul(both, theta["w"]) + theta["b"]
            ppl.sample("y", ppl.dist.Normal(loc, ppl.xp.exp(theta["s"])).to_event(1))
            ppl.sample("x", ppl.dist.Poisson(ppl.xp.exp(ppl.xp.matmul(z, theta["v"]))).to_event(1))

    def recognition(self, ppl: Ppl, phi: Params, x: Array, y: Array = None, c: Array = None) -> None:
        loc = ppl.xp.matmul(ppl.xp.concatenate([x, y, c], -1), phi["u"]) + phi["a"]
        with ppl.plate("data", x.shape[0]):
            ppl.sample("z", ppl.dist.Normal(loc, ppl.xp.exp(phi["t"])).to_event(1))


@dataclass(frozen=True)
class Gappy(Linear):
    """x ~ N(z w + b, exp(log_scale)^2 I), of which any column may be missing."""

    n_x: int = 4
    n_latent: int = 2
    n_hidden: int = 1
    missing = True

    def generative(self, ppl: Ppl, theta: Params, n: int) -> None:
        with ppl.plate("data", n):
            self.observe(ppl, theta, standard_normal_latents(ppl, self.n_latent))

    def recognition(self, ppl: Ppl, phi: Params, x: Array) -> None:
        known = ppl.xp.where(ppl.xp.isnan(x), ppl.xp.zeros_like(x), x)
        with ppl.plate("data", x.shape[0]):
            loc = ppl.xp.matmul(known, phi["v"]) + phi["c"]
            ppl.sample("z", ppl.dist.Normal(loc, ppl.xp.exp(phi["s"])).to_event(1))


def parameters(model: Model) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in model.theta_shapes.items()}


def regression(theta: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Return log p(x, y | c) [n] by a fine grid of z."""
    z = np.linspace(-9, 9, 6001)
    w, b, s, v = (np.asarray(theta[name], np.float64) for name in ("w", "b", "s", "v"))
    value = []
    for count, *rest in x:
        c, y = np.array(rest[:3]), np.array(rest[3:])  # x first, then c and y by name
        loc = c @ w[:3] + z[:, None] * w[3] + b
        score = stats.norm.logpdf(y, loc, np.exp(s)).sum(1) + stats.poisson.logpmf(count, np.exp(z * v[0, 0]))
        value.append(np.log(np.sum(np.exp(score) * stats.norm.pdf(z)) * (z[1] - z[0])))
    return np.array(value)


def gappy(theta: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Return log p(what there is of x) [n]: a normal's marginal."""
    w, b, s = (np.asarray(theta[name], np.float64) for name in ("w", "b", "log_scale"))
    covariance = w.T @ w + np.exp(2 * s) * np.eye(len(b))
    value = []
    for row in x:
        there = ~np.isnan(row)
        some = stats.multivariate_normal(b[there], covariance[np.ix_(there, there)]) if there.any() else None
        value.append(some.logpdf(row[there]) if some else 0.0)
    return np.array(value)


def with_gaps(n: int = N) -> np.ndarray:
    """Return rows of which a third are missing, one of them whole, and one wholly missing."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal((n, 4)).astype(np.float32)
    x[rng.random(x.shape) < 0.3] = np.nan
    x[0], x[1] = 0.5, np.nan
    return x


def with_counts(n: int = N) -> np.ndarray:
    rng = np.random.default_rng(3)
    rest = rng.standard_normal((n, 5))
    return np.concatenate([rng.poisson(2.0, (n, 1)), rest], 1).astype(np.float32)


CASES: dict[str, tuple[Any, Any, Any]] = {
    "several sites and covariates": (Regression(), with_counts, regression),
    "gaps": (Gappy(), with_gaps, gappy),
}


def test_a_row_is_cut_by_name() -> None:
    """x first, then the others by name, whatever they are."""
    model, x = Regression(), np.arange(12.0).reshape(2, 6)
    assert widths(model) == {"x": 1, "c": 3, "y": 2}
    assert {name: part.tolist()[0] for name, part in columns(model, x).items()} == {
        "x": [0.0], "c": [1.0, 2.0, 3.0], "y": [4.0, 5.0]
    }  # fmt: skip
    assert list(observed(model, x)) == ["x", "y"]


def test_dreams_have_the_covariates_and_the_gaps_of_their_minibatch(engine: Engine) -> None:
    for model, rows, _ in CASES.values():
        x = rows()
        drawn = {name: np.full((N, widths(model)[name]), 7.0, np.float32) for name in model.observed}
        dreamt = engine.numpy(packed(engine.ppl, model, arrays(engine, drawn), engine.array(x)))
        held = np.isnan(x)
        if model.given:
            held[:, 1:4] = True
        np.testing.assert_array_equal(dreamt[held], x[held])
        assert (dreamt[~held] == 7.0).all()


@pytest.mark.parametrize("name", CASES)
def test_every_estimator_reaches_the_truth(name: str, engine: Engine) -> None:
    model, rows, truth = CASES[name]
    theta, x = parameters(model), rows()
    target = Target(engine, model, arrays(engine, theta), engine.array(x))
    settings = JudgeSettings(importance_samples=2000, temperatures=100, tolerance=1e-3)
    with engine.pinned():
        for each in ("quadrature", "importance", "annealed"):
            found = ESTIMATORS[each].estimate(target, settings, 0)
            off = np.abs(found.value - truth(theta, x))
            assert (off < 5 * found.stderr + 2e-3)[~found.doubtful].all(), (each, off)
            assert found.flagged == 0 or each == "annealed"


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_learns_from_them(name: str, backend: str, engine: Engine) -> None:
    """Oracle: log p of the rows it was fitted to, in closed form or on a grid, rises by a nat and more."""
    model, rows, truth = CASES[name]
    x = rows(40)
    x[:, -1] = x[:, -2] + 0.1 * x[:, -1] + 3.0  # something to learn
    method = BACKENDS[backend]
    built = method.build(engine, model, method.settings(theta="ml", optimizer="adam", warmup=0, minibatch=40))
    theta, phi = (arrays(engine, group) for group in model.init(0))
    with engine.pinned():
        at, indices = engine.array(x), engine.array(np.arange(40))
        state = built.init(engine.key(0), theta, phi, at, engine.array(0.05))
        step = engine.compile(lambda key, state: built.step(key, state, Batch(at, indices, 1.0))[0])
        for number in range(80):
            state = step(engine.fold_in(engine.key(1), number), state)
        reached = numpys(engine, built.theta(state))
    gained = truth(reached, x).mean() - truth(numpys(engine, theta), x).mean()
    assert gained > 1.0, gained


def test_what_no_mask_can_take_is_said(engine: Engine) -> None:
    class Joint(Gappy):
        def generative(self, ppl: Ppl, theta: Params, n: int) -> None:
            with ppl.plate("data", n):
                standard_normal_latents(ppl, self.n_latent)
                one = ppl.xp.ones_like(theta["b"])
                ppl.sample("x", ppl.dist.MultivariateNormal(theta["b"], scale_tril=ppl.xp.diag(one)))

    model = Joint()
    theta = arrays(engine, model.init(0)[0])
    with pytest.raises(ValueError, match=r"the site x, of MultivariateNormal.*missing = True"):
        latents(engine, model).score(theta, engine.array(with_gaps()), {"z": engine.array(np.zeros((N, 2)))})
