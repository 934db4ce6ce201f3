"""Incremental quantization: a growing share of the weights is fixed at its codes while the rest retrains."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

import torch
from torch import Tensor

from automc.core.stored import Stored
from automc.operators.live import WeightQuantizer
from automc.operators.quantizers.rows import ScaledQuantizer

SHARES = (0.5, 0.75, 0.875, 1.0)
"""Share of the weights that is fixed in each quarter of the repair (Zhou et al. 2017)."""


class IncrementalQuantizer(WeightQuantizer):
    """INQ (Zhou et al. 2017) over any format: its numbers and scales are fixed when this is made.

    In training the fixed weights have the value they were rounded to and no gradient, the others are as they are. In
    eval mode all are rounded. The largest of the others are fixed next.

    Buffers: ``fixed`` (bool) and ``values`` (what the fixed ones were rounded to), of the weight's shape.
    """

    fixed: Tensor
    values: Tensor

    def __init__(self, inner: ScaledQuantizer, weight: Tensor, mask: Tensor | None = None) -> None:
        super().__init__()
        self.bits, self.inner = inner.bits, inner
        if inner.held is None:
            inner.hold(weight, mask)
        self.register_buffer("fixed", torch.zeros_like(weight, dtype=torch.bool))
        self.register_buffer("values", torch.zeros_like(weight.detach()))

    def forward(self, weight: Tensor, mask: Tensor | None = None) -> Tensor:
        used = torch.where(self.fixed, self.values, weight)
        return used if self.training else self._rounded(used, mask)

    def stored(self, weight: Tensor, mask: Tensor | None = None) -> Stored:
        return self.inner.stored(torch.where(self.fixed, self.values, weight.detach()), mask)

    @torch.no_grad()
    def advance(self, weight: Tensor, progress: float) -> None:
        share = SHARES[min(int(progress * len(SHARES)), len(SHARES) - 1)]
        missing = ceil(share * weight.numel()) - int(self.fixed.sum())
        if missing <= 0:
            return
        sizes = torch.where(self.fixed, -1.0, weight.abs()).flatten()
        chosen = sizes.topk(missing).indices
        self.values.view(-1)[chosen] = self._rounded(weight, None).flatten()[chosen]
        self.fixed.view(-1)[chosen] = True

    def fold(self, factor: Tensor) -> None:
        self.inner.fold(factor)

    def select(self, axis: int, take: Callable[[Tensor], Tensor]) -> None:
        self.fixed, self.values = take(self.fixed), take(self.values)
        self.inner.select(axis, take)

    def _rounded(self, weight: Tensor, mask: Tensor | None) -> Tensor:
        training = self.inner.training
        self.inner.training = False
        try:
            rounded: Tensor = self.inner(weight, mask)
            return rounded
        finally:
            self.inner.training = training
