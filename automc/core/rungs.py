"""Successive halving over rungs: who is promoted, as a pure function of the trials known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from automc.core.metrics import Constraint, Objective, losses
from automc.core.pareto import ranks
from automc.core.policy import Policy
from automc.core.study import Rung
from automc.core.trial import Trial, TrialState


def promotion(
    known: Sequence[Trial],
    added: Sequence[Trial],
    rungs: Sequence[Rung],
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
) -> tuple[Policy, int] | None:
    """The policy to evaluate next on a higher rung, or None when it is time for a new one.

    Asynchronous successive halving (Li et al. 2020, ASHA) with the non-dominated rank in the place of a
    single metric: a rung may hold ``share`` of what the rung below has finished. Among those not yet promoted
    the best rank goes first, feasible before infeasible, then the better first objective.

    Args:
        known: finished trials the decision may depend on. added: all trials of the study.
    """
    for rung in range(len(rungs) - 1, 0, -1):
        below = [t for t in known if t.rung == rung - 1 and t.state is TrialState.COMPLETE and t.measurement]
        taken = {t.policy for t in added if t.rung == rung}
        unique = list({t.policy: t for t in below}.values())
        if len(taken) >= int(rungs[rung].share * len(unique)):
            continue
        order = _order(unique, objectives, constraints)
        best = next((unique[i].policy for i in order if unique[i].policy not in taken), None)
        if best is not None:
            return best, rung
    return None


def _order(trials: Sequence[Trial], objectives: Sequence[Objective], constraints: Sequence[Constraint]) -> list[int]:
    metrics = [t.measurement.metrics for t in trials if t.measurement]
    points = np.array([losses(objectives, m) for m in metrics]).reshape(len(metrics), len(objectives))
    rank = ranks(points)
    excess = [sum(c.violation(m) for c in constraints) for m in metrics]
    return sorted(range(len(trials)), key=lambda i: (excess[i], rank[i], tuple(points[i]), trials[i].number))
