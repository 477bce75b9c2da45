"""What an estimator keeps along training: begun with theta, moved every so many points, a part of a checkpoint.

The paper's estimator is the one that does (`evidence.kept`). Training never sees it: it has keys of its own, and reads
theta between two chunks of steps.
"""

import time
from dataclasses import dataclass

from comparisons.evidence.base import Estimate, Keeper, Target
from comparisons.evidence.judge import ESTIMATORS
from comparisons.runner.experiment import Experiment
from comparisons.runner.standing import SPLITS, Standing
from comparisons.runner.training import Trainer
from inference.base import Array, Key

# A look whenever a tenth more has been seen: theta learns along the logarithm of the points. Measured on one seed of
# AEVB, 1000 training points, 200 test points, ten million seen: looks at each 2, 10 or 50 %, or at each 100,000 points,
# of 5 moves or of 55, end with a mean error of -1.0 to -1.4 nats and a median of +0.1: a twentieth of the datapoints is
# over 5 nats low.
GROWTH = 10


@dataclass(frozen=True)
class Keeping:
    """The estimator that keeps something along a run, and the datapoints x [n, n_x] of each split that it is kept for.

    What is kept, and what it cost, is in `Standing`.
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
            target, key = self._target(standing, split), self._key(split, 0)
            standing.chains[split] = self.keeper.begin(target, self.settings, key)

    def due(self, standing: Standing) -> int:
        """Return the step of the next look."""
        return next_look(standing.looked, self.keeper.every(self.settings) // self.trainer.cell.rows_per_step)

    def look(self, standing: Standing) -> None:
        """Bring what is kept up to the theta of a step, where that is due."""
        if standing.step < self.due(standing):
            return
        for split in self.x:
            start = time.perf_counter()
            target, key = self._target(standing, split), self._key(split, standing.step)
            standing.chains[split] = self.keeper.look(target, self.settings, key, standing.chains[split])
            self._count(standing, split, judged=False)
            standing.chain_seconds[split] += time.perf_counter() - start
        standing.looked = standing.step

    def estimate(self, standing: Standing, split: str) -> Estimate:
        """Return the estimate of log p(x) by what is kept of a split, which goes on."""
        target, key = self._target(standing, split), self._key(split, standing.step, judging=True)
        found, standing.chains[split] = self.keeper.judge(target, self.settings, key, standing.chains[split])
        self._count(standing, split, judged=True)
        return found

    def _target(self, standing: Standing, split: str) -> Target:
        return Target(self.trainer.engine, self.trainer.model, self.trainer.theta(standing), self.x[split])

    def _count(self, standing: Standing, split: str, judged: bool) -> None:
        standing.chain_evals[split] += self.keeper.evaluations(self.settings, len(self.x[split]), judged)

    def _key(self, split: str, step: int, judging: bool = False) -> Key:
        engine, number = self.trainer.engine, 2 * SPLITS.index(split) + judging
        return engine.fold_in(engine.fold_in(engine.fold_in(self.trainer.key, 4), step), number)


def next_look(looked: int, every: int) -> int:
    """Return the step of the look after that at step `looked`: `every` steps later, and a tenth where that is more.

    A multiple of 1, 2 or 5 x 10^k steps, as stops are: each other distance is another program to compile.
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
            x = {split: trainer.taken(split, e.eval_points)[0] for split in SPLITS}
            return Keeping(name, keeper, e, trainer, x)
    return None
