"""Finding the coupled groups of a network: layers whose channels must be pruned together.

Torch-Pruning's DependencyGraph (Fang et al., CVPR 2023) finds them from the autograd graph of one forward pass.
It is used here only, once per network, and what it finds is turned into plans of plain data (slicing.py).
Whatever it gets wrong is caught by the proof (proof.py).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from automc.errors import CompressionError, one_line
from automc.operators.groups.adapters import Adapter, with_stand_ins
from automc.operators.groups.sides import Index, cuts_at
from automc.operators.groups.slicing import Cut, Plan


class GroupFinder:
    """The dependency graph of a network, asked for one group at a time.

    Args:
        model: in eval mode; not changed. example: shape (n, ...), n >= 1.
        adapters: by path, the modules that need not be followed.

    Raises:
        CompressionError: the graph cannot be built; nothing of this network can be pruned.
    """

    def __init__(self, model: nn.Module, example: Tensor, adapters: Mapping[str, Adapter]) -> None:
        import torch_pruning

        self._adapters = adapters
        self._model = with_stand_ins(copy.deepcopy(model), self._adapters).requires_grad_(True)
        self._paths = {module: path for path, module in self._model.named_modules()}
        self._parameters = {parameter: path for path, parameter in self._model.named_parameters()}
        self._tied = tied(self._model)
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
        if isinstance(module, nn.RNNBase):
            raise CompressionError("is recurrent, and its outputs could not be followed")
        cuts = self._cuts(module)
        # Where a wide layer is summed with a concatenation of narrow ones, only the wide one reaches every channel.
        widest = max((cut for cut in cuts if cut.role in ("out", "depthwise")), key=lambda cut: cut.length)
        if widest.length > len(cuts[0].index):
            cuts = self._cuts(self._model.get_submodule(widest.module))
        return cuts

    def _cuts(self, module: nn.Module) -> list[Cut]:
        pruner = self._graph.get_pruner_of_module(module)
        channels = pruner.get_out_channels(module)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                group = self._graph.get_pruning_group(module, pruner.prune_out_channels, list(range(channels)))
        except Exception as error:
            raise CompressionError(f"has a coupling that cannot be followed ({one_line(error)})") from error
        cuts = []
        for item in group:
            index: list[list[int]] = [[] for _ in range(channels)]
            for here, channel in zip(item.idxs, item.root_idxs, strict=True):
                if channel is None:
                    raise CompressionError("passes an expanded axis (grouped-query attention)")
                index[channel].append(here)
            cuts += self._cuts_at(item.dep, tuple(tuple(sorted(i)) for i in index))
        return cuts

    def _cuts_at(self, dependency: Any, index: Index) -> list[Cut]:
        target = dependency.target.module
        if isinstance(target, nn.Parameter):
            owner, _, name = self._parameters[target].rpartition(".")
            axis = dependency.target.pruning_dim
            return [Cut(owner, "parameter", ((name, axis),), (), target.shape[axis], 1, index)]
        if target not in self._paths:
            return []  # an operation between the modules
        path = self._paths[target]
        if path in self._tied:
            raise CompressionError(f"shares a parameter with another layer ({path!r})")
        inward = dependency.handler.__name__ == "prune_in_channels"
        if path in self._adapters:
            return [self._adapters[path].cut(path, inward, index)]
        if isinstance(target, nn.RNNBase) and not inward:
            raise CompressionError(f"is coupled to the outputs of {path!r}, a {type(target).__name__}")
        return cuts_at(path, target, inward, index)


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


def tied(model: nn.Module) -> set[str]:
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
