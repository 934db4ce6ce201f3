"""What a policy that nobody measured would come to, from what a study's database knows; no model is loaded.

Costs that follow from a policy (core/analytic) are computed, bytes with the median factor by which those of trials
differed. All others are read off straight lines through the nearest trials: times and energies over the cost that goes
with them best, metrics of the task over the damage that the sensitivity table predicts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from automc.core.analytic import COSTS, Analytic
from automc.core.metrics import METRICS
from automc.core.policy import Policy
from automc.core.space import SearchSpace
from automc.core.trial import Trial, TrialState
from automc.proposers.allocate import DamageModel

Floats = NDArray[np.float64]

NEAREST, FEWEST, MOST = 16, 4, 2000
"""Trials that a line goes through; trials that it takes; trials that are looked at, the last ones."""

_OF_BYTES = ("size_bytes", "size_ratio")


class Prediction:
    """Predicts metrics of policies of one space.

    Args:
        trials: of the study, as its revision in force reads them. Those of the highest rung that has enough teach.
    """

    def __init__(self, space: SearchSpace, trials: Sequence[Trial]) -> None:
        self._analytic = Analytic(space.layers)
        self._model = DamageModel(space, measure_of(space))
        whole = [t for t in trials if t.state is TrialState.COMPLETE and _fits(space, t.policy)]
        for rung in sorted({t.rung for t in whole}, reverse=True):
            highest = [t for t in whole if t.rung == rung]
            if len(highest) >= FEWEST:
                whole = highest
                break
        self._trials = whole[-MOST:]

    def metrics(self, policy: Policy) -> tuple[dict[str, float], dict[str, float]]:
        """Predicted metrics, and standard deviations of those that were read off trials."""
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
                value, errors[name] = _line(along[known], values[known], at)
                plain = METRICS[name].unit == "ratio" and METRICS[name].sampled and not METRICS[name].signed
                found[name] = min(max(value, 0.0), 1.0) if plain else value
        return found, errors

    def beyond(self, policy: Policy) -> bool:
        """Whether more damage is predicted of it than of any trial, so that lines go on where no trial was."""
        return not len(self._damages) or float(self._model.damage([policy])[0]) > float(self._damages.max())

    def costs(self, policy: Policy) -> dict[str, float]:
        """Those that follow from the policy."""
        found = self._analytic.costs(policy)
        return {name: value * (self.bytes_off if name in _OF_BYTES else 1.0) for name, value in found.items()}

    @cached_property
    def bytes_off(self) -> float:
        """Measured over computed bytes, the median of the trials."""
        off = self._values("size_bytes") / np.maximum(self._costs["size_bytes"], 1.0)
        return float(np.nanmedian(off)) if np.isfinite(off).any() else 1.0

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
        return {cost: np.array([row[cost] for row in rows], dtype=np.float64) for cost in COSTS}

    @cached_property
    def _damages(self) -> Floats:
        return self._model.damage([t.policy for t in self._trials])


def measure_of(space: SearchSpace) -> str:
    """The measure of damage that the space's sensitivities have, the one that is nearest to the task first."""
    return next(iter(space.layers.sensitivity.measures), "loss")


def _fits(space: SearchSpace, policy: Policy) -> bool:
    return all(d.site in policy and d.domain.holds(policy[d.site]) for d in space.decisions)


def _line(along: Floats, values: Floats, at: float) -> tuple[float, float]:
    """The value there of the line through the NEAREST points, by least squares, and what is left of them."""
    near = np.argsort(np.abs(along - at), kind="stable")[:NEAREST]
    x, y = along[near], values[near]
    if np.ptp(x) <= 0:
        return float(y.mean()), float(y.std())
    slope, start = np.polyfit(x, y, 1)
    left = y - (start + slope * x)
    return float(start + slope * at), float(np.sqrt(left @ left / max(len(x) - 2, 1)))
