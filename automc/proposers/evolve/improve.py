"""How much a policy would add to a front, for any number of objectives. All values are losses: smaller is better."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from automc.core.decoded import Array
from automc.core.pareto import undominated

_DIRECTIONS = 64


class Improvement:
    """The gain in hypervolume of a point, by rays from the worst corner of the box.

    Along a ray with direction r a point z (both measured from the worst corner, larger is better) reaches
    ``min_i z_i / r_i``; the mean over all rays of the d-th power of how far the front reaches is its hypervolume up to
    a factor (Golovin & Zhang 2020). What a point adds is what it reaches beyond the front, so one formula
    serves any number of objectives and costs no sorting. With one objective it is plain improvement.

    Args:
        known: shape (n, d), may be empty. worst, best: the corners of the box, shape (d,).
    """

    def __init__(self, known: Array, worst: Array, best: Array, draw: np.random.Generator) -> None:
        self._worst, self._span = worst, np.maximum(worst - best, 1e-12)
        rays = np.abs(draw.standard_normal((_DIRECTIONS if len(worst) > 1 else 1, len(worst))))
        self._rays = rays / np.sqrt((rays**2).sum(axis=1, keepdims=True))
        self._front = self._reach(known).max(axis=0, initial=0.0) if len(known) else np.zeros(len(rays))

    def gain(self, points: Array) -> Array:
        """Of each point alone, at least 0. Args: points: shape (..., d). Returns: shape (...)."""
        return np.asarray(np.maximum(self._reach(points) - self._front, 0.0).mean(axis=-1))

    def lack(self, points: Array) -> Array:
        """How far each point stays behind the front, at least 0: it ranks those that gain nothing."""
        return np.asarray(np.maximum(self._front ** (1 / len(self._worst)) - self._along(points), 0.0).mean(axis=-1))

    def _reach(self, points: Array) -> Array:
        return np.asarray(np.maximum(self._along(points), 0.0) ** len(self._worst))

    def _along(self, points: Array) -> Array:
        """How far along every ray, shape (..., rays); below 0 outside the box."""
        z = (self._worst - points) / self._span
        found = z[..., 0, None] / self._rays[:, 0]
        for axis in range(1, len(self._worst)):
            found = np.minimum(found, z[..., axis, None] / self._rays[:, axis])
        return np.asarray(found)


def leading(points: Array, excess: Array, count: int) -> NDArray[np.int64]:
    """The best rows, best first: feasible before infeasible, feasible ones by non-dominated rank and then by crowding
    distance, the others by their excess (Deb et al. 2002).

    Args:
        points: shape (n, d). excess: violation of the constraints, shape (n,), 0 where they hold.
    """
    left = np.flatnonzero((excess <= 0) & np.isfinite(points).all(axis=1))
    found: list[int] = []
    while len(left) and len(found) < count:
        first = undominated(points[left])
        level = left[first]
        order = np.argsort(-crowding(points[level]), kind="stable")
        found.extend(level[order].tolist())
        left = left[~first]
    if len(found) < count:
        others = np.flatnonzero((excess > 0) & np.isfinite(excess) & np.isfinite(points).all(axis=1))
        found.extend(others[np.argsort(excess[others], kind="stable")].tolist())
    return np.array(found[:count], dtype=np.int64)


def crowding(points: Array) -> Array:
    """Crowding distance (Deb et al. 2002) of rows of one rank: the ends of an axis are infinitely far from the rest."""
    count, axes = points.shape
    distance = np.zeros(count)
    for axis in range(axes):
        order = np.argsort(points[:, axis], kind="stable")
        sorted_ = points[order, axis]
        span = sorted_[-1] - sorted_[0]
        distance[order[[0, -1]]] = np.inf
        if count > 2 and span > 0:
            distance[order[1:-1]] += (sorted_[2:] - sorted_[:-2]) / span
    return distance
