"""Timing calls in turn, so that a busy moment of the machine hits all of them alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

WARM_UP = 5
"""Untimed runs of each call before the first round."""


CONFIDENCE = 0.95
"""Of the interval of a ratio."""

FEWEST = 6
"""Rounds that such an interval takes: of 5 the smallest and the largest hold the median with 0.94 only."""


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


@dataclass(frozen=True)
class Ratio:
    """The median of paired ratios, and the interval that holds the true one with a probability of at least
    ``CONFIDENCE``."""

    median: float
    low: float
    high: float


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """How long one call takes over another that was timed in turn with it.

    The interval are two order statistics, which holds for any distribution: with n pairs the j-th smallest ratio is
    above the true median with the probability of fewer than j heads in n throws of a coin (David and Nagaraja 2003,
    section 7.1).

    Args:
        ours, theirs: times above 0 of the same rounds, at least ``FEWEST`` of each.
    """
    pairs = np.sort(np.asarray(ours, np.float64) / np.asarray(theirs, np.float64))
    n, below, j = len(pairs), 0, 0
    while 2 * (below := below + math.comb(n, j)) <= (1 - CONFIDENCE) * 2**n:
        j += 1
    return Ratio(float(np.median(pairs)), float(pairs[j - 1]), float(pairs[n - j]))


def summary(times: Sequence[float]) -> Timing:
    """Median and quartiles of a call's rounds."""
    middle, low, high = np.percentile(times, (50, 25, 75))
    return Timing(float(middle), float(low), float(high), len(times))


def timings(calls: Sequence[Callable[[], object]], rounds: int, *, warm_up: int = WARM_UP) -> list[Timing]:
    """Time the calls in turn."""
    times = interleaved(calls, rounds, warm_up=warm_up)
    return [summary(row) for row in times]


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
