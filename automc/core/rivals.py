"""The rivals of a trial: the front of its rung, as far as the trial may know of it."""

from __future__ import annotations

from collections.abc import Sequence

from automc.core.hopeless import Rival
from automc.core.pareto import front
from automc.core.study import StudySpec
from automc.core.trial import Trial


class Rivals:
    """Keeps the front of every rung up to date while a search goes on.

    Who was dominated stays dominated, so a longer prefix of the trials costs only what is new in it. A shorter one,
    which a trial needs whose worker was lost, is found from its beginning.
    """

    def __init__(self, spec: StudySpec) -> None:
        self._spec = spec
        self._seen = 0
        self._fronts: dict[int, list[Trial]] = {}

    def of(self, rung: int, trials: Sequence[Trial], known: int) -> tuple[Rival, ...]:
        """The complete, feasible, undominated trials of a rung among the first ``known`` trials, all of them finished.

        Args:
            trials: of the study, in order of number.
        """
        if known < self._seen:
            self._seen, self._fronts = 0, {}
        fresh = trials[self._seen : known]
        for level in {trial.rung for trial in fresh}:
            mine = [*self._fronts.get(level, ()), *(trial for trial in fresh if trial.rung == level)]
            self._fronts[level] = front(mine, self._spec.objectives, self._spec.constraints)
        self._seen = known
        found = sorted(self._fronts.get(rung, ()), key=lambda trial: trial.number)
        return tuple(Rival(trial.number, trial.measurement.metrics) for trial in found if trial.measurement)
