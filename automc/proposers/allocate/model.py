"""The damage of a policy as a sum over its decisions.

    damage(policy) = sum over axes of  weight_axis * table_axis(value)

The table is measured (core.sensitivity), made monotone: compressing more never damages less, so what a probe found
better is taken for its noise. The weights are 1 until trials tell (``refit``). Decisions without a probe follow a prior
curve by kind, scaled like the probed ones of that kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import copy

import numpy as np

from automc.core.policy import Policy, Value
from automc.core.sensitivity import Sensitivity
from automc.core.space import SearchSpace
from automc.proposers.allocate.axes import LEVELS, Axis, axes_of, depths
from automc.proposers.allocate.tables import Floats

PRIOR: Mapping[str, Callable[[float], float]] = {
    "prune_ratio": lambda ratio: ratio**2,
    "sparsity": lambda share: share**3,
    "rank_ratio": lambda ratio: (1 - ratio) ** 2,
    "weight_bits": lambda bits: 4.0 ** (1 - bits),
    "activation_bits": lambda bits: 4.0 ** (1 - bits),
    "dropped": float,
}
"""Without a probe: the energy of what is taken away, were all channels alike; that of the noise of quantization, which
falls by 4 a bit; single weights go smallest first, so that the first ones hardly count."""

RUINED = 10.0
"""An infinite damage (the network could not answer) counts as so many times the largest finite one."""


class DamageModel:
    """Predicted damage of policies of one space.

    Attributes:
        axes: the decisions it knows. tables: damage by axis and value, monotone. weights: shape (axes,).
        kinds: index into axes.KINDS by axis. depths: in [0, 1).

    Args:
        measure: of core.sensitivity.MEASURES.
    """

    def __init__(self, space: SearchSpace, measure: str = "loss", levels: int = LEVELS) -> None:
        self.axes = axes_of(space, levels)
        self.depths = np.array(depths(space, self.axes))
        self.tables = _tables(self.axes, space.layers.sensitivity, measure)
        self.weights: Floats = np.ones(len(self.axes))

    @property
    def damages(self) -> list[Floats]:
        """By axis, the damage of each of its values."""
        return [table * weight for table, weight in zip(self.tables, self.weights, strict=True)]

    def weighted(self, weights: Floats) -> DamageModel:
        """The same with other weights, shape (axes,)."""
        made = copy(self)
        made.weights = weights
        return made

    def features(self, policies: Sequence[Policy]) -> Floats:
        """Damage of every decision alone, before its weight, shape (policies, axes); straight between two values."""
        found = np.empty((len(policies), len(self.axes)))
        for column, (axis, table) in enumerate(zip(self.axes, self.tables, strict=True)):
            known: dict[Value, float] = dict(zip(axis.values, table.tolist(), strict=True))
            places = range(len(table))
            for row, policy in enumerate(policies):
                value = policy[axis.site]
                if value not in known:
                    known[value] = float(np.interp(axis.place(value), places, table))
                found[row, column] = known[value]
        return found

    def damage(self, policies: Sequence[Policy]) -> Floats:
        """Predicted damage, shape (policies,), in the unit of the measure."""
        found: Floats = self.features(policies) @ self.weights
        return found


def _tables(axes: Sequence[Axis], sensitivity: Sensitivity, measure: str) -> list[Floats]:
    probed = {probe.site for probe in sensitivity.probes if measure in probe.damage}
    curves = [np.array([PRIOR[axis.kind](float(value)) for value in axis.values]) for axis in axes]
    measured = {
        v: np.array([sensitivity.damage(axis.site, value, measure) for value in axis.values])
        for v, axis in enumerate(axes)
        if axis.site in probed
    }
    finite = [float(d) for damage in measured.values() for d in damage if math.isfinite(d)]
    ruined = RUINED * max(finite, default=1.0)
    scales: dict[str, list[float]] = {}
    for v, damage in measured.items():
        measured[v] = np.where(np.isfinite(damage), damage, ruined)
        scales.setdefault(axes[v].kind, []).append(float(measured[v].max() / max(curves[v].max(), 1e-12)))
    known = [scale for found in scales.values() for scale in found]
    overall = float(np.median(known)) if known else 1.0
    typical = {kind: float(np.median(found)) for kind, found in scales.items()}
    whole = [measured.get(v, curves[v] * typical.get(axis.kind, overall)) for v, axis in enumerate(axes)]
    return [np.maximum.accumulate(np.maximum(damage, 0)) for damage in whole]
