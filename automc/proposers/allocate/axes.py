"""The decisions that have a damage and a cost, and the values they are allocated from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from automc.core.policy import Site, Value
from automc.core.space import Choice, Domain, SearchSpace

KINDS = ("prune_ratio", "weight_bits", "activation_bits", "rank_ratio", "sparsity", "dropped")
"""Settings that say how much is compressed. All others say how it is done, or how it is trained."""

LEVELS = 17
"""Values of a range that are considered; of a choice, or of a range with fewer steps, all are."""


class Axis(NamedTuple):
    """One decision; its values begin with the least compression, and each compresses more than the one before."""

    site: Site
    values: tuple[Value, ...]

    @property
    def kind(self) -> str:
        return self.site.setting

    def place(self, value: Value) -> float:
        """Where a value lies among ``values``, between two of them by its distance to each; in [0, len - 1]."""
        if value in self.values:
            return float(self.values.index(value))
        first = float(self.values[0])
        ways = [abs(float(known) - first) for known in self.values]
        way = abs(float(value) - first)
        after = next((i for i, known in enumerate(ways) if known > way), len(ways))
        if after in (0, len(ways)):
            return float(min(after, len(ways) - 1))
        return after - 1 + (way - ways[after - 1]) / (ways[after] - ways[after - 1])


def axes_of(space: SearchSpace, levels: int = LEVELS) -> tuple[Axis, ...]:
    """The axes of a space, in the order of its decisions; the other decisions are free (see ``proposer``)."""
    found = []
    for decision in space.decisions:
        if decision.site.setting in KINDS and decision.neutral is not None and not decision.needs_training:
            neutral = float(decision.neutral)
            values = sorted(_values(decision.domain, levels), key=lambda value: abs(float(value) - neutral))
            found.append(Axis(decision.site, tuple(values)))
    return tuple(found)


def depths(space: SearchSpace, axes: Sequence[Axis]) -> list[float]:
    """How deep in the network each axis is, in [0, 1)."""
    place = {layer.name: layer.index for layer in space.layers.layers}
    place |= {block.name: place[block.layers[0]] for block in space.layers.blocks if block.layers[0] in place}
    return [place.get(axis.site.layer, 0) / max(len(space.layers.layers), 1) for axis in axes]


def _values(domain: Domain, levels: int) -> list[Value]:
    """With both ends."""
    if isinstance(domain, Choice):
        return list(domain.options)
    values = domain.values(levels if math.isinf(domain.size) else int(domain.size))
    if len(values) <= levels:
        return values
    return [values[round(i * (len(values) - 1) / (levels - 1))] for i in range(levels)]
