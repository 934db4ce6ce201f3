"""What trials say, one row a trial: for proposers that learn from policies and their figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from automc.core.metrics import Constraint, Objective, losses
from automc.core.pareto import ranks
from automc.core.policy import Policy
from automc.core.space import SearchSpace
from automc.core.trial import Trial, TrialState

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """A policy and its figures: losses (smaller is better) and, a constraint each, how far beyond the bound (below 0:
    inside), both in the metrics' own units."""

    policy: Policy
    losses: tuple[float, ...]
    excess: tuple[float, ...]

    @property
    def violation(self) -> float:
        return sum(max(0.0, x) for x in self.excess)


class Told:
    """The rows of the trials that teach, in the order they were told.

    Complete trials do, and those found hopeless: their costs are exact and the rest are estimates. Those that failed or
    that a stopper ended do not, nor those of a space that lacks one of our decisions or has other values, nor those
    without a finite number for every objective and constraint. Figures of different rungs do not compare, and those of
    the highest rung are nearest to what is wanted: a trial of a higher rung puts its figures in the place of those its
    policy had and adds no row; a later trial of a lower one takes them over.

    Args:
        memory: how many rows ``few`` shows at most, 0 for all.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        memory: int = 0,
    ) -> None:
        self._space, self._objectives, self._constraints = space, tuple(objectives), tuple(constraints)
        self._domains = [(decision.site, decision.domain) for decision in space.decisions]
        self._memory = memory
        self.rows: list[Row] = []
        self._places: dict[Policy, list[int]] = {}
        self._rungs: dict[Policy, int] = {}
        self._best: list[int] = []
        self._recent: list[int] = []
        self._few: set[int] = set()

    def tell(self, trials: Sequence[Trial]) -> list[int]:
        """Indices of the rows that are new or have new figures, in order."""
        changed: list[int] = []
        for trial in trials:
            row = self._row(trial)
            if row is not None:
                changed += self._put(row, trial.rung)
        return changed

    def few(self) -> list[int]:
        """Indices of the rows that are worth remembering, ascending: at most ``memory``, and all while they are so few.

        About half are the best of all, the others came last. Rows are ranked again only when as many changed as there
        is room for, so everybody is never ranked at once; which ones are shown follows from the order of telling alone.
        """
        if not self._memory:
            return list(range(len(self.rows)))
        return sorted(self._few)

    def scalars(self, index: Sequence[int]) -> Floats:
        """One loss a row, shape (len(index),), for methods that know a single objective and no constraint.

        Rows that keep the constraints have their first loss. Others are behind all of them, by the share of each bound
        that they are beyond, in units of the losses' own spread: the order is Deb's (2000), feasible before infeasible.
        """
        rows = [self.rows[i] for i in index]
        found = np.array([row.losses[0] for row in rows])
        sizes = [max(abs(c.bound), 1e-12) for c in self._constraints]
        beyond = np.array([sum(max(0.0, x) / s for x, s in zip(r.excess, sizes, strict=True)) for r in rows])
        kept = found[beyond == 0.0] if (beyond == 0.0).any() else found
        spread = float(np.ptp(kept)) if len(kept) else 0.0
        worst = float(kept.max()) if len(kept) else 0.0
        return np.where(beyond > 0.0, worst + (spread or 1.0) * beyond, found)

    def best(self, index: Sequence[int], count: int) -> list[int]:
        """The ``count`` best of these rows: least violation, then non-dominated rank; a rank that does not fit whole is
        thinned evenly along its first loss."""
        if len(index) <= count:
            return list(index)
        violation = np.array([self.rows[i].violation for i in index])
        rank = np.zeros(len(index), dtype=np.int64)
        kept = np.flatnonzero(violation == 0.0)
        points = np.array([self.rows[index[i]].losses for i in kept.tolist()]).reshape(len(kept), len(self._objectives))
        # The ranks of one objective are its order; peeling them off one by one would take as many rounds.
        single = len(self._objectives) == 1
        rank[kept] = np.unique(points, return_inverse=True)[1].ravel() if single else ranks(points)
        order = np.lexsort((np.array([self.rows[i].losses[0] for i in index]), rank, violation))
        level = [(violation[i], rank[i]) for i in order]
        last = level[count - 1]
        start, stop = level.index(last), len(level) - level[::-1].index(last)
        places = [*range(start), *np.linspace(start, stop - 1, count - start).round().astype(int).tolist()]
        return [index[order[place]] for place in places]

    def _put(self, row: Row, rung: int) -> list[int]:
        known = self._rungs.get(row.policy)
        places = self._places.setdefault(row.policy, [])
        if known is not None and rung > known:
            for place in places:
                self.rows[place] = row
            changed = list(places)
        else:
            held = row if known is None or rung == known else self.rows[places[-1]]
            self.rows.append(held)
            changed = [len(self.rows) - 1]
            places.append(changed[0])
        self._rungs[row.policy] = rung if known is None else max(rung, known)
        for place in changed:
            self._remember(place)
        return changed

    def _remember(self, place: int) -> None:
        if not self._memory:
            return
        self._recent.append(place)
        self._few.add(place)
        if len(self._few) > self._memory:
            self._best = self.best(sorted(self._few), self._memory // 2)
            self._recent = self._recent[-(self._memory // 4) :]
            self._few = {*self._best, *self._recent}

    def _row(self, trial: Trial) -> Row | None:
        if (trial.state is not TrialState.COMPLETE and not trial.hopeless) or trial.measurement is None:
            return None
        found = losses(self._objectives, trial.measurement.metrics)
        excess = tuple(_excess(c, trial.measurement.metrics.get(c.metric, math.nan)) for c in self._constraints)
        if not all(math.isfinite(value) for value in (*found, *excess)):
            return None
        values = dict(trial.policy.items())
        for site, domain in self._domains:
            if site not in values or not domain.holds(values[site]):
                return None
        return Row(trial.policy, found, excess)


def _excess(constraint: Constraint, value: float) -> float:
    return value - constraint.bound if constraint.sign == "<=" else constraint.bound - value
