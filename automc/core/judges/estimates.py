"""Statistics over inputs with their standard errors."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from automc.core.judges.base import Array
from automc.core.metrics import Estimate

RESAMPLES = 200
"""Of a bootstrap. The error of a standard error from B resamples is about 1 / sqrt(2 B) of it: 5%."""


def mean(each: Array) -> Estimate:
    """Mean of one number an input; of zeros and ones its error is the binomial one, sqrt(p (1 - p) / n)."""
    return ratio(each, np.ones(len(each)))


def ratio(parts: Array, wholes: Array) -> Estimate:
    """Sum of the parts over the sum of the wholes, one of each an input; wholes >= 0.

    The error is the linearised one of a ratio of sums: ``sqrt(sum (part - value * whole)^2) / sum wholes`` (Cochran
    1977, 6.4); positions inside an input need not be independent. NaN where the wholes are all 0.
    """
    parts, wholes = parts.astype(np.float64), wholes.astype(np.float64)
    total = float(wholes.sum())
    if not total:
        return Estimate(float("nan"), float("nan"), len(parts))
    value = float(parts.sum()) / total
    error = float(np.sqrt(np.square(parts - value * wholes).sum())) / total
    return Estimate(value, error, len(parts))


def bootstrap(statistic: Callable[[Array], Array], count: int) -> Estimate:
    """A statistic of all inputs; its error is the standard deviation over resampled ones (Efron 1979), seeded.

    Args:
        statistic: how often each input counts, float64 shape (b, n), to the statistic, shape (b,); NaN where a resample
            has none.
        count: n, number of inputs.
    """
    value = float(statistic(np.ones((1, count)))[0])
    others = statistic(_resamples(count).astype(np.float64))
    others = others[~np.isnan(others)]
    return Estimate(value, float(others.std(ddof=1)) if len(others) > 1 else 0.0, count)


@lru_cache(maxsize=32)
def _resamples(count: int) -> Array:
    """Shape (RESAMPLES, count): how often each input was drawn, with replacement."""
    rows = np.random.default_rng(count).integers(0, count, (RESAMPLES, count))
    rows += count * np.arange(RESAMPLES)[:, None]
    found = np.bincount(rows.ravel(), minlength=RESAMPLES * count).reshape(RESAMPLES, count)
    return np.minimum(found, 255).astype(np.uint8)  # small, because it is kept; 255 is never reached


def mean_over(values: Array) -> Array:
    """Mean along the last axis of what is not NaN; NaN where all of it is."""
    known = ~np.isnan(values)
    counts = known.sum(-1)
    sums = np.where(known, values, 0.0).sum(-1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def share(parts: Array, wholes: Array) -> Array:
    """``parts / wholes``, NaN where a whole is 0."""
    return np.where(wholes > 0, parts / np.where(wholes > 0, wholes, 1.0), np.nan)
