"""Removing channels: plans of plain data, and their replay by indexing.

A plan is found once, when the network is traced (see graph.py), and holds no module, only paths: it pickles,
and workers replay it on their own copy of the network in milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from automc.errors import CompressionError
from automc.operators.factorized import Factorized
from automc.operators.groups import ports
from automc.operators.live import LiveLayer


@dataclass(frozen=True)
class Cut:
    """What one module loses on one side when a group loses channels.

    Attributes:
        module: dotted path of the module, "" for the network itself.
        role: ``out`` (it loses outputs), ``in`` (inputs), ``depthwise`` (both at once), ``each`` (one value a
            channel: norms, PReLU, embeddings), ``recurrent`` (what an LSTM or GRU reads of its own hidden units) or
            ``parameter`` (a bare nn.Parameter of the module).
        tensors: (name, axis) of the parameters and buffers to index; absent ones are skipped.
        attributes: numbers of the module that follow the new length (``out_channels`` and so on).
        length: how many indices this side has. blocks: into how many equal blocks they fall, each of which must
            keep equally many: the groups of a convolution or of a group norm, else 1.
        index: for every channel of the group, the indices it has here (a flatten gives one channel several, a
            concatenation shifts them, and channels that do not come here have none).
        full: who keeps the full width and has a port (ports.py) that translates: ``outside``, the network around the
            module; ``inside``, the module itself, which has no weights then; "" means nobody.
    """

    module: str
    role: str
    tensors: tuple[tuple[str, int], ...]
    attributes: tuple[str, ...]
    length: int
    blocks: int
    index: tuple[tuple[int, ...], ...]
    full: str = ""

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
        """Cuts of the layers that lose outputs."""
        return [cut for cut in self.cuts if cut.role in ("out", "depthwise") and cut.tensors]

    @property
    def consumers(self) -> list[Cut]:
        """Cuts of the layers that lose inputs and keep their outputs."""
        return [cut for cut in self.cuts if cut.role == "in" and cut.tensors]

    @property
    def read(self) -> bool:
        """Somebody reads the group's channels."""
        return any(cut.role == "in" for cut in self.cuts)

    def members(self) -> list[list[int]]:
        """The channels of each cell, in order."""
        return [[c for c, cell in enumerate(self.cells) if cell == number] for number in range(self.multiple)]


@dataclass(frozen=True)
class Loss:
    """All that one side of one module loses: behind a concatenation it belongs to several groups.

    Attributes:
        cut: the side, its index being that of one of the groups. gone: indices that go. narrowed: those of them that
            also leave the network around the module.
    """

    cut: Cut
    gone: frozenset[int]
    narrowed: frozenset[int]

    @property
    def keep(self) -> list[int]:
        """The indices that stay, in order."""
        return [i for i in range(self.cut.length) if i not in self.gone]


def losses(plans: Mapping[str, Plan], removed: Mapping[str, Sequence[int]]) -> list[Loss]:
    """What goes where, when these channels of these groups go; sides that lose nothing are left out."""
    sides: dict[tuple[str, str, tuple[tuple[str, int], ...]], Loss] = {}
    for name, channels in removed.items():
        for cut in plans[name].cuts:
            gone = frozenset(cut.gone(channels))
            if gone:
                key = (cut.module, cut.role, cut.tensors)
                old = sides.get(key, Loss(cut, frozenset(), frozenset()))
                narrowed = old.narrowed if cut.full == "outside" else old.narrowed | gone
                sides[key] = Loss(cut, old.gone | gone, narrowed)
    return list(sides.values())


def remove_channels(model: nn.Module, plans: Mapping[str, Plan], removed: Mapping[str, Sequence[int]]) -> None:
    """Take channels out of groups, in place. All groups go at once: indices are those of the traced network.

    What was replaced as a whole since (a dropped block) is passed over.

    Args:
        model: the traced network or a copy, none of its groups pruned yet.
        removed: by group name, the channels that go.

    Raises:
        CompressionError: a layer would be left without channels or with unequal blocks, or it does not have the
            size it was traced with.
    """
    for loss in losses(plans, removed):
        module = _find(model, loss.cut.module)
        if module is not None:
            _apply(module, loss)


def _find(model: nn.Module, path: str) -> nn.Module | None:
    """The module at a path; None where the path leads through a module that has no children (any more)."""
    module = model
    for name in path.split(".") if path else ():
        child = module._modules.get(name)
        if child is None:
            if not module._modules:
                return None
            raise CompressionError(f"prune: the network has no module {path!r}; compress the network that was traced")
        module = child
    return module


def _apply(module: nn.Module, loss: Loss) -> None:
    cut, keep = loss.cut, loss.keep
    if not keep:
        raise CompressionError(f"prune: {cut.module!r} is pruned to nothing: all its {cut.length} channels would go")
    size = cut.block
    blocks = [[i % size for i in keep if i // size == number] for number in range(cut.blocks)] if cut.blocks > 1 else []
    if len({len(block) for block in blocks}) > 1:
        left = [len(block) for block in blocks]
        raise CompressionError(f"prune: {cut.module!r} needs equally many channels in each of its groups, not {left}")
    _translate(module, loss)
    layer = _part(module, cut)
    for name, axis in cut.tensors:
        old = getattr(layer, name, None)
        if old is not None:
            take = partial(_select, axis=axis, keep=keep, blocks=blocks, cut=cut)
            new = take(old.detach())
            setattr(layer, name, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)
            if isinstance(layer, LiveLayer):
                layer.select(name, axis, take)
    for attribute in cut.attributes:
        value = getattr(layer, attribute)
        setattr(layer, attribute, (*value[:-1], len(keep)) if isinstance(value, tuple) else len(keep))


def _part(module: nn.Module, cut: Cut) -> nn.Module:
    """The layer that is cut: of a factorized one, the first part reads the inputs and the last makes the outputs."""
    if not isinstance(module, Factorized):
        return module
    if cut.blocks > 1 or cut.role == "depthwise":
        raise CompressionError(
            f"prune: {cut.module!r} is a factorized grouped convolution, whose channels cannot be cut; prune first"
        )
    return module[0] if cut.role == "in" else module[-1]


def _translate(module: nn.Module, loss: Loss) -> None:
    """Put the ports in place where the module and its surroundings keep different channels."""
    cut = loss.cut
    outer = [i for i in range(cut.length) if i not in loss.narrowed]
    inner = list(range(cut.length)) if cut.full == "inside" else loss.keep
    if outer == inner:
        return
    axis = ports.channel_axis(_part(module, cut))
    if cut.role in ("in", "depthwise", "each") and not isinstance(module, nn.Embedding):
        ports.before(module, _positions(inner, outer), axis, cut.full == "inside")
    if cut.role in ("out", "depthwise", "each"):
        ports.after(module, _positions(outer, inner), axis, cut.full == "inside")


def _positions(wanted: Sequence[int], given: Sequence[int]) -> list[int]:
    """Where each wanted channel lies among the given ones."""
    places = {channel: place for place, channel in enumerate(given)}
    return [places.get(channel, ports.GONE) for channel in wanted]


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
