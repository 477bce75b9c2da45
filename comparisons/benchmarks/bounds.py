"""log p(x), the bound and the divergence between q and the posterior, each worked out by itself on grids."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from comparisons import cli
from comparisons.benchmarks import planes
from comparisons.benchmarks.planes import Plane, divergence
from comparisons.cli import parts
from comparisons.cli.flags import FITTED, JUDGED
from comparisons.data import DATA, find, load
from comparisons.disk import writing
from comparisons.errors import UnfitError
from comparisons.evidence.base import Target
from comparisons.evidence.elbo import elbo
from comparisons.evidence.importance import weights_of_q
from comparisons.evidence.pairs import Scorer
from comparisons.evidence.quadrature import QuadratureSettings, quadrature
from comparisons.reporting.folder import begin, complete, where
from comparisons.runner import store
from comparisons.runner.experiment import FORM, Experiment, built
from comparisons.runner.fits import stages
from comparisons.runner.grid import started
from inference.base import Engine, Key, setting
from inference.latents import latents
from models.base import Ppl, standard_normal_latents

FIRST_STOP = Experiment.warmup * Experiment.minibatch  # up to which parameters do not move
STOPS = 12
TIGHT = QuadratureSettings(tolerance=1e-4)
NEEDED = 0.1  # nats: the error that draws are counted for
MOST_REPEATS = 1000
DEPTHS = planes.DEPTH, planes.DEPTH - 10.0  # nats
X_TWO_MODES = (2.0, -0.5)
STARTS = 8  # of the reverse fit

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Plan(cli.Plan):
    """What is run. Each field is a flag."""

    data: str = setting(
        "digits", f"the data set: one of these, or {FORM}", choices=tuple(DATA), or_file=find, form=FORM
    )
    model: str = parts.model_setting()
    n_hidden: int = setting(100, "hidden units", low=1, high=20_000)
    samples: int = setting(300_000, "training points of the fit [datapoints]", low=1000, high=10**9, about=FITTED)
    eval_points: int = setting(
        10, "first datapoints of test that are judged [datapoints]", low=2, high=100, about=JUDGED
    )
    elbo_draws: int = setting(1000, "draws of z for each bound by draws [draws]", low=2, high=100_000, about=JUDGED)
    prior_draws: int = setting(
        1_000_000,
        "draws from the prior, for all repeats together; of q a tenth, for each datapoint [draws]",
        low=1000,
        high=10**7,
        about=JUDGED,
    )


def measure(plan: Plan, out: Path, data_dir: Path | None, report: Callable[[list[Row], Plane, Path], str]) -> int:
    """Fit, measure, write rows.csv and what the `report` of them is, and print that; return 0. Raises UserError."""
    writing.prepare(out)
    experiment = planned(plan)
    data = load(experiment.data, data_dir)
    hold_plane(experiment, data.train.shape[1])
    new = begin(out, {**store.environment(), "plan": asdict(plan)})
    rows: list[Row] = []
    for n_seen, fit in stages(experiment, data, out):
        target = fit.target(fit.points(data, "test", plan.eval_points)[0])
        key = fit.engine.fold_in(fit.engine.key(plan.seed), n_seen)
        rows += [{"part": "identity", "n_seen": n_seen, **row} for row in identity(target, key, plan.elbo_draws)]
        print(f"{n_seen} points seen", file=sys.stderr)
    rows += [{"part": "draws", **row} for row in by_draws(target, key, plan.prior_draws)]
    plane = two_modes(fit.engine)
    rows += [{"part": "fits", **row} for row in fits(plane, plan.seed)]
    writing.write_rows(new / "rows.csv", rows)
    print(report(rows, plane, new))
    complete(out)
    print(where(out))
    return 0


def planned(plan: Plan) -> Experiment:
    """Return the fit that is followed: AEVB with two latent variables, its stops equally far apart on a log axis."""
    stops = np.unique(
        np.geomspace(min(FIRST_STOP, plan.samples / 10), plan.samples, STOPS).astype(int) // Experiment.minibatch
    )
    of_fit = {
        name: getattr(plan, name) for name in ("data", "model", "n_hidden", "samples", "engine", "seed", "threads")
    }
    told: dict[str, Any] = {"stops": tuple(int(stop) * Experiment.minibatch for stop in stops), "evidence": ("none",)}
    return Experiment(n_latent=2, backend="aevb", **told, **of_fit)


def hold_plane(experiment: Experiment, n_x: int) -> None:
    """Raise UnfitError for a model whose latent sites are no plane, before it is trained."""
    engine: Any = started(experiment.engine, experiment.device, experiment.threads)
    size = latents(engine, built(experiment, n_x)).size
    if size != 2:
        raise UnfitError(
            f"model {str(experiment.model)!r} has {size} latent coordinates at n_latent 2, and a plane has 2; choose "
            "another --model"
        )


def identity(target: Target, key: Key, draws: int) -> Iterator[Row]:
    """Yield for each datapoint what equation 1 is about, log p(x) = KL(q || posterior) + bound, in nats.

    Its three terms share no grid: log p(x) is `quadrature`'s, KL is summed over a grid that holds both densities, where
    the posterior is normalised by itself, and the bound over q's own. `discrepancy` is the left side less the right;
    `off` what the three may be wrong by themselves. Beside them stands the Monte Carlo bound with its standard error.
    """
    plane, off = planes.of_both(target)
    own, off_own = planes.of_q(target, plane)
    log_px, by_draws, kl, bound = quadrature(target, TIGHT), elbo(target, key, draws), plane.kl, own.bound
    for i in range(log_px.points):
        yield {
            **{"point": i, "log_px": log_px.value[i], "kl": kl[i], "bound": bound[i]},
            **{"discrepancy": log_px.value[i] - kl[i] - bound[i], "off": off[i] + off_own[i] + log_px.stderr[i]},
            **{"monte_carlo": by_draws.value[i], "monte_carlo_stderr": by_draws.stderr[i]},
            "kl_forward": plane.kl_forward[i],
        }


# Draws for log p(x)


def by_draws(target: Target, key: Key, draws: int) -> Iterator[Row]:
    """Yield the error of log p(x), estimated by the log of a mean of S weights w = p(x, z) / r(z), for rising S.

    Once with z ~ r from the prior and once from q. `rmse` is the error against quadrature over datapoints and repeats,
    with a standard error by repeats, and `median` that of one datapoint, which is expected to take the median number of
    draws; beside each stands what is `expected`.
    """
    plane, _ = planes.of_both(target)
    truth = quadrature(target, TIGHT).value
    engine, sizes = target.engine, rising(draws // 10)
    prior = engine.numpy(target.latents.log_prior(target.place, target.x, engine.array(plane.z))).astype(np.float64)
    estimates = {
        "prior": (prior, means(_weights_of_prior(target, engine.fold_in(key, 1), draws), sizes)),
        "q": (
            plane.log_q,
            weights_of_q(target, engine.fold_in(key, 2), draws // 10, partial(means, sizes=rising(draws // 100))),
        ),
    }
    for proposal, (log_r, found) in estimates.items():
        told = {"proposal": proposal, "variance": float(relative_variance(plane, log_r).mean())}
        each = draws_expected(plane, log_r)
        middle = np.argsort(each)[len(each) // 2]
        told |= {"kl_forward": float(kl_to(plane, log_r).mean()), "draws_expected_median": float(each[middle])}
        told["draws_expected"] = float(draws_expected(plane, log_r, rms))
        for size, estimate in zip(sizes, found, strict=False):
            square, by_theory = np.square(estimate - truth[:, None]), expected(plane, log_r, size)
            rmse, median = (_rooted(one) for one in (square.mean(0), square[middle]))
            told |= {"draws": size, "repeats": square.shape[1], "rmse": rmse[0], "rmse_stderr": rmse[1]}
            told |= {"median": median[0], "median_stderr": median[1]}
            yield {**told, "expected": rms(by_theory), "expected_median": float(by_theory[middle])}


def rms(errors: np.ndarray) -> float:
    """Return the root of the mean square."""
    return float(np.sqrt(np.square(errors).mean()))


def _rooted(square: np.ndarray) -> tuple[float, float]:
    """Return the root of the mean of squares, one for each repeat, and its standard error."""
    root = float(np.sqrt(square.mean()))
    return root, float(square.std(ddof=1) / np.sqrt(len(square)) / (2 * root))


def rising(most: int) -> list[int]:
    """Return 1, 3, 10, 30, ... up to the most."""
    return [size for decade in range(9) for size in (10**decade, 3 * 10**decade) if size <= most]


def means(log_w: np.ndarray, sizes: list[int]) -> tuple[np.ndarray, ...]:
    """Return the logs of means of S log weights [draws, n] that follow one another, [n, repeats], for each size S."""
    found = []
    for size in sizes:
        repeats = min(len(log_w) // size, MOST_REPEATS)
        cut = log_w[: repeats * size].reshape(repeats, size, -1)
        top = cut.max(1)
        found.append((top + np.log(np.exp(cut - top[:, None]).mean(1))).T)
    return tuple(found)


def _weights_of_prior(target: Target, key: Key, draws: int) -> np.ndarray:
    """Return log p(x | z) [draws, n] for draws of z that all datapoints share."""
    engine, sites, like = target.engine, target.latents, target.x[:1]
    z = sites.drawn(key, target.place, like, draws)
    log_prior = engine.numpy(sites.log_prior(target.place, like, z)).astype(np.float64)
    return Scorer(target, planes.MEMORY).grid(engine.numpy(z)[:, 0]).T - log_prior


def kl_to(plane: Plane, log_r: np.ndarray) -> np.ndarray:
    """Return KL(posterior || r) in nats [n], where the plane holds the posterior and not all of r."""
    log_w = plane.log_p - plane.log_px - log_r
    return np.asarray((_masses(plane) * log_w).sum(0))


def _masses(plane: Plane) -> np.ndarray:
    return np.exp(plane.log_p - plane.log_px + plane.log_cell)


def relative_variance(plane: Plane, log_r: np.ndarray) -> np.ndarray:
    """Return Var_r[w] / E_r[w]^2 [n] of weights w = p(x, z) / r(z), which is the chi-squared divergence.

    Infinite where it lies in the posterior's tail: where it is another one without the last ten nats of that.
    """
    log_p = plane.log_p - plane.log_px
    parts = [np.where(log_p > log_p.max(0) - depth, 2 * log_p - log_r, -np.inf) for depth in DEPTHS]
    whole, less = (np.logaddexp.reduce(part) + plane.log_cell for part in parts)
    return np.where(whole < less + 0.05, np.expm1(np.minimum(whole, 100.0)), np.inf)


def expected(plane: Plane, log_r: np.ndarray, size: float | np.ndarray) -> np.ndarray:
    """Return the error of the log of a mean of S weights that is to be expected, in nats [n].

        error^2 = Var_r[w'] / E_r[w']^2 / S + log(1 - d)^2

    A weight above S p(x) is met less than once in S draws: w' are the weights without those, and d the share of the
    posterior that is lost with them (after Chatterjee & Diaconis 2018). Where none is that large it is the delta
    method's Var_r[w] / p(x)^2 / S. It holds where the error is well below a nat.
    """
    log_w = plane.log_p - plane.log_px - log_r
    mass = np.where(log_w <= np.log(size), _masses(plane), 0.0)
    kept = mass.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = (mass * np.exp(np.minimum(log_w, np.log(size)))).sum(0) / kept**2 - 1.0
        square = np.maximum(variance, 0.0) / size + np.log(np.minimum(kept, 1.0)) ** 2
    return np.where(kept > 0, np.sqrt(square), np.inf)


def draws_expected(plane: Plane, log_r: np.ndarray, over: Callable[[np.ndarray], Any] = np.asarray) -> np.ndarray:
    """Return the S for which an error of `NEEDED` is `expected` of each datapoint [n], or `over` all of them [].

    By bisection of its logarithm.
    """
    low, high = np.zeros(plane.z.shape[1]), np.full(plane.z.shape[1], 30.0)
    for _ in range(40):
        middle = (low + high) / 2
        enough = over(expected(plane, log_r, np.exp(middle))) <= NEEDED
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return np.exp(high) if over is np.asarray else np.exp(high).max()


# One normal for two modes


class Normal(NamedTuple):
    """N(mean, covariance) over the plane: [2] and [2, 2]."""

    mean: np.ndarray
    covariance: np.ndarray

    def log_prob(self, z: np.ndarray) -> np.ndarray:
        """Return its log density in nats [...] at z [..., 2]."""
        precision = np.linalg.inv(self.covariance)
        offset = z - self.mean
        quadratic = np.einsum("...k,kl,...l->...", offset, precision, offset)
        return np.asarray(-0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * self.covariance)[1]))


def folded(ppl: Ppl, n: int) -> None:
    """Sample z ~ N(0, I) and x ~ N(((z1 + 1/4)^2, z2 + 3/2 z1), I / 4): x does not tell the sign of z1 + 1/4."""
    with ppl.plate("data", n):
        z = standard_normal_latents(ppl, 2)
        loc = ppl.xp.stack([(z[..., 0] + 0.25) ** 2, z[..., 1] + 1.5 * z[..., 0]], -1)
        ppl.sample("x", ppl.dist.Normal(loc, 0.5).to_event(1))


def two_modes(engine: Engine) -> Plane:
    """Return the posterior of z in `folded` for one x, on a grid; in place of a q stands the prior."""
    low, high, side = np.full((1, 2), -6.0), np.full((1, 2), 6.0), 161
    z = planes.grid(low, high, side)
    log_p = engine.log_prob(folded, {"z": engine.array(z), "x": engine.array([X_TWO_MODES])}, 1)
    log_cell = np.log(np.prod((high - low) / (side - 1), 1))
    return Plane(z, engine.numpy(log_p).astype(np.float64), Normal(np.zeros(2), np.eye(2)).log_prob(z), log_cell)


def fits(plane: Plane, seed: int) -> Iterator[Row]:
    """Yield the normals nearest to a posterior by either divergence, and both divergences of each, in nats.

    A row for each optimum that some start of the reverse fit leads to, the best first; `starts` counts these.
    """
    z, log_p = plane.z[:, 0], plane.log_p[:, 0]
    weights = np.exp(log_p - np.logaddexp.reduce(log_p))
    at = np.random.default_rng(seed).choice(len(z), STARTS - 1, p=weights)
    for diagonal in (False, True):
        forward = matched(z, log_p, diagonal)
        of_reverse = [nearest(z, log_p, diagonal, start) for start in (forward.mean, *z[at])]
        optima = distinct(of_reverse, [reverse_kl(z, log_p, one) for one in of_reverse])
        found = [("forward", forward, 1), *(("reverse", one, count) for one, count in optima)]
        for direction, one, count in found:
            log_q = one.log_prob(z)
            q = np.exp(log_q - np.logaddexp.reduce(log_q))
            yield {
                **{"direction": direction, "covariance": "diagonal" if diagonal else "full", "starts": count},
                **{"kl_reverse": reverse_kl(z, log_p, one), "kl_forward": float(divergence(log_p, log_q))},
                **{"right_p": float(weights[z[:, 0] > -0.25].sum()), "right_q": float(q[z[:, 0] > -0.25].sum())},
                **{"mean1": one.mean[0], "mean2": one.mean[1], "covariance12": one.covariance[0, 1]},
                **{"variance1": one.covariance[0, 0], "variance2": one.covariance[1, 1]},
            }


def matched(z: np.ndarray, log_p: np.ndarray, diagonal: bool) -> Normal:
    """Return the normal of the least KL(p || q): it has the moments of p, a diagonal one the variances alone."""
    p = np.exp(log_p - np.logaddexp.reduce(log_p))
    mean = p @ z
    covariance = (p[:, None] * (z - mean)).T @ (z - mean)
    return Normal(mean, np.diag(np.diag(covariance)) if diagonal else covariance)


def reverse_kl(z: np.ndarray, log_p: np.ndarray, normal: Normal) -> float:
    """Return KL(q || p) of a normal q over the nodes z [g, 2], in nats."""
    return float(divergence(normal.log_prob(z), log_p))


def nearest(z: np.ndarray, log_p: np.ndarray, diagonal: bool, start: np.ndarray) -> Normal:
    """Return the normal of the least KL(q || p) that descent leads to from N(start, I / 4), by scipy's BFGS.

    q is N(mean, L L') of mean and L's entries. The gradient is the covariance under q of log q - log p and the score.
    """
    from scipy.optimize import minimize

    log_p = log_p - np.logaddexp.reduce(log_p)

    def factor(values: np.ndarray) -> np.ndarray:
        return np.array([[np.exp(values[2]), 0.0], [0.0 if diagonal else values[4], np.exp(values[3])]])

    def cost(values: np.ndarray) -> tuple[float, np.ndarray]:
        root = factor(values)
        u = np.linalg.solve(root, (z - values[:2]).T)
        log_q = -0.5 * np.square(u).sum(0)
        log_q -= np.logaddexp.reduce(log_q)
        q, ratio, v = np.exp(log_q), log_q - log_p, np.linalg.solve(root.T, u)
        score = np.stack([*v, root[0, 0] * v[0] * u[0], root[1, 1] * v[1] * u[1], v[1] * u[0]])[: len(values)]
        kl = float(q @ ratio)
        return kl, score @ (q * (ratio - kl))

    begin = np.array([*start, *2 * [np.log(0.5)], *([] if diagonal else [0.0])])
    values = minimize(cost, begin, jac=True, method="BFGS").x
    return Normal(values[:2], factor(values) @ factor(values).T)


def distinct(normals: list[Normal], costs: list[float]) -> list[tuple[Normal, int]]:
    """Return normals that lie apart from every better one, the best first, and how often each is there."""
    found: list[tuple[Normal, int]] = []
    for nth in np.argsort(costs):
        one = normals[nth]
        near = [i for i, (other, _) in enumerate(found) if np.abs(one.mean - other.mean).max() < 0.05]
        if near:
            found[near[0]] = (found[near[0]][0], found[near[0]][1] + 1)
        else:
            found.append((one, 1))
    return found
