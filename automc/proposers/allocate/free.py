"""Decisions that say how something is done (a criterion, a method) or trained: they have no damage of their own.

All sites of one setting share what is learned of it: an offset for each option, or a parabola over a range.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from automc.core.ledger import Ledger
from automc.core.policy import Policy, Site, Value
from automc.core.space import Choice, Decision, SearchSpace
from automc.proposers.allocate.axes import Axis
from automc.proposers.allocate.tables import Floats

_GRID = 9
"""Values of a range that are compared."""


class Free:
    """The free decisions of a space, and what of a policy they may explain.

    Attributes:
        width: number of coefficients. defaults: a value by site: neutral where the space has it and no training is
            needed, else the first option, or the middle of a range.

    Decisions that change costs keep their default: tables of costs hold for it.
    """

    def __init__(self, space: SearchSpace, axes: Sequence[Axis]) -> None:
        allocated = {axis.site for axis in axes}
        decisions = [d for d in space.decisions if d.site not in allocated]
        self.defaults = {d.site: _default(d) for d in decisions}
        self._open = [d for d in decisions if not _costs(space, d)]
        self._columns: dict[tuple[str, str, Value], int] = {}
        self._sites: dict[tuple[str, str], int] = {}
        for d in self._open:
            key = d.site.operator, d.site.setting
            self._sites[key] = self._sites.get(key, 0) + 1
            for name in _names(d):
                self._columns.setdefault((*key, name), len(self._columns))
        self.width = len(self._columns)

    def features(self, policies: Sequence[Policy]) -> Floats:
        """Shares of the sites with an option, and means over the sites of u and u^2 (u from -1 to 1 over a range).
        Shape (policies, width)."""
        found = np.zeros((len(policies), self.width))
        for row, policy in enumerate(policies):
            for d in self._open:
                for name, amount in _amounts(d, policy[d.site]).items():
                    found[row, self._columns[d.site.operator, d.site.setting, name]] += amount
        for (operator, setting, _), column in self._columns.items():
            found[:, column] /= self._sites[operator, setting]
        return found

    def values(self, coefficients: Floats) -> dict[Site, Value]:
        """At every free decision the value with the least; the default among equals."""
        found = dict(self.defaults)
        for d in self._open:
            harm = {v: self._harm(d, v, coefficients) for v in (self.defaults[d.site], *d.domain.values(_GRID))}
            found[d.site] = min(harm, key=harm.__getitem__)
        return found

    def _harm(self, d: Decision, value: Value, coefficients: Floats) -> float:
        amounts = _amounts(d, value)
        return sum(
            amount * float(coefficients[self._columns[d.site.operator, d.site.setting, name]])
            for name, amount in amounts.items()
        )


def _names(d: Decision) -> tuple[Value, ...]:
    return tuple(d.domain.values(_GRID)) if _named(d) else ("u", "u^2")


def _amounts(d: Decision, value: Value) -> dict[Value, float]:
    if _named(d):
        return {d.domain.normal(value): 1.0}
    u = 2 * d.domain.encode(value) - 1
    return {"u": u, "u^2": u * u}


def _named(d: Decision) -> bool:
    return isinstance(d.domain, Choice) and not d.domain.ordered


def _default(d: Decision) -> Value:
    if d.neutral is not None and not d.needs_training and d.domain.holds(d.neutral):
        return d.domain.normal(d.neutral)
    return d.domain.decode(0.0 if _named(d) else 0.5)


def _costs(space: SearchSpace, decision: Decision) -> bool:
    """Whether any cost depends on it, the others in the middle of what they can be."""
    ledger = Ledger(space)
    if not ledger.touches(decision.site):
        return False
    ledger.put({d.site: d.domain.decode(0.5) for d in space.decisions})
    found = set()
    for value in decision.domain.values(_GRID):
        ledger.put({decision.site: value})
        found.add(tuple(ledger.costs().values()))
    return len(found) > 1
