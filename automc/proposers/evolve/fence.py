"""Many policies moved into a budget at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from automc.core.batch import BatchCosts
from automc.core.budget import Budget
from automc.core.decoded import Array
from automc.core.metrics import Constraint

_HALVINGS = 8


class Fence:
    """Budget.holds and Budget.fit for arrays of points; a policy that is taken from here is still shown to the budget.

    Args:
        budget: whose margins and corners are used; what it learns counts here at once.
    """

    def __init__(self, budget: Budget, costs: BatchCosts) -> None:
        self._budget, self._costs = budget, costs

    def holds(self, cubes: Array, bounds: Sequence[Constraint] | None = None) -> NDArray[np.bool_]:
        """Which policies keep the bounds; shape (n,).

        Args:
            cubes: shape (n, decisions). bounds: all of budget.ANALYTIC; the budget's own by default.
        """
        wanted = self._budget.constraints if bounds is None else bounds
        kept = np.ones(len(cubes), dtype=np.bool_)
        if not wanted or not len(cubes):
            return kept
        found = self._costs.of(cubes)
        for bound in wanted:
            margin = self._budget.margin(bound.metric)
            slack = 1e-12 * abs(bound.bound)
            if bound.sign == "<=":
                kept &= found[bound.metric] * margin <= bound.bound + slack
            else:
                kept &= found[bound.metric] / max(margin, 1.0) >= bound.bound - slack
        return kept

    def fit(self, cubes: Array, bounds: Sequence[Constraint] | None = None) -> Array:
        """The nearest points that keep the bounds, on the ways to the cheapest corner (or, for lower bounds, to the
        dearest); those that keep them stay. Where no point of a way keeps them it is its end.
        """
        wanted = self._budget.constraints if bounds is None else bounds
        for sign, corner in (("<=", self._budget.cheapest), (">=", self._budget.dearest)):
            part = [bound for bound in wanted if bound.sign == sign]
            if part:
                cubes = self._moved(cubes, corner, part)
        return cubes

    def _moved(self, cubes: Array, corner: Array, bounds: Sequence[Constraint]) -> Array:
        out = np.flatnonzero(~self.holds(cubes, bounds))
        if not len(out):
            return cubes
        start = cubes[out]
        end = np.where(np.isnan(corner), start, corner)
        low, high = np.zeros((len(out), 1)), np.ones((len(out), 1))
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            good = self.holds(start + middle * (end - start), bounds)[:, None]
            low, high = np.where(good, low, middle), np.where(good, middle, high)
        moved = cubes.copy()
        moved[out] = start + high * (end - start)
        return moved
