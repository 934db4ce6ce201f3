"""A whole network's latency from its layers': what the table says, corrected by a few measured networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from automc.measure.forms import Form
from automc.measure.table import LatencyTable

Layers = Sequence[tuple[Form, int]]
"""The layers of a network and how often each runs."""


@dataclass(frozen=True)
class Correction:
    """``plain`` x the sum of layers with unrounded inputs + ``rounded`` x the sum of the others + ``rest``.

    Fused operators make the factors less than 1, copies between layers more; what the table does not know (sums, norms
    that stay, pooling) is in the rest, in milliseconds.
    """

    plain: float = 1.0
    rounded: float = 1.0
    rest: float = 0.0

    @classmethod
    def fit(cls, sums: Sequence[tuple[float, float]], measured: Sequence[float]) -> Correction:
        """The factors with the least squared relative error.

        Args:
            sums: of each network the milliseconds of its unrounded and of its rounded layers. measured: its latency.
        """
        times = np.asarray(measured, float)
        columns = np.column_stack([np.asarray(sums, float).reshape(-1, 2), np.ones(len(times))])
        used = np.asarray(columns.any(axis=0), bool)
        found = np.array([1.0, 1.0, 0.0])
        found[used] = np.linalg.lstsq(columns[:, used] / times[:, None], np.ones(len(times)), rcond=None)[0]
        if not used[1]:
            found[1] = found[0]
        return cls(*map(float, found))

    def __call__(self, plain: float, rounded: float) -> float:
        """Milliseconds of a network, given the sums of its layers; never below 0."""
        return max(self.plain * plain + self.rounded * rounded + self.rest, 0.0)


def sums(table: LatencyTable, layers: Layers) -> tuple[float, float]:
    """Milliseconds of the unrounded and of the rounded layers.

    Raises:
        KeyError: a layer is not in the table; see ``unknown``.
    """
    found = [0.0, 0.0]
    for form, calls in layers:
        ms = table.get(form)
        if ms is None:
            raise KeyError(form)
        found[form.rounded] += calls * ms
    return found[0], found[1]


def unknown(table: LatencyTable, layers: Layers) -> list[Form]:
    """The layers that the table cannot tell."""
    return [form for form, _ in layers if table.get(form) is None]
