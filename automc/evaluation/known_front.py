"""The true front of the synthetic landscape: what searches of it are judged by.

Damage is a sum over layers, and so is every cost, where a layer's cost depends on the channels that it and the layer
before it keep. So dynamic programming over the layers (Bellman 1957) has the front: of the layers so far, for every
number of channels that the last of them keeps, all pairs of cost and damage that no other such pair dominates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from automc.core.layers import Layer, kept_channels
from automc.core.pareto import undominated
from automc.core.policy import Site, Value
from automc.core.space import Choice, Domain, SearchSpace
from automc.errors import EvaluationError
from automc.evaluation.synthetic import TOP1, SyntheticEvaluator, harm_of, layer_costs

Pairs = NDArray[np.float64]
"""Shape (n, 2)."""

COSTS = ("params", "macs", "bops", "size_bytes")

Bits = tuple[int, int, float]
"""Bits of weights, of activations, and the damage they do."""


def known_front(evaluator: SyntheticEvaluator, space: SearchSpace, metric: str, precision: float = 0.0) -> Pairs:
    """Every undominated pair of top1 and a cost that policies of a space have, without repair, noise and sampling.

    Decisions about anything but channels and bits do nothing there.

    Args:
        metric: params, macs, bops, size_bytes, or one of them as a ratio to the original's.
        precision: 0 for the whole front. Else fewer pairs in less time: for each of the whole front there is one with
            at least its top1 and at most ``exp(precision)`` times its cost.

    Returns: columns top1 and metric, by ascending cost. Every row is that of a policy.

    Raises:
        EvaluationError: another metric, or bits of a range without steps.
    """
    name = {"size_ratio": "size_bytes"}.get(metric, metric.removesuffix("_ratio"))
    if name not in COSTS:
        raise EvaluationError(f"known front: the metric must be one of {', '.join(COSTS)} or a ratio, not {metric!r}")
    column, layers = COSTS.index(name), evaluator.table.layers
    options = _Options(evaluator, space)
    states = {layers[0].in_channels: np.zeros((1, 2))}
    for layer in layers:
        bits = options.bits(layer)
        found: dict[int, list[Pairs]] = {}
        for (inputs, before), (kept, harm) in product(states.items(), options.kept(layer).items()):
            own = [[layer_costs(layer, inputs, kept, w, a)[column], harm + more] for w, a, more in bits]
            sums = before[:, None] + _best(np.array(own))[None]
            found.setdefault(kept, []).append(_best(sums.reshape(-1, 2)))
        states = {kept: _best(np.vstack(pairs), precision / len(layers)) for kept, pairs in found.items()}
    whole = _best(np.vstack(list(states.values())))
    original = evaluator.baseline[name] if metric.endswith("_ratio") else 1.0
    return np.stack([np.maximum(TOP1 * np.exp(-whole[:, 1]), 1e-6), whole[:, 0] / original], axis=1)


class _Options:
    """What may be chosen for a layer, and what harm each choice does."""

    def __init__(self, evaluator: SyntheticEvaluator, space: SearchSpace) -> None:
        self._sensitivity = evaluator.sensitivity
        self._domains: dict[Site, Domain] = {site: Choice((value,)) for site, value in space.fixed.items()}
        self._domains |= {decision.site: decision.domain for decision in space.decisions}

    def kept(self, layer: Layer) -> dict[int, float]:
        """The least damage by number of channels that stay."""
        domain = self._domains.get(Site("prune", layer.name, "prune_ratio"), Choice((0.0,)))
        found: dict[int, float] = {}
        for ratio in map(float, _ratios(domain, layer.out_channels)):
            count = kept_channels(layer.out_channels, ratio)
            harm = self._sensitivity["prune_ratio"][layer.name] * harm_of("prune_ratio", ratio)
            found[count] = min(found.get(count, math.inf), harm)
        return found

    def bits(self, layer: Layer) -> list[Bits]:
        settings = ("weight_bits", "activation_bits")
        s_w, s_a = (self._sensitivity[setting][layer.name] for setting in settings)
        return [
            (w, a, s_w * harm_of("weight_bits", w) + s_a * harm_of("activation_bits", a))
            for w, a in product(*(self._values(layer, setting) for setting in settings))
        ]

    def _values(self, layer: Layer, setting: str) -> list[int]:
        site = Site("quantize", layer.name, setting)
        domain = self._domains.get(site, Choice((32,)))
        if math.isinf(domain.size):
            raise EvaluationError(f"known front: {site} must have a choice or steps, not {domain}")
        return [int(value) for value in domain.values(1)]


def _ratios(domain: Domain, channels: int) -> Sequence[Value]:
    """Of a range without steps, for each number of channels that can go, the least ratio that takes them."""
    if isinstance(domain, Choice) or domain.step is not None:
        return domain.values(1)
    inside = [n / channels for n in range(channels + 1) if domain.low <= n / channels <= domain.high]
    return [domain.low, *inside]


def _best(pairs: Pairs, width: float = 0.0) -> Pairs:
    """The undominated pairs by ascending cost; with a width, of those whose logarithms of the cost are in the same
    interval of it only the one of least damage, which is the last.
    """
    rows = np.unique(pairs[undominated(pairs)], axis=0)
    if width > 0 and len(rows) > 1:
        place = np.floor(np.log(np.maximum(rows[:, 0], 1e-12)) / width)
        rows = rows[np.append(place[1:] != place[:-1], True)]
    return rows
