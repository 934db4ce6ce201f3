"""A curve that only rises, or only falls, through scattered points."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

from automc.core.decoded import Array

_SCALES = 6


class Trend:
    """``y`` as a rising function of a number of at least 0: a constant and rising functions with weights of at least 0.
    With ``sign`` -1 it falls.

    The functions are ``1 - exp(-t / s)`` at scales ``s`` between the smallest and the largest ``t``, which bend and
    level out, and ``t`` itself; the weights are the least squares among those of at least 0 (Lawson & Hanson 1974).
    """

    def __init__(self, t: Array, y: Array, sign: int = 1) -> None:
        positive = t[t > 0]
        low, high = np.quantile(positive, [0.05, 0.95]) if len(positive) else (1.0, 1.0)
        self._scales = np.geomspace(max(low, high * 1e-4), max(high, 1e-12), _SCALES)
        basis = self._basis(t)
        # The constant may have either sign: it is fitted by taking the means away first.
        weights, _ = nnls(basis - basis.mean(axis=0), sign * (y - y.mean()))
        self._weights = sign * weights
        self._constant = float(y.mean() - basis.mean(axis=0) @ self._weights)

    def __call__(self, t: Array) -> Array:
        """Shape (n,) to the same."""
        found: Array = self._constant + self._basis(t) @ self._weights
        return found

    def slope(self, t: Array) -> Array:
        """The derivative, shape (n,)."""
        bends = np.exp(-t[:, None] / self._scales) / self._scales
        found: Array = np.column_stack([bends, np.full(len(t), 1 / self._scales[-1])]) @ self._weights
        return found

    def _basis(self, t: Array) -> Array:
        return np.column_stack([1 - np.exp(-t[:, None] / self._scales), t / self._scales[-1]])
