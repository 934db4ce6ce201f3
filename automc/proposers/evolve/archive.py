"""The trials told so far, in arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from automc.core.decoded import Array
from automc.core.metrics import Constraint
from automc.core.policy import Policy, Value
from automc.core.space import Domain, SearchSpace
from automc.core.trial import Trial, TrialState


class Archive:
    """Measured policies by row, one row for every rung of a policy, and the points of all that need not be asked again.

    Only the first rows count for what is refitted now and then, so the order in which they came is kept. A policy told
    twice at a rung keeps its first row.

    Args:
        metrics: those kept of a measurement.
    """

    def __init__(self, space: SearchSpace, metrics: Sequence[str], constraints: Sequence[Constraint]) -> None:
        self._space, self._metrics, self._constraints = space, tuple(metrics), tuple(constraints)
        self._cubes, self._values = _Rows(len(space)), _Rows(len(self._metrics))
        self._facts = _Rows(2)
        self._known = [_places(decision.domain) for decision in space.decisions]
        self._seen: set[tuple[bytes, int]] = set()
        self.asked: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._facts)

    @property
    def cubes(self) -> Array:
        """Shape (n, decisions)."""
        return self._cubes.whole

    @property
    def values(self) -> Array:
        """The metrics, shape (n, metrics); NaN where absent."""
        return self._values.whole

    @property
    def rungs(self) -> Array:
        """Shape (n,)."""
        return self._facts.whole[:, 0]

    @property
    def excess(self) -> Array:
        """By how much constraints are broken, each in units of its bound, in total; shape (n,), 0 where all hold."""
        return self._facts.whole[:, 1]

    def tell(self, trial: Trial) -> None:
        """Keep a trial of this space; what says nothing is only remembered as known."""
        cube = self.point(trial.policy)
        if cube is None:
            return
        place = key(cube)
        if trial.state in (TrialState.COMPLETE, TrialState.FAILED) or trial.hopeless:
            self.asked.add(place)
        measured = trial.measurement
        if measured is None or (place, trial.rung) in self._seen:
            return
        if trial.state is not TrialState.COMPLETE and not trial.hopeless:
            return
        values = [measured.metrics.get(name, math.nan) for name in self._metrics]
        if not all(math.isfinite(value) for value in values):
            return
        excess = sum(c.violation(measured.metrics) / max(abs(c.bound), 1e-9) for c in self._constraints)
        self._seen.add((place, trial.rung))
        self._cubes.add(cube)
        self._values.add(values)
        self._facts.add([float(trial.rung), excess])

    def highest(self, first: int = 0, end: int | None = None) -> NDArray[np.int64]:
        """Of every policy the row of its highest rung, among the rows from ``first`` to before ``end``; in order."""
        best: dict[bytes, int] = {}
        rungs = self.rungs
        for row in range(first, len(self) if end is None else end):
            place = key(self.cubes[row])
            if place not in best or rungs[best[place]] <= rungs[row]:
                best[place] = row
        return np.array(sorted(best.values()), dtype=np.int64)

    def point(self, policy: Policy) -> list[float] | None:
        """The point of a policy; None if it is of another space."""
        if len(policy) != len(self._known) + len(self._space.fixed):
            return None
        if any(policy.get(site) != value for site, value in self._space.fixed.items()):
            return None
        found = []
        for decision, known in zip(self._space.decisions, self._known, strict=True):
            value = policy.get(decision.site)
            if value is None:
                return None
            place = known.get((type(value), value))
            if place is None:
                if not decision.domain.holds(value):
                    return None
                place = decision.domain.encode(value)
            found.append(place)
        return found


_MANY = 1000


def _places(domain: Domain) -> dict[tuple[type, Value], float]:
    """Where values lie in the unit interval, for domains that have few: encoding is most of what telling costs."""
    values = domain.values(1) if domain.size <= _MANY else []
    return {(type(value), value): domain.encode(value) for value in values}


def key(cube: Array | Sequence[float]) -> bytes:
    """Equal for equal policies at the points that encode them."""
    return np.round(np.asarray(cube, dtype=np.float64), 9).tobytes()


class _Rows:
    """Rows of a matrix that grows."""

    def __init__(self, width: int) -> None:
        self._data = np.empty((64, width))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def whole(self) -> Array:
        return self._data[: self._count]

    def add(self, row: Sequence[float]) -> None:
        if self._count == len(self._data):
            self._data = np.vstack([self._data, np.empty_like(self._data)])
        self._data[self._count] = row
        self._count += 1
