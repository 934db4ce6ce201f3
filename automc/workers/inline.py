"""The executor without workers: one trial at a time, in this process."""

from __future__ import annotations

from collections.abc import Sequence

from automc.core.ports import Evaluator, Outcome, Watch
from automc.core.trial import Trial
from automc.workers.outcomes import judged


class InlineExecutor:
    """Evaluates in ``gather``, which therefore lasts as long as the evaluation."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._trial: Trial | None = None

    @property
    def free(self) -> int:
        return 0 if self._trial else 1

    def submit(self, trial: Trial) -> None:
        self._trial = trial

    def gather(self, watch: Watch) -> Sequence[Outcome]:
        trial, self._trial = self._trial, None
        if trial is None:
            return []
        return [judged(self._evaluator, trial, lambda step, value: watch(trial.number, step, value))]

    def close(self) -> None:
        self._trial = None
