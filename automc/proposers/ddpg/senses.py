"""What the joint agent sees at a step: the layer, its costs and damages, the aims, and what is left of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from automc.core.layers import Layer
from automc.core.space import SearchSpace
from automc.proposers.ddpg.course import Trace
from automc.proposers.ddpg.currencies import CURRENCIES
from automc.proposers.ddpg.reference import Reference
from automc.proposers.ddpg.steps import Array, Step, kinds_of

_PROBED = (0.1, 0.5, 0.9)
"""Where in a domain its damage is looked up."""

_MOST = 2.0
"""Ratios to a bound are cut off here."""


class Senses:
    """States and references of an episode's steps.

    A state has, in this order: which coordinates of the action count; the step's part of the episode; the layer's kind,
    channels, kernel, output, parameters, MACs and stride; with a table, the damage of each coordinate at three values,
    over its logarithm; the bounds; of each currency the share that is used, what it costs at least and at most in
    parts of its bound, and how much of the freedom between is left; the level that the reference gives; what the
    layer's inputs and its own group lost; the reference action; the last action. All are about in [0, 2].
    """

    def __init__(self, space: SearchSpace, steps: Sequence[Step], reference: Reference, sensed: bool) -> None:
        self._steps, self._reference = steps, reference
        self.actions = len(kinds_of(space))
        self.masks = _masks(steps, self.actions)
        parts = [self.masks, _static(space, steps)] + ([_damages(space, steps, self.actions)] if sensed else [])
        self._known = np.concatenate(parts, axis=1)
        self._above, self._beside = _coupled(space, steps)
        self.features = self._known.shape[1] + 5 * len(CURRENCIES) + 3 + 2 * self.actions

    def at(self, trace: Trace, t: int, bounds: Array, last: Array) -> tuple[Array, Array]:
        """The state before step ``t``, shape (features,), and the reference action, shape (actions,).

        Args:
            trace: decided up to here. bounds: shape (4,), upper, on predicted costs. last: the last action.
        """
        low, high = trace.low[t], trace.high[t]
        level = self._reference.level(t, low, high, bounds)
        step = self._steps[t]
        usual = np.full(self.actions, 0.5)
        usual[list(step.coordinates)] = self._reference.at(level)[list(step.decisions)]
        limit = np.minimum(bounds, trace.high[0])
        whole = np.where(limit > 0, limit, 1.0)  # a network of blocks alone can be dropped to nothing
        used = (low - trace.low[0]) / whole
        slack = (limit - low) / np.where(high > low, high - low, 1.0)
        money = [spread(limit, trace.low[0], trace.high[0]), used, low / whole, high / whole, slack]
        near = [level, _mean(trace.cube, self._above[t]), _mean(trace.cube, self._beside[t])]
        moving = np.concatenate([np.clip(np.concatenate(money), 0.0, _MOST), near, usual, last])
        return np.concatenate([self._known[t], moving]), usual

    def replayed(self, trace: Trace, bounds: Array) -> tuple[Array, Array]:
        """States, shape (steps, features), and the actions that make this policy, shape (steps, actions)."""
        states, actions = [], []
        last = np.full(self.actions, 0.5)
        for t, step in enumerate(self._steps):
            state, usual = self.at(trace, t, bounds, last)
            last = np.full(self.actions, 0.5)
            own = list(step.coordinates)
            last[own] = relative(trace.cube[list(step.decisions)], usual[own])
            states.append(state)
            actions.append(last)
        return np.array(states), np.array(actions)


def spread(costs: Array, least: Array, most: Array) -> Array:
    """Where costs are between the least and the most, over the logarithm: 0 to 1."""
    low, high, here = (np.log(np.maximum(x, 1e-9)) for x in (least, most, costs))
    return np.clip((here - low) / np.where(high > low, high - low, 1.0), 0.0, 1.0)


def relative(point: Array, usual: Array) -> Array:
    """The action that makes a point of the reference: 0.5 leaves it as it is."""
    return (point - usual + 1) / 2


def absolute(action: Array, usual: Array) -> Array:
    """The point that an action makes of the reference."""
    return np.clip(usual + 2 * action - 1, 0.0, 1.0)


def _masks(steps: Sequence[Step], actions: int) -> Array:
    found = np.zeros((len(steps), actions))
    for t, step in enumerate(steps):
        found[t, list(step.coordinates)] = 1
    return found


def _static(space: SearchSpace, steps: Sequence[Step]) -> Array:
    """Shape (steps, ...), each column scaled to [0, 1]."""
    layers = space.layers.layers
    kinds = sorted({layer.kind for layer in layers})
    rows = []
    for t, step in enumerate(steps):
        layer = layers[step.layer] if step.layer < len(layers) else None
        numbers = _numbers(layer) if layer else [0.0] * 7
        rows.append([t / len(steps), *(float(layer is not None and layer.kind == kind) for kind in kinds), *numbers])
    found = np.array(rows)
    span = np.ptp(found, axis=0)
    return np.asarray((found - found.min(axis=0)) / np.where(span > 0, span, 1.0))


def _numbers(layer: Layer) -> list[float]:
    sizes = (layer.in_channels, layer.out_channels, math.prod(layer.kernel), math.prod(layer.out_shape[1:]))
    costs = (layer.params, layer.macs)
    return [*(math.log(max(n, 1)) for n in (*sizes, *costs)), float(max(layer.stride, default=1))]


def _damages(space: SearchSpace, steps: Sequence[Step], actions: int) -> Array:
    """Shape (steps, 3 x actions), the logarithm scaled to [0, 1] over the table; 0 where nothing was measured."""
    found = np.zeros((len(steps), actions, len(_PROBED)))
    for t, step in enumerate(steps):
        for i, k in zip(step.decisions, step.coordinates, strict=True):
            decision = space.decisions[i]
            if decision.neutral is not None and not isinstance(decision.neutral, str):
                values = [decision.domain.decode(u) for u in _PROBED]
                found[t, k] = [space.layers.sensitivity.damage(decision.site, v) for v in values]
    known = found[(found > 0) & np.isfinite(found)]
    if not len(known):
        return np.zeros((len(steps), actions * len(_PROBED)))
    low, high = math.log(known.min()), math.log(known.max())
    logs = np.log(np.clip(found, known.min(), known.max()))
    scaled = np.where(found > 0, 0.1 + 0.9 * (logs - low) / max(high - low, 1e-9), 0.0)
    return scaled.reshape(len(steps), -1)


def _coupled(space: SearchSpace, steps: Sequence[Step]) -> tuple[list[list[int]], list[list[int]]]:
    """For each step the decisions on the channels of the layer's inputs, and those on its outputs that an earlier
    layer of its group took.
    """
    table = space.layers
    pruned = {
        d.site.layer: i
        for i, d in enumerate(space.decisions)
        if (d.site.operator, d.site.setting) == ("prune", "prune_ratio")
    }
    above: list[list[int]] = []
    beside: list[list[int]] = []
    for step in steps:
        name = table.layers[step.layer].name if step.layer < len(table.layers) else ""
        groups = [g for g in table.groups if g.name in pruned]
        above.append([pruned[g.name] for g in groups if name in g.consumers])
        beside.append([pruned[g.name] for g in groups if name in g.producers and name != g.name])
    return above, beside


def _mean(cube: Array, chosen: list[int]) -> float:
    return float(cube[chosen].mean()) if chosen else 0.0
