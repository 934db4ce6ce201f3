"""Stoppers: who ends a trial early. (To prune is said of weights only.)"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Annotated

from automc.core.signature import MOST, Within


class NeverStopper:
    """Lets every trial run to its end."""

    def worth(self, step: int, value: float, peers: Sequence[Sequence[tuple[int, float]]]) -> bool:
        return True


class MedianStopper:
    """Ends a trial whose report is worse than the median of its peers' best so far (Golovin et al. 2017, Vizier).

    Args:
        peers: fewer peers than this at the step say nothing.
        grace: steps during which every trial goes on.
    """

    def __init__(self, peers: Annotated[int, Within(1, MOST)] = 5, grace: Annotated[int, Within(0, MOST)] = 0) -> None:
        self._peers, self._grace = peers, grace

    def worth(self, step: int, value: float, peers: Sequence[Sequence[tuple[int, float]]]) -> bool:
        best = [min(v for s, v in reports if s <= step) for reports in peers if any(s <= step for s, _ in reports)]
        return step < self._grace or len(best) < self._peers or value <= median(best)
