"""How many directions to keep: by their number, by what they explain, or by variational Bayes."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from automc.core.stored import Array

_GRID = 512
"""Noise variances tried, evenly spaced in their logarithm."""


def by_ratio(ratio: float, squares: Tensor) -> int:
    """``floor(ratio * full)``, at least 1.

    Args:
        ratio: in (0, 1]. squares: shape (full,).
    """
    return max(math.floor(ratio * len(squares) + 1e-9), 1)  # so that 0.3 of 10 is 3


def by_energy(share: float, squares: Tensor) -> int:
    """The fewest leading directions with at least this share of the sum of squares, at least 1.

    Args:
        share: in (0, 1]. squares: falling, shape (full,).
    """
    explained = squares.cumsum(0)
    enough = explained >= share * explained[-1] * (1 - 1e-12)
    return int(enough.int().argmax()) + 1


def by_vbmf(squares: Tensor, columns: int) -> int:
    """The rank of a matrix under noise of unknown variance, at least 1.

    The global analytic solution of empirical variational Bayesian matrix factorization (Nakajima et al. 2013, JMLR
    14): of an L x M matrix with L <= M, a singular value g is kept when ``g^2 > M v (1 + t)(1 + L / (M t))``, where v
    is the noise variance of least free energy and t solves ``phi(t) + phi(t M / L) = 0``,
    ``phi(z) = log(1 + z) / z - 1 / 2``. Singular values of 0 (dead channels) count as no rows at all.

    Args:
        squares: all squared singular values, falling, shape (L,). columns: M, at least L.
    """
    found = squares.cpu().numpy().astype(np.float64)
    found = found[found > found[0] * 1e-20]
    if not len(found):
        return 1
    alpha = len(found) / columns
    root = _root(alpha)
    threshold = (1 + root) * (1 + alpha / root)
    variance = _variance(found / columns, alpha, threshold)
    return max(int((found > columns * variance * threshold).sum()), 1)


def _root(alpha: float) -> float:
    """The t above, by bisection; phi falls from 1/2 to -1/2."""

    def phi(z: float) -> float:
        return math.log1p(z) / z - 0.5

    low, high = 1e-6 * alpha, 10.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if phi(middle) + phi(middle / alpha) > 0 else (low, middle)
    return (low + high) / 2


def _variance(scaled: Array, alpha: float, threshold: float) -> float:
    """The noise variance of least free energy.

    Args:
        scaled: squared singular values over M, falling, above 0, shape (L,).
    """
    rows = len(scaled)
    most = math.ceil(rows / (1 + alpha)) - 1  # so many signals there can be
    high = scaled.sum() / rows
    low = max(scaled[most] / threshold, scaled[most:].sum() / (rows - most), high * 1e-12)
    variances = np.geomspace(min(low, high), high, _GRID)
    return float(variances[_free_energies(scaled / variances[:, None], alpha, threshold).argmin()])


def _free_energies(x: Array, alpha: float, threshold: float) -> Array:
    """Up to a constant: ``sum x - log x``, and for what is kept ``log(t + 1) + alpha log(t / alpha + 1) - t``.

    Args:
        x: shape (variances, L).
    """
    above = np.maximum(x, threshold) - (1 + alpha)
    t = (above + np.sqrt(np.maximum(above**2 - 4 * alpha, 0))) / 2
    signal = np.log1p(t) + alpha * np.log1p(t / alpha) - t
    energies: Array = (x - np.log(x) + np.where(x > threshold, signal, 0)).sum(axis=1)
    return energies
