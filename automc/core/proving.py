"""Whether a front is the front, shown without the code that finds fronts."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from automc.core.metrics import Constraint, Objective, feasible, losses
from automc.core.trial import Trial, TrialState


def wrong_members(
    members: Collection[int],
    trials: Sequence[Trial],
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
) -> tuple[list[int], list[int]]:
    """By number, the trials that are missing from a front, and those that do not belong to it.

    Every complete and feasible trial is compared with every member. A front is right where exactly its members are
    beaten by none of them: no worse everywhere, and better somewhere or, of equal trials, of a smaller number.
    """
    points = {
        trial.number: point
        for trial in trials
        if trial.state is TrialState.COMPLETE
        and trial.measurement is not None
        and feasible(constraints, trial.measurement.metrics)
        and np.isfinite(point := losses(objectives, trial.measurement.metrics)).all()
    }
    numbers, rows = np.array(list(points), dtype=np.int64), np.array(list(points.values()))
    beaten = np.zeros(len(points), dtype=np.bool_)
    for member in members:
        if member in points:
            own = np.array(points[member])
            no_worse, better = (rows >= own).all(axis=1), (rows > own).any(axis=1)
            beaten |= no_worse & (better | (numbers > member))
    right = set(numbers[~beaten].tolist())
    return sorted(right - set(members)), sorted(set(members) - right)
