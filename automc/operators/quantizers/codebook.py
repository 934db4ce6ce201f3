"""A table of shared weights, by k-means and trained by gradient sums (Deep Compression, Han et al. 2016)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from automc.core.stored import Stored
from automc.operators.quantizers.fixed import nearest
from automc.operators.quantizers.rows import ScaledQuantizer, along_rows, kept_mean

_ITERATIONS, _GROUPS = 100, 512


class CodebookQuantizer(ScaledQuantizer):
    """2^bits values shared by all weights of a tensor.

    The table and which weight has which entry are found when the quantizer is made, by k-means over the kept weights.
    A repair then trains the entries, and the weights stay. ``granularity: tensor`` is the paper's; with ``channel`` the
    rows are divided by their root mean square first, which is stored as one more number a row.

    Attributes:
        levels: the entries, shape (at most 2^bits,). The gradient of one is the sum over its weights (and scales),
            times the number of entries over the number of weights, so that one learning rate fits tables and weights.
        anchors: the entries as k-means found them, ascending: the nearest one decides a weight's code.
    """

    levels: nn.Parameter
    anchors: Tensor

    def __init__(self, weight: Tensor, bits: int, mask: Tensor | None, per_channel: bool) -> None:
        super().__init__(bits, per_channel)
        weight = weight.detach()
        kept = torch.ones_like(weight, dtype=torch.bool) if mask is None else mask
        scale = torch.ones(1, device=weight.device)
        if per_channel:
            size = kept_mean(weight.flatten(1).square(), kept.flatten(1)).sqrt()
            scale = torch.where(size > 0, size, 1.0)
        self.held = scale
        anchors = kmeans((weight / along_rows(scale, weight))[kept], 2**bits)
        self.register_buffer("anchors", anchors)
        self.levels = nn.Parameter(anchors.clone())

    @property
    def mirrored(self) -> bool:
        return True

    def codes(self, weight: Tensor, scale: Tensor, mask: Tensor | None = None) -> Tensor:
        return nearest(self.anchors, weight / scale)

    def numbers(self, codes: Tensor) -> Tensor:
        return self.levels.detach()[codes]

    def passed(self, rounded: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
        share = len(self.levels) / max(weight.numel(), 1)
        levels = self.levels.detach() + share * (self.levels - self.levels.detach())
        return levels[self.codes(weight.detach(), scale)] * scale

    def stored(self, weight: Tensor, mask: Tensor | None = None) -> Stored:
        stored = super().stored(weight, mask)
        scale = stored.scale if self.per_channel or self.factor is not None else None
        return replace(stored, scale=scale, levels=self.levels.detach().cpu().numpy().copy())


def kmeans(values: Tensor, count: int) -> Tensor:
    """At most ``count`` centres with the least sum of squared distances, ascending, shape (k,), k >= 1.

    The values are sorted and cut into up to 512 groups of equal size, which are clustered exactly; from there
    Lloyd's algorithm goes on with the values themselves. So up to 512 values have the optimum.

    Args:
        values: shape (n,), finite; without any there is one centre, 0.
    """
    if not len(values):
        return values.new_zeros(1)
    ordered = values.flatten().double().sort().values
    distinct = torch.unique_consecutive(ordered)
    if len(distinct) > count:
        sums = torch.cat([ordered.new_zeros(1), ordered.cumsum(0)])
        distinct = _lloyd(ordered, sums, _optimal(ordered, sums, count))
    found: Tensor = torch.unique(distinct.to(values.dtype))
    return found


def _optimal(ordered: Tensor, sums: Tensor, count: int) -> Tensor:
    """Centres of the best clusters made of whole groups of neighbours, by dynamic programming over their ends.

    The squared error of a cluster is that of its values less its size times its mean's square, so the sum of the latter
    is made as large as can be.
    """
    groups = min(len(ordered), _GROUPS)
    ends = torch.arange(groups + 1, device=ordered.device) * len(ordered) // groups
    sizes = (ends[None] - ends[:, None]).double()
    worth = (sums[ends][None] - sums[ends][:, None]).square() / sizes  # of a cluster from the row's end to the column's
    worth = torch.where(sizes > 0, worth, -torch.inf)
    best, came = worth[0], []
    for _ in range(min(count, groups) - 1):
        best, start = (best[:, None] + worth).max(dim=0)
        came.append(start.tolist())
    cuts = [groups]
    for start in reversed(came):
        cuts.append(start[cuts[-1]])
    edges = ends[torch.tensor([0, *reversed(cuts)], device=ordered.device)]
    return sums[edges].diff() / edges.diff()


def _lloyd(ordered: Tensor, sums: Tensor, centres: Tensor) -> Tensor:
    """Centres after at most 100 rounds."""
    for _ in range(_ITERATIONS):
        bounds = torch.searchsorted(ordered, (centres[1:] + centres[:-1]) / 2, right=True)
        edges = torch.cat([bounds.new_zeros(1), bounds, bounds.new_full((1,), len(ordered))])
        sizes, totals = edges.diff(), sums[edges].diff()
        moved = torch.where(sizes > 0, totals / sizes.clamp_min(1), centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres
