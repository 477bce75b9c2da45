"""A step size for a run, chosen in its first iterations, on the training set alone."""

import math
from collections.abc import Callable

from comparisons.runner.experiment import STEP_SIZES
from comparisons.runner.standing import Standing
from comparisons.runner.training import DivergedError, Trainer


def choose_step_size(
    trainer: Trainer, standing: Standing, progress: Callable[[int, str], None], pause: Callable[[], None]
) -> float:
    """Return the candidate with the best mean objective over the last chunk of a short run on the training set.

    Goes on where `standing` was left. Raises DivergedError where every candidate diverges.
    """
    last = max(1, min(trainer.cell.experiment.pilot_steps, trainer.cell.last))
    while len(standing.scores) < len(STEP_SIZES):
        candidate = STEP_SIZES[len(standing.scores)]
        if not standing.trying:
            standing.step_size, standing.trying = candidate, True
            standing.state, standing.step = trainer.initial(candidate), 0
        try:
            while standing.step < last:
                progress(0, f"trying step size {candidate}")
                trainer.advance(standing, last)
                pause()
            score = standing.objective
        except DivergedError:
            score = -math.inf
        standing.scores.append(score)
        standing.trying = False
    if max(standing.scores) == -math.inf:
        raise DivergedError("every candidate step size diverges")
    return STEP_SIZES[standing.scores.index(max(standing.scores))]


def told(standing: Standing) -> dict[str, float]:
    """Return the score that each step size reached, where one was chosen; -inf: it diverged."""
    return {str(size): score for size, score in zip(STEP_SIZES, standing.scores, strict=False)}
