"""The steps of a joint episode: which decisions are taken where, and which coordinate of an action each of them is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from automc.core.space import SearchSpace

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Step:
    """What one action decides.

    Attributes:
        layer: place in the layer table; one behind the last for what concerns the whole network.
        decisions: places in the space's decisions. coordinates: of an action, one for each decision.
    """

    layer: int
    decisions: tuple[int, ...]
    coordinates: tuple[int, ...]


def kinds_of(space: SearchSpace) -> tuple[tuple[str, str], ...]:
    """Operator and setting of every coordinate of an action: those that occur in the space."""
    return tuple(dict.fromkeys((d.site.operator, d.site.setting) for d in space.decisions))


def steps_of(space: SearchSpace) -> tuple[Step, ...]:
    """The steps in order of execution.

    A group is decided at the layer it is named after, its first producer; a block at its first layer; what concerns
    the whole network at the end. Where two decisions of one kind meet at a layer (nested blocks), it has two steps.
    """
    layers = {layer.name: place for place, layer in enumerate(space.layers.layers)}
    places = {block.name: layers[block.layers[0]] for block in space.layers.blocks} | layers
    found: dict[int, list[int]] = {}
    for i, decision in enumerate(space.decisions):
        found.setdefault(places.get(decision.site.layer, len(layers)), []).append(i)
    kinds = {kind: k for k, kind in enumerate(kinds_of(space))}
    kind = [kinds[d.site.operator, d.site.setting] for d in space.decisions]
    return tuple(step for place in sorted(found) for step in _split(place, found[place], kind))


def _split(place: int, decisions: Iterable[int], kind: list[int]) -> list[Step]:
    """One step for all of them, or as many as there are decisions of one kind."""
    rounds: list[dict[int, int]] = []
    for decision in decisions:
        free = next((one for one in rounds if kind[decision] not in one), None)
        if free is None:
            rounds.append(free := {})
        free[kind[decision]] = decision
    return [Step(place, tuple(one.values()), tuple(one)) for one in rounds]
