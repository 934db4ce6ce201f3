"""The layer table: what the search may know of a network without holding it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from automc.core.sensitivity import Sensitivity


@dataclass(frozen=True)
class Layer:
    """One compressible module.

    Attributes:
        name: dotted module name in the model.
        index: position in execution order, from 0.
        kind: ``conv``, ``depthwise``, ``linear`` (more kinds come with more operators).
        in_channels, out_channels: features for linear layers.
        kernel, stride: one number per spatial axis; empty for linear.
        out_shape: output shape of one input, without the batch axis.
        params: weights and biases. macs: multiply-accumulates of one input.
        beside: parameters of norms and the like that are in no layer and go with this one's outputs.
        recurrent: of a recurrent layer, how many weights multiply what it is given, and how many its own hidden units
            (those of all its higher levels, too); empty for others.
        group: name of the group whose pruning removes this layer's outputs, or "".
        reason: why the outputs cannot be pruned, "" where they can.
    """

    name: str
    index: int
    kind: str
    in_channels: int
    out_channels: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    out_shape: tuple[int, ...]
    params: int
    macs: int
    group: str = ""
    reason: str = ""
    beside: int = 0
    recurrent: tuple[int, ...] = ()


@dataclass(frozen=True)
class Group:
    """Layers whose output channels must be pruned together; ``name`` is its first producer's.

    Attributes:
        channels: number of channels that can be chosen from.
        producers: layers that lose outputs. consumers: layers that lose inputs.
        multiple: how many channels stay is a multiple of this, where the group has blocks that must stay equal.
    """

    name: str
    channels: int
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    multiple: int = 1

    def kept(self, ratio: float, multiple: int = 1) -> int:
        """How many channels stay; see ``kept_channels``."""
        return kept_channels(self.channels, ratio, math.lcm(self.multiple, multiple))


def kept_channels(channels: int, ratio: float, step: int = 1) -> int:
    """How many of these channels stay when ``ratio`` of them should go.

    ``channels - floor(ratio * channels)``, rounded up (as AMC does, He et al. 2018) to a multiple of ``step``: never
    more goes than asked, and never all. Where there are fewer channels than a step, all stay.

    Args:
        ratio: in [0, 1). step: at least 1.
    """
    wanted = channels - math.floor(ratio * channels + 1e-9)  # so that 0.3 of 10 is 3
    return min(math.ceil(wanted / step) * step, channels)


@dataclass(frozen=True)
class Block:
    """A residual module that can be taken out whole, so that its input is passed on.

    Attributes:
        name: dotted module name. layers: those inside it, in execution order.
        params: all its parameters. macs: multiply-accumulates of its layers for one input.
    """

    name: str
    layers: tuple[str, ...]
    params: int
    macs: int


@dataclass(frozen=True)
class LayerTable:
    """All layers in execution order, their coupled groups, and the blocks that can be dropped.

    ``input_shape`` is the shape of one input without the batch axis; ``sensitivity`` has what was measured of single
    decisions, nothing where no proposer of the study asks for it.
    """

    layers: tuple[Layer, ...]
    groups: tuple[Group, ...]
    input_shape: tuple[int, ...] = ()
    sensitivity: Sensitivity = field(default_factory=Sensitivity)
    blocks: tuple[Block, ...] = ()

    def layer(self, name: str) -> Layer:
        return next(layer for layer in self.layers if layer.name == name)

    def group(self, name: str) -> Group:
        return next(group for group in self.groups if group.name == name)

    @property
    def params(self) -> int:
        return sum(layer.params for layer in self.layers)

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)

    def to_data(self) -> dict[str, Any]:
        """Plain lists, numbers and text, as JSON can carry them."""
        return asdict(replace(self, sensitivity=Sensitivity())) | {"sensitivity": self.sensitivity.to_data()}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> LayerTable:
        """The table that ``to_data`` wrote, also after a trip through JSON."""
        layers = tuple(Layer(**_tuples(row)) for row in data["layers"])
        groups = tuple(Group(**_tuples(row)) for row in data["groups"])
        blocks = tuple(Block(**_tuples(row)) for row in data.get("blocks", ()))  # older tables have none
        sensitivity = Sensitivity.from_data(data.get("sensitivity", ()))
        return cls(layers, groups, tuple(data["input_shape"]), sensitivity, blocks)


def _tuples(row: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has lists where the table has tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
