"""Predicts what an evaluation would find, with its uncertainty: from cheap rungs to expensive ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from automc.core.decoded import Array
from automc.proposers.evolve.features import Described
from automc.proposers.evolve.level import Level, sample

ENOUGH, ENOUGH_ABOVE = 5, 3
"""Policies with figures that the first rung, and each above it, needs."""


class Predictor:
    """Every metric of a list, at the highest rung that has figures enough.

    A metric that is above 0 everywhere may be learned as its logarithm: harm multiplies some metrics (the probability
    of a right answer, a latency) and adds to others. The larger evidence for the first rung's figures decides.

    Args:
        spread: see Inputs. harmed: by metric, 1 where damage makes it larger, -1 where it makes it smaller, 0 where it
            follows from something else.
    """

    def __init__(self, spread: Array, harmed: Sequence[int], seed: Sequence[int]) -> None:
        self._spread, self._harmed, self._seed = spread, tuple(harmed), list(seed)
        self.levels: list[Level] = []
        self._logs: list[bool] = []

    def fit(self, known: Described, rungs: Array, values: Array) -> bool:
        """Learn figures; False where they are too few, and then nothing is predicted.

        Args:
            known: n policies, one a row, the same ones again for each rung. rungs: shape (n,).
            values: shape (n, metrics), NaN where a figure says nothing.
        """
        self.levels, self._logs = [], []
        for column, harmed in enumerate(self._harmed):
            good = np.flatnonzero(np.isfinite(values[:, column])).astype(np.int64)
            y = values[good, column]
            logs = [False, True] if len(y) and y.min() > 0 else [False]
            found = [self._fitted(known[good], rungs[good], np.log(y) if log else y, (column, harmed)) for log in logs]
            if found[0] is None:
                return False
            lowest = y[rungs[good] == _base(rungs[good])]
            # The density of a figure is that of its logarithm over the figure.
            slope = [0.0, -float(np.log(lowest[sample(len(lowest))]).sum())] if len(logs) > 1 else [0.0]
            worth = [_lowest(level).evidence + by for level, by in zip(found, slope, strict=True) if level]
            best = int(np.argmax(worth))
            self.levels.append(found[best] or found[0])
            self._logs.append(logs[best])
        return True

    def _fitted(self, known: Described, rungs: Array, y: Array, which: tuple[int, int]) -> Level | None:
        """The level of the highest rung, on those below it; None where there are too few figures."""
        column, harmed = which
        level: Level | None = None
        for rung in np.unique(rungs):
            rows: NDArray[np.int64] = np.flatnonzero(rungs == rung).astype(np.int64)
            if len(rows) >= (ENOUGH_ABOVE if level else ENOUGH):
                seed = [*self._seed, column, int(rung)]
                level = Level.fitted(known[rows], y[rows], harmed, level, self._spread, seed)
        return level

    def __call__(self, found: Described) -> Array:
        """Shape (n, metrics, members)."""
        drawn = [level(found) for level in self.levels]
        told = [np.exp(np.minimum(row, _MOST)) if log else row for row, log in zip(drawn, self._logs, strict=True)]
        return np.stack(told, axis=1) if told else np.zeros((len(found.plain), 0, 1))


_MOST = 600.0


def _lowest(level: Level) -> Level:
    while level.lower:
        level = level.lower
    return level


def _base(rungs: Array) -> float:
    """The lowest rung with figures enough."""
    found, counts = np.unique(rungs, return_counts=True)
    return float(found[counts >= ENOUGH][0])
