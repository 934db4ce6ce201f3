"""Criteria of other libraries, driven from a plan: Torch-Pruning's importances and NNI's pruning metrics.

Torch-Pruning's LAMP is missing on purpose: it rescales the magnitudes of a group and keeps their order, and the order
within a group is all that counts here. Its random, Taylor and Hessian importances, and NNI's Taylor and Slim pruners,
want a training loop or its gradients; ``taylor``, ``fisher`` and ``bn_scale`` are these without one.
"""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from automc.errors import CompressionError, one_line
from automc.operators.base import Compression
from automc.operators.criteria.channels import equal_say, per_channel
from automc.operators.groups.slicing import Cut, Plan


def tp_magnitude(state: Compression, plan: Plan) -> Tensor:
    """Torch-Pruning's group magnitude (Fang et al. 2023): squared weights of producers, norms and consumers."""
    return _torch_pruning(state, plan, "GroupMagnitudeImportance")


def tp_fpgm(state: Compression, plan: Plan) -> Tensor:
    """Torch-Pruning's geometric median: distances between *squared* filters, of producers and consumers."""
    return _torch_pruning(state, plan, "FPGMImportance")


def nni_l1(state: Compression, plan: Plan) -> Tensor:
    """NNI's L1 norm of the producers' filters, each producer with an equal say."""
    return _nni(state, plan, "L1NormPruner")


def nni_l2(state: Compression, plan: Plan) -> Tensor:
    """NNI's L2 norm of the producers' filters, each producer with an equal say."""
    return _nni(state, plan, "L2NormPruner")


def nni_fpgm(state: Compression, plan: Plan) -> Tensor:
    """NNI's sum of distances between the producers' filters, each producer with an equal say."""
    return _nni(state, plan, "FPGMPruner")


def _torch_pruning(state: Compression, plan: Plan, name: str) -> Tensor:
    import torch_pruning.pruner.importance as importances
    from torch_pruning._helpers import GroupItem, _HybridIndex

    _require_plain(state.teacher, plan)
    group = []
    for cut in plan.cuts:
        module = state.teacher.get_submodule(cut.module)
        index = [_HybridIndex(idx=i, root_idx=channel) for channel, own in enumerate(cut.index) for i in own]
        group.append(GroupItem(dep=SimpleNamespace(layer=module, pruning_fn=_function(module, cut)), idxs=index))
    try:
        found: Tensor = getattr(importances, name)()(_Group(group))
    except Exception as error:
        raise CompressionError(f"Torch-Pruning fails on this group ({one_line(error)}); choose 'l2'") from error
    # It makes one place an index of the first layer, and fills one a channel: attention heads have several indices.
    return found[: plan.channels].double()


class _Group(list[Any]):
    """What an importance wants of a Torch-Pruning group: ``for dependency, indices in group`` and ``group[i]``."""

    def __iter__(self) -> Any:
        return ((item.dep, [index.idx for index in item.idxs]) for item in list.__iter__(self))

    def __getitem__(self, i: Any) -> Any:
        item = list.__getitem__(self, i)
        return SimpleNamespace(root_idxs=[index.root_idx for index in item.idxs])


def _function(module: nn.Module, cut: Cut) -> Any:
    """Torch-Pruning's name for this side of a module; None for what its importances do not look at."""
    from torch_pruning.pruner import function

    if cut.role in ("out", "in"):
        if isinstance(module, _ConvNd):
            return function.prune_conv_out_channels if cut.role == "out" else function.prune_conv_in_channels
        return function.prune_linear_out_channels if cut.role == "out" else function.prune_linear_in_channels
    if cut.role == "each" and isinstance(module, _BatchNorm):
        return function.prune_batchnorm_out_channels
    if cut.role == "each" and isinstance(module, nn.LayerNorm):
        return function.prune_layernorm_out_channels
    return None


def _nni(state: Compression, plan: Plan, name: str) -> Tensor:
    try:
        import nni.compression.pruning as pruning
    except ImportError as error:
        raise CompressionError("needs the optional package nni: pip install 'automc[nni]'") from error
    _require_plain(state.teacher, plan)
    names = [cut.module for cut in plan.producers]
    # It wraps the modules of the model it is given, and wants a ratio that plays no part in the metric.
    pruner = getattr(pruning, name)(copy.deepcopy(state.teacher), [{"op_names": names, "sparse_ratio": 0.5}])
    metrics = pruner._calculate_metrics(pruner._collect_data())
    parts = [(cut, per_channel(metrics[cut.module]["weight"].detach().flatten(), cut)) for cut in plan.producers]
    return equal_say(parts, plan.channels)


def _require_plain(model: nn.Module, plan: Plan) -> None:
    for cut in plan.producers:
        module = model.get_submodule(cut.module)
        if not isinstance(module, (_ConvNd, nn.Linear)) or dict(cut.tensors).get("weight") != 0:
            kind = type(module).__name__
            raise CompressionError(f"it knows no {kind} ({cut.module!r}) as a producer; choose one of automc's own")
