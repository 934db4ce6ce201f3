"""What all quantizers share: rows of a weight, the straight-through gradient, and the frame they fill."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from automc.core.stored import Stored
from automc.operators.live import WeightQuantizer


def straight_through(rounded: Tensor, x: Tensor) -> Tensor:
    """The value of ``rounded`` to the last bit (x - x is exactly 0), with the gradient of ``x``.

    The straight-through estimator (Bengio et al. 2013).
    """
    return rounded.detach() + (x - x.detach())


def along_rows(values: Tensor, weight: Tensor) -> Tensor:
    """Values of shape (rows,) or (1,), as they multiply a weight of shape (rows, ...)."""
    return values.view(-1, *(1,) * (weight.dim() - 1))


def kept_mean(rows: Tensor, kept: Tensor | None) -> Tensor:
    """Mean of each row of a (rows, n) tensor where ``kept`` (the same shape) is True; 0 where nothing is."""
    if kept is None:
        return rows.mean(dim=1)
    return torch.where(kept, rows, 0.0).sum(dim=1) / kept.sum(dim=1).clamp_min(1)


def positive(scale: Tensor) -> Tensor:
    """A scale that can be divided by: 1 where it is 0 or too small for single precision."""
    return torch.where(scale >= torch.finfo(scale.dtype).tiny, scale, 1.0)


LEAP = 8.0
"""See ``ScaledQuantizer.fold``."""


class ScaledQuantizer(WeightQuantizer):
    """Numbers times a scale, one a row (``granularity: channel``) or one for the whole weight (``tensor``).

    A subclass says which scale, which codes and which number a code stands for; all tensors of one value a row have
    shape (rows,), or (1,) per tensor. Live scales follow the weights in repair; ``hold`` fixes them.

    With one scale for the whole weight, the batch norm behind the layer may count as part of it: codes, scales and
    tables are then those of the *folded* weight, row r times ``factor[r]``, and what is used is that divided by the
    factor again. So the file, in which the norm is folded away, has one scale. ``live.refold`` keeps the factor that of
    the norm. ``scale``, ``codes`` and ``live_scale`` take folded weights, all else the layer's.

    Attributes:
        per_channel: one scale a row. held: the scale once it is fixed or learned, else None.
        factor: what the batch norm multiplies each row by, shape (rows,), or None.
    """

    held: Tensor | None
    factor: Tensor | None

    def __init__(self, bits: int, per_channel: bool, per_row: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.bits, self.per_channel = bits, per_channel
        self.per_row = per_row if per_channel else ()
        self.register_buffer("held", None)
        self.register_buffer("factor", None)

    @property
    def mirrored(self) -> bool:
        """Its codes can stand for a row times a negative number only by a negative scale."""
        return False

    def fold(self, factor: Tensor) -> None:
        """Take a new factor. A row whose factor would change more than LEAP-fold at once keeps its old one: it was
        rounded to nearly nothing, and a norm that makes up for that would be followed by ever finer steps.
        """
        if self.factor is None:
            return
        new = factor if self.mirrored else factor.abs()
        near = (new.abs() <= LEAP * self.factor.abs()) & (self.factor.abs() <= LEAP * new.abs())
        self.factor = torch.where(near, new, self.factor)

    def folded(self, weight: Tensor) -> Tensor:
        """The weight as a file holds it, the batch norm taken in."""
        return weight if self.factor is None else weight * along_rows(self.factor, weight)

    def unfolded(self, scale: Tensor) -> Tensor:
        """The layer's scale for a scale of the folded weight, either of shape (rows, ...); rows of 0 keep theirs."""
        if self.factor is None:
            return scale
        return scale / along_rows(torch.where(self.factor == 0, 1.0, self.factor), scale)

    def live_scale(self, rows: Tensor, kept: Tensor | None) -> Tensor:
        """The scale that fits the weights as they are, shape (len(rows),)."""
        raise NotImplementedError

    def codes(self, weight: Tensor, scale: Tensor, mask: Tensor | None = None) -> Tensor:
        """Whole numbers as floats, of the weight's shape; ``scale`` is shaped to multiply it."""
        raise NotImplementedError

    def numbers(self, codes: Tensor) -> Tensor:
        """What codes stand for, before the scale; whole numbers stand for themselves."""
        return codes

    def scale(self, weight: Tensor, mask: Tensor | None = None) -> Tensor:
        """The scale in use, shape (len(weight),)."""
        if self.held is not None:
            held = self.held.detach()
            scale = positive(held.abs()) if isinstance(self.held, nn.Parameter) else held
        else:
            scale = self.live_scale(self.rows(weight.detach()), None if mask is None else self.rows(mask))
        return scale.expand(len(weight))

    def forward(self, weight: Tensor, mask: Tensor | None = None) -> Tensor:
        folded = self.folded(weight)
        with torch.no_grad():
            scale = along_rows(self.scale(folded, mask), weight)
            numbers = self.numbers(self.codes(folded, scale, mask))
            rounded = numbers * self.unfolded(scale)
        if not self.training:
            return rounded
        if self.factor is None:
            return self.passed(rounded, weight, scale)
        return straight_through(rounded, self.unfolded(self.passed(numbers * scale, folded, scale)))

    def passed(self, rounded: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
        """The rounded weight with its gradient: straight through."""
        return straight_through(rounded, weight)

    @torch.no_grad()
    def stored(self, weight: Tensor, mask: Tensor | None = None) -> Stored:
        folded = self.folded(weight)
        scale = self.scale(folded, mask)
        codes = self.codes(folded, along_rows(scale, weight), mask)
        return Stored(self.bits, codes.to(torch.int16).cpu().numpy(), self.unfolded(scale).cpu().numpy())

    @torch.no_grad()
    def hold(self, weight: Tensor, mask: Tensor | None = None, learned: bool = False) -> None:
        """Fix the scale at what it is for this weight; ``learned`` makes it a parameter."""
        scale = self.scale(self.folded(weight), mask)
        scale = (scale if self.per_channel else scale[:1]).clone()
        self._buffers.pop("held", None)
        self.held = nn.Parameter(scale) if learned else nn.Buffer(scale)

    def select(self, axis: int, take: Callable[[Tensor], Tensor]) -> None:
        super().select(axis, take)
        if axis == 0 and self.factor is not None:
            self.factor = take(self.factor)
        if axis == 0 and self.per_channel and self.held is not None:
            new = take(self.held.detach())
            self.held = nn.Parameter(new, self.held.requires_grad) if isinstance(self.held, nn.Parameter) else new

    def rows(self, weight: Tensor) -> Tensor:
        """The weight, shape (rows, n), or (1, all) per tensor."""
        return weight.flatten(1) if self.per_channel else weight.flatten()[None]

    def extra_repr(self) -> str:
        return f"bits={self.bits}, {'per channel' if self.per_channel else 'per tensor'}"
