"""Which sites of a network are alike: a tree over the sites of each setting, from single ones to all in one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage

from automc.core.layers import Layer, LayerTable
from automc.core.space import Decision, SearchSpace

_LEVELS = 6
"""Values of a range whose damages are averaged."""


class Trees:
    """Agglomerative clustering after Ward (1963) of the decisions of each setting, by their features.

    Features of a site are those of its layers (of a coupled group its producers, of a block what is inside): depth,
    logarithms of the shares of MACs and parameters, of channels, kernel and stride, and the kinds; and, where it was
    measured, the logarithm of its mean damage. Each is scaled to unit variance over the setting's sites, the damage
    then weighs as much as the others together.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._members: dict[tuple[str, str], list[int]] = {}
        for i, decision in enumerate(space.decisions):
            self._members.setdefault((decision.site.operator, decision.site.setting), []).append(i)
        self._merges = {
            key: linkage(_features([space.decisions[i] for i in index], space.layers), "ward")[:, :2].astype(int)
            for key, index in self._members.items()
            if len(index) > 1
        }

    @property
    def most(self) -> int:
        """The largest number of clusters that a setting can have."""
        return max(len(index) for index in self._members.values())

    def cut(self, count: int) -> tuple[tuple[int, ...], ...]:
        """At most ``count`` clusters of each setting, as indices of decisions, in their order.

        Those of a larger count are parts of those of a smaller one: the tree without its last merges.
        """
        found: list[tuple[int, ...]] = []
        for key, index in self._members.items():
            parts = {place: [i] for place, i in enumerate(index)}
            for step in range(max(len(index) - count, 0)):
                one, other = self._merges[key][step]
                parts[len(index) + step] = parts.pop(one) + parts.pop(other)
            found += [tuple(sorted(part)) for part in parts.values()]
        return tuple(sorted(found))


def _features(decisions: Sequence[Decision], table: LayerTable) -> NDArray[np.float64]:
    """Shape (decisions, features)."""
    kinds = sorted({layer.kind for layer in table.layers})
    rows = np.array([_row(_layers(d.site.layer, table), table, kinds) for d in decisions])
    features = _scaled(rows)
    damages = np.array([[_damage(decision, table)] for decision in decisions])
    if not np.isnan(damages).any():
        features = np.hstack([features, _scaled(damages) * math.sqrt(max(int((np.ptp(features, 0) > 0).sum()), 1))])
    return features


def _scaled(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    spread = rows.std(axis=0)
    return np.asarray((rows - rows.mean(axis=0)) / np.where(spread > 0, spread, 1.0))


def _layers(name: str, table: LayerTable) -> list[Layer]:
    inside: dict[str, tuple[str, ...]] = {layer.name: (layer.name,) for layer in table.layers}
    inside |= {block.name: block.layers for block in table.blocks}
    inside |= {group.name: group.producers for group in table.groups}
    names = set(inside.get(name, ()))
    return [layer for layer in table.layers if layer.name in names]


def _row(layers: Sequence[Layer], table: LayerTable, kinds: Sequence[str]) -> list[float]:
    if not layers:
        return [0.0] * (6 + len(kinds))
    return [
        sum(layer.index for layer in layers) / len(layers) / max(len(table.layers), 1),
        math.log((sum(layer.macs for layer in layers) + 1) / (table.macs + 1)),
        math.log((sum(layer.params for layer in layers) + 1) / (table.params + 1)),
        math.log(layers[0].out_channels),
        math.log(math.prod(layers[0].kernel)),
        math.log(math.prod(layers[0].stride)),
        *(sum(layer.kind == kind for layer in layers) / len(layers) for kind in kinds),
    ]


def _damage(decision: Decision, table: LayerTable) -> float:
    """Logarithm of the mean damage; NaN where the setting was not measured."""
    values = [v for v in decision.domain.values(_LEVELS) if not isinstance(v, str)]
    found = [table.sensitivity.damage(decision.site, value) for value in values]
    finite = [d for d in found if math.isfinite(d)]
    return math.log(sum(finite) / len(finite) + 1e-12) if finite and max(found) > 0 else math.nan
