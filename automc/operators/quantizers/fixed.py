"""Formats whose numbers are fixed and only the scale follows the weights: binary, ternary, powers of two, DoReFa."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from automc.core.stored import Stored
from automc.operators.quantizers.ranges import fitted_clip, positive_or_one
from automc.operators.quantizers.rows import ScaledQuantizer, along_rows, kept_mean, positive, straight_through


class BinaryQuantizer(ScaledQuantizer):
    """The sign times the mean of |w| over the kept weights (BWN, Rastegari et al. 2016); 0 counts as positive."""

    def __init__(self, per_channel: bool) -> None:
        super().__init__(1, per_channel)

    def live_scale(self, rows: Tensor, kept: Tensor | None) -> Tensor:
        return kept_mean(rows.abs(), kept)

    def codes(self, weight: Tensor, scale: Tensor, mask: Tensor | None = None) -> Tensor:
        return torch.where(weight < 0, -1.0, 1.0)


class TernaryQuantizer(ScaledQuantizer):
    """-1, 0 or 1 times a scale, in two bits (TWN, Li et al. 2016).

    0 up to the threshold, 0.7 times the mean of |w|; the scale is the mean of the |w| above it. Both are of the kept
    weights, of a row or of the whole tensor (as in the paper).

    Buffers: ``threshold``, shape (rows,) or (1,), once the scale is held, else None.
    """

    threshold: Tensor | None

    def __init__(self, per_channel: bool) -> None:
        super().__init__(2, per_channel, ("threshold",))
        self.register_buffer("threshold", None)

    def live_scale(self, rows: Tensor, kept: Tensor | None) -> Tensor:
        sizes = rows.abs()
        return kept_mean(sizes, sizes > _ternary_threshold(sizes, kept)[:, None])

    def codes(self, weight: Tensor, scale: Tensor, mask: Tensor | None = None) -> Tensor:
        threshold = self.threshold
        if threshold is None:
            threshold = _ternary_threshold(self.rows(weight).abs(), None if mask is None else self.rows(mask))
        return torch.where(weight.abs() > along_rows(threshold, weight), torch.sign(weight), 0.0)

    def hold(self, weight: Tensor, mask: Tensor | None = None, learned: bool = False) -> None:
        super().hold(weight, mask, learned)
        rows = self.rows(self.folded(weight.detach()))
        self.threshold = _ternary_threshold(rows.abs(), None if mask is None else self.rows(mask))

    def select(self, axis: int, take: Callable[[Tensor], Tensor]) -> None:
        self.per_row = ("threshold",) if self.per_channel and self.threshold is not None else ()
        super().select(axis, take)


def _ternary_threshold(sizes: Tensor, kept: Tensor | None) -> Tensor:
    return 0.7 * kept_mean(sizes, kept)


class LevelQuantizer(ScaledQuantizer):
    """Codes are places in a fixed table of numbers in ascending order; the number nearest to w / scale is taken.

    Buffers: ``levels``, shape (at most 2^bits,).
    """

    levels: Tensor

    def __init__(self, bits: int, per_channel: bool, levels: Tensor) -> None:
        super().__init__(bits, per_channel)
        self.register_buffer("levels", levels)

    @property
    def mirrored(self) -> bool:
        return True

    def codes(self, weight: Tensor, scale: Tensor, mask: Tensor | None = None) -> Tensor:
        return nearest(self.levels, weight / positive(scale))

    def numbers(self, codes: Tensor) -> Tensor:
        return self.levels.detach()[codes]

    def stored(self, weight: Tensor, mask: Tensor | None = None) -> Stored:
        return replace(super().stored(weight, mask), levels=self.levels.detach().cpu().numpy().copy())


def nearest(levels: Tensor, values: Tensor) -> Tensor:
    """The place (int64) of the nearest of the ascending levels; half way between two, the lower one."""
    return torch.bucketize(values.contiguous(), (levels[1:] + levels[:-1]) / 2)


class PowerOfTwoQuantizer(LevelQuantizer):
    """0 or plus or minus 2^(n - i), i = 0 .. 2^(bits-1) - 2: products become shifts (INQ, Zhou et al. 2017).

    n = floor(log2(4/3 t)) with t the greatest |w| in range, so that t itself is rounded to the nearest power. The
    range rule ``mse`` tries n, n - 1 and n - 2. At most 31 powers are used. All 2^bits codes but one have a number;
    the paper spends them otherwise and has half as many powers.

    Buffers: ``clip``: t over the greatest |w|, in (0, 1], shape (rows,) or (1,).
    """

    clip: Tensor

    def __init__(self, weight: Tensor, bits: int, mask: Tensor | None, per_channel: bool, rule: str) -> None:
        powers = 2.0 ** -torch.arange(min(2 ** (bits - 1) - 1, 31), device=weight.device)
        levels = torch.cat([-powers, torch.zeros(1, device=weight.device), powers.flip(0)])
        super().__init__(bits, per_channel, levels)
        self.per_row = ("clip",) if per_channel else ()
        rows = self.rows(weight.detach())
        if rule == "mse":
            errors = []
            for share in (1.0, 0.5, 0.25):
                step = self._power(share * rows.abs().amax(dim=1))[:, None]
                errors.append((self.numbers(self.codes(rows, step)) * step - rows).square().sum(dim=1))
            clip = torch.tensor([1.0, 0.5, 0.25], device=rows.device)[torch.stack(errors).argmin(dim=0)]
        else:
            kept = None if mask is None else self.rows(mask)
            unit = positive(rows.abs().amax(dim=1))
            clip = fitted_clip(rule, rows, kept, unit, -float(len(powers)), float(len(powers)))
        self.register_buffer("clip", clip)

    def live_scale(self, rows: Tensor, kept: Tensor | None) -> Tensor:
        return self._power(self.clip * rows.abs().amax(dim=1))

    @staticmethod
    def _power(threshold: Tensor) -> Tensor:
        return positive(torch.exp2(torch.floor(torch.log2(positive_or_one(threshold) * 4 / 3))))


class DoReFaQuantizer(LevelQuantizer):
    """DoReFa-Net's weights (Zhou et al. 2016): 2^bits equal steps over [-1, 1] of tanh(w) / max|tanh(w)|; no zero.

    A trained network keeps its size: the numbers are multiplied by the scale of least squared error, which follows the
    weights and counts as fixed in the gradient. The gradient is that of tanh and max, straight through the rounding.
    """

    def __init__(self, bits: int, per_channel: bool) -> None:
        top = 2**bits - 1
        super().__init__(bits, per_channel, (2 * torch.arange(2**bits) - top).float() / top)

    def live_scale(self, rows: Tensor, kept: Tensor | None) -> Tensor:
        numbers = self.numbers(self._places(rows, rows))
        numbers = numbers if kept is None else torch.where(kept, numbers, 0.0)
        return (numbers * rows).sum(dim=1) / numbers.square().sum(dim=1).clamp_min(1e-30)

    def codes(self, weight: Tensor, scale: Tensor, mask: Tensor | None = None) -> Tensor:
        return self._places(weight, self.rows(weight))

    def passed(self, rounded: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
        return straight_through(rounded, self._squashed(weight, self.rows(weight)) * scale)

    def _places(self, weight: Tensor, rows: Tensor) -> Tensor:
        top = len(self.levels) - 1
        return torch.round((self._squashed(weight, rows) + 1) / 2 * top).long()

    def _squashed(self, weight: Tensor, rows: Tensor) -> Tensor:
        largest = positive_or_one(torch.tanh(rows).abs().amax(dim=1))
        return torch.tanh(weight) / along_rows(largest, weight)
