"""Children of policies: crossover over layers, and mutation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from automc.core.decoded import Array, Numbers
from automc.core.space import Choice, SearchSpace

_STEP, _JUMP = 0.1, 0.2
"""Standard deviation of a step in a continuous domain; share of mutations that go anywhere in the domain."""


class Variation:
    """Crossover and mutation in the unit cube.

    The genes of crossover are layers: all decisions of a layer come from the same parent. Coordinates always lie where
    the space writes a policy back to (the middle of a value's bin), so equal policies have equal points.
    """

    def __init__(self, space: SearchSpace, numbers: Numbers) -> None:
        self._numbers = numbers
        names = [layer.name for layer in space.layers.layers]
        blocks = {block.name: block.layers[0] for block in space.layers.blocks if block.layers}
        at = {name: place for place, name in enumerate(names)}
        places = [at.get(blocks.get(d.site.layer, d.site.layer), -1) for d in space.decisions]
        _, self._gene = np.unique(places, return_inverse=True)
        self._ordered = np.array([not isinstance(d.domain, Choice) or d.domain.ordered for d in space.decisions])
        self._free = np.flatnonzero(numbers.sizes > 1)

    def snapped(self, cubes: Array) -> Array:
        """The same policies at the points that encode them."""
        middle = (self._numbers.levels(cubes) + 0.5) / np.where(self._numbers.finite, self._numbers.sizes, 1.0)
        return np.where(self._numbers.finite, middle, cubes)

    def crossed(self, draw: np.random.Generator, mothers: Array, fathers: Array) -> Array:
        """A child of each pair: half of them take every layer from either parent (uniform crossover, Syswerda 1989),
        half a stretch of layers from the father and the rest from the mother (two-point).

        Args:
            mothers, fathers: shape (n, decisions).
        """
        count, genes = len(mothers), int(self._gene.max(initial=0)) + 1
        ends = np.sort(draw.integers(0, genes + 1, (count, 2)), axis=1)
        place = np.arange(genes)
        stretch = (place >= ends[:, :1]) & (place < ends[:, 1:])
        either = draw.random((count, genes)) < 0.5
        taken: NDArray[np.bool_] = np.where(draw.random((count, 1)) < 0.5, either, stretch)[:, self._gene]
        return np.where(taken, fathers, mothers)

    def mutated(self, draw: np.random.Generator, cubes: Array, sites: float = 2.0) -> Array:
        """The same with a few decisions changed, mostly to the next value.

        Args:
            cubes: snapped, shape (n, decisions). sites: how many are changed on average; at least one is.
        """
        if not len(self._free):
            return cubes
        free = self._free
        chosen = draw.random((len(cubes), len(free))) < max(sites - 1, 0.0) / len(free)
        chosen[np.arange(len(cubes)), draw.integers(0, len(free), len(cubes))] = True
        row, place = np.nonzero(chosen)
        found = cubes.copy()
        found[row, free[place]] = self._moved(draw, cubes[row, free[place]], free[place])
        return self.snapped(found)

    def _moved(self, draw: np.random.Generator, old: Array, sites: NDArray[np.int64]) -> Array:
        """New values of single decisions: the next one to either side, or any other. Shapes (changes,)."""
        endless = ~self._numbers.finite[sites]
        sizes = np.where(endless, 2.0, self._numbers.sizes[sites])
        sign = np.where(draw.random(len(old)) < 0.5, 1.0, -1.0)
        sign = np.where((old + sign / sizes > 1) | (old + sign / sizes < 0), -sign, sign)
        near = old + np.where(endless, _STEP * draw.standard_normal(len(old)), sign / sizes)
        hop = np.floor(draw.random(len(old)) * (sizes - 1)) + 1
        other = (np.mod(np.floor(old * sizes) + hop, sizes) + 0.5) / sizes
        far = np.where(endless, draw.random(len(old)), other)
        jump = (draw.random(len(old)) < _JUMP) | ~self._ordered[sites]
        return np.clip(np.where(jump, far, near), 0.0, 1.0)
