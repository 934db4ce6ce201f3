"""Tracing: one forward pass tells what a network is made of, and which of its channels can be pruned together."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from automc.core.layers import Group, Layer, LayerTable
from automc.errors import CompressionError, ModelError
from automc.operators.groups import GroupFinder, one_line, plan_of
from automc.operators.proof import Prover
from automc.operators.slicing import Plan

_PLAIN = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


@dataclass(frozen=True)
class Trace:
    """What is known of a network; plain data, so that it pickles.

    Attributes:
        table: its layers and groups. plans: by group name, how its channels are removed.
    """

    table: LayerTable
    plans: Mapping[str, Plan] = field(default_factory=dict)


def trace(model: nn.Module, example: Tensor) -> Trace:
    """Run the network once and find its layers and its coupled groups.

    A layer is a Conv1d/2d/3d or Linear module that the forward pass uses. Kinds: ``linear``; ``depthwise`` for
    convolutions with one input channel a group; ``conv`` for the others; ``custom`` for a subclass with a forward of
    its own. A module that is used several times is one layer, at its first place, with the MACs of all uses. Every
    group in the table was pruned by half in a proof (proof.py); a layer whose outputs cannot be pruned has a reason.

    Args:
        model: not changed. example: shape (n, ...), n >= 1; only its shape and type matter.

    Raises:
        ModelError: the forward fails, does not return one tensor, or uses no such layer.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"model: must be a torch.nn.Module, not {type(model).__name__}")
    try:
        model = copy.deepcopy(model).eval()
    except Exception as error:
        raise ModelError(f"model: cannot be copied ({one_line(error)})") from error
    layers = _layers(model, example)
    groups, plans, reasons = _groups(model, example, layers)
    group_of = {producer: group.name for group in groups for producer in group.producers}
    layers = [
        replace(layer, group=group_of.get(layer.name, ""), reason=reasons.get(layer.name, "")) for layer in layers
    ]
    return Trace(LayerTable(tuple(layers), tuple(groups), tuple(example.shape[1:])), plans)


def _layers(model: nn.Module, example: Tensor) -> list[Layer]:
    found: dict[str, Layer] = {}

    def hook(name: str, module: nn.Module, output: Tensor) -> None:
        layer = found.get(name) or _layer(name, len(found), module, output)
        macs = output[0].numel() * prod(layer.kernel) * (layer.in_channels // getattr(module, "groups", 1))
        found[name] = replace(layer, macs=layer.macs + macs)

    hooks = [
        module.register_forward_hook(lambda module, _, output, name=name: hook(name, module, output))
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, _ConvNd)) and not isinstance(module, _ConvTransposeNd)
    ]
    try:
        with torch.inference_mode():
            output = model(example[:2])
    except Exception as error:
        raise ModelError(
            f"model: the forward fails on inputs {tuple(example[:2].shape)} ({one_line(error)})"
        ) from error
    finally:
        for handle in hooks:
            handle.remove()
    if not isinstance(output, Tensor):
        raise ModelError(f"model: the forward must return one tensor, not {type(output).__name__}")
    if not found:
        raise ModelError("model: its forward uses no Conv1d, Conv2d, Conv3d or Linear module, so nothing to compress")
    return list(found.values())


def _layer(name: str, index: int, module: nn.Module, output: Tensor) -> Layer:
    """The layer's row, with no MACs counted yet."""
    params = sum(parameter.numel() for parameter in module.parameters())
    shape = tuple(output.shape[1:])
    if isinstance(module, nn.Linear):
        kind, sizes, kernel, stride = "linear", (module.in_features, module.out_features), (), ()
        return Layer(name, index, _kind(module, kind), *sizes, kernel, stride, shape, params, 0)
    assert isinstance(module, _ConvNd)
    kind = "depthwise" if 1 < module.groups == module.in_channels else "conv"
    sizes = (module.in_channels, module.out_channels)
    return Layer(name, index, _kind(module, kind), *sizes, module.kernel_size, module.stride, shape, params, 0)


def _kind(module: nn.Module, kind: str) -> str:
    base = next(base for base in (*_PLAIN, type(module)) if isinstance(module, base))
    own = any(getattr(type(module), method, None) is not getattr(base, method, None) for method in _METHODS)
    return "custom" if own else kind


_METHODS = ("forward", "_conv_forward")


def _groups(
    model: nn.Module, example: Tensor, layers: list[Layer]
) -> tuple[list[Group], dict[str, Plan], dict[str, str]]:
    """Groups, their plans, and why the layers of no group have none."""
    groups: list[Group] = []
    plans: dict[str, Plan] = {}
    names = [layer.name for layer in layers]
    reasons: dict[str, str] = {}
    try:
        finder, prover = GroupFinder(model, example[:2]), Prover(model, example)
    except CompressionError as error:
        return [], {}, dict.fromkeys(names, str(error))
    for name in names:
        if name in reasons or any(name in group.producers for group in groups):
            continue
        members = [name]
        try:
            cuts = finder.cuts(name)
            members = [n for n in names if n in {cut.module for cut in cuts if cut.role in ("out", "depthwise")}]
            plan = plan_of(name, cuts)
            prover.check(plan)
        except CompressionError as error:
            reasons |= dict.fromkeys(members, str(error))
            continue
        consumers = tuple(n for n in names if n in {cut.module for cut in plan.consumers})
        groups.append(Group(name, plan.channels, tuple(members), consumers))
        plans[name] = plan
    return groups, plans, reasons
