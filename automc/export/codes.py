"""Quantized layers as export knows them: by what they offer, not by their class, and the codes of their weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Codes:
    """A quantized weight: ``values * scale`` along axis 0 is the float32 weight, exactly.

    Attributes:
        values: int8, the weight's shape. scale: float32, shape (out_channels,). bits: 1 to 8.
    """

    values: Tensor
    scale: Tensor
    bits: int

    @classmethod
    def of(cls, layer: Any) -> Codes:
        """The codes of a quantized layer."""
        values, scale = layer.weight_codes()
        return cls(values.detach().cpu(), scale.detach().cpu().float(), layer.weight_bits)

    def weight(self) -> Tensor:
        """The float32 weight."""
        return self.values.to(torch.float32) * along_rows(self.scale, self.values.dim())

    def scaled(self, factor: Tensor) -> Codes:
        """These codes with row i multiplied by ``factor[i]``; a negative factor flips the signs of its row."""
        flip = torch.where(factor < 0, -1, 1).to(self.values.dtype)
        values = self.values * along_rows(flip, self.values.dim())
        return Codes(values, (self.scale.double() * factor.abs()).float(), self.bits)


def is_quantized(layer: nn.Module) -> bool:
    """Whether a layer follows the convention of quantized layers (see README.md beside this file)."""
    return hasattr(layer, "weight_codes") and hasattr(layer, "freeze")


def is_frozen(layer: nn.Module) -> bool:
    """Whether a quantized layer was baked before: it has no codes any more."""
    return bool(getattr(layer, "frozen", False))


def along_rows(values: Tensor, dims: int) -> Tensor:
    """One value per row, shaped to multiply a tensor of so many axes."""
    return values.view(-1, *[1] * (dims - 1))
