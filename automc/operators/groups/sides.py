"""Which tensors and numbers of a module follow its inputs and its outputs: the table behind every cut."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.instancenorm import _InstanceNorm

from automc.errors import CompressionError
from automc.operators.groups.slicing import Cut

_ROWS = (("weight", 0), ("bias", 0))
_STATISTICS = (*_ROWS, ("running_mean", 0), ("running_var", 0))

Index = tuple[tuple[int, ...], ...]
"""For every channel of a group, the indices it has somewhere."""


@dataclass(frozen=True)
class Side:
    """One side of a kind of module: the tensors and attributes that follow its length, and its blocks' attribute."""

    role: str
    tensors: tuple[tuple[str, int], ...]
    attributes: tuple[str, ...]
    blocks: str = ""


_DEPTHWISE = Side("depthwise", _ROWS, ("in_channels", "out_channels", "groups"))
_SIDES: tuple[tuple[type[nn.Module], dict[str, Side]], ...] = (
    (nn.Linear, {"out": Side("out", _ROWS, ("out_features",)), "in": Side("in", (("weight", 1),), ("in_features",))}),
    (
        _ConvTransposeNd,
        {
            "out": Side("out", (("weight", 1), ("bias", 0)), ("out_channels",)),
            "in": Side("in", (("weight", 0),), ("in_channels",)),
        },
    ),
    (
        _ConvNd,
        {
            "out": Side("out", _ROWS, ("out_channels",), "groups"),
            "in": Side("in", (("weight", 1),), ("in_channels",), "groups"),
        },
    ),
    (_BatchNorm, {"each": Side("each", _STATISTICS, ("num_features",))}),
    (_InstanceNorm, {"each": Side("each", _STATISTICS, ("num_features",))}),
    (nn.GroupNorm, {"each": Side("each", _ROWS, ("num_channels",), "num_groups")}),
    (nn.LayerNorm, {"each": Side("each", _ROWS, ("normalized_shape",))}),
    (nn.PReLU, {"each": Side("each", _ROWS[:1], ("num_parameters",))}),
    (nn.Embedding, {"each": Side("each", (("weight", 1),), ("embedding_dim",))}),
)


def cuts_at(path: str, module: nn.Module, inward: bool, index: Index, full: str = "") -> list[Cut]:
    """What this module loses when a group loses channels that come in or go out here.

    Args:
        inward: they are its inputs. index: for a recurrent layer's outputs, its hidden units.

    Raises:
        CompressionError: it cannot lose them; the message completes "layer x ...".
    """
    if isinstance(module, (nn.LSTM, nn.GRU)):
        return [_recurrent_in(path, module, index, full)] if inward else _recurrent_out(path, module, index)
    side = side_of(path, module, inward)
    blocks = int(getattr(module, side.blocks)) if side.blocks else 1
    return [Cut(path, side.role, side.tensors, side.attributes, width(module, inward), blocks, index, full)]


def width(module: nn.Module, inward: bool) -> int:
    """How many channels come in or go out; a recurrent layer's hidden units."""
    if isinstance(module, nn.RNNBase):
        return module.input_size if inward else module.hidden_size
    value = getattr(module, side_of("", module, inward).attributes[0])
    return int(value[-1] if isinstance(value, tuple) else value)


def side_of(path: str, module: nn.Module, inward: bool) -> Side:
    """The side of a module that is not recurrent.

    Raises:
        CompressionError: its channels cannot be cut.
    """
    kind = type(module).__name__
    if any(name in getattr(module, "parametrizations", {}) for name in ("weight", "bias")):
        raise CompressionError(f"is coupled to {path!r}, whose weight is computed (parametrization)")
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) > 1:
        raise CompressionError(f"is coupled to {path!r}, a {kind} over several axes")
    if isinstance(module, _ConvTransposeNd) and module.groups > 1:
        raise CompressionError(f"is coupled to {path!r}, a grouped {kind}")
    if isinstance(module, _ConvNd) and module.groups > 1 and module.groups in (module.in_channels, module.out_channels):
        if module.in_channels != module.out_channels:
            raise CompressionError(f"is coupled to {path!r}, a {kind} with one channel a group on one side")
        return _DEPTHWISE
    for base, sides in _SIDES:
        if isinstance(module, base):
            return sides["each"] if "each" in sides else sides["in" if inward else "out"]
    raise CompressionError(f"is coupled to {path!r}, a {kind}, whose channels cannot be cut")


def _recurrent_in(path: str, module: nn.RNNBase, index: Index, full: str) -> Cut:
    tensors = tuple((f"weight_ih_l0{way}", 1) for way in _ways(module))
    return Cut(path, "in", tensors, ("input_size",), module.input_size, 1, index, full)


def _recurrent_out(path: str, module: nn.RNNBase, index: Index) -> list[Cut]:
    """A hidden unit goes from all layers and both directions, because they share one ``hidden_size``.

    Unit c of H owns the rows c, H + c, ... of every matrix, one a gate, column c of the recurrent ones, and in the
    next layer column c of each direction's part.
    """
    if module.proj_size:
        raise CompressionError(f"is coupled to {path!r}, a {type(module).__name__} with a projection (proj_size)")
    size, ways = module.hidden_size, _ways(module)
    gates = module.get_parameter("weight_hh_l0").shape[0] // size

    def spread(copies: int) -> Index:
        return tuple(tuple(sorted(n * size + c for c in units for n in range(copies))) for units in index)

    layers = [f"_l{layer}{way}" for layer in range(module.num_layers) for way in ways]
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    rows = tuple((kind + layer, 0) for layer in layers for kind in kinds)
    columns = tuple(("weight_hh" + layer, 1) for layer in layers)
    deeper = tuple(("weight_ih" + layer, 1) for layer in layers[len(ways) :])
    cuts = [
        Cut(path, "out", rows, (), gates * size, 1, spread(gates)),
        Cut(path, "recurrent", columns, ("hidden_size",), size, 1, index),
        Cut(path, "recurrent", deeper, (), len(ways) * size, 1, spread(len(ways))),
    ]
    return cuts if deeper else cuts[:2]


def _ways(module: nn.RNNBase) -> tuple[str, ...]:
    return ("", "_reverse") if module.bidirectional else ("",)
