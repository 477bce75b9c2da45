"""How far a run has come: all that changes in it, and so what a checkpoint holds and a later process goes on from."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from comparisons.evidence.journal import Journal
from comparisons.runner.rows import Row
from inference.base import Engine, State, arrays, numpys

Kept = tuple[dict[str, Any], dict[str, Any]]  # the arrays and the facts of a checkpoint
FACTS = (  # the fields that JSON can hold
    *("trying", "begun", "step", "judged", "scores", "rows", "judging"),
    *("step_size", "seconds", "decoder_evals", "objective", "acceptance", "spent"),
)
SPLITS = ("train", "test")


@dataclass
class Standing:
    """The backend's state on its way through the training set, and the clocks and counters that go with it."""

    state: State = field(default_factory=dict)
    step_size: float = math.nan
    scores: list[float] = field(default_factory=list)  # of the candidate step sizes tried to the end
    trying: bool = False  # a candidate
    begun: bool = False  # the run itself
    step: int = 0  # steps taken
    judged: int = 0  # and those up to the last stop that was judged
    seconds: float = 0.0
    decoder_evals: int = 0
    objective: float = -math.inf  # of the last steps, and so the acceptance: its mean and error
    acceptance: tuple[float, float] = (math.nan, math.nan)
    rows: list[Row] = field(default_factory=list)
    judging: list[Row] = field(default_factory=list)  # those of the stop under way
    spent: float = 0.0  # seconds on the estimate under way, before this process took over at `since`
    since: float = field(default_factory=time.perf_counter)
    journal: Journal = field(default_factory=Journal)  # what that estimate has worked out
    chains: dict[str, Any] = field(default_factory=dict)  # what an estimator keeps along training, by split
    looked: int = 0  # the step of its last look
    chain_evals: dict[str, int] = field(default_factory=dict)
    chain_seconds: dict[str, float] = field(default_factory=dict)

    def packed(self, engine: Engine) -> Kept:
        """Return it as a checkpoint holds it."""
        facts = {name: getattr(self, name) for name in FACTS}
        records = self.journal.records()
        if records:
            facts["spent"] += time.perf_counter() - self.since
        facts["keeping"] = {}
        if self.chains:
            evals, seconds = [*self.chain_evals.values()], [*self.chain_seconds.values()]
            facts["keeping"] = {"looked": self.looked, "evals": evals, "seconds": seconds}
        chains = {split: kept._asdict() for split, kept in self.chains.items()}
        return {"state": numpys(engine, self.state), "journal": records, "keeping": chains}, facts


def unpacked(
    engine: Engine, kept: Kept, paused: Callable[[], None], restored: Callable[[dict[str, Any]], Any]
) -> Standing:
    """Return what a checkpoint holds; `restored` makes of arrays what an estimator keeps."""
    held, facts = kept
    chains = {split: restored(held["keeping"][split]) for split in SPLITS if split in held.get("keeping", {})}
    keeping = facts.get("keeping") or {"looked": 0, "evals": [], "seconds": []}
    return Standing(
        **{name: facts[name] for name in FACTS if name != "acceptance"},
        acceptance=(facts["acceptance"][0], facts["acceptance"][1]),
        state=arrays(engine, held["state"]),
        journal=Journal(held.get("journal"), paused),
        chains=chains,
        looked=int(keeping["looked"]),
        chain_evals=dict(zip(chains, keeping["evals"], strict=True)),
        chain_seconds=dict(zip(chains, keeping["seconds"], strict=True)),
    )
