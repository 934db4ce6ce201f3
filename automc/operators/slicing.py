"""Removing channels: plans of plain data, and their replay by indexing.

A plan is found once, when the network is traced (see groups.py), and holds no module, only paths: it pickles,
and workers replay it on their own copy of the network in milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from automc.errors import CompressionError


@dataclass(frozen=True)
class Cut:
    """What one module loses on one side when a group loses channels.

    Attributes:
        module: dotted path of the module, "" for the network itself.
        role: ``out`` (it loses outputs), ``in`` (inputs), ``depthwise`` (both at once), ``each`` (one value a
            channel: norms, PReLU) or ``parameter`` (a bare nn.Parameter of the module).
        tensors: (name, axis) of the parameters and buffers to index; absent ones are skipped.
        attributes: numbers of the module that follow the new length (``out_channels`` and so on).
        length: how many indices this side has. blocks: into how many equal blocks they fall, each of which must
            keep equally many: the groups of a convolution or of a group norm, else 1.
        index: for every channel of the group, the indices it has here (a flatten gives one channel several, a
            concatenation shifts them, and channels that do not come here have none).
    """

    module: str
    role: str
    tensors: tuple[tuple[str, int], ...]
    attributes: tuple[str, ...]
    length: int
    blocks: int
    index: tuple[tuple[int, ...], ...]

    @property
    def block(self) -> int:
        """How many indices a block has."""
        return self.length // self.blocks

    def gone(self, channels: Sequence[int]) -> list[int]:
        """The indices that go when these channels of the group go."""
        return sorted({i for channel in channels for i in self.index[channel]})


@dataclass(frozen=True)
class Plan:
    """How a group of coupled layers is pruned.

    Attributes:
        name: the group's name. channels: how many there are to choose from.
        cuts: everything to index.
        cells: the cell of every channel, from 0. All cells have one size and must lose equally many channels, so
            that the blocks of grouped convolutions and group norms stay equal; without these there is one cell.
    """

    name: str
    channels: int
    cuts: tuple[Cut, ...]
    cells: tuple[int, ...]

    @property
    def multiple(self) -> int:
        """The number of kept channels is a multiple of this."""
        return max(self.cells) + 1

    @property
    def producers(self) -> list[Cut]:
        """Cuts of the convolutions and linear layers that lose outputs."""
        return [cut for cut in self.cuts if cut.role in ("out", "depthwise")]

    @property
    def consumers(self) -> list[Cut]:
        """Cuts of the layers that lose inputs and keep their outputs."""
        return [cut for cut in self.cuts if cut.role == "in"]

    def members(self) -> list[list[int]]:
        """The channels of each cell, in order."""
        return [[c for c, cell in enumerate(self.cells) if cell == number] for number in range(self.multiple)]


def remove_channels(model: nn.Module, plans: Mapping[str, Plan], removed: Mapping[str, Sequence[int]]) -> None:
    """Take channels out of groups, in place. All groups go at once: indices are those of the traced network.

    Args:
        model: the traced network or a copy, none of its groups pruned yet.
        removed: by group name, the channels that go.

    Raises:
        CompressionError: a layer would be left without channels or with unequal blocks, or it does not have the
            size it was traced with.
    """
    for cut, gone in _sides(plans, removed):
        if gone:
            _apply(model.get_submodule(cut.module), cut, [i for i in range(cut.length) if i not in gone])


def _sides(plans: Mapping[str, Plan], removed: Mapping[str, Sequence[int]]) -> Iterator[tuple[Cut, set[int]]]:
    """Every side of every module once, with all it loses: behind a concatenation one side serves several groups."""
    sides: dict[tuple[str, tuple[tuple[str, int], ...]], tuple[Cut, set[int]]] = {}
    for name, channels in removed.items():
        for cut in plans[name].cuts:
            _, gone = sides.setdefault((cut.module, cut.tensors), (cut, set()))
            gone.update(cut.gone(channels))
    yield from sides.values()


def _apply(module: nn.Module, cut: Cut, keep: Sequence[int]) -> None:
    if not keep:
        raise CompressionError(f"prune: {cut.module!r} is pruned to nothing: all its {cut.length} channels would go")
    blocks = [[i % cut.block for i in keep if i // cut.block == number] for number in range(cut.blocks)]
    if len({len(block) for block in blocks}) > 1:
        left = [len(block) for block in blocks]
        raise CompressionError(f"prune: {cut.module!r} needs equally many channels in each of its groups, not {left}")
    for name, axis in cut.tensors:
        old = getattr(module, name, None)
        if old is not None:
            new = _select(old.detach(), axis, keep, blocks, cut)
            setattr(module, name, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)
    for attribute in cut.attributes:
        value = getattr(module, attribute)
        setattr(module, attribute, (*value[:-1], len(keep)) if isinstance(value, tuple) else len(keep))


def _select(tensor: Tensor, axis: int, keep: Sequence[int], blocks: Sequence[Sequence[int]], cut: Cut) -> Tensor:
    grouped = cut.role == "in" and cut.blocks > 1
    size = cut.block if grouped else cut.length
    if tensor.shape[axis] != size:
        raise CompressionError(
            f"prune: {cut.module!r} has {tensor.shape[axis]} channels on axis {axis}, {size} when it was traced;"
            " compress the original network, not one that is pruned already"
        )
    if not grouped:
        return tensor.index_select(axis, torch.tensor(keep, device=tensor.device))
    # A grouped convolution's weight is (outputs, inputs of one group, ...): each block of outputs sees its own inputs.
    parts = zip(tensor.chunk(cut.blocks, dim=0), blocks, strict=True)
    return torch.cat([part.index_select(axis, torch.tensor(block, device=part.device)) for part, block in parts])
