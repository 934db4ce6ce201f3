"""What is known of a running search, event by event: the numbers behind the live view."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from automc.core.layers import LayerTable
from automc.core.pareto import covered, front
from automc.core.policy import Policy
from automc.core.study import StudySpec
from automc.core.trial import Trial, TrialState


@dataclass(frozen=True)
class Cell:
    """One layer of a policy: the fraction of its channels removed, in [0, 1), and its weight bits (32: untouched)."""

    prune: float
    bits: int


def cells(policy: Policy, table: LayerTable) -> list[Cell]:
    """One cell a layer, in execution order; a layer loses channels when its group does."""
    removed, bits = policy.settings("prune"), policy.settings("quantize")
    group = {name: group.name for group in table.groups for name in group.producers}
    return [
        Cell(
            float(removed.get(group.get(layer.name, layer.group), {}).get("prune_ratio", 0.0)),
            int(bits.get(layer.name, {}).get("weight_bits", 32)),
        )
        for layer in table.layers
    ]


class Board:
    """Counts, best values and the front of a search, kept up to date one event at a time.

    Args:
        known: the trials that were there when the search started or went on.
        baseline: the original model's metrics.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        spec: StudySpec,
        baseline: Mapping[str, float],
        known: Iterable[Trial] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.spec = spec
        self.baseline = dict(baseline)
        self.front: list[Trial] = []
        self.newest: Trial | None = None
        self.states: Counter[TrialState] = Counter()
        self.failures: Counter[str] = Counter()
        self.reports: dict[int, tuple[int, float]] = {}
        self.open: set[int] = set()
        self.covered = 0.0
        self.paused = False
        for trial in known:
            if trial.state.finished:
                self.finished(trial)
        self._clock, self._began, self._before = clock, clock(), self.done

    def added(self, trial: Trial) -> None:
        self.open.add(trial.number)

    def noted(self, number: int, step: int, value: float) -> None:
        self.reports[number] = (step, value)

    def finished(self, trial: Trial) -> bool:
        """Count a finished trial; True when it joined the front."""
        self.open.discard(trial.number)
        self.reports.pop(trial.number, None)
        self.states[trial.state] += 1
        if trial.state is TrialState.FAILED:
            self.failures[trial.reason or "error"] += 1
            return False
        # Who was dominated stays dominated, so the old front and the new trial are all that counts.
        self.front = front([*self.front, trial], self.spec.objectives, self.spec.constraints)
        joined = any(member.number == trial.number for member in self.front)
        if joined:
            self.newest = trial
            self.covered = covered(self.front, self.spec.objectives, self.spec.constraints, self.baseline)
        return joined

    @property
    def done(self) -> int:
        return sum(self.states.values())

    @property
    def total(self) -> int:
        return self.spec.budget.trials

    @property
    def elapsed(self) -> float:
        """Seconds since the search started or went on."""
        return self._clock() - self._began

    @property
    def left(self) -> float | None:
        """Seconds until the budget is spent at the pace so far; None before the first trial of this run."""
        fresh = self.done - self._before
        pace = self.elapsed / fresh * max(self.total - self.done, 0) if fresh > 0 else None
        if self.spec.budget.seconds is None:
            return pace
        rest = max(self.spec.budget.seconds - self.elapsed, 0.0)
        return rest if pace is None else min(pace, rest)

    def best(self) -> dict[str, float]:
        """The best value of each objective on the front, by metric; empty while the front is."""
        metrics = [member.measurement.metrics for member in self.front if member.measurement]
        if not metrics:
            return {}
        return {o.metric: min(metrics, key=o.loss)[o.metric] for o in self.spec.objectives}
