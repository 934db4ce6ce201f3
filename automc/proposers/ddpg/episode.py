"""Walking the decisions of a space in order, so that every step leaves the budget in reach."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from automc.core.budget import ANALYTIC, Budget
from automc.core.ledger import Ledger
from automc.core.metrics import Constraint, Objective
from automc.core.policy import Policy, Site, Value
from automc.core.space import Decision, SearchSpace
from automc.errors import SpecError
from automc.proposers.ddpg.agent import Floats
from automc.proposers.targets import is_cost

Maker = Callable[[float], Value]
"""The value of a decision at an action: 0 is the cheapest that may be chosen, and costs rise from there to 1."""

_HALVINGS = 14


class Turn(NamedTuple):
    """A decision and what actions mean there."""

    decision: Decision
    value: Maker


class Walk:
    """One pass over decisions, those ahead at their cheapest.

    A step that has been clamped keeps the bounds together with the cheapest of all that follow, so the next one has
    something left to choose from: by induction the whole policy keeps them, if the cheapest of all does (and, for lower
    bounds, the dearest: those are held against a second ledger).

    Args:
        turns: in the order they are taken. Decisions of the space without a turn count as neutral.
    """

    def __init__(self, space: SearchSpace, turns: Sequence[Turn], budget: Budget) -> None:
        self.turns, self._budget = tuple(turns), budget
        self._cheap = {turn.decision.site: turn.value(0.0) for turn in turns}
        self._dear = {turn.decision.site: turn.value(1.0) for turn in turns}
        self._low, self._high = Ledger(space), Ledger(space)
        self._bounds: dict[str, list[Constraint]] = {"<=": [], ">=": []}
        self.original = self._low.analytic.with_ratios(self._low.analytic.original)
        self.place, self.values = 0, dict[Site, Value]()

    def start(self, bounds: Sequence[Constraint] = ()) -> None:
        """Begin anew under these bounds, all of budget.ANALYTIC; none for a walk that only looks."""
        self.place, self.values = 0, {}
        self._bounds = {sign: [c for c in bounds if c.sign == sign] for sign in self._bounds}
        self._low.put(self._cheap)
        if self._bounds[">="]:
            self._high.put(self._dear)

    @property
    def costs(self) -> dict[str, float]:
        """With all ahead at their cheapest."""
        return self._low.costs()

    def keeps(self) -> bool:
        """Whether what was decided, and the cheapest of all ahead (for lower bounds the dearest), keep the bounds."""
        sides = ((self._low, "<="), (self._high, ">="))
        return all(self._holds(ledger, sign) for ledger, sign in sides if self._bounds[sign])

    def clamped(self, wanted: float) -> float:
        """The action nearest to this one, from below, after which the bounds can still be kept; 0 where none is.

        With lower bounds, the nearest from above where ``wanted`` leaves too little.

        Args:
            wanted: in [0, 1].
        """
        action = self._moved(wanted, 0.0, self._low, "<=")
        return self._moved(action, 1.0, self._high, ">=")

    def take(self, value: Value) -> None:
        """Decide the value of this turn and go to the next."""
        self.change(self.place, value)
        self.place += 1

    def change(self, place: int, value: Value) -> None:
        """Decide the value of another turn, and stay at this one."""
        site = self.turns[place].decision.site
        self._low.put({site: value})
        if self._bounds[">="]:
            self._high.put({site: value})
        self.values[site] = value

    def _moved(self, wanted: float, end: float, ledger: Ledger, sign: str) -> float:
        """Bisection between the wanted action and the end at which the bounds are kept."""
        turn = self.turns[self.place]
        if not self._bounds[sign] or not ledger.touches(turn.decision.site):
            return wanted
        cheap, dear = turn.value(end), turn.value(wanted)
        if dear == cheap or self._tried(ledger, sign, dear):
            return wanted
        good, bad = end, wanted
        for _ in range(_HALVINGS):
            middle = (good + bad) / 2
            value = turn.value(middle)
            if value != dear and (value == cheap or self._tried(ledger, sign, value)):
                good, cheap = middle, value
            else:
                bad, dear = middle, value
        return good

    def _tried(self, ledger: Ledger, sign: str, value: Value) -> bool:
        ledger.put({self.turns[self.place].decision.site: value})
        return self._holds(ledger, sign)

    def _holds(self, ledger: Ledger, sign: str) -> bool:
        costs = ledger.costs()
        return all(self._budget.keeps(bound, costs) for bound in self._bounds[sign])


def in_order(space: SearchSpace) -> list[Decision]:
    """The decisions by the place of their layer (of a group its first producer, of a block its first layer), those of
    the whole network last.
    """
    places = {layer.name: place for place, layer in enumerate(space.layers.layers)}
    first = {block.name: places.get(block.layers[0], 0) for block in space.layers.blocks} | places
    return sorted(space.decisions, key=lambda d: first.get(d.site.layer, len(places)))


def scaled(rows: Sequence[Sequence[float]]) -> Floats:
    """Every column from 0 at its least to 1 at its largest; a column that is the same everywhere stays as it is.

    Args:
        rows: shape (steps, features).
    """
    table = np.asarray(rows, dtype=np.float64)
    low, high = table.min(axis=0), table.max(axis=0)
    spread = np.where(high > low, high - low, 1.0)
    return np.where(high > low, (table - low) / spread, table).astype(np.float32)


def values_of(decisions: Sequence[Decision], policy: Policy) -> dict[Site, Value] | None:
    """The values of a policy at decisions; None where it has none, or one that its domain does not hold."""
    if any(d.site not in policy or not d.domain.holds(policy[d.site]) for d in decisions):
        return None
    return {d.site: d.domain.normal(policy[d.site]) for d in decisions}


def nearest(values: Sequence[Value], wanted: float) -> Value:
    """Of numbers in ascending order the one that is nearest; of two the smaller."""
    place = bisect.bisect_left(values, wanted, key=float)
    around = values[max(place - 1, 0) : place + 1]
    return min(around, key=lambda value: abs(float(value) - wanted))


def snapped(decision: Decision) -> Maker:
    """From any number to the nearest value of an ordered domain."""
    domain = decision.domain
    values = domain.values(2)
    if not math.isinf(domain.size):
        return lambda wanted: nearest(values, wanted)
    low, high = (float(v) for v in values)
    return lambda wanted: domain.normal(min(max(wanted, low), high))


def gain(task: Objective, metrics: Mapping[str, float]) -> float:
    """The task's metric with its sign chosen so that larger is better; minus infinity where absent or NaN."""
    return -task.loss(metrics)


def error(task: Objective, metrics: Mapping[str, float]) -> float:
    """What is missing: 1 minus a metric that is maximised, a minimised one itself; infinite where absent or NaN."""
    return task.loss(metrics) + (1.0 if task.direction == "maximize" else 0.0)


def task_of(name: str, objectives: Sequence[Objective]) -> Objective:
    """The objective that an agent's reward is about: the first that is no cost."""
    for objective in objectives:
        if not is_cost(objective):
            return objective
    raise SpecError(f"proposer {name}: nothing says how well a network does its task; add an objective such as top1")


def refuse_unpredicted(name: str, constraints: Sequence[Constraint]) -> None:
    """Raises SpecError for a bound on a cost that does not follow from the policy alone, such as latency or energy."""
    for constraint in constraints:
        if is_cost(Objective(constraint.metric)) and constraint.metric not in ANALYTIC:
            raise SpecError(
                f"proposer {name}: {constraint} cannot be kept, because {constraint.metric} is known only when it is "
                f"measured; bound one of {', '.join(ANALYTIC)} instead, or use another proposer"
            )


def refuse_others(name: str, space: SearchSpace, settings: Sequence[tuple[str, str]]) -> None:
    """Raises SpecError for a space without these decisions, given as (operator, setting), or with others."""
    words = " and ".join(setting for _, setting in settings)
    if not space.decisions:
        raise SpecError(f"proposer {name}: decides {words}, and the space decides nothing")
    for decision in space.decisions:
        if decision.site[::2] not in settings:
            raise SpecError(
                f"proposer {name}: decides {words} only, the space also has {decision.site}; "
                "give that one value, or use ddpg"
            )


Reward = Callable[[Objective, Mapping[str, float]], float]

REWARDS: Mapping[str, Reward] = {
    "accuracy": gain,
    "error_macs": lambda task, metrics: -error(task, metrics) * _log(metrics, "macs"),
    "error_params": lambda task, metrics: -error(task, metrics) * _log(metrics, "params"),
    "accuracy_points": lambda task, metrics: 10.0 * gain(task, metrics),
}
"""What an episode is worth: AMC's three (He et al. 2018, section 3.4), and HAQ's (Wang et al. 2019), which is 0.1 x
(accuracy - the original's) in points: the original's is left out, because the agent subtracts a baseline from all
rewards and so any constant."""


def _log(metrics: Mapping[str, float], name: str) -> float:
    return math.log(max(metrics.get(name, math.nan), 1.0))
