"""A whole network's latency from its layers': what the table says, corrected by a few measured networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from automc.measure.forms import Form
from automc.measure.table import LatencyTable

Layers = Sequence[tuple[Form, int]]
"""The layers of a network and how often each runs."""

ARITHMETICS = ("float", "dequantized", "int8")
"""Of ``Form.arithmetic``, in the order of the sums below."""

Sums = tuple[float, ...]
"""Of a network the milliseconds of its layers of each arithmetic."""


@dataclass(frozen=True)
class Correction:
    """The sum of factor x milliseconds over ARITHMETICS, + ``rest`` milliseconds.

    Fused operators make the factors less than 1, copies between layers more; what the table does not know (sums, norms
    that stay, pooling) is in the rest.
    """

    factors: tuple[float, ...] = (1.0,) * len(ARITHMETICS)
    rest: float = 0.0

    @classmethod
    def fit(cls, sums: Sequence[Sums], measured: Sequence[float]) -> Correction:
        """The factors with the least squared relative error; those of an arithmetic that no network has are the float
        one's.

        Args:
            sums: of each network. measured: its latency.
        """
        times, width = np.asarray(measured, float), len(ARITHMETICS)
        columns = np.column_stack([np.asarray(sums, float).reshape(-1, width), np.ones(len(times))])
        used = np.asarray(columns.any(axis=0), bool)
        found = np.array([1.0] * width + [0.0])
        found[used] = np.linalg.lstsq(columns[:, used] / times[:, None], np.ones(len(times)), rcond=None)[0]
        found[:width][~used[:width]] = found[0]
        return cls(tuple(map(float, found[:width])), float(found[width]))

    def __call__(self, sums: Sums) -> float:
        """Milliseconds of a network, given the sums of its layers; never below 0."""
        return max(sum(factor * ms for factor, ms in zip(self.factors, sums, strict=True)) + self.rest, 0.0)


def sums(table: LatencyTable, layers: Layers) -> Sums:
    """Milliseconds of the layers of each arithmetic.

    Raises:
        KeyError: a layer is not in the table; see ``unknown``.
    """
    found = dict.fromkeys(ARITHMETICS, 0.0)
    for form, calls in layers:
        ms = table.get(form)
        if ms is None:
            raise KeyError(form)
        found[form.arithmetic] += calls * ms
    return tuple(found.values())


def unknown(table: LatencyTable, layers: Layers) -> list[Form]:
    """The layers that the table cannot tell."""
    return [form for form, _ in layers if table.get(form) is None]
