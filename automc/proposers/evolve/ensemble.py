"""Bayesian linear regression as an ensemble of its own posterior."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from automc.core.decoded import Array

MEMBERS = 16
_NOISE = np.geomspace(1e-4, 3.0, 12)
_LEAST, _PSEUDO = 0.3, 2.0
"""Noise variances that are tried, over that of the signal, and the least times the number of points; weight of the
prior of the signal's variance, in points.
"""


@dataclass(frozen=True)
class Ensemble:
    """Linear functions drawn from the posterior of a Bayesian ridge regression.

    ``y = x w + e`` with independent normal ``w`` (variance ``signal``) and ``e`` (variance ``noise``). A member is the
    ridge solution for targets with drawn noise, towards weights drawn from the prior: that is a draw from the posterior
    (Papandreou & Yuille 2010). Members come in pairs with opposite draws, so their mean is exactly the posterior mean.

    Attributes:
        weights: shape (features, members). evidence: log marginal likelihood of the targets.
    """

    weights: Array
    signal: float
    noise: float
    evidence: float

    def __call__(self, x: Array) -> Array:
        """Every member's answer, shape (n, members)."""
        return x @ self.weights

    @classmethod
    def fitted(cls, x: Array, y: Array, draw: np.random.Generator, members: int = MEMBERS) -> Ensemble:
        """The variances are those of the largest evidence; the signal's is drawn a little towards 1.

        Args:
            x: shape (n, features), rows of about unit length. y: shape (n,), of about unit variance. members: even.
        """
        roots, vectors = np.linalg.eigh(x @ x.T)
        roots = np.maximum(roots, 0.0)
        scale = max(float(roots.mean()), 1e-12)
        turned = vectors.T @ y
        # From n points nobody can tell that there is less noise than a share of about 1 / n.
        ratios = np.maximum(_NOISE, _LEAST / len(y))
        found = [_evidence(roots, turned, ratio * scale) for ratio in ratios]
        evidence, signal, ridge = max(found, key=lambda each: each[0])
        noise = signal * ridge
        half = members // 2
        prior_weights = np.sqrt(signal) * draw.standard_normal((x.shape[1], half))
        errors = np.sqrt(noise) * draw.standard_normal((len(y), half))
        apart = x @ prior_weights + errors
        solved = vectors @ ((vectors.T @ np.column_stack([y, apart])) / (roots + ridge)[:, None])
        mean, away = x.T @ solved[:, :1], prior_weights - x.T @ solved[:, 1:]
        return cls(np.hstack([mean + away, mean - away]), signal, noise, evidence)


def _evidence(roots: Array, turned: Array, ridge: float) -> tuple[float, float, float]:
    """Log marginal likelihood up to a constant, the signal's variance, and the ridge it holds for."""
    spread = roots + ridge
    count = len(roots)
    signal = max((float((turned**2 / spread).sum()) + _PSEUDO) / (count + _PSEUDO), 1e-300)
    fit = -0.5 * ((count + _PSEUDO) * np.log(signal) + float(np.log(spread).sum()))
    return fit, signal, ridge
