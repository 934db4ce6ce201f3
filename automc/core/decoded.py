"""Points of the unit cube as the values they decode to, in arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from automc.core.policy import Value
from automc.core.space import Choice, SearchSpace

Array = NDArray[np.float64]

METHODS = ("auto", "svd", "spatial", "tucker2", "cp")
PATTERN = 1000
"""A pattern N:M is the number M * 1000 + N here."""


class Numbers:
    """The values of a space as numbers.

    True and false are 1 and 0, a pattern N:M is a number, any other text is its place among METHODS, or 0.
    """

    def __init__(self, space: SearchSpace) -> None:
        domains = [decision.domain for decision in space.decisions]
        self.sizes = np.array([domain.size for domain in domains], dtype=np.float64)
        self.finite = np.isfinite(self.sizes)
        count = int(self.sizes[self.finite].max(initial=1))
        self._table = np.zeros((len(domains), count))
        for i, (domain, finite) in enumerate(zip(domains, self.finite, strict=True)):
            found = [number(value) for value in domain.values(1)] if finite else []
            self._table[i, : len(found)] = found
        ranges = [(d.low, d.high, d.log) if not isinstance(d, Choice) else (0.0, 0.0, False) for d in domains]
        self._low, self._high = (np.array([r[i] for r in ranges], dtype=np.float64) for i in (0, 1))
        self._log = np.array([r[2] for r in ranges], dtype=bool)

    def levels(self, cubes: Array) -> NDArray[np.int64]:
        """Which value of its domain every coordinate decodes to; 0 where a domain is continuous."""
        sizes = np.where(self.finite, self.sizes, 1.0)
        return np.clip((cubes * sizes).astype(np.int64), 0, sizes.astype(np.int64) - 1)

    def of(self, cubes: Array) -> Array:
        """Shapes (n, decisions) to the same."""
        found = self._table[np.arange(len(self.sizes)), self.levels(cubes)]
        for mask, log in ((~self.finite & ~self._log, False), (~self.finite & self._log, True)):
            if mask.any():
                low, high, share = self._low[mask], self._high[mask], cubes[:, mask]
                found[:, mask] = low * (high / low) ** share if log else low + share * (high - low)
        return found


def number(value: Value) -> float:
    """A value as Numbers has it."""
    if not isinstance(value, str):
        return float(value)
    kept, colon, of_each = value.partition(":")
    if colon and kept.isdigit() and of_each.isdigit():
        return int(of_each) * PATTERN + int(kept)
    return float(METHODS.index(value)) if value in METHODS else 0.0
