"""Policies that the sensitivity table alone recommends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from automc.core.batch import BatchCosts
from automc.core.decoded import Array
from automc.core.metrics import Constraint
from automc.core.space import SearchSpace
from automc.proposers.evolve.features import Damages
from automc.proposers.evolve.fence import Fence

_LEVELS, _PRICES, _ROUNDS = 9, 48, 2


class Guide:
    """Little damage under a bound, by a price on cost (Lagrangian relaxation, Everett 1963).

    At a price every decision takes by itself the value whose damage plus price times cost is least; of a row of prices
    the policy with the least damage that keeps the bounds is the answer. What a decision costs depends on the others,
    so costs are linearised again around the first answer. Decisions without damage or cost stay as they are.
    """

    def __init__(self, space: SearchSpace, costs: BatchCosts, damages: Damages, fence: Fence) -> None:
        self._costs, self._damages, self._fence = costs, damages, fence
        self._grids = [_points(costs.numbers.sizes[i]) for i in damages.sites]

    @property
    def sites(self) -> int:
        """How many decisions the table has."""
        return len(self._damages.sites)

    def policy(self, start: Array, bounds: Sequence[Constraint], weights: Array) -> Array:
        """The answer, shape (decisions,).

        Args:
            start: shape (decisions,): what the others take, and the first linearisation.
            bounds: of budget.ANALYTIC. weights: shape (sites,): what the table's damages are multiplied by.
        """
        found = start
        for _ in range(_ROUNDS):
            path = self._path(found, bounds, weights)
            kept = self._fence.holds(path, bounds)
            harm = self._damages.of(path) @ weights
            last = self._fence.fit(path[-1:], bounds)[0]
            found = path[np.argmin(np.where(kept, harm, np.inf))] if kept.any() else last
        return found

    def _path(self, around: Array, bounds: Sequence[Constraint], weights: Array) -> Array:
        """One policy a price, from cheap to dear prices; shape (prices, decisions)."""
        rows = np.repeat(around[None], sum(map(len, self._grids)), axis=0)
        edges = np.cumsum([0, *map(len, self._grids)])
        for site, grid, low in zip(self._damages.sites, self._grids, edges, strict=False):
            rows[low : low + len(grid), site] = grid
        cost = self._normal(rows, bounds)
        harm = self._damages.of(rows)
        path = np.repeat(around[None], _PRICES, axis=0)
        unit = self._damages.unit * len(self._grids) / max(float(np.ptp(cost)), 1e-12)
        prices = unit * np.geomspace(1e-4, 1e3, _PRICES)
        for j, (site, grid, low) in enumerate(zip(self._damages.sites, self._grids, edges, strict=False)):
            part = slice(low, low + len(grid))
            total = weights[j] * harm[part, j] + prices[:, None] * cost[part]
            path[:, site] = grid[np.argmin(total, axis=1)]
        return path

    def _normal(self, cubes: Array, bounds: Sequence[Constraint]) -> Array:
        """The costs that are bounded from above, each over its bound, in total."""
        found = self._costs.of(cubes)
        total: Array = sum(
            (found[b.metric] / max(abs(b.bound), 1e-12) for b in bounds if b.sign == "<="), start=np.zeros(len(cubes))
        )
        return total


def _points(size: float) -> Array:
    count = _LEVELS if np.isinf(size) else int(size)
    return np.linspace(0.0, 1.0, count) if np.isinf(size) else (np.arange(count) + 0.5) / count
