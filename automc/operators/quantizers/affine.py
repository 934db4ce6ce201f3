"""Equal steps: symmetric and asymmetric codes, their scale live or learned (LSQ)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from automc.core.stored import Stored
from automc.operators.quantizers.ranges import fitted_clip
from automc.operators.quantizers.rows import ScaledQuantizer, along_rows, positive, straight_through


class AffineQuantizer(ScaledQuantizer):
    """Whole numbers times a scale that is a fixed share (``clip``) of the weights' range, over the number of codes.

    Only the shares, found when the quantizer is made, are fixed. So a repair moves weights and scale together, and
    straight-through gradients pass to every weight. ``codes - zero`` lies in [low, high]: [-top, top] with
    top = 2^(bits-1) - 1 when symmetric, [-zero, 2^bits - 1 - zero] when asymmetric, zero fixed too.

    Buffers:
        clip: in (0, 1], one a row or one in all; above 1 where adaptive rounding left the largest code unused.
        zero: whole numbers in [0, 2^bits - 1] as floats, likewise, or None when symmetric.
    """

    clip: Tensor
    zero: Tensor | None

    def __init__(
        self, weight: Tensor, bits: int, mask: Tensor | None = None, *, symmetric: bool, per_channel: bool, rule: str
    ) -> None:
        """Fit shares and zeros to a weight.

        Args:
            weight: shape (rows, ...), 0 where ``mask`` is False. bits: 2 to 8. rule: see ranges.fitted_clip.
        """
        super().__init__(bits, per_channel, ("clip",) if symmetric else ("clip", "zero"))
        rows = self.rows(weight.detach())
        self.register_buffer("zero", None if symmetric else _zero(rows, bits))
        kept = None if mask is None else self.rows(mask)
        low, high = self.bounds()
        column = low if isinstance(low, float) else low[:, None]
        row = high if isinstance(high, float) else high[:, None]
        self.register_buffer("clip", fitted_clip(rule, rows, kept, positive(self.extent(rows)), column, row))

    @property
    def mirrored(self) -> bool:
        return self.zero is not None

    def bounds(self) -> tuple[Tensor | float, Tensor | float]:
        """The least and the greatest ``code - zero``: numbers, or one a row."""
        if self.zero is None:
            top = float(2 ** (self.bits - 1) - 1)
            return -top, top
        return -self.zero, float(2**self.bits - 1) - self.zero

    def extent(self, rows: Tensor) -> Tensor:
        """The step with which the codes span all of each row, shape (len(rows),); 0 for a row of zeros."""
        if self.zero is None:
            return rows.abs().amax(dim=1).div(2 ** (self.bits - 1) - 1)
        low, high = torch.aminmax(rows, dim=1)
        return (high.clamp_min(0) - low.clamp_max(0)).div(2**self.bits - 1)

    def live_scale(self, rows: Tensor, kept: Tensor | None) -> Tensor:
        return positive(self.clip * self.extent(rows))

    def codes(self, weight: Tensor, scale: Tensor, mask: Tensor | None = None) -> Tensor:
        low, high = self.bounds()
        if isinstance(low, Tensor):
            low, high = along_rows(low, weight), along_rows(torch.as_tensor(high), weight)
        return torch.round(weight / scale).clamp(low, high) + 0.0  # type: ignore[arg-type]  # never -0.0: int8 has none

    @torch.no_grad()
    def stored(self, weight: Tensor, mask: Tensor | None = None) -> Stored:
        stored = super().stored(weight, mask)
        if self.zero is None or stored.codes is None:
            return stored
        zero = self.zero.expand(len(weight)).to(torch.int16).cpu().numpy()
        return replace(stored, codes=stored.codes + zero.reshape(-1, *[1] * (weight.dim() - 1)), zero=zero)

    def adopt(self, weight: Tensor, scale: Tensor) -> None:
        """Choose the shares so that this weight has this scale, shape (len(weight),), up to its last bit."""
        wanted = scale if self.per_channel else scale[:1]
        self.clip = wanted / positive(self.extent(self.rows(weight)))


class LearnedStepQuantizer(AffineQuantizer):
    """Equal steps whose size is learned (LSQ, Esser et al. 2020), from the step that the range rule gives.

    With v = w / s and [low, high] the codes: the gradient for w is 1 where v is inside, else 0; for s it is
    round(v) - v inside and low or high outside, times 1 / sqrt(n * high), n weights sharing the step.
    """

    def __init__(
        self, weight: Tensor, bits: int, mask: Tensor | None = None, *, symmetric: bool, per_channel: bool, rule: str
    ) -> None:
        super().__init__(weight, bits, mask, symmetric=symmetric, per_channel=per_channel, rule=rule)
        self.hold(weight, mask, learned=True)

    def passed(self, rounded: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
        assert self.held is not None
        low, high = self.bounds()
        if isinstance(low, Tensor):
            low, high = along_rows(low, weight), along_rows(torch.as_tensor(high), weight)
        shared = weight.numel() / len(self.held)
        top = 2 ** (self.bits - 1) - 1 if self.zero is None else 2**self.bits - 1
        gentle = self.held.abs() * (shared * top) ** -0.5
        step = along_rows(straight_through(scale.flatten(), gentle.expand(len(weight))), weight)
        exact = (weight / step).clamp(low, high)  # type: ignore[arg-type]
        code = straight_through(torch.round(weight / scale).clamp(low, high), exact)  # type: ignore[arg-type]
        return code * step


def _zero(rows: Tensor, bits: int) -> Tensor:
    top = float(2**bits - 1)
    low, high = torch.aminmax(rows, dim=1)
    low, high = low.clamp_max(0), high.clamp_min(0)
    return torch.round(-low / positive((high - low) / top)).clamp(0, top)


class SymmetricQuantizer(AffineQuantizer):
    """Codes around zero, one scale an output channel, by least squared error: the plain choice."""

    def __init__(self, weight: Tensor, bits: int, mask: Tensor | None = None) -> None:
        super().__init__(weight, bits, mask, symmetric=True, per_channel=True, rule="mse")
