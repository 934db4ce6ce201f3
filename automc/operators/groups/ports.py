"""Ports: where a module and the network around it disagree about the channels, a hook translates.

Two cases need it. A module of the user's own without weights may expect its full width (the padded shortcut of an
option-A ResNet): it stays as it is, reads zeros for the channels that are gone, and of what it gives only the channels
that are left are passed on. And a forward may have widths written into it (a reshape into heads): there the layers
shrink, and the network between them keeps its full width, with zeros for what no layer computes any more.

A hook keeps the module at its path, whatever its class becomes later. It is exported as a Gather, is copied and pickled
with its module, and costs one copy of the activations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

GONE = -1
"""In place of a channel's number: it is zero."""


class Port:
    """Picks channels: channel c of what leaves is channel ``index[c]`` of what enters, or zero where that is GONE."""

    def __init__(self, index: Sequence[int], axis: int) -> None:
        self.axis = axis
        self._zeros = GONE in index
        width = max(index, default=-1) + 1
        self._index = torch.tensor([i if i != GONE else width for i in index])
        self._width = width

    def __call__(self, x: Tensor) -> Tensor:
        if self._zeros:
            zero = torch.zeros_like(x.narrow(self.axis, 0, 1))
            x = torch.cat([x.narrow(self.axis, 0, self._width), zero], self.axis)
        return x.index_select(self.axis, self._index.to(x.device))


class _Before(Port):
    def __call__(self, module: nn.Module, args: Any) -> Any:  # type: ignore[override]
        return (super().__call__(args[0]), *args[1:])


class _After(Port):
    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:  # type: ignore[override]
        return super().__call__(output)


def before(module: nn.Module, index: Sequence[int], axis: int, outermost: bool) -> None:
    """Translate a module's first input; ``outermost`` where the module has ports already, else closest to it."""
    module.register_forward_pre_hook(_Before(index, axis), prepend=outermost)


def after(module: nn.Module, index: Sequence[int], axis: int, outermost: bool) -> None:
    """Translate a module's output, which must be one tensor."""
    module.register_forward_hook(_After(index, axis), prepend=not outermost)


def channel_axis(module: nn.Module) -> int:
    """The axis of a module's inputs and outputs that its channels lie on."""
    if isinstance(module, (nn.Linear, nn.LayerNorm, nn.Embedding, nn.RNNBase)):
        return -1
    return -1 - len(module.kernel_size) if isinstance(module, _ConvNd) else 1
