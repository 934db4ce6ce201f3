"""Uniform grid: all layers the same value. The baseline that every search must beat."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

from automc.core.metrics import Constraint, Objective
from automc.core.policy import Policy, Site
from automc.core.ports import Proposal
from automc.core.signature import Within
from automc.core.space import Decision, SearchSpace
from automc.core.trial import Trial


class UniformProposer:
    """Walks the grid of policies in which a setting has one level for the whole network.

    A level is a position in [0, 1] of each layer's own domain, so layers with narrower domains follow. A setting that
    is spread (whether a block is dropped) is true at a share of its sites, evenly spread over the depth. The
    grid has a point per combination of levels. Trial ``n`` gets the n-th of them in an evenly spread order that
    visits each once before it begins again; where a promotion takes a trial's number, its point is left out.

    Args:
        levels: grid points of a continuous domain, and at most so many shares of a spread setting; a stepped domain
            or a choice has its own number.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        levels: Annotated[int, Within(1, 1000)] = 5,
    ) -> None:
        self._space = space
        self._spread: dict[tuple[str, str], list[Site]] = {}
        self._counts: dict[tuple[str, str], int] = {}
        for decision in space.decisions:
            size = decision.domain.size
            count = levels if math.isinf(size) else int(size)
            key = _key(decision)
            if decision.spread:
                self._spread.setdefault(key, []).append(decision.site)
                count = min(levels, max(len(self._spread[key]), 2))
            self._counts[key] = max(self._counts.get(key, 1), count)

    @property
    def total(self) -> int:
        """Number of grid points."""
        return math.prod(self._counts.values())

    def policy(self, index: int) -> Policy:
        """The grid point with this index, in [0, total)."""
        level: dict[tuple[str, str], float] = {}
        for key, count in self._counts.items():
            index, position = divmod(index, count)
            level[key] = (position + 0.5) / count
        return self._space.decode([self._coordinate(d, level[_key(d)]) for d in self._space.decisions])

    def _coordinate(self, decision: Decision, level: float) -> float:
        if not decision.spread:
            return level
        sites, count = self._spread[_key(decision)], self._counts[_key(decision)]
        place, chosen = sites.index(decision.site), math.ceil(int(level * count) * len(sites) / count)
        return decision.domain.encode((place + 1) * chosen // len(sites) > place * chosen // len(sites))

    def ask(self, numbers: range) -> list[Proposal]:
        stride = _coprime(self.total)
        return [Proposal(self.policy(number * stride % self.total)) for number in numbers]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Nothing to learn."""


def _key(decision: Decision) -> tuple[str, str]:
    return decision.site.operator, decision.site.setting


def _coprime(total: int) -> int:
    """A step near the golden section of the grid that meets every point before it meets one again."""
    stride = max(round(total * (math.sqrt(5) - 1) / 2), 1)
    while math.gcd(stride, total) != 1:
        stride += 1
    return stride
