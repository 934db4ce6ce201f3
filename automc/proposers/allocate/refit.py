"""What trials say of the model: its weights, as a posterior, beside a curve from damage to the task's loss.

Of rung r a trial has  loss = a_r + b_r * phi(D; k_r) + noise,  D = sum over axes of (1 + theta) * table + what free
decisions add, where phi(D; k) = (1 - exp(-k D)) / k is straight for k = 0, saturates for k > 0 and steepens for k < 0.
theta is 0 beforehand, with a deviation that kinds, thirds of the depth within a kind, and single axes share: so a few
trials correct bits against pruning, and many correct single layers (a Bayesian ridge regression, whose mean is the
measured table). It is linearised about the last estimate and solved anew a few times (Gauss-Newton).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from automc.proposers.allocate.axes import KINDS
from automc.proposers.allocate.model import DamageModel
from automc.proposers.allocate.tables import Floats

KIND, THIRD, SITE, FREE = 0.5, 0.3, 0.3, 1.0
"""Standard deviations beforehand: of weights, and of what free decisions add over the mean damage of the trials."""

FEWEST = 4
"""Trials of a rung before it teaches."""

BENDS = (0.0, 0.5, 1.0, 2.0, 4.0, -0.5, -1.0)
"""k times the mean damage, the straight line first: it stays unless another is clearly better."""

_ROUNDS, _LEAST, _FLAT = 4, 0.05, 1e6


class Evidence(NamedTuple):
    """Trials by row: damage by axis (n, axes), features of free decisions (n, free), loss (n,), rung (n,)."""

    features: Floats
    free: Floats
    losses: Floats
    rungs: NDArray[np.int64]


class Posterior(NamedTuple):
    """Of theta and the free coefficients together: the mean (p,), and a root of the covariance (p, p)."""

    mean: Floats
    root: Floats

    @property
    def size(self) -> int:
        return len(self.mean)

    def weights(self, axes: int, draw: Floats | None = None) -> tuple[Floats, Floats]:
        """Weights of the axes, above 0, and free coefficients: of the mean, or of a standard normal draw (p,)."""
        found = self.mean if draw is None else self.mean + self.root @ draw
        return np.maximum(1 + found[:axes], _LEAST), found[axes:]


def prior(model: DamageModel, free: int) -> Posterior:
    """Before any trial."""
    kinds = np.array([KINDS.index(axis.kind) for axis in model.axes])
    thirds = np.minimum((3 * model.depths).astype(np.int64), 2)
    alike = kinds[:, None] == kinds[None]
    near = alike & (thirds[:, None] == thirds[None])
    covariance = np.zeros((len(kinds) + free,) * 2)
    covariance[: len(kinds), : len(kinds)] = KIND**2 * alike + THIRD**2 * near + SITE**2 * np.eye(len(kinds))
    covariance[len(kinds) :, len(kinds) :] = FREE**2 * np.eye(free)
    root = np.asarray(np.linalg.cholesky(covariance), dtype=np.float64)
    return Posterior(np.zeros(len(covariance)), root)


def refitted(before: Posterior, evidence: Evidence) -> Posterior:
    """What these trials make of ``before`` (whose mean is 0); the same where they say nothing."""
    rungs = [r for r in np.unique(evidence.rungs) if _teaches(evidence.losses[evidence.rungs == r])]
    rows = np.isin(evidence.rungs, rungs)
    scale = float(evidence.features[rows].sum(axis=1).mean()) if rows.any() else 0.0
    if scale <= 0:
        return before
    features, free = evidence.features[rows] / scale, evidence.free[rows]
    losses, levels = evidence.losses[rows], evidence.rungs[rows]
    whole, axes = np.hstack([features, free]), features.shape[1]
    precision = np.asarray(np.linalg.inv(before.root @ before.root.T), dtype=np.float64)
    theta = before.mean.copy()
    for _ in range(_ROUNDS):
        damage = features @ np.maximum(1 + theta[:axes], _LEAST) + free @ theta[axes:]
        fits = {r: curve(damage[levels == r], losses[levels == r]) for r in rungs}
        design, target = [], []
        for i, r in enumerate(rungs):
            here, (_, _, slope, bent, left, noise) = levels == r, fits[r]
            beside = np.zeros((int(here.sum()), 2 * len(rungs)))
            beside[:, 2 * i], beside[:, 2 * i + 1] = 1.0, bent
            design.append(np.hstack([slope[:, None] * whole[here], beside]) / noise)
            target.append((left + slope * (whole[here] @ theta)) / noise)
        theta, covariance = _solved(precision, np.vstack(design), np.concatenate(target))
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    return Posterior(theta, vectors * np.sqrt(np.maximum(values, 0.0)))


def _teaches(losses: Floats) -> bool:
    return len(losses) >= FEWEST and float(np.ptp(losses)) > 0


def curve(damage: Floats, losses: Floats) -> tuple[float, float, Floats, Floats, Floats, float]:
    """The curve of one rung by least squares: (a, b, slope there (n,), phi (n,), what is left (n,), noise)."""
    best: tuple[float, tuple[float, float, Floats, Floats, Floats, float]] | None = None
    spread = max(float(losses.std()), 1e-12)
    for bend in BENDS if len(losses) >= 3 * FEWEST else BENDS[:1]:
        k = bend / max(float(np.abs(damage).mean()), 1e-12)
        power = np.exp(np.clip(-k * damage, -20, 20))
        bent = (1 - power) / k if k else damage
        off = bent - bent.mean()
        b = float(off @ losses) / max(float(off @ off), 1e-300)
        if b <= 0:  # what is told contradicts the table: keep a slope, so that weights can change it
            b = spread / max(float(bent.std()), 1e-12)
        a = float(losses.mean() - b * bent.mean())
        left = losses - a - b * bent
        score = float(left @ left) * (1.0 if not bend else 1.1)
        noise = max(float(np.sqrt(left @ left / max(len(left) - 2, 1))), 1e-3 * spread)
        if best is None or score < best[0]:
            best = score, (a, b, b * power, bent, left, noise)
    assert best is not None
    return best[1]


def _solved(precision: Floats, design: Floats, target: Floats) -> tuple[Floats, Floats]:
    """Mean and covariance; the last columns of the design are the curves' own, which may be anything."""
    size = len(precision)
    whole = design.T @ design
    whole[:size, :size] += precision
    scale = np.maximum(np.diag(whole)[size:], 1e-12)
    whole[range(size, len(whole)), range(size, len(whole))] += scale / _FLAT
    covariance = np.asarray(np.linalg.inv(whole), dtype=np.float64)
    mean = covariance @ (design.T @ target)
    return mean[:size], covariance[:size, :size]
