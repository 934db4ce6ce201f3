"""What is known of policies: the told ones by their figures, the others by the predictor."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from automc.core.analytic import Analytic
from automc.core.batch import BatchCosts
from automc.core.budget import ANALYTIC, Budget
from automc.core.decoded import Array
from automc.core.metrics import METRICS, Constraint, Objective
from automc.core.policy import Policy
from automc.core.space import SearchSpace
from automc.core.trial import Trial
from automc.proposers.evolve.archive import Archive, key
from automc.proposers.evolve.features import Described, Features
from automc.proposers.evolve.fence import Fence
from automc.proposers.evolve.guided import Guide
from automc.proposers.evolve.improve import Improvement, leading
from automc.proposers.evolve.predictor import Predictor
from automc.proposers.evolve.start import Start
from automc.proposers.evolve.variation import Variation
from automc.proposers.scale import compared

Rows = NDArray[np.int64]

_EVERY, _GROWTH, _MOST, _POOL = 24, 1.1, 400, 256
"""Refitted at every trial up to so many, then when they grew by so much; at most so many trials teach; so many of the
best among them can become parents.
"""


_BYTES = ("size_bytes", "size_ratio")
"""Costs that are predicted only nearly, so that the budget learns from trials how far off."""


class Judge:
    """Tells good policies from bad ones.

    Costs that follow from the policy are computed, for told policies as for others; only the other metrics are
    predicted. Losses are those of ``proposers.scale``. The predictor is that of the first ``k`` rows told, ``k`` being
    the last step of a fixed schedule, so it is the same however the trials were told.

    Attributes:
        vary: crossover and mutation in this space. start: what to ask while nothing is known.
    """

    def __init__(
        self, space: SearchSpace, objectives: Sequence[Objective], constraints: Sequence[Constraint], seed: int
    ) -> None:
        self._space, self._objectives, self._seed = space, tuple(objectives), seed
        self._own = np.zeros((0, len(objectives)))
        self._budget = Budget(space, constraints)
        self._costs = BatchCosts(space)
        self._fence = Fence(self._budget, self._costs)
        self._features = Features(space, self._costs)
        self.vary = Variation(space, self._costs.numbers)
        others = [c for c in constraints if c.metric not in ANALYTIC]
        asked = [o.metric for o in objectives if o.metric not in ANALYTIC]
        self._metrics = tuple(dict.fromkeys([*asked, *(c.metric for c in others)]))
        self._doubtful = tuple(others)
        self._archive = Archive(space, self._metrics, constraints)
        sample = np.random.default_rng([seed]).random((256, len(space)))
        self._spread = self._features.of(sample).plain.std(axis=0)
        self._fitted = -1
        self._predictor: Predictor | None = None
        self._pool = np.zeros(0, dtype=np.int64)
        self._corner = self._worst()
        guide = Guide(space, self._costs, self._features.damages, self._fence)
        self.start = Start(space, objectives, self._budget, guide)

    @property
    def count(self) -> int:
        """Rows told."""
        return len(self._archive)

    def tell(self, trials: Sequence[Trial]) -> None:
        if any(c.metric in _BYTES for c in self._budget.constraints):
            self._budget.learn(trials)
        for trial in trials:
            self._archive.tell(trial)

    def ready(self) -> bool:
        """Bring the predictor up to date; False while too little is known for one."""
        step = _step(len(self._archive))
        if step != self._fitted:
            self._fitted = step
            self._learn(step)
        if self._predictor is None and self._metrics:
            return False
        self._look()
        return len(self._known) > 0

    def _learn(self, step: int) -> None:
        """Refit on the first ``step`` rows: the best, the newest, and others evenly spread over the rest."""
        archive = self._archive
        rows = archive.highest(end=step)
        losses = self._measured(rows)
        best = rows[leading(losses, archive.excess[rows], _POOL)]
        self._pool = np.sort(best)
        chosen = np.unique(np.concatenate([_even(best, _MOST // 2), np.arange(max(step - _MOST // 4, 0), step)]))
        rest = np.setdiff1d(np.arange(step), chosen)
        chosen = np.sort(np.concatenate([chosen, _even(rest, _MOST - len(chosen))]))
        harmed = [_harmed(metric) for metric in self._metrics]
        predictor = Predictor(self._spread, harmed, [self._seed, step])
        known = self._features.of(archive.cubes[chosen])
        good = predictor.fit(known, archive.rungs[chosen], archive.values[chosen])
        self._predictor = predictor if good else None

    def _look(self) -> None:
        """The told policies that matter now: the pool of the last refit and all since; and the box they lie in."""
        archive = self._archive
        late = archive.highest(self._fitted)
        rows = np.concatenate([self._pool, late])
        self._known = archive.cubes[rows]
        self._known_losses, self._known_excess = self._lifted(rows), archive.excess[rows]
        good = self._known_excess <= 0
        shown = self._known_losses[good] if good.any() else self._known_losses
        worst, best = np.maximum(shown.max(axis=0), self._corner), shown.min(axis=0)
        front = self._known_losses[good]
        draw = np.random.default_rng([self._seed, 1])
        self._improve = Improvement(front, worst + 1e-9, best, draw)

    def _worst(self) -> Array:
        """The corner of the box in which pareto.covered measures a front, as losses: what the original costs, and 0 for
        ratios that should be large; -infinity where only trials can tell.
        """
        costs = Analytic(self._space.layers).costs(Policy({}))
        found = []
        for o in self._objectives:
            share = METRICS[o.metric].unit == "ratio" and not METRICS[o.metric].signed
            known = 0.0 if o.direction == "maximize" and share else -math.inf
            found.append(costs.get(o.metric, known) if o.direction == "minimize" else known)
        return compared(self._objectives, np.array(found))

    def _lifted(self, rows: Rows) -> Array:
        """Losses of told policies; where there are several rungs, figures of lower ones are replaced by what the
        predictor expects at the highest.
        """
        losses = self._measured(rows)
        rungs = self._archive.rungs[rows]
        if self._predictor is None or not self._metrics or len(np.unique(rungs)) < 2:
            return losses
        low = rungs < rungs.max()
        losses[low] = self._predicted(self._features.of(self._archive.cubes[rows[low]]))[0].mean(axis=1)
        return losses

    def _measured(self, rows: Rows) -> Array:
        """Losses of told policies, by their own figures and computed costs; found once."""
        new = slice(len(self._own), len(self._archive))
        if new.start < new.stop:
            self._own = np.vstack([self._own, self._computed(self._archive.cubes[new], self._archive.values[new])])
        found: Array = self._own[rows]
        return found

    def _computed(self, cubes: Array, values: Array) -> Array:
        costs = self._costs.of(cubes)
        found = [
            costs[o.metric] if o.metric in ANALYTIC else values[:, self._metrics.index(o.metric)]
            for o in self._objectives
        ]
        signs = [-1.0 if o.direction == "maximize" else 1.0 for o in self._objectives]
        return compared(self._objectives, np.column_stack(found) * signs)

    def _predicted(self, found: Described) -> tuple[Array, Array]:
        """Losses, shape (n, members, objectives), and the violation of what is not analytic, shape (n, members)."""
        drawn = self._predictor(found) if self._predictor else np.zeros((len(found.plain), 0, 1))
        columns = []
        for objective in self._objectives:
            sign = -1.0 if objective.direction == "maximize" else 1.0
            if objective.metric in ANALYTIC:
                columns.append(sign * np.repeat(found.costs[objective.metric][:, None], drawn.shape[2], axis=1))
            else:
                columns.append(sign * drawn[:, self._metrics.index(objective.metric)])
        excess = np.zeros((len(drawn), drawn.shape[2]))
        for c in self._doubtful:
            value = drawn[:, self._metrics.index(c.metric)]
            excess += np.maximum((value - c.bound) * (1 if c.sign == "<=" else -1), 0.0) / max(abs(c.bound), 1e-9)
        return compared(self._objectives, np.stack(columns, axis=-1)), excess

    def scores(self, cubes: Array) -> Array:
        """Expected gain of every policy, shape (n,); a little below 0, and ordered, where none is expected."""
        losses, excess = self._predicted(self._features.of(cubes))
        gain = (self._improve.gain(losses) * (excess <= 0)).mean(axis=1)
        lack = self._improve.lack(losses.mean(axis=1))
        return np.asarray(gain - 1e-4 * lack - 1e-2 * excess.mean(axis=1))

    def parents(self, count: int) -> Array:
        """The best told policies, best first; shape (n, decisions)."""
        best: Array = self._known[leading(self._known_losses, self._known_excess, count)]
        return best

    def point(self, policy: Policy) -> list[float]:
        """Of a policy of this space."""
        found = self._archive.point(policy)
        return self._space.encode(policy) if found is None else found

    def inside(self, cubes: Array) -> Array:
        """Within the budget, and where the space encodes them."""
        return self.vary.snapped(self._fence.fit(cubes))

    def first(self, cubes: Array, draw: np.random.Generator) -> Policy:
        """The first that was not told yet and that keeps the budget when looked at alone."""
        for cube in cubes:
            if key(cube) not in self._archive.asked and self._fence.holds(cube[None])[0]:
                return self._space.decode(cube.tolist())
        fresh = self.inside(self.vary.mutated(draw, np.repeat(cubes[:1], 32, axis=0), sites=3.0))
        new = [cube for cube in fresh if key(cube) not in self._archive.asked]
        return self._space.decode((new or [*fresh])[0].tolist())

    def best(self, cubes: Array) -> int:
        """Which of these to ask: the largest expected gain, the first while nothing is known; told ones last."""
        known = np.array([key(cube) in self._archive.asked for cube in cubes])
        score = self.scores(cubes) if self.ready() else np.zeros(len(cubes))
        return int(np.argmax(np.where(known, score - 1e6, score)))


def _step(count: int) -> int:
    """The last step of the schedule up to here."""
    step = min(count, _EVERY)
    while math.ceil(step * _GROWTH) <= count and count > _EVERY:
        step = math.ceil(step * _GROWTH)
    return step


def _even(rows: Rows, count: int) -> Rows:
    """At most so many of them, evenly spread."""
    if len(rows) <= count:
        return rows
    return rows[np.unique(np.linspace(0, len(rows) - 1, max(count, 0)).astype(np.int64))]


def _harmed(metric: str) -> int:
    """1 where damage makes a metric larger, -1 where smaller, 0 where it is no figure of the task."""
    known = METRICS[metric]
    return 0 if not known.sampled else 1 if known.direction == "minimize" else -1
