"""How much of the largest value stays in range: least squared error, everything, a percentile, or KL divergence.

One rule serves weights and inputs. What it gives is a share of the full range, in (0, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor

PERCENTILE = 0.999
"""Share of the values that the percentile rule keeps in range."""
_CHUNK = 1 << 16
_BINS, _CANDIDATES = 1024, 64


def fitted_clip(
    rule: str, rows: Tensor, kept: Tensor | None, unit: Tensor, low: Tensor | float, high: Tensor | float
) -> Tensor:
    """The share of the full range that each row of a weight keeps.

    Args:
        rule: ``mse``, ``minmax``, ``percentile`` or ``kl``.
        rows: shape (rows, n), 0 where ``kept`` is False (None: all are kept).
        unit: the step of the full range, above 0, shape (rows,).
        low, high: the least and greatest code around zero, numbers or shape (rows, 1).

    Returns:
        Shape (rows,), each in (0, 1].
    """
    if rule == "minmax":
        return torch.ones_like(unit)
    if rule == "mse":
        return mse_clip(rows, unit, low, high)
    sizes = rows.abs()
    largest = sizes.amax(dim=1)
    if rule == "percentile":
        threshold = percentile(sizes, kept)
    else:
        levels = int(torch.as_tensor(high, dtype=torch.float32).max()) + 1
        threshold = kl_threshold(sizes, kept, levels)
    return torch.where(threshold > 0, threshold / positive_or_one(largest), 1.0).clamp(max=1.0)


def positive_or_one(values: Tensor) -> Tensor:
    """1 in the place of what cannot be divided by."""
    return torch.where(values > 0, values, 1.0)


def mse_clip(rows: Tensor, unit: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """The share in [0.2, 1] with the least squared error of ``clamp(round(w / s), low, high) * s``, s = share * unit.

    The best of 0.2, 0.3, .. 1, then of the 8 shares at distances of 0.02 around it.
    """
    coarse = torch.linspace(0.2, 1.0, 9, device=rows.device)[:, None].expand(-1, len(rows))
    best, least = _least_error(coarse, rows, unit, low, high)
    near = torch.tensor([-0.08, -0.06, -0.04, -0.02, 0.02, 0.04, 0.06, 0.08], device=rows.device)[:, None]
    other, error = _least_error((best + near).clamp(0.2, 1.0), rows, unit, low, high)
    return torch.where(error < least, other, best)


def _least_error(
    clips: Tensor, rows: Tensor, unit: Tensor, low: Tensor | float, high: Tensor | float
) -> tuple[Tensor, Tensor]:
    """Of shares (k, rows) the best for each row, and its error.

    Several are tried in one tensor where the weight is small: calls cost more than numbers there.
    """
    errors = []
    for some in torch.split(clips, max(_CHUNK // max(rows.numel(), 1), 1)):
        step = some * unit
        exact = rows * step.reciprocal()[..., None]
        rounded = torch.round(exact).clamp_(low, high)  # type: ignore[arg-type]
        errors.append(torch.linalg.vector_norm(rounded.sub_(exact), dim=2).mul_(step))
    least, place = torch.cat(errors).min(dim=0)
    return clips.gather(0, place[None])[0], least


def percentile(sizes: Tensor, kept: Tensor | None) -> Tensor:
    """The PERCENTILE quantile of each row's sizes, over the kept ones, of which there may be any number. Shape (rows,).

    It lies at rank ``PERCENTILE * (n - 1)`` of the n kept ones in rising order, from 0, and between two ranks on the
    line between their sizes (numpy's rule). That is among the largest, so only these are ranked: ``torch.quantile``
    ranks all, and at most 2^24. 0 where nothing is kept, or the quantile is negative.
    """
    most = int((1 - PERCENTILE) * (sizes.shape[1] - 1)) + 2
    seen = sizes if kept is None else torch.where(kept, sizes, -1.0)
    largest = seen.topk(min(most, sizes.shape[1]), dim=1).values
    count = torch.full_like(largest[:, :1], sizes.shape[1]) if kept is None else kept.sum(dim=1, keepdim=True)
    place = (1 - PERCENTILE) * (count.double() - 1).clamp_min(0)
    above = place.long()
    below = (above + 1).clamp_max(largest.shape[1] - 1)
    high, low = largest.gather(1, above), largest.gather(1, below)
    return torch.lerp(high, low, (place - above).to(high.dtype)).clamp_min(0.0)[:, 0]


def kl_threshold(sizes: Tensor, kept: Tensor | None, levels: int) -> Tensor:
    """The threshold whose rounding keeps the distribution of the sizes best (Migacz 2017, TensorRT's calibration).

    The first bin is set to the second, since zeros are exact anyhow and a ReLU makes half of all values zero.
    For each of up to 64 thresholds of a histogram with 1,024 bins: P is the histogram below the threshold, with all
    above it in its last bin; Q is the histogram below it, averaged over the non-empty bins of P in each of ``levels``
    equal groups. The least KL(P || Q) wins.

    Args:
        sizes: at least 0, shape (rows, n). levels: how many sizes can be told apart, at least 2.

    Returns:
        Shape (rows,); the largest size where a row is empty or has one value.
    """
    largest = sizes.amax(dim=1)
    slot = (sizes / positive_or_one(largest)[:, None] * _BINS).long().clamp_(max=_BINS - 1)
    ones = torch.ones_like(sizes) if kept is None else kept.to(sizes.dtype)
    histogram = torch.zeros(len(sizes), _BINS, dtype=torch.float64, device=sizes.device)
    histogram.scatter_add_(1, slot, ones.double())
    histogram[:, 0] = histogram[:, 1]
    counts = sorted({round(x) for x in torch.linspace(max(levels, _BINS // 8), _BINS, _CANDIDATES).tolist()})
    divergences = torch.stack([_divergence(histogram, count, levels) for count in counts])
    best = torch.tensor(counts, device=sizes.device)[divergences.argmin(dim=0)]
    return (best / _BINS * largest.double()).to(sizes.dtype)


def _divergence(histogram: Tensor, count: int, levels: int) -> Tensor:
    """KL(P || Q) of each row for a threshold after ``count`` bins; a bin that Q misses counts as 1e-9 there."""
    below = histogram[:, :count]
    p = below.clone()
    p[:, -1] += histogram[:, count:].sum(dim=1)
    filled = (p > 0).double()
    group = (torch.arange(count, device=p.device) * levels // count).expand_as(p)
    sums = torch.zeros(len(p), levels, dtype=p.dtype, device=p.device)
    sizes = sums.scatter_add(1, group, filled)
    sums = sums.scatter_add(1, group, below)
    q = (sums / sizes.clamp_min(1)).gather(1, group) * filled
    p, q = (x / x.sum(dim=1, keepdim=True).clamp_min(1e-12) for x in (p, q))
    return torch.where(p > 0, p * (p.clamp_min(1e-300) / q.clamp_min(1e-9)).log(), 0.0).sum(dim=1)
