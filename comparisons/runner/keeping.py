"""What an estimator keeps along training: begun with theta, moved every so many points, a part of a checkpoint.

The paper's estimator is the one that does (`evidence.kept`). Training never sees it: it has keys of its own, and reads
theta between two chunks of steps.
"""

import time
from typing import Any

from comparisons.evidence.base import Estimate, Target
from comparisons.evidence.judge import ESTIMATORS
from comparisons.runner.experiment import Experiment
from inference.base import Array, Engine, Key, Params
from models.base import Model

NAME = "appendix_d"
# A look whenever a tenth more has been seen: theta learns along the logarithm of the points. Measured on one seed of
# AEVB, 1000 training points, 200 test points, ten million seen: looks at each 2, 10 or 50 %, or at each 100,000 points,
# of 5 moves or of 55, end with a mean error of -1.0 to -1.4 nats and a median of +0.1: a twentieth of the datapoints is
# over 5 nats low.
GROWTH = 10


class Keeping:
    """The chains of the datapoints of each split, and what they cost so far."""

    def __init__(self, experiment: Experiment, engine: Engine, model: Model, x: dict[str, Array], every: int) -> None:
        """Keep chains of the rows x [n, n_x] of each split, to be moved every so many steps at first."""
        self.experiment, self.engine, self.model, self.x, self.every = experiment, engine, model, x, every
        self.key = engine.fold_in(engine.key(experiment.seed), 4)
        self.keeper: Any = ESTIMATORS[NAME].keeper
        self.chains: dict[str, Any] = {}
        self.looked = 0  # the step of the last look
        self.evals = dict.fromkeys(x, 0)
        self.seconds = dict.fromkeys(x, 0.0)

    def begin(self, theta: Params) -> None:
        """Start every chain at the prior."""
        for split, x in self.x.items():
            target, key = Target(self.engine, self.model, theta, x), self._key(split, 0)
            self.chains[split] = self.keeper.begin(target, self.experiment, key)

    @property
    def due(self) -> int:
        """The step of the next look.

        A multiple of 1, 2 or 5 x 10^k steps, as stops are: each other distance is another program to compile.
        """
        ahead = max(self.every, self.looked // GROWTH)
        decade = 10 ** (len(str(ahead)) - 1)
        round_ = max(m * decade for m in (1, 2, 5) if m * decade <= ahead)
        return (self.looked // round_ + 1) * round_

    def look(self, theta: Params, step: int) -> None:
        """Move the chains under the theta of a step, where they are due."""
        if step < self.due:
            return
        for split, x in self.x.items():
            start = time.perf_counter()
            target, key = Target(self.engine, self.model, theta, x), self._key(split, step)
            self.chains[split] = self.keeper.look(target, self.experiment, key, self.chains[split])
            self.evals[split] += self.keeper.evaluations(self.experiment, len(x), False)
            self.seconds[split] += time.perf_counter() - start
        self.looked = step

    def estimate(self, split: str, theta: Params, step: int) -> Estimate:
        """Return the estimate of log p(x) by the chains of a split, which go on."""
        target, key = Target(self.engine, self.model, theta, self.x[split]), self._key(split, step, judging=True)
        found: Estimate
        found, self.chains[split] = self.keeper.judge(target, self.experiment, key, self.chains[split])
        self.evals[split] += self.keeper.evaluations(self.experiment, len(self.x[split]), True)
        return found

    def snapshot(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the arrays and the facts of a checkpoint."""
        arrays = {split: chains._asdict() for split, chains in self.chains.items()}
        return arrays, {"looked": self.looked, "evals": [*self.evals.values()], "seconds": [*self.seconds.values()]}

    def resume(self, arrays: dict[str, Any], facts: dict[str, Any]) -> None:
        """Go on from a checkpoint's."""
        self.chains = {split: self.keeper.restored(chains) for split, chains in arrays.items()}
        self.looked = int(facts["looked"])
        self.evals, self.seconds = (dict(zip(self.x, facts[name], strict=True)) for name in ("evals", "seconds"))

    def _key(self, split: str, step: int, judging: bool = False) -> Key:
        number = 2 * list(self.x).index(split) + judging
        return self.engine.fold_in(self.engine.fold_in(self.key, step), number)
