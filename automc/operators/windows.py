"""What the filters of a convolution are multiplied with."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd


def windows(layer: _ConvNd, x: Tensor) -> Tensor:
    """What a convolution (not a transposed one) reads at every place of its output, padding included.

    Args:
        x: its inputs, shape (n, channels, ...).

    Returns:
        A view of the padded inputs, shape (n, channels, *places, *kernel).
    """
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = F.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
    return unfolded(x, layer.kernel_size, layer.stride, layer.dilation)


def unfolded(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]) -> Tensor:
    """Every place that a kernel of this form fits on: a view of shape (n, channels, *places, *kernel).

    Args:
        x: shape (n, channels, ...), padded already.
    """
    for axis, (size, step, gap) in enumerate(zip(kernel, stride, dilation, strict=True), 2):
        x = x.unfold(axis, gap * (size - 1) + 1, step)[..., ::gap]
    return x
