"""Which weights may be zero together: single ones, blocks, or all but N of every M.

A pattern takes one score a weight, higher is kept first, and says which weights stay. It reads a weight as rows: one
row an output channel, in it the kernel's positions in order, and at each position the input channels, side by side
(the memory order of channels-last kernels). A linear layer's row is its row of the matrix.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F


def as_rows(weight: Tensor) -> Tensor:
    """Shape (out, in, *kernel) to (out, prod(kernel) * in), the input channels side by side."""
    return weight.movedim(1, -1).flatten(1)


def from_rows(rows: Tensor, shape: Sequence[int]) -> Tensor:
    """The weight of this shape whose rows these are; the inverse of ``as_rows``."""
    return rows.view(shape[0], *shape[2:], shape[1]).movedim(-1, 1).contiguous()


class RowPattern:
    """A pattern over the rows of a weight. Among equal scores the first in a row, and of the first row, stays.

    It holds plain numbers only, so it pickles, and it fits a weight that lost channels.
    """

    def __call__(self, scores: Tensor) -> Tensor:
        """See ``live.Pattern``: scores of the weight's shape in, a bool mask of that shape out."""
        return from_rows(self.of_rows(as_rows(scores)), scores.shape)

    def of_rows(self, scores: Tensor) -> Tensor:
        """The same for scores of shape (rows, length)."""
        raise NotImplementedError

    def eased(self, share: float) -> RowPattern:
        """A weaker pattern on the way here: what is kept falls geometrically from all, share 0, to this, share 1."""
        raise NotImplementedError


@dataclass(frozen=True)
class Unstructured(RowPattern):
    """``floor(sparsity * weights)`` of all weights go, wherever they are. The masks of rising sparsities are nested.

    No common hardware computes less for it; a file stores less.
    """

    sparsity: float

    def of_rows(self, scores: Tensor) -> Tensor:
        return _without_least(scores.flatten(), self.sparsity).view_as(scores)

    def eased(self, share: float) -> Unstructured:
        return replace(self, sparsity=_eased(self.sparsity, share))


@dataclass(frozen=True)
class Blocks(RowPattern):
    """Blocks of ``rows`` neighbouring rows times ``columns`` neighbours in a row stay or go as one.

    ``floor(sparsity * blocks)`` go, those with the least mean score; blocks at the edges may be smaller. 1x4 is what
    8-bit dot-product instructions (VNNI, SDOT) and TensorFlow Lite's sparse linear kernels take; 4x1 are four outputs
    of one input, as in XNNPACK's sparse 1x1 convolutions (Elsen et al. 2020).
    """

    sparsity: float
    rows: int
    columns: int

    def of_rows(self, scores: Tensor) -> Tensor:
        height, width = scores.shape
        down, across = math.ceil(height / self.rows), math.ceil(width / self.columns)
        room = (0, across * self.columns - width, 0, down * self.rows - height)

        def sums(values: Tensor) -> Tensor:
            return F.pad(values, room).view(down, self.rows, across, self.columns).sum(dim=(1, 3))

        means = sums(scores) / sums(torch.ones_like(scores))
        kept = _without_least(means.flatten(), self.sparsity).view(down, 1, across, 1)
        whole = kept.expand(-1, self.rows, -1, self.columns).reshape(down * self.rows, -1)
        return whole[:height, :width]

    def eased(self, share: float) -> Blocks:
        return replace(self, sparsity=_eased(self.sparsity, share))


@dataclass(frozen=True)
class NOfM(RowPattern):
    """Of every ``m`` neighbours in a row the ``n`` with the highest scores stay: n:m sparsity.

    Groups are counted from the beginning of a row and do not cross rows. Where a row's length is no multiple of m, the
    last group is short: it counts as filled up with zeros, so it keeps n of its weights, or all where it has no more.
    2:4 runs on sparse tensor cores (Mishra et al. 2021), in a convolution where in_channels / groups is a multiple
    of 4, so that each group lies at one position of the kernel; elsewhere it is a way of storing less, as is 1:4.
    """

    n: int
    m: int

    def of_rows(self, scores: Tensor) -> Tensor:
        rows, length = scores.shape
        padded = F.pad(scores, (0, -length % self.m), value=-math.inf).view(rows, -1, self.m)
        order = padded.argsort(dim=2, descending=True, stable=True)
        mask = torch.zeros_like(padded, dtype=torch.bool).scatter(2, order[:, :, : self.n], True)
        return mask.view(rows, -1)[:, :length]

    def eased(self, share: float) -> NOfM:
        return replace(self, n=round(self.m * (self.n / self.m) ** share))


def pattern_of(name: str, sparsity: float) -> RowPattern:
    """The pattern of this name with this sparsity in (0, 1). An n:m pattern has its own, whatever is asked."""
    if name == "unstructured":
        return Unstructured(sparsity)
    if name.startswith("block_"):
        rows, columns = name.removeprefix("block_").split("x")
        return Blocks(sparsity, int(rows), int(columns))
    n, m = name.split(":")
    return NOfM(int(n), int(m))


def _without_least(scores: Tensor, sparsity: float) -> Tensor:
    """True but for the ``floor(sparsity * n)`` least of shape (n,); of equal ones the last go first."""
    count = math.floor(sparsity * len(scores) + 1e-9)  # so that 0.3 of 10 is 3
    if not count:
        return torch.ones_like(scores, dtype=torch.bool)
    edge = scores.kthvalue(count).values
    mask = scores > edge
    equal = (scores == edge).nonzero().flatten()
    mask[equal[: len(scores) - count - int(mask.sum())]] = True
    return mask


def _eased(sparsity: float, share: float) -> float:
    return sparsity if share == 1 else 1 - (1 - sparsity) ** share
