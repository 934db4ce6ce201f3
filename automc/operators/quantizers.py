"""Few-bit numbers: rounding to them, choosing their scales, and layers that compute with them.

Weights are symmetric with one scale an output channel, inputs affine with one scale a tensor. In training the
rounding is live and its gradient is taken to be 1 (straight-through estimator, Bengio et al. 2013).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from automc.errors import CompressionError

UNTOUCHED = 32
"""Bits of a weight or input that is left as it is."""

_WEIGHT_CLIPS = torch.linspace(0.2, 1.0, 41)
_INPUT_CLIPS = torch.logspace(-1.3, 0.0, 40)


def straight_through(rounded: Tensor, x: Tensor) -> Tensor:
    """The value of ``rounded`` to the last bit (x - x is exactly 0), with the gradient of ``x``."""
    return rounded.detach() + (x - x.detach())


def weight_scale(weight: Tensor, bits: int, clip: Tensor) -> Tensor:
    """The step of each output channel, shape (out_channels,), float32.

    1 bit: the mean of |w| (Rastegari et al. 2016). Else ``clip * max|w| / (2^(bits-1) - 1)``. A channel of zeros has
    scale 0 with 1 bit, else 1.

    Args:
        weight: shape (out_channels, ...). clip: shape (out_channels,), in (0, 1].
    """
    flat = weight.detach().flatten(1).abs()
    if bits == 1:
        return flat.mean(dim=1)
    scale = clip * flat.amax(dim=1) / (2 ** (bits - 1) - 1)
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def weight_codes(weight: Tensor, bits: int, scale: Tensor) -> Tensor:
    """Whole numbers as floats, |code| <= 2^(bits-1) - 1; with 1 bit -1 or +1 (0 counts as positive)."""
    if bits == 1:
        return torch.where(weight < 0, -1.0, 1.0)
    top = 2 ** (bits - 1) - 1
    return torch.round(weight / _per_row(scale, weight)).clamp(-top, top) + 0.0  # never -0.0, as int8 has none


def best_clip(weight: Tensor, bits: int) -> Tensor:
    """The share of max|w| to keep in range that gives each output channel the least squared error.

    Args:
        weight: shape (out_channels, ...). Returns: shape (out_channels,), each one of 41 values in [0.2, 1].
    """
    weight = weight.detach()
    best = torch.ones(len(weight), device=weight.device)
    if bits == 1:
        return best
    least = torch.full_like(best, torch.inf)
    for clip in _WEIGHT_CLIPS.tolist():
        scale = weight_scale(weight, bits, torch.full_like(best, clip))
        error = (weight_codes(weight, bits, scale) * _per_row(scale, weight) - weight).flatten(1).square().sum(dim=1)
        best = torch.where(error < least, clip, best)
        least = torch.minimum(least, error)
    return best


def _per_row(scale: Tensor, weight: Tensor) -> Tensor:
    return scale.view(-1, *(1,) * (weight.dim() - 1))


class InputQuantizer(nn.Module):
    """Rounds a tensor to ``(clamp(round(x / scale) + zero, 0, 2^bits - 1) - zero) * scale``.

    In eval mode these are the only operations, so that an exported graph does the same. Zero is one of the values,
    so padding stays exact. In training the gradient passes where x is in range and is 0 elsewhere.

    Buffers: ``scale`` (above 0) and ``zero`` (a whole number in [0, 2^bits - 1]), both of shape ().
    """

    scale: Tensor
    zero: Tensor

    def __init__(self, bits: int, low: float, high: float) -> None:
        """Cover [low, high]; low <= 0 <= high. A range too small for single precision gets scale 1."""
        super().__init__()
        self.bits = bits
        self.top = float(2**bits - 1)
        step = (high - low) / self.top
        scale = torch.tensor(step if step >= torch.finfo(torch.float32).tiny else 1.0)
        self.register_buffer("scale", scale)
        self.register_buffer("zero", torch.round(-low / scale).clamp(0, self.top))

    def forward(self, x: Tensor) -> Tensor:
        codes = torch.clamp(torch.round(x / self.scale) + self.zero, 0.0, self.top)
        rounded = (codes - self.zero) * self.scale
        if not self.training:
            return rounded
        low, high = -self.zero * self.scale, (self.top - self.zero) * self.scale
        return straight_through(rounded, torch.clamp(x, low, high))

    @classmethod
    def fit(cls, bits: int, sample: Tensor, low: float, high: float) -> InputQuantizer:
        """The quantizer with the least squared error on a sample, over 40 shares of the range [low, high].

        Args:
            sample: shape (m,), values seen at this input. low, high: the least and greatest value seen.
        """
        low, high = min(low, 0.0), max(high, 0.0)
        best, least = cls(bits, low, high).eval(), torch.inf
        for clip in _INPUT_CLIPS.tolist():
            candidate = cls(bits, clip * low, clip * high).eval()
            error = float((candidate(sample) - sample).square().sum())
            if error < least:
                best, least = candidate, error
        return best

    def extra_repr(self) -> str:
        return f"bits={self.bits}, scale={self.scale.item():.4g}, zero={self.zero.item():g}"


class QuantLayer(nn.Module):
    """A convolution or linear layer with few-bit weights, inputs or both; ``quantize_layer`` makes one.

    The scale follows the live weight: ``clip * max|w|`` is taken anew in every forward, in training and in eval alike,
    and only ``clip``, found by ``best_clip`` when the layer is made, is fixed. So a repair moves weights and scale
    together, nothing depends on which forward came last, and evaluation needs no refresh.

    Attributes:
        weight_bits, activation_bits: 1 to 8, or 32 for untouched.
        clip: buffer of shape (out_channels,).
        input_quantizer: rounds the input, or None.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None
    clip: Tensor
    weight_bits: int
    activation_bits: int
    input_quantizer: InputQuantizer | None
    frozen: bool

    def forward(self, x: Tensor) -> Tensor:
        if self.input_quantizer is not None:
            x = self.input_quantizer(x)
        return self._product(x, self._used_weight())

    def weight_codes(self) -> tuple[Tensor, Tensor]:
        """Codes, int8, of the weight's shape, and scales, float32, shape (out_channels,).

        Their product, rows times scales, is the weight that the forward uses, to the last bit.

        Raises:
            CompressionError: the weights have no codes, because they are untouched or frozen.
        """
        if self.weight_bits == UNTOUCHED or self.frozen:
            raise CompressionError(f"this {type(self).__name__} has no codes: its weights are {self._state()}")
        weight = self.weight.detach()
        scale = weight_scale(weight, self.weight_bits, self.clip)
        return weight_codes(weight, self.weight_bits, scale).to(torch.int8), scale

    def freeze(self, weight: Tensor, bias: Tensor | None) -> None:
        """From now on use this weight (of the same shape) and bias as they are; the input is still rounded."""
        self.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)
        self.frozen = True

    def _used_weight(self) -> Tensor:
        if self.weight_bits == UNTOUCHED or self.frozen:
            return self.weight
        scale = weight_scale(self.weight, self.weight_bits, self.clip)
        rounded = weight_codes(self.weight, self.weight_bits, scale) * _per_row(scale, self.weight)
        return straight_through(rounded, self.weight) if self.training else rounded

    def _state(self) -> str:
        return "frozen" if self.frozen else "untouched"

    def _product(self, x: Tensor, weight: Tensor) -> Tensor:
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, weight_bits={self.weight_bits}, activation_bits={self.activation_bits}"


class _QuantConv(QuantLayer):
    _conv_forward: Any

    def _product(self, x: Tensor, weight: Tensor) -> Tensor:
        product: Tensor = self._conv_forward(x, weight, self.bias)
        return product


class QuantConv1d(_QuantConv, nn.Conv1d):  # type: ignore[misc]
    """A quantized Conv1d."""


class QuantConv2d(_QuantConv, nn.Conv2d):  # type: ignore[misc]
    """A quantized Conv2d."""


class QuantConv3d(_QuantConv, nn.Conv3d):  # type: ignore[misc]
    """A quantized Conv3d."""


class QuantLinear(QuantLayer, nn.Linear):  # type: ignore[misc]
    """A quantized Linear."""

    def _product(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(x, weight, self.bias)


_QUANTIZED: tuple[tuple[type[nn.Module], type[QuantLayer]], ...] = (
    (nn.Conv1d, QuantConv1d),
    (nn.Conv2d, QuantConv2d),
    (nn.Conv3d, QuantConv3d),
    (nn.Linear, QuantLinear),
)


def quantize_layer(layer: nn.Module, weight_bits: int) -> QuantLayer:
    """Turn a Conv1d/2d/3d or Linear into its quantized kind, in place: it keeps its path, parameters and hooks.

    Inputs are untouched until ``input_quantizer`` and ``activation_bits`` are set.

    Raises:
        CompressionError: it is no such layer.
    """
    kind = next((quantized for plain, quantized in _QUANTIZED if isinstance(layer, plain)), None)
    if kind is None:
        raise CompressionError(f"quantize: a {type(layer).__name__} has no quantized kind")
    layer.__class__ = kind
    assert isinstance(layer, QuantLayer)
    layer.weight_bits, layer.activation_bits, layer.frozen = weight_bits, UNTOUCHED, False
    layer.input_quantizer = None
    layer.register_buffer("clip", best_clip(layer.weight, weight_bits) if weight_bits != UNTOUCHED else None)
    return layer
