"""What a policy that nobody measured would come to, from what a study's database knows; no model is loaded.

Costs that follow from a policy (core/analytic) are computed, with the median factor by which those of trials differed:
bytes are near, and what a network has beside its layers (norms) is left out of the formulas. All others are read off
straight lines through the nearest trials: times and energies over the cost that goes with them best, metrics of the
task over the damage that the sensitivity table predicts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from automc.core.analytic import COSTS, Analytic
from automc.core.budget import ANALYTIC
from automc.core.metrics import METRICS
from automc.core.policy import Policy
from automc.core.space import SearchSpace
from automc.core.trial import Trial, TrialState
from automc.proposers.allocate import DamageModel

Floats = NDArray[np.float64]

NEAREST, FEWEST, MOST = 16, 4, 2000
"""Trials that a line goes through; trials that it takes; trials that are looked at, the last ones."""


class Prediction:
    """Predicts metrics of policies of one space.

    Args:
        trials: of the study, as its revision in force reads them. rung: those of this one teach; where none is
            given, or it has too few, those of the highest that has enough.

    Attributes:
        rung: whose trials teach; None where it takes those of all.
    """

    def __init__(self, space: SearchSpace, trials: Sequence[Trial], rung: int | None = None) -> None:
        self._analytic = Analytic(space.layers)
        self._model = DamageModel(space, measure_of(space))
        whole = [t for t in trials if t.state is TrialState.COMPLETE and _fits(space, t.policy)]
        rungs = sorted({t.rung for t in whole}, key=lambda own: (own == rung, own), reverse=True)
        enough = (own for own in rungs if sum(t.rung == own for t in whole) >= FEWEST)
        self.rung = next(enough, None)
        self._trials = [t for t in whole if self.rung in (None, t.rung)][-MOST:]

    def metrics(self, policy: Policy) -> tuple[dict[str, float], dict[str, float]]:
        """Predicted metrics, and of those that were read off trials the standard errors of a prediction."""
        found, errors = self.costs(policy), dict[str, float]()
        for name in self._measured:
            if name in found:
                continue
            values = self._values(name)
            if METRICS[name].sampled:
                along, at = self._damages, float(self._model.damage([policy])[0])
            else:
                cost = self._cost_of(name)
                along, at = self._costs[cost], self._analytic.costs(policy)[cost]
            known = np.isfinite(values)
            if known.sum() >= FEWEST:
                value, errors[name] = line(along[known], values[known], at)
                found[name] = min(max(value, 0.0), 1.0) if METRICS[name].is_share else value
        return found, errors

    def beyond(self, policy: Policy) -> bool:
        """Whether more damage is predicted of it than of any trial, so that lines go on where no trial was."""
        return not len(self._damages) or float(self._model.damage([policy])[0]) > float(self._damages.max())

    def costs(self, policy: Policy) -> dict[str, float]:
        """Those that follow from the policy."""
        return {name: value * self.off(name) for name, value in self._analytic.costs(policy).items()}

    def off(self, cost: str) -> float:
        """Measured over computed, the median of the trials."""
        return self._offs[cost]

    @cached_property
    def _offs(self) -> dict[str, float]:
        found = {}
        for cost, computed in self._costs.items():
            off = self._values(cost)[computed > 0] / computed[computed > 0]
            found[cost] = float(np.nanmedian(off)) if np.isfinite(off).any() else 1.0
        return found

    def in_costs(self, metric: str, bound: float) -> tuple[str, float] | None:
        """The analytic cost that goes with a metric best, and where it reaches the bound; None where trials do not
        say."""
        values = self._values(metric)
        known = np.isfinite(values)
        if known.sum() < FEWEST:
            return None
        cost = self._cost_of(metric)
        slope, start = np.polyfit(self._costs[cost][known], values[known], 1)
        return (cost, float((bound - start) / slope)) if slope > 0 else None

    def _cost_of(self, metric: str) -> str:
        values = self._values(metric)
        known = np.isfinite(values)

        def alike(cost: str) -> float:
            pair = self._costs[cost][known], values[known]
            return float(np.corrcoef(*pair)[0, 1]) if min(map(np.ptp, pair), default=0) > 0 else -math.inf

        return max(COSTS, key=alike)

    @cached_property
    def _measured(self) -> list[str]:
        names = (name for t in self._trials if t.measurement for name in t.measurement.metrics)
        return [name for name in dict.fromkeys(names) if name in METRICS and name != "seconds"]

    def _values(self, metric: str) -> Floats:
        """Shape (trials,), NaN where it was not measured."""
        found = [t.measurement.metrics.get(metric, math.nan) for t in self._trials if t.measurement]
        return np.array(found, dtype=np.float64)

    @cached_property
    def _costs(self) -> dict[str, Floats]:
        rows = [self._analytic.costs(t.policy) for t in self._trials]
        return {cost: np.array([row[cost] for row in rows], dtype=np.float64) for cost in ANALYTIC}

    @cached_property
    def _damages(self) -> Floats:
        return self._model.damage([t.policy for t in self._trials])


def measure_of(space: SearchSpace) -> str:
    """The measure of damage that the space's sensitivities have, the one that is nearest to the task first."""
    return next(iter(space.layers.sensitivity.measures), "loss")


def _fits(space: SearchSpace, policy: Policy) -> bool:
    return all(d.site in policy and d.domain.holds(policy[d.site]) for d in space.decisions)


def line(along: Floats, values: Floats, at: float) -> tuple[float, float]:
    """The value there of the line through the NEAREST points, by least squares, and the standard error of a new point
    there: ``s * sqrt(1 + 1/n + (at - mean)^2 / sum((x - mean)^2))``, which grows away from where points are.
    """
    near = np.argsort(np.abs(along - at), kind="stable")[:NEAREST]
    x, y = along[near], values[near]
    off = x - x.mean()
    spread = float(off @ off)
    if np.ptp(x) <= 0 or spread <= 0:
        return float(y.mean()), float(y.std(ddof=1)) * math.sqrt(1 + 1 / len(y))
    slope, start = np.polyfit(x, y, 1)
    left = y - (start + slope * x)
    deviation = math.sqrt(float(left @ left) / max(len(x) - 2, 1))
    return float(start + slope * at), deviation * math.sqrt(1 + 1 / len(x) + (at - x.mean()) ** 2 / spread)
