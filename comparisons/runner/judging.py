"""What looks at a run's fits, and never changes them: the judge at its stops, and what an estimator keeps along it.

At a stop: the bound where the method has a q, and what that q uses; log p(x) where it can be had; each a row with its
error.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from comparisons.evidence.base import Average, Estimate, Keeper, Target
from comparisons.evidence.elbo import elbo
from comparisons.evidence.full_vb import AT_PRIOR, bound, divergence, expected, predictive, under_draws
from comparisons.evidence.guard import contradiction
from comparisons.evidence.journal import Journal, kept_in
from comparisons.evidence.judge import ESTIMATORS, estimate
from comparisons.evidence.latents import Use, use
from comparisons.runner.cell import placed
from comparisons.runner.experiment import Experiment
from comparisons.runner.rows import BLANK, Row
from comparisons.runner.training import SPLITS, DivergedError, Standing, Trainer
from inference.base import Array, Key

# A look whenever a tenth more has been seen: theta learns along the logarithm of the points. Measured on one seed of
# AEVB, 1000 training points, 200 test points, ten million seen: looks at each 2, 10 or 50 %, or at each 100,000 points,
# of 5 moves or of 55, end with a mean error of -1.0 to -1.4 nats and a median of +0.1: a twentieth of the datapoints is
# over 5 nats low.
GROWTH = 10

Work = Callable[[], tuple[Estimate | Average, int]]  # a metric's estimate, and the local steps that its q took


@dataclass(frozen=True)
class Judge:
    """What looks at a run's fits. It never changes them."""

    trainer: Trainer
    keeping: "Keeping | None"
    common: Row
    pause: Callable[[], None]

    def judge(self, standing: Standing) -> None:
        """Add the rows of a stop, on from where `standing` was left. Raises DivergedError."""
        works = {split: works_of(self.trainer, self.keeping, standing, split) for split in SPLITS}
        for split, metric in self._owed[len(standing.judging) :]:
            standing.since, passed = time.perf_counter(), self.trainer.clock(standing)
            with kept_in(standing.journal):
                found, fit_steps = works[split][metric]()
            value, stderr = found.mean()
            if not (math.isfinite(value) and math.isfinite(stderr)):
                raise DivergedError(f"{metric} is not finite at step {standing.step}")
            seconds = passed() + standing.spent
            told = {"fit_steps": fit_steps, "n_points": found.points, "flagged": found.flagged}
            row = self._row(standing, split, metric, value, stderr, eval_seconds=round(seconds, 3), **told)
            row["status"] = self._status(row, found, works[split]["elbo_nats"])
            standing.judging.append(row)
            standing.spent, standing.journal = 0.0, Journal(paused=self.pause)
            self.pause()
        standing.rows += [*standing.judging, *self._besides(standing)]
        standing.judging, standing.judged = [], standing.step

    def lost(self, standing: Standing) -> list[Row]:
        """Return the rows of a run that diverged: every metric it owed, and no number."""
        return [self._row(standing, *each, math.nan, math.nan, status="diverged") for each in self._owed]

    def _besides(self, standing: Standing) -> Iterator[Row]:
        """Yield the rows of what is not estimated: HMC's acceptance, and what the kept chains have cost."""
        if math.isfinite(standing.acceptance[0]):
            points = self.trainer.cell.rows_per_step
            yield self._row(standing, "train", "hmc_acceptance", *standing.acceptance, n_points=points)
        if self.keeping:
            for split, evals in standing.chain_evals.items():
                seconds = round(standing.chain_seconds[split], 3)
                yield self._row(standing, split, f"{self.keeping.name}_evals", evals, 0.0, eval_seconds=seconds)

    def _row(self, standing: Standing, split: str, metric: str, value: float, stderr: float, **besides: Any) -> Row:
        return {
            **self.common,
            **BLANK,
            "n_seen": standing.step * self.trainer.cell.rows_per_step,
            "split": split,
            "metric": metric,
            "value": value,
            "stderr": stderr,
            "seconds": round(standing.seconds, 3),
            "compile_seconds": round(standing.compile_seconds, 3),
            "step_size": standing.step_size if standing.begun else math.nan,
            "decoder_evals": standing.decoder_evals,
            **besides,
        }

    @property
    def _owed(self) -> list[tuple[str, str]]:
        return self.trainer.cell.owes(self.trainer.backend.posterior is not None)

    def _status(self, row: Row, found: Any, below: Work) -> str:
        """Return `contradicted`, and say so, for a log p(x) below the bound of the same datapoints; else `ok`."""
        e = self.trainer.cell.experiment
        estimates = {f"log_px_{name}_nats" for name in e.evidence}
        if not self.trainer.backend.posterior or row["metric"] not in estimates:
            return "ok"
        known: Any = below()[0]  # worked out before; after a checkpoint once more, to the same bits
        told = contradiction(known, found, e.elbo_draws)
        if told:
            where = f"{row['cell']}, {row['split']}, {row['n_seen']} points seen"
            print(f"{where}: {row['metric']} cannot be right, or the bound cannot: {told}", file=sys.stderr)
        return "contradicted" if told else "ok"


def works_of(trainer: Trainer, keeping: "Keeping | None", standing: Standing, split: str) -> dict[str, Work]:
    """Return what estimates each metric of a split, at the fit as it stands."""
    e, engine, posterior = trainer.cell.experiment, trainer.engine, trainer.backend.posterior
    fit_key, draw_key = engine.split(engine.fold_in(engine.fold_in(trainer.key, 1), standing.step))

    @cache
    def target(count: int) -> Target:
        x, indices = placed(engine, trainer.data, split, count)
        q = posterior(fit_key, standing.state, x, indices) if posterior else None
        return Target(engine, trainer.model, trainer.theta(standing), x, q)

    @cache  # log p(x) is held against it
    def at_theta() -> tuple[Estimate, int]:
        q: Any = target(e.eval_points).q
        return elbo(target(e.eval_points), draw_key, e.elbo_draws), q.fit_steps

    @cache
    def used() -> Use:
        return use(target(e.eval_points), draw_key, e.elbo_draws)

    def log_px(name: str) -> tuple[Estimate, int]:
        return estimate(name, target(e.eval_points), e, e.seed), 0

    works: dict[str, Work] = {"elbo_nats": at_theta}
    works |= {"kl_z_nats": lambda: (used().kl, 0), "active_latents": lambda: (used().active, 0)}
    works |= {f"log_px_{name}_nats": partial(log_px, name) for name in e.evidence}
    if keeping:
        works[f"log_px_{keeping.name}_nats"] = lambda: (keeping.estimate(standing, split), 0)
    if trainer.backend.theta_posterior:
        works |= _works_of_theta(trainer, standing, target)
    return works


def _works_of_theta(trainer: Trainer, standing: Standing, target: Callable[[int], Target]) -> dict[str, Work]:
    """Return what estimates each metric of a split that a q(theta) has besides; `target` is of its first points."""
    e, engine, n_train = trainer.cell.experiment, trainer.engine, trainer.cell.n_train
    assert trainer.backend.theta_posterior
    q_theta = trainer.backend.theta_posterior(standing.state)
    theta_key, bound_key = engine.split(engine.fold_in(engine.fold_in(trainer.key, 3), standing.step))
    weights = divergence(engine, q_theta)

    @cache  # one set of draws serves both metrics
    def drawn() -> list[Estimate]:
        def log_px(at_draw: Target, number: int) -> Estimate:
            return estimate(e.evidence[0], at_draw, e, (e.seed + number) % 2**31)

        return under_draws(target(e.eval_points), q_theta, theta_key, e.theta_draws, log_px)

    def full_bound() -> tuple[Average, int]:
        q: Any = target(n_train).q
        return bound(target(n_train), q_theta, bound_key, e.elbo_draws), q.fit_steps

    return {
        "log_px_expected_nats": lambda: (expected(drawn()), 0),
        "log_px_predictive_nats": lambda: (predictive(drawn()), 0),
        "elbo_full_nats": full_bound,
        "kl_theta_nats": lambda: (Average(float(weights.sum()) / n_train, 0.0, n_train), 0),
        "theta_at_prior": lambda: (Average(float((weights < AT_PRIOR).mean()), 0.0, n_train), 0),
    }


@dataclass(frozen=True)
class Keeping:
    """The estimator that keeps something along a run, and the datapoints x [n, n_x] of each split that it is kept for.

    It is begun with theta and moved every so many points; what is kept, and what it cost, is in `Standing`. The paper's
    estimator is the one that does (`evidence.draws`). Training never sees it: it has keys of its own, and reads theta
    between two chunks of steps.
    """

    name: str
    keeper: Keeper
    settings: Experiment
    trainer: Trainer
    x: dict[str, Array]

    def begin(self, standing: Standing) -> None:
        """Start for each split."""
        standing.chain_evals, standing.chain_seconds = dict.fromkeys(self.x, 0), dict.fromkeys(self.x, 0.0)
        for split in self.x:
            standing.chains[split] = self.keeper.begin(*self._asked(standing, split))

    def due(self, standing: Standing) -> int:
        """Return the step of the next look."""
        return next_look(standing.looked, self.keeper.every(self.settings) // self.trainer.cell.rows_per_step)

    def look(self, standing: Standing) -> None:
        """Bring what is kept up to the theta of a step, where that is due."""
        if standing.step < self.due(standing):
            return
        for split in self.x:
            passed = self.trainer.clock(standing)
            standing.chains[split] = self.keeper.look(*self._asked(standing, split), standing.chains[split])
            self._count(standing, split, judged=False)
            standing.chain_seconds[split] += passed()
        standing.looked = standing.step

    def estimate(self, standing: Standing, split: str) -> Estimate:
        """Return the estimate of log p(x) by what is kept of a split, which goes on."""
        asked = self._asked(standing, split, judging=True)
        found, standing.chains[split] = self.keeper.judge(*asked, standing.chains[split])
        self._count(standing, split, judged=True)
        return found

    def _asked(self, standing: Standing, split: str, judging: bool = False) -> tuple[Target, Experiment, Key]:
        """Return what the keeper is called with at the fit as it stands: target, settings, and a key of its own."""
        engine = self.trainer.engine
        target = Target(engine, self.trainer.model, self.trainer.theta(standing), self.x[split])
        step_key = engine.fold_in(engine.fold_in(self.trainer.key, 4), standing.step)
        return target, self.settings, engine.fold_in(step_key, 2 * SPLITS.index(split) + judging)

    def _count(self, standing: Standing, split: str, judged: bool) -> None:
        standing.chain_evals[split] += self.keeper.evaluations(self.settings, len(self.x[split]), judged)


def next_look(looked: int, every: int) -> int:
    """Return the step of the look after that at step `looked`: `every` steps later, and a tenth where that is more.

    A multiple of 1, 2 or 5 x 10^k steps, as stops are.
    """
    ahead = max(1, every, looked // GROWTH)
    decade = 10 ** (len(str(ahead)) - 1)
    round_ = max(m * decade for m in (1, 2, 5) if m * decade <= ahead)
    return (looked // round_ + 1) * round_


def keeping(trainer: Trainer) -> Keeping | None:
    """Return what an estimator of this run keeps along it, None where none does."""
    e = trainer.cell.experiment
    for name in e.evidence:
        keeper = ESTIMATORS[name].keeper
        if keeper and keeper.wanted(e):
            x = {split: placed(trainer.engine, trainer.data, split, e.eval_points)[0] for split in SPLITS}
            return Keeping(name, keeper, e, trainer, x)
    return None
