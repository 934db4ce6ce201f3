"""The front of a growing set of trials: what one more of them changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from automc.core.metrics import Constraint, Objective, losses
from automc.core.pareto import Points, eligible, front
from automc.core.trial import Trial


class GrowingFront:
    """Equal to ``pareto.front`` of all trials so far, whatever their order; a trial costs the size of the front.

    Args:
        trials: to begin with.
    """

    def __init__(
        self, objectives: Sequence[Objective], constraints: Sequence[Constraint], trials: Sequence[Trial] = ()
    ) -> None:
        self._objectives, self._constraints = objectives, constraints
        members = front(sorted(trials, key=lambda trial: trial.number), objectives, constraints)
        self.numbers = [trial.number for trial in members]
        points = [losses(objectives, trial.measurement.metrics) for trial in members if trial.measurement]
        self._points: Points = np.array(points, dtype=np.float64).reshape(len(members), len(objectives))

    def add(self, trial: Trial) -> Mapping[int, bool]:
        """Who enters the front by this trial (True: itself, or nobody) and who leaves it (False), by number.

        Of trials with equal metrics the one with the smallest number stays.
        """
        if trial.measurement is None or not eligible(trial, self._constraints):
            return {}
        point = np.array(losses(self._objectives, trial.measurement.metrics), dtype=np.float64)
        if not np.isfinite(point).all():
            return {}
        no_better: NDArray[np.bool_] = np.asarray((self._points >= point).all(axis=1))
        no_worse: NDArray[np.bool_] = np.asarray((self._points <= point).all(axis=1))
        older = no_worse & (~no_better | (np.array(self.numbers, dtype=np.int64) < trial.number))
        if older.any():
            return {}
        gone = [number for number, out in zip(self.numbers, no_better.tolist(), strict=True) if out]
        self._points = np.vstack([self._points[~no_better], point])
        stay = [number for number, out in zip(self.numbers, no_better.tolist(), strict=True) if not out]
        self.numbers = [*stay, trial.number]
        return {**dict.fromkeys(gone, False), trial.number: True}
