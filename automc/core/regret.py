"""How a search went: what it had reached after how many evaluations or seconds, and bands over several searches.

What is good is said elsewhere: ``covered`` and ``front`` in core/pareto.py. Here it is followed over the trials.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from automc.core.metrics import Constraint, Objective, feasible
from automc.core.pareto import covered, front
from automc.core.trial import Trial, TrialState

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """What was reached, as a function of effort: constant from each trial to the next.

    Attributes:
        evaluations: how many evaluations there had been after each trial, ascending; shape (trials,). A trial that was
            answered by an earlier one is none; one that failed or was ended early is one.
        seconds: how long they had taken, one after the other; shape (trials,). Of one that failed nothing is known.
        values: the best so far, shape (trials,); NaN before there was any.
        larger: whether larger values are better.
    """

    evaluations: NDArray[np.int64]
    seconds: Floats
    values: Floats
    larger: bool = True

    def at(self, efforts: Sequence[float] | Floats, by: str = "evaluations") -> Floats:
        """The value after so much effort, in evaluations or ``seconds``; NaN before the first trial, and the last value
        after the last. Shape (n,) to the same.
        """
        spent = self.seconds if by == "seconds" else self.evaluations
        place = np.searchsorted(spent, np.asarray(efforts, dtype=np.float64), side="right")
        return np.append(np.nan, self.values)[place]

    def first(self, level: float, by: str = "evaluations") -> float | None:
        """The least effort after which the value is ``level`` or better; None if it never is."""
        reached = self.values >= level if self.larger else self.values <= level  # NaN is neither
        spent = self.seconds if by == "seconds" else self.evaluations
        return float(spent[int(reached.argmax())]) if reached.any() else None

    def regret(self, best: float) -> Curve:
        """How far from the best there is, at least 0 where this is really the best."""
        lost = best - self.values if self.larger else self.values - best
        return Curve(self.evaluations, self.seconds, lost, larger=False)


@dataclass(frozen=True)
class Band:
    """Several searches at the same efforts: median, lower and upper quartile, each of shape (efforts,).

    NaN where one of them had nothing yet.
    """

    median: Floats
    low: Floats
    high: Floats


def best_curve(trials: Sequence[Trial], objective: Objective, constraints: Sequence[Constraint]) -> Curve:
    """The best value of an objective, in its own unit, among the complete trials that keep the constraints."""
    larger = objective.direction == "maximize"
    losses = np.array([_loss(trial, objective, constraints) for trial in trials])
    best = np.minimum.accumulate(losses) if len(losses) else losses
    values = np.where(np.isfinite(best), -best if larger else best, np.nan)
    return Curve(*_spent(trials), values, larger)


def covered_curve(
    trials: Sequence[Trial],
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
    baseline: Mapping[str, float],
) -> Curve:
    """The share of the box between the original model and the ideal that the front dominates (pareto.covered)."""
    best: list[Trial] = []
    values = []
    for trial in trials:
        joined = front([*best, trial], objectives, constraints)
        if [t.number for t in joined] != [t.number for t in best]:
            best, reached = joined, covered(joined, objectives, constraints, dict(baseline))
        values.append(reached if best else 0.0)
    return Curve(*_spent(trials), np.array(values, dtype=np.float64))


def band(curves: Sequence[Curve], efforts: Sequence[float] | Floats, by: str = "evaluations") -> Band:
    """The band of at least one search."""
    low, median, high = np.quantile([curve.at(efforts, by) for curve in curves], [0.25, 0.5, 0.75], axis=0)
    return Band(median, low, high)


def _loss(trial: Trial, objective: Objective, constraints: Sequence[Constraint]) -> float:
    if trial.state is not TrialState.COMPLETE or trial.measurement is None:
        return np.inf
    metrics = trial.measurement.metrics
    return objective.loss(metrics) if feasible(constraints, metrics) else np.inf


def _spent(trials: Sequence[Trial]) -> tuple[NDArray[np.int64], Floats]:
    """Evaluations and seconds after each trial."""
    run = [trial.twin is None for trial in trials]
    took = [t.measurement.seconds if t.measurement and own else 0.0 for t, own in zip(trials, run, strict=True)]
    return np.cumsum(run, dtype=np.int64), np.cumsum(took, dtype=np.float64)
