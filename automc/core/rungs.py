"""Successive halving over rungs: who is promoted, as a pure function of the trials known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from automc.core.metrics import Constraint, Objective, losses
from automc.core.pareto import Points, fronts
from automc.core.policy import Policy
from automc.core.study import Rung
from automc.core.trial import Trial, TrialState


def promotion(
    known: Sequence[Trial],
    added: Sequence[Trial],
    rungs: Sequence[Rung],
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
) -> Trial | None:
    """The trial whose policy is to be evaluated on the next rung, or None when it is time for a new policy.

    Asynchronous successive halving (Li et al. 2020, ASHA) with the non-dominated rank in the place of a
    single metric: a rung may hold ``share`` of what the rung below has finished. Among those not yet promoted
    the best rank goes first, feasible before infeasible, then the better first objective. Trials that were stopped as
    hopeless count as finished, so that they change nobody's turn; they are not promoted themselves.

    Args:
        known: finished trials the decision may depend on. added: all trials of the study.
    """
    for rung in range(len(rungs) - 1, 0, -1):
        taken = {t.policy for t in added if t.rung == rung}
        below = {t.policy: t for t in known if t.rung == rung - 1 and t.state is TrialState.COMPLETE}
        hopeless = {t.policy for t in known if t.rung == rung - 1 and t.hopeless}
        # The tiny addend: 0.29 * 100 is a little less than 29.
        if len(taken) < int(rungs[rung].share * len(below.keys() | hopeless) + 1e-9):
            best = _best(list(below.values()), taken, objectives, constraints)
            if best is not None:
                return best
    return None


def _best(
    trials: Sequence[Trial], taken: set[Policy], objectives: Sequence[Objective], constraints: Sequence[Constraint]
) -> Trial | None:
    """The best trial whose policy is not taken yet."""
    metrics = [t.measurement.metrics for t in trials if t.measurement]
    points = np.array([losses(objectives, m) for m in metrics]).reshape(len(metrics), len(objectives))
    excess = np.array([sum(c.violation(m) for c in constraints) for m in metrics])
    free = np.array([t.policy not in taken for t in trials], dtype=bool)
    if not free.any():
        return None
    # Only those with the least excess that is still free can be next; ranks are found among their equals.
    level = np.flatnonzero(excess == excess[free].min())
    first = level[_first(points[level], free[level])].tolist()
    return trials[min(first, key=lambda i: (tuple(points[i]), trials[i].number))]


def _first(points: Points, free: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Which of the free rows have the least non-dominated rank of all rows, as ``pareto.ranks`` has it.

    Ranks behind that one are not looked for: a large study has hundreds, and what is free is mostly on the first.
    """
    ranked = (rows[free[rows]] for rows in fronts(points))
    return next((rows for rows in ranked if len(rows)), np.flatnonzero(free))
