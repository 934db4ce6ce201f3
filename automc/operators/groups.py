"""Finding the coupled groups of a network: layers whose channels must be pruned together.

Torch-Pruning's DependencyGraph (Fang et al., CVPR 2023) finds them from the autograd graph of one forward pass.
It is used here only, once per network, and what it finds is turned into plans of plain data (slicing.py).
Whatever it gets wrong is caught by the proof (proof.py).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.instancenorm import _InstanceNorm

from automc.errors import CompressionError
from automc.operators.slicing import Cut, Plan

_ROWS = (("weight", 0), ("bias", 0), ("clip", 0))
"""Output channels of a layer; ``clip`` is the quantizer's, where a layer has one."""
_STATISTICS = (("weight", 0), ("bias", 0), ("running_mean", 0), ("running_var", 0))


@dataclass(frozen=True)
class _Side:
    """One side of a kind of module: the tensors and attributes that follow its length, and its blocks' attribute."""

    role: str
    tensors: tuple[tuple[str, int], ...]
    attributes: tuple[str, ...]
    blocks: str = ""


_DEPTHWISE = _Side("depthwise", _ROWS, ("in_channels", "out_channels", "groups"))
_SIDES: tuple[tuple[type[nn.Module], dict[str, _Side]], ...] = (
    (nn.Linear, {"out": _Side("out", _ROWS, ("out_features",)), "in": _Side("in", (("weight", 1),), ("in_features",))}),
    (_ConvTransposeNd, {"in": _Side("in", (("weight", 0),), ("in_channels",))}),
    (
        _ConvNd,
        {
            "out": _Side("out", _ROWS, ("out_channels",), "groups"),
            "in": _Side("in", (("weight", 1),), ("in_channels",), "groups"),
        },
    ),
    (_BatchNorm, {"each": _Side("each", _STATISTICS, ("num_features",))}),
    (_InstanceNorm, {"each": _Side("each", _STATISTICS, ("num_features",))}),
    (nn.GroupNorm, {"each": _Side("each", _ROWS[:2], ("num_channels",), "num_groups")}),
    (nn.LayerNorm, {"each": _Side("each", _ROWS[:2], ("normalized_shape",))}),
    (nn.PReLU, {"each": _Side("each", _ROWS[:1], ("num_parameters",))}),
)


class GroupFinder:
    """The dependency graph of a network, asked for one group at a time.

    Args:
        model: in eval mode; not changed. example: shape (n, ...), n >= 1.

    Raises:
        CompressionError: the graph cannot be built; nothing of this network can be pruned.
    """

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        import torch_pruning

        self._model = copy.deepcopy(model).requires_grad_(True)
        self._paths = {module: path for path, module in self._model.named_modules()}
        self._parameters = {parameter: path for path, parameter in self._model.named_parameters()}
        self._tied = _tied(self._model)
        try:
            with warnings.catch_warnings(), torch.enable_grad():
                warnings.simplefilter("ignore")
                # A tuple, because a bare batch would be unpacked into as many arguments.
                graph = torch_pruning.DependencyGraph().build_dependency(self._model, (example,), verbose=False)
        except Exception as error:
            raise CompressionError(f"has no known coupling ({one_line(error)})") from error
        self._graph: Any = graph

    def cuts(self, root: str) -> list[Cut]:
        """Everything that goes with this layer's outputs.

        Raises:
            CompressionError: something in it cannot be cut; the message completes "layer x ...".
        """
        module = self._model.get_submodule(root)
        if module not in self._graph.module2node:
            raise CompressionError("does not lie on the way to the network's output")
        cuts = self._cuts(module)
        # Where a wide layer is summed with a concatenation of narrow ones, only the wide one reaches every channel.
        widest = max((cut for cut in cuts if cut.role in ("out", "depthwise")), key=lambda cut: cut.length)
        if widest.length > len(cuts[0].index):
            cuts = self._cuts(self._model.get_submodule(widest.module))
        return cuts

    def _cuts(self, module: nn.Module) -> list[Cut]:
        pruner = self._graph.get_pruner_of_module(module)
        channels = pruner.get_out_channels(module)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            group = self._graph.get_pruning_group(module, pruner.prune_out_channels, list(range(channels)))
        cuts = []
        for item in group:
            index: list[list[int]] = [[] for _ in range(channels)]
            for here, channel in zip(item.idxs, item.root_idxs, strict=True):
                if channel is None:
                    raise CompressionError("passes an expanded axis (grouped-query attention)")
                index[channel].append(here)
            cut = self._cut(item.dep, tuple(tuple(sorted(i)) for i in index))
            cuts += [cut] if cut else []
        return cuts

    def _cut(self, dependency: Any, index: tuple[tuple[int, ...], ...]) -> Cut | None:
        target = dependency.target.module
        if isinstance(target, nn.Parameter):
            owner, _, name = self._parameters[target].rpartition(".")
            axis = dependency.target.pruning_dim
            return Cut(owner, "parameter", ((name, axis),), (), target.shape[axis], 1, index)
        if target not in self._paths:
            return None  # an operation between the modules
        path = self._paths[target]
        if path in self._tied:
            raise CompressionError(f"shares a parameter with another layer ({path!r})")
        inward = dependency.handler.__name__ == "prune_in_channels"
        side = _side(path, target, inward)
        length = _length(target, side)
        return Cut(path, side.role, side.tensors, side.attributes, length, _blocks(target, side), index)


def plan_of(name: str, cuts: Sequence[Cut]) -> Plan:
    """The plan of a group with these cuts.

    Raises:
        CompressionError: they do not fit together; the message completes "layer x ...".
    """
    channels = len(cuts[0].index)
    for cut in cuts:
        gone = cut.gone(range(channels))
        if gone[-1] >= cut.length:
            raise CompressionError("feeds a residual sum with a shortcut of another width (padded or sliced channels)")
        if cut.role in ("out", "depthwise") and len(gone) < cut.length:
            raise CompressionError(f"is coupled to a part of the channels of {cut.module!r}")
    return Plan(name, channels, tuple(cuts), _cells(cuts, channels))


def _side(path: str, module: nn.Module, inward: bool) -> _Side:
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
            role = "each" if "each" in sides else "in" if inward else "out"
            if role in sides:
                return sides[role]
            break
    raise CompressionError(f"is coupled to {path!r}, a {kind}, whose channels cannot be cut")


def _length(module: nn.Module, side: _Side) -> int:
    value = getattr(module, side.attributes[0])
    return int(value[-1] if isinstance(value, tuple) else value)


def _blocks(module: nn.Module, side: _Side) -> int:
    return int(getattr(module, side.blocks)) if side.blocks else 1


def _tied(model: nn.Module) -> set[str]:
    """Paths of the modules that share a parameter with another module."""
    owners: dict[int, list[str]] = {}
    for path, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(path)
    return {path for paths in owners.values() if len(paths) > 1 for path in paths}


def _cells(cuts: Sequence[Cut], channels: int) -> tuple[int, ...]:
    """Channels that fall into the same blocks everywhere form a cell."""
    blocked = [cut for cut in cuts if cut.blocks > 1]
    labels = [tuple(tuple(i // cut.block for i in cut.index[c]) for cut in blocked) for c in range(channels)]
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    cells = tuple(numbers[label] for label in labels)
    if len({cells.count(number) for number in numbers.values()}) > 1:
        raise CompressionError("feeds grouped layers that divide its channels unequally")
    return cells


def one_line(error: BaseException) -> str:
    """Kind and first line of an error, for use inside a sentence."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
