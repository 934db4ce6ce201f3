"""Timing calls in turn, so that a busy moment of the machine hits all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

WARM_UP = 5
"""Untimed runs of each call before the first round."""


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one call: median, lower and upper quartile of so many rounds."""

    median: float
    low: float
    high: float
    rounds: int = 0

    @property
    def error(self) -> float:
        """Standard error of the median: 1.25 * (high - low) / (1.35 * sqrt(rounds)), from the quartiles, so that single
        slow rounds do not blow it up (McGill, Tukey and Larsen 1978); 0 where the rounds are not known.
        """
        return 1.25 * (self.high - self.low) / (1.35 * self.rounds**0.5) if self.rounds else 0.0


def timings(calls: Sequence[Callable[[], object]], rounds: int, *, warm_up: int = WARM_UP) -> list[Timing]:
    """Time the calls in turn."""
    times = interleaved(calls, rounds, warm_up=warm_up)
    quartiles = [np.percentile(row, (50, 25, 75)) for row in times]
    return [Timing(float(q[0]), float(q[1]), float(q[2]), rounds) for q in quartiles]


def interleaved(
    calls: Sequence[Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    *,
    warm_up: int = WARM_UP,
) -> list[list[float]]:
    """Milliseconds of every call in every round, shape (len(calls), rounds).

    Each round starts with another call, so that none always runs in the wake of the same neighbour.
    """
    for call in calls:
        for _ in range(warm_up):
            call()
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(rounds):
        for k in range(len(calls)):
            i = (turn + k) % len(calls)
            start = clock()
            calls[i]()
            times[i].append((clock() - start) * 1e3)
    return times
