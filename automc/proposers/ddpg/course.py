"""One pass over a joint episode's steps: what every step may still decide so that the bounds can be kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from automc.core.budget import Budget
from automc.core.ledger import Ledger
from automc.core.metrics import Constraint
from automc.core.policy import Value
from automc.core.space import SearchSpace
from automc.proposers.ddpg.currencies import CURRENCIES, bounds, margins, vector
from automc.proposers.ddpg.steps import Array, Step

_HALVINGS = 8
_ROUNDING = 1e-12


@dataclass
class Trace:
    """What was decided, and what it left of the costs before each step and after the last.

    Attributes:
        cube: shape (decisions,), the policy.
        low, high: shape (steps + 1, 4), costs with all that is left at its cheapest and at its dearest.
    """

    cube: Array
    low: Array
    high: Array

    @property
    def costs(self) -> Array:
        """Shape (4,), of the whole policy."""
        found: Array = self.low[-1]
        return found


class Course:
    """Decides step by step, and keeps two ledgers: with all later steps at their cheapest, and at their dearest.

    A step is clamped so that the first keeps every upper bound and the second every lower one. Its own cheapest values
    keep what the step before kept, so a walk that begins feasible stays so, whatever is coupled with what: the ledgers
    count whole policies.
    """

    def __init__(self, space: SearchSpace, budget: Budget, steps: Sequence[Step]) -> None:
        self._space, self._budget, self._steps = space, budget, steps
        self._cheap, self._dear = budget.cheapest, budget.dearest
        self._low, self._high = Ledger(space), Ledger(space)
        self._upper, self._lower = np.full(len(CURRENCIES), math.inf), np.full(len(CURRENCIES), -math.inf)

    @property
    def original(self) -> Mapping[str, float]:
        """The costs of the untouched network."""
        return self._low.analytic.original

    @property
    def upper(self) -> Array:
        """The upper bounds on the predicted costs, shape (4,)."""
        return self._upper

    def begin(self, constraints: Sequence[Constraint] = ()) -> Trace:
        """Nothing is decided. Without constraints nothing is clamped."""
        everything = range(len(self._space))
        self._put(self._low, everything, _values(self._space, everything, _filled(self._cheap)))
        self._put(self._high, everything, _values(self._space, everything, _filled(self._dear)))
        original, margin = self._low.analytic.original, margins(self._budget)
        self._upper = bounds(constraints, original) / margin * (1 + _ROUNDING / 2)
        self._lower = bounds(constraints, original, ">=") * np.maximum(margin, 1.0) * (1 + 2 * _ROUNDING)
        rows = len(self._steps) + 1
        trace = Trace(np.full(len(self._space), 0.5), *(np.zeros((rows, len(CURRENCIES))) for _ in range(2)))
        trace.low[0], trace.high[0] = vector(self._low.costs()), vector(self._high.costs())
        return trace

    def take(self, trace: Trace, t: int, wanted: Array) -> Array:
        """Decide step ``t``; the nearest point to the wanted one, on the way to the cheapest values, that keeps the
        bounds.

        Args:
            wanted: shape (decisions of the step,), coordinates of the unit cube.

        Returns: the coordinates decided, those of the middles of their bins where values are discrete.
        """
        chosen = self._steps[t].decisions
        index = list(chosen)
        point = np.clip(wanted, 0.0, 1.0)
        if np.isfinite(self._lower).any():
            point = self._moved(point, self._dear[index], chosen, self._can_be_dear)
        if np.isfinite(self._upper).any():
            point = self._moved(point, self._cheap[index], chosen, self._can_be_cheap)
        values = _values(self._space, chosen, point)
        self._put(self._low, chosen, values)
        self._put(self._high, chosen, values)
        trace.low[t + 1], trace.high[t + 1] = vector(self._low.costs()), vector(self._high.costs())
        trace.cube[index] = [self._space.decisions[i].domain.encode(v) for i, v in zip(chosen, values, strict=True)]
        found: Array = trace.cube[index]
        return found

    def retraced(self, cube: Array) -> Trace:
        """The walk that decided this policy."""
        trace = self.begin()
        for t, step in enumerate(self._steps):
            self.take(trace, t, cube[list(step.decisions)])
        return trace

    def _can_be_cheap(self, chosen: Sequence[int], values: Sequence[Value]) -> bool:
        self._put(self._low, chosen, values)
        return bool((vector(self._low.costs()) <= self._upper).all())

    def _can_be_dear(self, chosen: Sequence[int], values: Sequence[Value]) -> bool:
        self._put(self._high, chosen, values)
        return bool((vector(self._high.costs()) >= self._lower).all())

    def _moved(
        self, start: Array, corner: Array, chosen: Sequence[int], holds: Callable[[Sequence[int], list[Value]], bool]
    ) -> Array:
        """Bisection; the corner itself holds. Values that were tried already are not tried again."""
        known: dict[tuple[Value, ...], bool] = {}

        def right(share: float) -> bool:
            values = _values(self._space, chosen, at(share))
            key = tuple(values)
            if key not in known:
                known[key] = holds(chosen, values)
            return known[key]

        def at(share: float) -> Array:
            return np.where(np.isnan(corner), start, start + share * (corner - start))

        if right(0.0):
            return start
        low, high = 0.0, 1.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if right(middle) else (middle, high)
        return at(high)

    def _put(self, ledger: Ledger, chosen: Sequence[int], values: Sequence[Value]) -> None:
        ledger.put({self._space.decisions[i].site: value for i, value in zip(chosen, values, strict=True)})


def _values(space: SearchSpace, chosen: Sequence[int], point: Array) -> list[Value]:
    return [space.decisions[i].domain.decode(float(u)) for i, u in zip(chosen, point, strict=True)]


def _filled(corner: Array) -> Array:
    return np.where(np.isnan(corner), 0.5, corner)
