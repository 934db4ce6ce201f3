"""Rows of a least-squares problem: what a layer reads and gives at some of the places where it stands."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from automc.operators.windows import padded, spread

KINDS = ("conv", "depthwise", "linear", "transposed")
"""Of the layer table, those that are such layers."""
SAMPLES = 16384
"""Rows drawn, about; more positions of the same feature maps tell little more."""
_CHUNK = 2**22
"""Numbers that are gathered at a time."""
_SEED = 0

Plain: TypeAlias = nn.Linear | _ConvNd
"""A layer whose outputs are sums of filters times what they stand on."""


def drawn(layer: Plain, output: Tensor) -> Tensor:
    """Places in the output of all inputs together, in order: always the same ones, for the seed is fixed.

    At least eight for every number that a filter reads, where there are so many.

    Args:
        output: shape (n, channels, ...) of a convolution, (..., features) of a linear layer.

    Returns:
        int64, shape (rows,).
    """
    places = math.prod(channels_last(layer, output).shape[:-1])
    rows = max(SAMPLES, 8 * math.prod(filters(layer).shape[2:]))
    if places <= rows:
        return torch.arange(places)
    return torch.randperm(places, generator=torch.Generator().manual_seed(_SEED))[:rows].sort().values


def given(layer: Plain, output: Tensor, rows: Tensor) -> Tensor:
    """The layer's output, or something of its shape, at these places: shape (rows, channels)."""
    return channels_last(layer, output).flatten(0, -2)[rows]


def read(layer: Plain, x: Tensor, rows: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """What the filters stand on at these places of the output, a part of the rows at a time.

    Args:
        x: the layer's input, of all inputs together, as its forward takes it.

    Yields:
        Which of ``rows``; and the numbers, shape (groups, rows of the part, length), ordered as ``filters`` are.
    """
    if isinstance(layer, nn.Linear):
        table, first, steps = x.reshape(-1, x.shape[-1]), rows, torch.zeros(1, dtype=torch.int64)
    else:
        table, first, steps = _table(layer, x, rows)
    groups = 1 if isinstance(layer, nn.Linear) else layer.groups
    size = max(_CHUNK // (len(steps) * table.shape[1]), 1)
    for start in range(0, len(rows), size):
        part = slice(start, min(start + size, len(rows)))
        taken = table.index_select(0, (first[part, None] + steps).flatten())
        taken = taken.view(-1, len(steps), groups, table.shape[1] // groups)  # (rows, *kernel, groups, channels)
        yield part, taken.permute(2, 0, 1, 3).flatten(2)


def _table(layer: _ConvNd, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The input with all its channels in one row a position; by place of the output its window's first row; and how
    far from that the other rows of a window are.
    """
    stride: Sequence[int] = layer.stride
    if isinstance(layer, _ConvTransposeNd):
        x, stride = spread(layer, x), (1,) * len(stride)
    else:
        x = padded(layer, x)
    sizes = x.shape[2:]
    geometry = zip(sizes, layer.kernel_size, layer.dilation, stride, strict=True)
    sites = [(size - gap * (kernel - 1) - 1) // step + 1 for size, kernel, gap, step in geometry]
    image, *place = torch.unravel_index(rows, (len(x), *sites))
    steps = torch.zeros(1, dtype=torch.int64)
    for at, size, kernel, gap, step in zip(place, sizes, layer.kernel_size, layer.dilation, stride, strict=True):
        image = image * size + at * step
        steps = (steps[:, None] * size + gap * torch.arange(kernel)).flatten()
    return x.movedim(1, -1).flatten(0, -2), image, steps


def filters(layer: Plain) -> Tensor:
    """The weight as the rows that ``read`` is multiplied with, those of a transposed convolution turned round.

    Returns:
        Shape (groups, outputs of a group, length), length running over the kernel, then the channels of a group.
    """
    weight = layer.weight.detach()
    groups = 1 if isinstance(layer, nn.Linear) else layer.groups
    parts = torch.unflatten(weight, 0, (groups, -1))
    if isinstance(layer, _ConvTransposeNd):
        parts = parts.transpose(1, 2).flip(list(range(3, parts.dim())))
    return parts.movedim(2, -1).flatten(2)


def set_filters(layer: Plain, new: Tensor) -> None:
    """Make this what ``filters`` gives, in place."""
    weight = layer.weight.detach()
    groups = len(new)
    turned = isinstance(layer, _ConvTransposeNd)
    inputs = weight.shape[0] // groups if turned else weight.shape[1]
    parts = new.view(*new.shape[:2], *weight.shape[2:], inputs).movedim(-1, 2)
    if turned:
        parts = parts.flip(list(range(3, parts.dim()))).transpose(1, 2)
    weight.copy_(parts.flatten(0, 1))


def channels_last(layer: Plain, output: Tensor) -> Tensor:
    """A view of the layer's output, or of something of its shape, with the channels on the last axis."""
    return output if isinstance(layer, nn.Linear) else output.movedim(1, -1)
