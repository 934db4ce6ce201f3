"""The executor without workers: one trial at a time, in this process."""

from __future__ import annotations

from collections.abc import Sequence

from automc.core.hopeless import Rival
from automc.core.ports import Evaluator, Outcome, Watch, Worth
from automc.core.trial import Trial
from automc.workers.outcomes import judged


class InlineExecutor:
    """Evaluates in ``gather``, which therefore lasts as long as the evaluation."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._next: tuple[Trial, Worth, Sequence[Rival] | None] | None = None

    @property
    def free(self) -> int:
        return 0 if self._next else 1

    def submit(self, trial: Trial, worth: Worth, rivals: Sequence[Rival] | None = None) -> None:
        self._next = trial, worth, rivals

    def gather(self, watch: Watch) -> Sequence[Outcome]:
        if self._next is None:
            return []
        (trial, worth, rivals), self._next = self._next, None
        trouble: list[Exception] = []

        def monitor(step: int, value: float) -> bool:
            # An error of the driver's (a full disk under the database) is not the trial's: it must not be judged.
            try:
                watch(trial.number, step, value)
            except Exception as error:
                trouble.append(error)
            return not trouble and worth(step, value)

        outcome = judged(self._evaluator, trial, monitor, rivals)
        if trouble:
            raise trouble[0]
        return [outcome]

    def close(self) -> None:
        self._next = None
