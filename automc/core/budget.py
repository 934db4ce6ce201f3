"""Bounds on what follows from a policy alone (MACs, BOPs, parameters, bytes), and policies that keep them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from automc.core.analytic import COSTS, RATIOS
from automc.core.ledger import Ledger
from automc.core.metrics import Constraint
from automc.core.policy import Policy
from automc.core.space import SearchSpace
from automc.core.trial import Trial
from automc.errors import SpecError

Cube = NDArray[np.float64]
"""A point of the unit cube, shape (decisions,)."""

ANALYTIC = (*COSTS, *RATIOS.values())
"""Metrics that a budget can hold."""

DOUBT = 1.05
"""Bytes are predicted within a few per cent: until trials have told how far off, the bound is kept by so much."""

_NEAR = ("size_bytes", "size_ratio")
_LEVELS, _HALVINGS = 12, 12


class Budget:
    """The bounds of a study that a policy can be made to keep before it is evaluated.

    Attributes:
        constraints: those with a metric of ANALYTIC; the others can only be found out by evaluating.
        cheapest, dearest: the points of the unit cube where every decision that has a cost costs least, and most.
            Decisions without a cost are NaN there.

    Raises:
        SpecError: no policy of the space keeps a constraint.
    """

    def __init__(self, space: SearchSpace, constraints: Sequence[Constraint]) -> None:
        self._space = space
        self._ledger = Ledger(space)
        self.constraints = tuple(c for c in constraints if c.metric in ANALYTIC)
        self.cheapest, self.dearest = self._corners()
        self._doubt = self._room()
        self._off, self._told = dict.fromkeys(_NEAR, self._doubt), 0
        wrong = [self._unreachable(place, c) for place, c in enumerate(constraints) if c.metric in ANALYTIC]
        if any(wrong):
            raise SpecError("\n".join(filter(None, wrong)))
        self._between = self._corridor()

    def costs(self, policy: Policy) -> dict[str, float]:
        """The predicted costs and ratios of a policy (see Analytic)."""
        self._ledger.put({d.site: policy[d.site] for d in self._space.decisions})
        return self._ledger.costs()

    def holds(self, policy: Policy, constraints: Sequence[Constraint] | None = None) -> bool:
        """Whether a policy keeps the bounds, or others in their place, as far as can be told without evaluating it."""
        costs = self.costs(policy)
        return all(self.keeps(c, costs) for c in (self.constraints if constraints is None else constraints))

    def keeps(self, constraint: Constraint, costs: Mapping[str, float]) -> bool:
        """Whether these costs keep one bound, with a margin where a cost is predicted only nearly."""
        off = self.margin(constraint.metric)
        # A cost that is equal but for the rounding of sums keeps the bound.
        safe = off * (1 - 1e-12) if constraint.sign == "<=" else (1 + 1e-12) / max(off, 1.0)
        return constraint.violation({constraint.metric: costs[constraint.metric] * safe}) == 0.0

    def fit(self, cube: Sequence[float], constraints: Sequence[Constraint] | None = None) -> list[float]:
        """The nearest point that keeps the bounds on the straight way from here to the cheapest corner (or, for a lower
        bound, to the dearest; where upper and lower bounds are in each other's way, to a point that is known to keep
        them all). A point that keeps them is returned as it is.

        Args:
            cube: shape (decisions,). constraints: in the place of the budget's own; all of ANALYTIC.
        """
        point: Cube = np.asarray(cube, dtype=np.float64)
        bounds = self.constraints if constraints is None else tuple(constraints)
        upper = [c for c in bounds if c.sign == "<="]
        if upper:
            point = self._moved(point, self.cheapest, upper)
        lower = [c for c in bounds if c.sign == ">="]
        point = self._moved(point, self.dearest, lower) if lower else point
        if constraints is None and self._between is not None:
            point = self._moved(point, self._between, bounds)
        return [float(u) for u in point]

    def learn(self, trials: Sequence[Trial]) -> None:
        """How far the predicted bytes are off, from what trials of this space measured; those of other studies (with
        numbers below 0) may be of another network.
        """
        for trial in trials:
            if trial.number < 0:
                continue
            measured = trial.measurement.metrics if trial.measurement else {}
            if "size_bytes" not in measured or any(d.site not in trial.policy for d in self._space.decisions):
                continue
            off = measured["size_bytes"] / max(self.costs(trial.policy)["size_bytes"], 1.0)
            if 0.5 < off < 2.0:
                known = self._off["size_bytes"] if self._told else 0.0
                self._off = dict.fromkeys(_NEAR, max(known, off))
                self._told += 1

    def margin(self, metric: str) -> float:
        """What the predicted metric is multiplied by before it is held against an upper bound."""
        return self._off.get(metric, 1.0)

    @property
    def learned(self) -> float | None:
        """What measured bytes were over the predicted ones, at most; None before a trial told. Can be set to an
        earlier answer.
        """
        return self._off["size_bytes"] if self._told else None

    @learned.setter
    def learned(self, off: float | None) -> None:
        self._told, self._off = int(off is not None), dict.fromkeys(_NEAR, self._doubt if off is None else off)

    def _room(self) -> float:
        """What the predicted bytes are multiplied by at first: DOUBT, or less where no policy would then keep a bound
        that the cheapest is predicted to keep. Whether it does is for its measurement to say."""
        least = self.costs(self._decoded(self.cheapest))
        near = [c.bound / least[c.metric] for c in self.constraints if c.metric in _NEAR and c.sign == "<="]
        return max(1.0, min([DOUBT, *near]))

    def _moved(self, start: Cube, corner: Cube, bounds: Sequence[Constraint]) -> Cube:
        """Bisection: costs fall (or rise) all along the way."""

        def at(share: float) -> Cube:
            return np.where(np.isnan(corner), start, start + share * (corner - start))

        if self.holds(self._decoded(start), bounds):
            return start
        low, high = 0.0, 1.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if self.holds(self._decoded(at(middle)), bounds) else (middle, high)
        return at(high)

    def _corridor(self) -> Cube | None:
        """A point between upper and lower bounds; None where there are not both.

        From the cheapest corner on, decisions are made dear, first those that give the lower bounds most for what they
        take from the upper ones, as in the relaxed knapsack (Dantzig 1957).

        Raises:
            SpecError: it does not come to a point that keeps them all.
        """
        upper = [c for c in self.constraints if c.sign == "<="]
        lower = [c for c in self.constraints if c.sign == ">="]
        if not upper or not lower:
            return None
        point = self.cheapest.copy()

        def moved(i: int) -> Cube:
            return np.where(np.arange(len(point)) == i, self.dearest, point)

        def worth(i: int) -> float:
            costs = self.costs(self._decoded(moved(i)))
            gain, price = (sum((costs[c.metric] - before[c.metric]) / c.bound for c in some) for some in (lower, upper))
            return gain / max(price, 1e-12)

        before = self.costs(self._decoded(point))
        for i in sorted(np.flatnonzero(~np.isnan(point)).tolist(), key=worth, reverse=True):
            # As dear as the upper bounds allow: the way back from there ends at the point itself, which keeps them.
            point = self._moved(moved(i), point, upper)
            if self.holds(self._decoded(point), lower):
                return point
        said = " and ".join(map(str, self.constraints))
        raise SpecError(f"constraints {said}: no policy of this space was found that keeps them all; move a bound")

    def _unreachable(self, place: int, constraint: Constraint) -> str:
        """What is wrong with a bound that no policy keeps; "" of one that can be kept."""
        corner = self.cheapest if constraint.sign == "<=" else self.dearest
        best = self.costs(self._decoded(corner))
        if self.keeps(constraint, best):
            return ""
        metric, sign = constraint.metric, constraint.sign
        # Of the four digits that are shown the last is rounded so that this bound can be kept.
        doubt = DOUBT if metric in _NEAR else 1.0
        least = best[metric] * doubt if sign == "<=" else best[metric] / doubt
        unit = 10.0 ** (math.floor(math.log10(max(abs(least), 1e-12))) - 3)
        shown = (math.ceil if sign == "<=" else math.floor)(least / unit) * unit
        keeps = "is predicted to keep" if metric in _NEAR else "keeps"
        return (
            f"constraints[{place}]: no policy of this space {keeps} {constraint}, but {metric} {sign} {shown:.12g} "
            "can be kept; widen the space or move the bound"
        )

    def _decoded(self, cube: Cube) -> Policy:
        return self._space.decode(np.where(np.isnan(cube), 0.5, cube).tolist())

    def _corners(self) -> tuple[Cube, Cube]:
        """Decision by decision, with all others in the middle of what they can be, and every block there: in one that
        is dropped nothing would have a cost."""
        decisions = self._space.decisions
        cheap, dear = np.full(len(decisions), np.nan), np.full(len(decisions), np.nan)
        ledger = Ledger(self._space)
        middle = {d.site: False if d.site.setting == "dropped" else d.domain.decode(0.5) for d in decisions}
        ledger.put(middle)
        for i, decision in enumerate(decisions):
            if not ledger.touches(decision.site):
                continue
            costs = []
            values = decision.domain.values(_LEVELS)
            for value in values:
                ledger.put({decision.site: value})
                found = ledger.costs()
                costs.append(sum(found[name] for name in RATIOS.values()))
            ledger.put({decision.site: middle[decision.site]})
            if max(costs) > min(costs):
                cheap[i] = decision.domain.encode(values[int(np.argmin(costs))])
                dear[i] = decision.domain.encode(values[int(np.argmax(costs))])
        return cheap, dear
