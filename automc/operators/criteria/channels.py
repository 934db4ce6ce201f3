"""What the criteria share: sums over what belongs to a channel, and looks at what flows through the original."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import torch
from torch import Tensor, nn

from automc.errors import CompressionError
from automc.operators.base import Compression
from automc.operators.copies import duplicate
from automc.operators.groups.slicing import Cut, Plan
from automc.operators.recalibrate import run

Criterion = Callable[[Compression, Plan], Tensor]
"""Scores of shape (channels,) of the original network, ``state.teacher``; the lowest go first."""


def rows(tensor: Tensor, axis: int, blocks: int = 1) -> Tensor:
    """The tensor with this axis first and the others flattened, detached: shape (length, n).

    Args:
        blocks: groups of a grouped convolution whose inputs these are: each block of outputs has inputs of its own.
    """
    parts = [part.movedim(axis, 0).reshape(part.shape[axis], -1) for part in tensor.detach().chunk(blocks)]
    return torch.cat(parts)


def parameters(module: nn.Module, cut: Cut) -> Iterator[tuple[nn.Parameter, int]]:
    """The parameters of the cut's module that it names, with the axis it cuts; buffers and absent ones are left out."""
    for name, axis in cut.tensors:
        found = getattr(module, name, None)
        if isinstance(found, nn.Parameter):
            yield found, axis


def per_channel(values: Tensor, cut: Cut) -> Tensor:
    """For every channel of the group the sum over its indices in the cut; 0 where it has none.

    Args:
        values: shape (cut.length, ...).

    Returns:
        Shape (channels, ...), float64.
    """
    owners = [channel for channel, index in enumerate(cut.index) for _ in index]
    taken = values.double()[list(chain.from_iterable(cut.index))]
    return taken.new_zeros(len(cut.index), *values.shape[1:]).index_add(0, torch.tensor(owners), taken)


def equal_say(parts: Iterable[tuple[Cut, Tensor]], channels: int) -> Tensor:
    """The sum of several layers' scores, each divided by its mean over the channels that the layer has.

    Args:
        parts: a cut and its scores, shape (channels,), not negative.
    """
    total = torch.zeros(channels, dtype=torch.float64)
    for cut, scores in parts:
        present = torch.tensor([bool(index) for index in cut.index])
        total += scores.double() * present / scores[present].mean().clamp_min(torch.finfo(torch.float64).tiny)
    return total


def calibration(state: Compression) -> Tensor:
    """The calibration inputs.

    Raises:
        CompressionError: there are none.
    """
    if state.calibration is None or not len(state.calibration):
        raise CompressionError("it is measured on calibration inputs, and there are none; give some, or choose 'l1'")
    return state.calibration


def watch(state: Compression, paths: Iterable[str], see: Callable[[str, nn.Module, Tensor], None]) -> None:
    """Run the calibration inputs through the original network and show what goes into some of its modules.

    Args:
        see: called as see(path, module, input) in every forward of a module, the input detached.

    Raises:
        CompressionError: there are no calibration inputs.
    """
    inputs = calibration(state)
    model = duplicate(state.teacher).eval()
    for path in set(paths):
        # ``.data`` is that of a packed sequence too.
        model.get_submodule(path).register_forward_pre_hook(
            lambda module, args, path=path: see(path, module, args[0].data)
        )
    run(model, inputs)
