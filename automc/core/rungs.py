"""Successive halving over rungs: who is promoted, as a pure function of the trials known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from automc.core.metrics import METRICS, Constraint, Objective, losses
from automc.core.pareto import Points, fronts
from automc.core.policy import Policy
from automc.core.study import Rung
from automc.core.trial import Trial, TrialState

FEWEST = 4
"""Policies on two rungs before they tell what the higher one makes of the others."""

Numbers = NDArray[np.float64]


def promotion(
    known: Sequence[Trial],
    added: Sequence[Trial],
    rungs: Sequence[Rung],
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
) -> Trial | None:
    """The trial whose policy is to be evaluated on the next rung, or None when it is time for a new policy.

    Asynchronous successive halving (Li et al. 2020, ASHA) for several objectives (Schmucker et al. 2021, MO-ASHA): a
    rung may hold ``share`` of what the rung below has finished. Among those not yet promoted feasible ones go before
    infeasible ones, then the best non-dominated rank, and within it the one farthest from all that were promoted, so
    that every part of the front is repaired. A figure of the task keeps its constraint if it will on the next rung, as
    far as those promoted before tell. Trials that were stopped as hopeless count as finished, so that they change
    nobody's turn; they are not promoted themselves.

    Args:
        known: finished trials the decision may depend on. added: all trials of the study.
    """
    for rung in range(len(rungs) - 1, 0, -1):
        taken = {t.policy for t in added if t.rung == rung}
        below = {t.policy: t for t in known if t.rung == rung - 1 and t.state is TrialState.COMPLETE}
        hopeless = {t.policy for t in known if t.rung == rung - 1 and t.hopeless}
        # The tiny addend: 0.29 * 100 is a little less than 29.
        if len(taken) < int(rungs[rung].share * len(below.keys() | hopeless) + 1e-9):
            above = {t.policy: t for t in known if t.rung == rung and t.state is TrialState.COMPLETE}
            both = [(below[policy], above[policy]) for policy in above if policy in below]
            best = _best(list(below.values()), taken, objectives, constraints, both)
            if best is not None:
                return best
    return None


def _best(
    trials: Sequence[Trial],
    taken: set[Policy],
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
    both: Sequence[tuple[Trial, Trial]],
) -> Trial | None:
    """The best trial whose policy is not taken yet. Args: both: trials of policies on this rung and on the next."""
    free = np.array([t.policy not in taken for t in trials], dtype=bool)
    if not free.any():
        return None
    points = np.array([losses(objectives, _metrics(t)) for t in trials]).reshape(len(trials), len(objectives))
    excess = np.zeros(len(trials))
    for constraint in constraints:
        excess += _excess(constraint, [_metrics(t) for t in trials], both)
    # Only those with the least excess that is still free can be next; ranks are found among their equals.
    level = np.flatnonzero(excess == excess[free].min())
    first = level[_first(points[level], free[level])]
    apart = dict(zip(first.tolist(), _apart(points[first], points[~free]).tolist(), strict=True))
    return trials[max(apart, key=lambda row: (apart[row], -trials[row].number))]


def _metrics(trial: Trial) -> Mapping[str, float]:
    return trial.measurement.metrics if trial.measurement else {}


def _first(points: Points, free: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Which of the free rows have the least non-dominated rank of all rows, as ``pareto.ranks`` has it.

    Ranks behind that one are not looked for: a large study has hundreds, and what is free is mostly on the first.
    """
    ranked = (rows[free[rows]] for rows in fronts(points))
    return next((rows for rows in ranked if len(rows)), np.flatnonzero(free))


def _apart(points: Points, taken: Points) -> Numbers:
    """How far each point is from the nearest taken one, each objective in units of its range, those above 0 by their
    logarithm; while none is taken, how near to the best of every objective (as a negative distance). Points that are
    not finite are all alike.
    """
    if not np.isfinite(points).all():
        return np.zeros(len(points))
    every = np.vstack([points, taken[np.isfinite(taken).all(axis=1)]])
    every = np.where((every > 0).all(axis=0), np.log(np.maximum(every, 1e-300)), every)
    span = np.ptp(every, axis=0)
    scaled = (every - every.min(axis=0)) / np.where(span > 0, span, 1.0)
    own, others = scaled[: len(points)], scaled[len(points) :]
    if not len(others):
        return np.asarray(-np.linalg.norm(own, axis=1))
    return np.asarray(np.linalg.norm(own[:, None] - others[None], axis=2).min(axis=1))


def _excess(
    constraint: Constraint, rows: Sequence[Mapping[str, float]], both: Sequence[tuple[Trial, Trial]]
) -> Numbers:
    """By how much each is expected to break the constraint on the next rung, shape (n,)."""
    name, repaired = constraint.metric, cast(Callable[[float], float], float)
    if METRICS[name].sampled:
        seen = [(_metrics(low), _metrics(high)) for low, high in both]
        repaired = _line([(low[name], high[name]) for low, high in seen if name in low and name in high])
    return np.array([constraint.violation({name: repaired(row[name])} if name in row else {}) for row in rows])


def _line(told: Sequence[tuple[float, float]]) -> Callable[[float], float]:
    """What the next rung makes of a figure, by a robust line through those told of both (Theil 1950, Sen 1968).

    It is trusted no farther beyond them than they are apart. Elsewhere, and while they are few, figures stay.
    """
    low, high = np.array(told, dtype=np.float64).reshape(-1, 2).T
    reach = float(np.ptp(low)) if len(low) >= FEWEST else 0.0
    if reach == 0:
        return float
    one, other = np.triu_indices(len(low), 1)
    run, rise = low[other] - low[one], high[other] - high[one]
    slope = float(np.clip(np.median(rise[run != 0] / run[run != 0]), 0.0, 1.0))
    start = float(np.median(high - slope * low))
    least, most = float(low.min()) - reach, float(low.max()) + reach
    return lambda value: start + slope * value if least <= value <= most else value
