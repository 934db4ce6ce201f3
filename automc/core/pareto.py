"""Fronts: who is undominated, how much they cover, where the knee is. All values are losses: smaller is better."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from automc.core.metrics import Constraint, Objective, feasible, losses
from automc.core.trial import Trial, TrialState

Points = NDArray[np.float64]


def undominated(points: Points) -> NDArray[np.bool_]:
    """Which rows no other row dominates (at least as good everywhere, better somewhere).

    Equal rows do not dominate each other. Rows with NaN or infinity are never undominated.

    Args:
        points: shape (n, d). Returns: shape (n,).
    """
    finite = _finite(points)
    keep = finite.copy()
    if not finite.any():
        return keep
    rows, place = np.unique(points[finite], axis=0, return_inverse=True)
    keep[finite] = (_sweep(rows) if rows.shape[1] == 2 else _compare(rows))[place.reshape(-1)]
    return keep


def _sweep(rows: Points) -> NDArray[np.bool_]:
    """Two axes, distinct rows in lexical order: a row is undominated when its second value is a new minimum."""
    before = np.minimum.accumulate(np.append(np.inf, rows[:-1, 1]))
    return np.asarray(rows[:, 1] < before, dtype=np.bool_)


def _compare(rows: Points) -> NDArray[np.bool_]:
    """Any number of axes, distinct rows in lexical order: only a row before can dominate one behind."""
    keep = np.ones(len(rows), dtype=np.bool_)
    for i in range(1, len(rows)):
        keep[i] = not (rows[:i][keep[:i]] <= rows[i]).all(axis=1).any()
    return keep


def _finite(points: Points) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(points).all(axis=1), dtype=np.bool_)


def ranks(points: Points) -> NDArray[np.int64]:
    """Non-dominated rank of every row, 0 the front (Deb et al. 2002, NSGA-II); rows with NaN or infinity come last.

    Args:
        points: shape (n, d). Returns: shape (n,).
    """
    rank = np.full(len(points), len(points), dtype=np.int64)
    for level, rows in enumerate(fronts(points)):
        rank[rows] = level
    return rank


def fronts(points: Points) -> Iterator[NDArray[np.int64]]:
    """The rows of each rank in turn, the front first; rows with NaN or infinity are in none."""
    left = _finite(points)
    while left.any():
        index = np.flatnonzero(left)
        first = index[undominated(points[index])]
        yield first
        left[first] = False


def hypervolume(points: Points, reference: Sequence[float] | Points) -> float:
    """Volume dominated by the points and bounded by the reference (Zitzler & Thiele 1998).

    Slices along the last axis; exact, made for fronts of hundreds of points in up to four dimensions.

    Args:
        points: shape (n, d). reference: shape (d,), the worst value that still counts.
    """
    bound = np.asarray(reference, dtype=np.float64)
    rows = points[_finite(points) & (points < bound).all(axis=1)] if len(points) else points
    if not len(rows):
        return 0.0
    if rows.shape[1] == 1:
        return float(bound[0] - rows[:, 0].min())
    if rows.shape[1] == 2:
        # By the first value, a row adds what lies between the least second value so far and its own, if that is less.
        rows = rows[np.lexsort(rows.T[::-1])]
        least = np.minimum.accumulate(np.append(bound[1], rows[:, 1]))
        return float(((bound[0] - rows[:, 0]) * (least[:-1] - least[1:])).sum())
    rows = np.unique(rows[undominated(rows)], axis=0)
    rows = rows[np.argsort(rows[:, -1], kind="stable")]
    tops = np.append(rows[1:, -1], bound[-1])
    return float(
        sum(
            hypervolume(rows[: i + 1, :-1], bound[:-1]) * (top - row[-1])
            for i, (row, top) in enumerate(zip(rows, tops, strict=True))
            if top > row[-1]
        )
    )


def knee(points: Points) -> int:
    """Index of the undominated row farthest from the plane through the ends of the front, towards the ideal.

    Each axis is scaled to the front's own range, so in two dimensions the plane is the line between the two ends
    (Das 1999); on a front without a bend an end is as good as any.

    Args:
        points: shape (n, d), n >= 1 with at least one finite row.
    """
    index = np.flatnonzero(undominated(points))
    best = points[index]
    low, span = best.min(axis=0), np.ptp(best, axis=0)
    scaled = (best - low) / np.where(span > 0, span, 1.0)
    return int(index[np.argmin(scaled.sum(axis=1))])


def eligible(trial: Trial, constraints: Sequence[Constraint]) -> bool:
    """Whether the trial may be on a front: complete and feasible."""
    found = trial.measurement
    return trial.state is TrialState.COMPLETE and found is not None and feasible(constraints, found.metrics)


def front(trials: Sequence[Trial], objectives: Sequence[Objective], constraints: Sequence[Constraint]) -> list[Trial]:
    """The feasible, undominated, complete trials, best first objective first.

    Of trials with equal metrics only the first is kept.
    """
    found: dict[tuple[float, ...], Trial] = {}
    for trial in trials:
        if trial.measurement and eligible(trial, constraints):
            found.setdefault(losses(objectives, trial.measurement.metrics), trial)
    if not found:
        return []
    points = np.array(list(found))
    keep = undominated(points)
    return [
        trial
        for point, trial, kept in sorted(zip(found, found.values(), keep, strict=True), key=lambda x: x[0])
        if kept
    ]


def covered(
    trials: Sequence[Trial],
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
    baseline: dict[str, float],
) -> float:
    """Share in [0, 1] of the box between the original model and the ideal that the front dominates.

    The box of a minimised metric goes from 0 to the original's value, that of a maximised one from 0 to its
    best possible value (1 for ratios, else the original's). One number to compare searches of one study by.
    """
    points = [
        losses(objectives, t.measurement.metrics) for t in front(trials, objectives, constraints) if t.measurement
    ]
    return share(np.array(points), objectives, baseline)


def share(points: Points, objectives: Sequence[Objective], baseline: Mapping[str, float]) -> float:
    """``covered`` of the losses of a front, shape (trials, objectives)."""
    if not len(points):
        return 0.0
    span, reference = [], []
    for objective in objectives:
        size = max(abs(baseline.get(objective.metric, 1.0)), 1e-12)
        if objective.direction == "maximize":
            span.append(max(1.0, size) if size > 1 else 1.0)
            reference.append(0.0)
        else:
            span.append(size)
            reference.append(1.0)
    return hypervolume(points / np.array(span), reference)
