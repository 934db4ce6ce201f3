"""Statistics over inputs with their standard errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np

from automc.core.judges.base import Array
from automc.core.metrics import Estimate

RESAMPLES = 200
"""Of a bootstrap. The error of a standard error from B resamples is about 1 / sqrt(2 B) of it: 5%."""


def mean(each: Array) -> Estimate:
    """Mean of one number an input; of truths it is a proportion."""
    ones = np.ones(len(each))
    return proportion(each, ones) if each.dtype == np.bool_ else ratio(each, ones)


def proportion(hits: Array, positions: Array) -> Estimate:
    """The share of the positions that are hits, so many of each an input, 0 <= hits <= positions.

    The error is ``proportion_error`` of as many independent positions as would have the error of the ratio (their
    effective number, Korn & Graubard 1998): of all where that is 0, as with one input, or where nothing was missed.
    """
    found, count = ratio(hits, positions), float(positions.sum())
    spread = found.value * (1 - found.value)
    if found.error > 0:
        count = min(spread / found.error**2, count)
    return replace(found, error=proportion_error(found.value, count)) if count else found


def proportion_error(value: float, count: float) -> float:
    """Standard error of a share p of n independent truths: ``sqrt(n p (1 - p) + 1/4) / (n + 1)``.

    Half the width of Wilson's interval (1927) of one standard deviation, 68.27%. Unlike ``sqrt(p (1 - p) / n)``, from
    which it hardly differs elsewhere, it is not 0 where all are true or none is.
    """
    return math.sqrt(count * value * (1 - value) + 0.25) / (count + 1)


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
