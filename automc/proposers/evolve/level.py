"""One metric at one rung, as a regression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from automc.core.decoded import Array
from automc.proposers.evolve.ensemble import MEMBERS, Ensemble
from automc.proposers.evolve.features import Described
from automc.proposers.evolve.trend import Trend

_WAVES, _FEW = 192, 160
"""Random Fourier features; points that decide how much each block of features counts."""

_MIXES = ((1.0, 0.0, 0.0, 1.0), (0.5, 0.0, 0.5, 1.0), (0.1, 0.0, 0.9, 0.5), (0.3, 0.0, 0.7, 2.0))
_MIXES_DAMAGE = ((0.02, 1.0, 0.0, 1.0), (0.3, 0.7, 0.0, 1.0), (0.1, 0.5, 0.4, 1.0), (0.3, 0.0, 0.7, 1.0))
"""Shares of plain, damage and wave features, and the length of the waves."""

_FLOOR, _ABOVE = 0.25, 0.3
"""The least standard deviation that a feature is taken to have, in those of the whole space; how much plain features
count above the first rung, where the line counts 1.
"""


class Inputs:
    """The features of a regression in blocks: plain ones standardised, single damages in units of the answer, and
    random Fourier features of the plain ones (Rahimi & Recht 2007), which stand for a Gaussian kernel.

    Args:
        known: the training set. spread: standard deviations of the plain features over the whole space: no feature
            counts as constant only because all trials so far agree in it.
    """

    def __init__(self, known: Described, spread: Array, trend: Trend | None, seed: Sequence[int]) -> None:
        self._mean = known.plain.mean(axis=0)
        self._scale = np.maximum(known.plain.std(axis=0), np.maximum(_FLOOR * spread, 1e-9))
        self._scale[(self._scale <= 1e-8)] = np.inf
        self._trend = trend
        draw = np.random.default_rng(seed)
        width = known.plain.shape[1]
        self._waves = draw.standard_normal((width, _WAVES)) / np.sqrt(width)
        self._phases = draw.random(_WAVES) * 2 * np.pi
        self._unit = [1.0, 1.0]
        self._center = np.zeros(known.damages.shape[1])
        plain, harm = self._plain(known), self._harm(known)
        self._center = harm.mean(axis=0)
        self._unit = [_length(plain), _length(harm - self._center)]

    def of(self, found: Described, mix: Sequence[float]) -> Array:
        """Shape (n, features)."""
        linear, damage, waves, length = mix
        plain = self._plain(found)
        parts = [plain * np.sqrt(linear / self._unit[0])]
        if damage:
            parts.append((self._harm(found) - self._center) * np.sqrt(damage / self._unit[1]))
        if waves:
            turned = np.cos(plain @ (self._waves / length) + self._phases)
            parts.append(turned * np.sqrt(2 * waves / _WAVES))
        return np.hstack(parts)

    def _plain(self, found: Described) -> Array:
        return np.asarray((found.plain - self._mean) / self._scale)

    def _harm(self, found: Described) -> Array:
        """By how much the trend rises when the damage of one site grows by its share: a step away from damages that
        simply add up.
        """
        slope = self._trend.slope(found.damage) if self._trend else np.zeros(len(found.damages))
        return found.damages * slope[:, None]


def _length(block: Array) -> float:
    """Mean square length of the rows."""
    return max(float((block**2).sum(axis=1).mean()), 1e-12) if block.size else 1.0


_NOTHING = Ensemble(np.zeros((0, MEMBERS)), 1.0, 1.0, 0.0)


@dataclass(frozen=True)
class Level:
    """One metric at one rung: on what lies below it, a regression of what is left.

    Below the first rung lies a rising curve of the predicted damage (nothing without a sensitivity table, or for
    metrics that damage has no say in); below the others, the rung before: ``a + b x lower``, drawn towards a = 0, b = 1
    (Kennedy & O'Hagan 2000).

    Attributes:
        mix: of the blocks of features, see Inputs. ensemble: of what is left, less ``center`` and over ``scale``.
        middle: mean of what lies below. evidence: log density of the figures, up to what their number decides.
    """

    inputs: Inputs
    trend: Trend | None
    lower: Level | None
    mix: tuple[float, ...] = ()
    ensemble: Ensemble = _NOTHING
    center: float = 0.0
    scale: float = 1.0
    middle: float = 0.0
    evidence: float = -np.inf

    @classmethod
    def fitted(
        cls, known: Described, y: Array, harmed: int, lower: Level | None, spread: Array, seed: Sequence[int]
    ) -> Level:
        """Learn figures ``y``, shape (n,); for the others see Predictor."""
        trend = Trend(known.damage, y, harmed) if harmed and known.damages.shape[1] and not lower else None
        draft = cls(Inputs(known, spread, trend, seed), trend, lower)
        below = draft.below(known)
        left = y - below.mean(axis=1)
        scale = max(float(left.std()), 1e-6 * max(float(np.abs(y).max()), 1e-12))
        draft = replace(draft, middle=float(below.mean()), center=float(left.mean()), scale=scale)
        target = (left - draft.center) / scale
        few = sample(len(y))
        tried = []
        for mix in (*_MIXES, *(_MIXES_DAMAGE if trend else ())):
            each = replace(draft, mix=mix)
            found = Ensemble.fitted(each.features(known[few], below[few]), target[few], np.random.default_rng(seed))
            evidence = found.evidence - len(few) * float(np.log(scale))
            tried.append(replace(each, ensemble=found, evidence=evidence))
        best = max(tried, key=lambda level: level.evidence)
        if len(few) == len(y):
            return best
        whole = Ensemble.fitted(best.features(known, below), target, np.random.default_rng(seed))
        return replace(best, ensemble=whole)

    def __call__(self, found: Described) -> Array:
        """Every member's answer, shape (n, members)."""
        below = self.below(found)
        drawn = below + self.center + self.scale * self.ensemble(self.features(found, below))
        return self._widened(drawn)

    def _widened(self, drawn: Array) -> Array:
        """What the features cannot tell is part of the doubt: the members spread by it around the same mean."""
        mean = drawn.mean(axis=1, keepdims=True)
        apart = drawn - mean
        variance = (apart**2).mean(axis=1, keepdims=True)
        unknown = self.scale**2 * self.ensemble.noise
        return np.asarray(mean + apart * np.sqrt(1 + unknown / np.maximum(variance, 1e-300)))

    def below(self, found: Described) -> Array:
        if self.lower:
            return self.lower(found)
        curve = self.trend(found.damage) if self.trend else np.zeros(len(found.plain))
        return np.tile(curve[:, None], (1, MEMBERS))

    def features(self, found: Described, below: Array) -> Array:
        own = self.inputs.of(found, self.mix)
        if not self.lower:
            return own
        return np.column_stack([own * _ABOVE, np.ones(len(own)), (below.mean(axis=1) - self.middle) / self.scale])


def sample(count: int) -> NDArray[np.int64]:
    """The rows that decide between ways to describe policies: so many that it is clear, so few that it is fast."""
    return np.linspace(0, count - 1, min(count, _FEW)).astype(np.int64)
