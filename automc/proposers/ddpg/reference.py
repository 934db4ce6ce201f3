"""A way from the dearest policy of a space to its cheapest, which an agent starts from and learns to correct."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence

import numpy as np

from automc.core.budget import Budget
from automc.core.ledger import Ledger
from automc.core.policy import Value
from automc.core.space import SearchSpace
from automc.proposers.ddpg.currencies import CURRENCIES, vector
from automc.proposers.ddpg.steps import Array, Step

LEVELS = 17
"""Policies kept of the way."""

_VALUES, _BROKEN = 12, 10.0


class Reference:
    """A way from dear to cheap, one policy for each level in [0, 1]: 0 is the cheapest.

    With a table of sensitivities the way is a greedy descent: from the dearest policy on, always the change of one
    decision that saves most of the aimed costs for the least damage, as in NetAdapt (Yang et al. 2018), with damages
    from the table in the place of measurements (their sum is the assumption of HAWQ-V2, Dong et al. 2020). Without,
    all decisions go down together. Decisions without a cost, and those whose cost no aim limits, stay where they
    are dearest; one that has no cost at all stays in the middle of its domain.

    Args:
        aimed: shape (4,), which currencies have bounds.

    Attributes:
        way: shape (LEVELS, decisions), points of the unit cube, evenly spread over the logarithm of the cost.
    """

    def __init__(self, space: SearchSpace, budget: Budget, aimed: Array, steps: Sequence[Step]) -> None:
        self._space, self._aimed = space, aimed
        self._cheap = _filled(budget.cheapest)
        self._dear = _filled(budget.dearest)
        self._ledger = Ledger(space)
        self.way = self._spread(list(self._descent() if space.layers.sensitivity else self._straight()))
        self._rest = self._rests(steps)

    def level(self, step: int, low: Array, high: Array, bounds: Array) -> float:
        """The highest level at which this step and all later ones keep the bounds, going by what is decided before.

        Args:
            low, high: shape (4,), costs with all that is left at its cheapest and at its dearest.
            bounds: shape (4,), on the predicted costs.
        """
        costs = low + self._rest[step] * (high - low)
        over = np.flatnonzero((costs > bounds).any(axis=1))
        if not len(over):
            return 1.0
        first = int(over[0])
        if first == 0:
            return 0.0
        below, above = costs[first - 1], costs[first]
        limited = above > bounds
        share = ((bounds - below)[limited] / (above - below)[limited]).min()
        return float((first - 1 + share) / (LEVELS - 1))

    def at(self, level: float) -> Array:
        """The policy at a level, shape (decisions,)."""
        place = min(max(level, 0.0), 1.0) * (LEVELS - 1)
        below = min(int(place), LEVELS - 2)
        share = place - below
        found: Array = (1 - share) * self.way[below] + share * self.way[below + 1]
        return found

    def _costs(self) -> Array:
        return vector(self._ledger.costs())

    def _cost(self) -> float:
        return float(self._costs()[self._aimed > 0].sum())

    def _put(self, point: Array, decisions: Sequence[int]) -> None:
        chosen = [self._space.decisions[i] for i in decisions]
        self._ledger.put({d.site: d.domain.decode(float(point[i])) for i, d in zip(decisions, chosen, strict=True)})

    def _straight(self) -> Iterator[tuple[float, Array]]:
        """All decisions at the same share of their way."""
        everything, priced = range(len(self._space)), self._priced()
        for share in np.linspace(0.0, 1.0, 4 * LEVELS):
            point = np.where(priced, self._dear + share * (self._cheap - self._dear), self._dear)
            self._put(point, everything)
            yield self._cost(), point

    def _priced(self) -> Array:
        """Which decisions change an aimed cost, seen from the middle."""
        middle, found = (self._cheap + self._dear) / 2, np.zeros(len(self._space), dtype=bool)
        self._put(middle, range(len(self._space)))
        for i in np.flatnonzero(self._cheap != self._dear).tolist():
            self._put(self._cheap, [i])
            cost = self._cost()
            self._put(self._dear, [i])
            found[i] = self._cost() > cost
            self._put(middle, [i])
        return found

    def _descent(self) -> Iterator[tuple[float, Array]]:
        """One decision at a time, from the heap; what a change saves falls as others go down, so it is counted anew
        when it comes up, and the change waits again if it is no longer the best.
        """
        priced, point = self._priced(), self._dear.copy()
        self._put(point, range(len(point)))
        cost = self._cost()
        ladders = {int(i): self._ladder(int(i)) for i in np.flatnonzero(priced)}
        heap = [(self._slope(ladders[i], i, 0, cost, point), i, 0) for i in ladders if len(ladders[i]) > 1]
        heapq.heapify(heap)
        yield cost, point.copy()
        while heap:
            known, i, rung = heapq.heappop(heap)
            slope = self._slope(ladders[i], i, rung, cost, point)
            if slope > known and heap and slope > heap[0][0]:
                heapq.heappush(heap, (slope, i, rung))
                continue
            point[i] = ladders[i][rung + 1][0]
            self._put(point, [i])
            cost = self._cost()
            yield cost, point.copy()
            if rung + 2 < len(ladders[i]):
                heapq.heappush(heap, (self._slope(ladders[i], i, rung + 1, cost, point), i, rung + 1))

    def _slope(self, ladder: list[tuple[float, float]], i: int, rung: int, cost: float, point: Array) -> float:
        """Damage for each unit of cost that the next rung saves."""
        (_, before), (u, after) = ladder[rung], ladder[rung + 1]
        held = point[i]
        point[i] = u
        self._put(point, [i])
        saved = cost - self._cost()
        point[i] = held
        self._put(point, [i])
        return (after - before) / saved if saved > 0 else math.inf

    def _ladder(self, i: int) -> list[tuple[float, float]]:
        """Position and damage of a decision from dear to cheap: those values that lie on the lower convex hull of
        damage over cost, so that no rung is worth less than the next.
        """
        decision, start = self._space.decisions[i], float(self._dear[i])
        ends = sorted((start, float(self._cheap[i])))
        places = sorted((decision.domain.encode(v), v) for v in decision.domain.values(_VALUES))
        places = [(u, v) for u, v in places if ends[0] - 1e-9 <= u <= ends[1] + 1e-9]
        if start > self._cheap[i]:
            places.reverse()
        hull: list[tuple[float, float, float]] = []
        worst = 0.0
        for u, value in places:
            self._ledger.put({decision.site: value})
            cost, worst = self._cost(), max(worst, self._damage(i, value))
            while hull and hull[-1][2] <= cost:
                if len(hull) == 1:
                    break
                hull.pop()
            if hull and hull[-1][2] <= cost:
                continue
            while len(hull) > 1 and _steeper(hull[-2], hull[-1], (u, worst, cost)):
                hull.pop()
            hull.append((u, worst, cost))
        self._put(self._dear, [i])
        return [(u, damage) for u, damage, _ in hull]

    def _damage(self, i: int, value: Value) -> float:
        """From the table. A decision that was not probed does as much as the others do in the middle, at its
        cheapest, and less by the square of the way; a value that broke the network more than all that did not.
        """
        decision, table = self._space.decisions[i], self._space.layers.sensitivity
        known = [p.damage["loss"] for p in table.probes if "loss" in p.damage]
        finite = [d for d in known if math.isfinite(d)] or [1.0]
        if not any(p.site == decision.site for p in table.probes):
            way = (decision.domain.encode(value) - self._dear[i]) / (self._cheap[i] - self._dear[i])
            return float(np.median(finite) * way**2)
        damage = table.damage(decision.site, value)
        return damage if math.isfinite(damage) else _BROKEN * max(finite)

    def _spread(self, found: list[tuple[float, Array]]) -> Array:
        """LEVELS points from cheap to dear, evenly spread over the logarithm of the cost."""
        found.sort(key=lambda pair: pair[0])
        costs = np.log([max(cost, 1e-12) for cost, _ in found])
        points = np.array([point for _, point in found])
        wanted = np.linspace(costs[0], costs[-1], LEVELS)
        return np.stack([np.interp(wanted, costs, column) for column in points.T], axis=1)

    def _rests(self, steps: Sequence[Step]) -> Array:
        """Shape (steps + 1, LEVELS, 4): where between its cheapest and its dearest the cost is when the steps from
        here on are at a level, with those before at the middle one.
        """
        found = np.zeros((len(steps) + 1, LEVELS, len(CURRENCIES)))
        for level in range(LEVELS):
            self._put(self.way[LEVELS // 2], range(len(self._space)))
            for t in reversed(range(len(steps))):
                self._put(self.way[level], steps[t].decisions)
                found[t, level] = self._costs()
        low, high = found[:, :1], found[:, -1:]
        return np.maximum.accumulate((found - low) / np.where(high > low, high - low, 1.0), axis=1)


def _filled(corner: Array) -> Array:
    return np.where(np.isnan(corner), 0.5, corner)


def _steeper(
    first: tuple[float, float, float], middle: tuple[float, float, float], last: tuple[float, float, float]
) -> bool:
    """Whether the way past the middle one is nowhere worse: damage over saved cost."""
    one = (middle[1] - first[1]) * (first[2] - last[2])
    return one >= (last[1] - first[1]) * (first[2] - middle[2])
