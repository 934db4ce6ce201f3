"""From the least compressed policy to the goal: how far there is to go, and the smallest moves that go so far."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from automc.core.batch import BatchCosts
from automc.core.budget import Budget, Cube
from automc.core.metrics import Constraint
from automc.core.space import Choice, Decision, SearchSpace
from automc.proposers.targets import Targets

Points = NDArray[np.float64]
"""Of the unit cube, shape (n, decisions)."""

_STEPS, _SHARES, _ROUNDS = 32, 16, 2
_TINY = 1e-12


class Move(NamedTuple):
    """A decision that moves alone: which, where to in [0, 1], and the resource then."""

    decision: int
    place: float
    left: float


class Descent:
    """The resource of a study, and moves that save of it.

    The resource of a policy is the way that is left to the goals,

        sum over metrics of max(0, ln(cost / goal)).

    It is 0 where all are reached. Decisions without a cost never move.

    Attributes:
        bounds: the upper bounds of the constraints, by metric. goals: these, and for a cost that is an objective the
            least that the space can reach (or a lower bound allows).
        start: the least compressed policy: neutral values where the space has them, else what costs most. Decisions
            without a cost are neutral too, or in the middle.
        costly, free: indices of the decisions with and without a cost.
    """

    def __init__(self, space: SearchSpace, targets: Targets, budget: Budget) -> None:
        self._decisions, self._costs = space.decisions, BatchCosts(space)
        self._cheapest = budget.cheapest
        costly = ~np.isnan(budget.cheapest)
        self.costly, self.free = np.flatnonzero(costly).tolist(), np.flatnonzero(~costly).tolist()
        self._spread = [i for i in self.costly if space.decisions[i].spread]
        self._even = [i for i in self.costly if not space.decisions[i].spread]
        middle = np.where(costly, budget.dearest, 0.5)
        self.start: Cube = np.array([_neutral(d, u) for d, u in zip(space.decisions, middle, strict=True)])
        self.bounds = _bounds(targets.fixed, budget)
        least = self._costs.of(np.where(costly, budget.cheapest, self.start)[None])
        self.goals = dict(self.bounds)
        for metric in targets.swept:
            lowest = _allowed(metric, float(least[metric][0]), targets.fixed)
            self.goals[metric] = max(min(self.goals.get(metric, math.inf), lowest), _TINY)

    def left(self, points: Points, goals: Mapping[str, float] | None = None) -> NDArray[np.float64]:
        """The resource of each point; shape (n,)."""
        costs = self._costs.of(points)
        found = np.zeros(len(points))
        for metric, goal in (self.goals if goals is None else goals).items():
            found += np.maximum(0.0, np.log(np.maximum(costs[metric], _TINY) / goal))
        return found

    def moves(self, point: Cube, wanted: float) -> list[Move]:
        """One for every decision that can save: the least that reaches ``wanted``, or else to the cheapest value."""
        places = {i: _places(self._decisions[i], float(point[i]), float(self._cheapest[i])) for i in self.costly}
        index = [i for i in self.costly if places[i]]
        if not index:
            return []
        low, high = np.zeros(len(index), dtype=int), np.array([len(places[i]) for i in index])
        ends = high - 1

        def at(which: NDArray[np.int64]) -> Points:
            points = np.repeat(point[None], len(index), axis=0)
            points[np.arange(len(index)), index] = [places[i][k] for i, k in zip(index, which, strict=True)]
            return points

        while (low < high).any():
            middle = np.minimum((low + high) // 2, ends)
            reached = self.left(at(middle)) <= wanted
            low, high = np.where(reached | (low >= high), low, middle + 1), np.where(reached, middle, high)
        moved = at(np.minimum(low, ends))
        found = [Move(i, float(row[i]), float(u)) for i, row, u in zip(index, moved, self.left(moved), strict=True)]
        here = float(self.left(point[None])[0])
        return [move for move in found if move.left < here - _TINY]

    def together(self, points: Points, wanted: float, goals: Mapping[str, float] | None = None) -> Points:
        """The points, each moved straight towards the cheapest corner until it reaches ``wanted``.

        Blocks that are dropped or not stay as they are, unless the others alone do not get there.
        """
        for which in (self._even, self._spread):
            points = self._straight(points, which, wanted, goals)
        return points

    def _straight(
        self, points: Points, which: Sequence[int], wanted: float, goals: Mapping[str, float] | None
    ) -> Points:
        """In rounds: of evenly spaced shares of the way, the first that reaches it; then those just before it."""
        low, width = np.zeros(len(points)), np.where(self.left(points, goals) <= wanted, 0.0, 1.0)
        if not width.any() or not which:
            return points
        for _ in range(_ROUNDS):
            shares = low[:, None] + width[:, None] * np.arange(1, _SHARES + 1) / _SHARES
            moved = self._moved(points, which, shares)
            reached = self.left(moved.reshape(-1, points.shape[1]), goals).reshape(shares.shape) <= wanted
            first = np.where(reached.any(axis=1), reached.argmax(axis=1), _SHARES - 1)
            width = width / _SHARES
            low = low + first * width
        return self._moved(points, which, (low + width)[:, None])[:, 0]

    def _moved(self, points: Points, which: Sequence[int], shares: NDArray[np.float64]) -> Points:
        """Shapes (n, d) and (n, m) to (n, m, d)."""
        moved = np.repeat(points[:, None], shares.shape[1], axis=1)
        moved[:, :, which] += shares[:, :, None] * (self._cheapest[which] - moved[:, :, which])
        return np.clip(moved, 0.0, 1.0)


def _bounds(constraints: Sequence[Constraint], budget: Budget) -> dict[str, float]:
    """The lowest upper bound by metric, kept with the margin that the budget keeps where a cost is not exact."""
    found: dict[str, float] = {}
    for bound in (c for c in constraints if c.sign == "<="):
        tight = max(bound.bound / budget.margin(bound.metric), _TINY)
        found[bound.metric] = min(found.get(bound.metric, math.inf), tight)
    return found


def _allowed(metric: str, least: float, constraints: Sequence[Constraint]) -> float:
    return max([least, *(c.bound for c in constraints if c.metric == metric and c.sign == ">=")])


def _neutral(decision: Decision, otherwise: float) -> float:
    neutral = decision.neutral
    return decision.domain.encode(neutral) if neutral is not None and decision.domain.holds(neutral) else otherwise


def _places(decision: Decision, here: float, there: float) -> list[float]:
    """Positions of the values on the way, nearest first, without the one a decision has; where values have no order,
    only the cheapest.
    """
    domain = decision.domain
    if domain.decode(here) == domain.decode(there):
        return []
    if isinstance(domain, Choice) and not domain.ordered:
        return [there]
    if math.isinf(domain.size):
        return [float(u) for u in np.linspace(here, there, _STEPS + 1)[1:]]
    first, last = (int(min(u * domain.size, domain.size - 1)) for u in (here, there))
    step = 1 if last > first else -1
    return [(place + 0.5) / domain.size for place in range(first + step, last + step, step)]
