"""What the filters of a convolution are multiplied with."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd


def windows(layer: _ConvNd, x: Tensor) -> Tensor:
    """What a convolution (not a transposed one) reads at every place of its output, padding included.

    Args:
        x: its inputs, shape (n, channels, ...).

    Returns:
        A view of the padded inputs, shape (n, channels, *places, *kernel).
    """
    return unfolded(padded(layer, x), layer.kernel_size, layer.stride, layer.dilation)


def padded(layer: _ConvNd, x: Tensor) -> Tensor:
    """The inputs of a convolution (not a transposed one) with its padding around them."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return F.pad(x, layer._reversed_padding_repeated_twice, mode=mode)


def spread(layer: _ConvTransposeNd, x: Tensor) -> Tensor:
    """The input of the ordinary convolution, with the kernel flipped, that a transposed one is: zeros put between."""
    sizes = [(length - 1) * step + 1 for length, step in zip(x.shape[2:], layer.stride, strict=True)]
    wide = x.new_zeros(*x.shape[:2], *sizes)
    places: tuple[Any, ...] = (..., *(slice(None, None, step) for step in layer.stride))
    wide[places] = x
    margins: list[int] = []
    for axis in reversed(range(len(sizes))):
        padding = layer.padding[axis]
        assert isinstance(padding, int)  # a transposed convolution takes no padding in words
        edge = layer.dilation[axis] * (layer.kernel_size[axis] - 1) - padding
        margins += [edge, edge + layer.output_padding[axis]]
    return F.pad(wide, margins)


def unfolded(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]) -> Tensor:
    """Every place that a kernel of this form fits on: a view of shape (n, channels, *places, *kernel).

    Args:
        x: shape (n, channels, ...), padded already.
    """
    for axis, (size, step, gap) in enumerate(zip(kernel, stride, dilation, strict=True), 2):
        x = x.unfold(axis, gap * (size - 1) + 1, step)[..., ::gap]
    return x
