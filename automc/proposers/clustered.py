"""A small space over clusters of decisions, and the way between its policies and those of the whole space."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from automc.core.budget import Cube
from automc.core.layers import LayerTable
from automc.core.policy import Policy, Value
from automc.core.space import Choice, Decision, Real, SearchSpace

_SHARES = 8
"""A cluster of blocks has at most so many steps from none dropped to all."""


class Clustered:
    """One decision for each cluster.

    Where all members have the same domain it is the cluster's, too. Otherwise its values are positions in [0, 1] of
    each member's own domain, as many as the finest one has. Of settings that are spread (blocks that are dropped) it is
    the share of the members that have it true, evenly spread over the depth, as in the uniform grid.

    Args:
        parts: the clusters, as indices of decisions; each index once.
    """

    def __init__(self, space: SearchSpace, parts: Sequence[tuple[int, ...]]) -> None:
        self._whole = space
        self._clusters = [_Cluster([space.decisions[i] for i in part]) for part in parts]
        self._parts = [list(part) for part in parts]
        self.space = SearchSpace(tuple(c.decision for c in self._clusters), space.order, LayerTable((), ()))

    def whole(self, policy: Policy) -> Policy:
        """The policy of the whole space that a policy of the small one stands for."""
        return self._whole.decode(self._point(policy).tolist())

    def nearest(self, cube: Cube) -> tuple[Policy, float]:
        """The policy of the small space that a point of the whole one is nearest to, and how far it is: the root mean
        square over the coordinates.
        """
        values = {c.decision.site: c.mean(cube[part]) for c, part in zip(self._clusters, self._parts, strict=True)}
        policy = self.space.policy(values)
        return policy, float(np.sqrt(np.mean((self._point(policy) - cube) ** 2)))

    def _point(self, policy: Policy) -> Cube:
        cube = np.empty(len(self._whole))
        for cluster, part in zip(self._clusters, self._parts, strict=True):
            cube[part] = cluster.places(policy[cluster.decision.site])
        return cube


class _Cluster:
    """Members and their common decision, which is named after the first of them."""

    def __init__(self, members: Sequence[Decision]) -> None:
        self._members, first = members, members[0]
        self._spread = first.spread and len(members) > 1
        self._shared = not self._spread and all(m.domain == first.domain for m in members)
        neutral = first.neutral if self._shared else None
        self.decision = Decision(first.site, self._domain, all(m.needs_training for m in members), False, neutral)

    @cached_property
    def _domain(self) -> Choice | Real:
        if self._shared:
            return self._members[0].domain
        if self._spread:
            steps = min(len(self._members), _SHARES)
            return Choice(tuple(i / steps for i in range(steps + 1)))
        finest = max(member.domain.size for member in self._members)
        if math.isinf(finest):
            return Real(0.0, 1.0)
        return Choice(tuple((i + 0.5) / int(finest) for i in range(int(finest))))

    def places(self, value: Value) -> list[float]:
        """The coordinate of each member."""
        if self._shared:
            return [self._domain.encode(value)] * len(self._members)
        if not self._spread:
            return [m.domain.encode(m.domain.decode(float(value))) for m in self._members]
        count = len(self._members)
        chosen = round(float(value) * count)
        on = [(i + 1) * chosen // count > i * chosen // count for i in range(count)]
        return [m.domain.encode(true) for m, true in zip(self._members, on, strict=True)]

    def mean(self, places: Cube) -> Value:
        """The value that stands for members at these coordinates: their mean; of words the most frequent."""
        domain = self._domain
        if self._spread:
            share = sum(m.domain.decode(u) is True for m, u in zip(self._members, places, strict=True)) / len(places)
            return _closest(domain, share)
        if not self._shared:
            return _closest(domain, float(places.mean()))
        if isinstance(domain, Choice) and not domain.ordered:
            counts = Counter(domain.decode(u) for u in places.tolist())
            return max(domain.options, key=lambda option: counts[option])
        return domain.decode(float(places.mean()))


def _closest(domain: Choice | Real, number: float) -> Value:
    if isinstance(domain, Real):
        return number
    return min(domain.options, key=lambda option: abs(float(option) - number))
