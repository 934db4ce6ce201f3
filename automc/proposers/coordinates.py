"""Policies in the words of other libraries' searchers: a number in the unit interval, or the number of an option."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from automc.core.policy import Policy, Value
from automc.core.space import Choice, Decision, SearchSpace


class Coordinates:
    """A space as named coordinates: the unit interval where a decision has an order, the option's number elsewhere.

    Args:
        grid: number the values of every decision that has finitely many.

    Attributes:
        options: by name, how many there are; 0: the unit interval.
    """

    def __init__(self, space: SearchSpace, grid: bool = False) -> None:
        self._space = space
        self.options = {str(d.site): _options(d, grid) for d in space.decisions}

    def point(self, policy: Policy) -> dict[str, Any]:
        """The coordinates of a policy of the space."""
        found: dict[str, Any] = {}
        for decision in self._space.decisions:
            name, value, domain = str(decision.site), policy[decision.site], decision.domain
            found[name] = domain.values(1).index(value) if self.options[name] else domain.encode(value)
        return found

    def policy(self, point: Mapping[str, Any]) -> Policy:
        """The policy at these coordinates; what is beyond an end of the unit interval counts as that end."""
        return self._space.policy({d.site: self._value(d, point[str(d.site)]) for d in self._space.decisions})

    def _value(self, decision: Decision, chosen: Any) -> Value:
        if self.options[str(decision.site)]:
            return decision.domain.values(1)[int(chosen)]
        return decision.domain.decode(min(max(float(chosen), 0.0), 1.0))


def _options(decision: Decision, grid: bool) -> int:
    domain = decision.domain
    unordered = isinstance(domain, Choice) and not domain.ordered
    return int(domain.size) if unordered or (grid and domain.size < float("inf")) else 0


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The global generators, seeded for a searcher that draws from them, and afterwards as they were."""
    plain, arrays = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(plain)
        np.random.set_state(arrays)
