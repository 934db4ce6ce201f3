"""Tracing: one forward pass tells what a network is made of, and which of its channels can be pruned together."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from automc.core.layers import Layer, LayerTable
from automc.errors import ModelError, one_line
from automc.operators.beside import beside
from automc.operators.blocks import find_blocks
from automc.operators.groups.find import couple
from automc.operators.groups.slicing import Plan
from automc.operators.live_kinds import weight_names
from automc.operators.outputs import tensors_of
from automc.operators.recalibrate import entered

_PLAIN: tuple[type[nn.Module], ...] = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.LSTM, nn.GRU),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)
_KINDS = (nn.Linear, _ConvNd, nn.LSTM, nn.GRU)


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

    A layer is a convolution, transposed convolution, Linear, LSTM or GRU module that the forward pass uses. Kinds:
    ``linear``, ``lstm``, ``gru``, ``transposed``; ``depthwise`` for convolutions with one input channel a group;
    ``conv`` for the others; ``custom`` for a subclass with a forward of its own, and for weights that are computed from
    other parameters (``torch.nn.utils.parametrizations``, the older ``weight_norm``). A module that is used several
    times is one layer, at its first place, with the MACs of all uses. Every group in the table was pruned by half in a
    proof (groups/proof.py); a layer whose outputs cannot be pruned has a reason. An nn.MultiheadAttention is no layer:
    see canonical.py.

    Args:
        model: not changed. example: shape (n, ...), n >= 1; only its shape and type matter.

    Raises:
        ModelError: the forward fails, returns no tensor (nor a tuple, list or dictionary of tensors), or uses no such
            layer.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"model: must be a torch.nn.Module, not {type(model).__name__}")
    try:
        model = copy.deepcopy(model).eval()
    except Exception as error:
        raise ModelError(f"model: cannot be copied ({one_line(error)})") from error
    layers = _layers(model, example)
    coupling = couple(model, example, [layer.name for layer in layers])
    groups, plans, reasons = coupling.groups(), coupling.plans, coupling.reasons
    group_of = {producer: group.name for group in groups for producer in group.producers}
    layers = [
        replace(layer, group=group_of.get(layer.name, ""), reason=reasons.get(layer.name, "")) for layer in layers
    ]
    blocks = find_blocks(model, example, layers)
    others = beside(model, example, layers, plans, blocks)
    layers = [replace(layer, beside=others[layer.name]) for layer in layers]
    return Trace(LayerTable(tuple(layers), tuple(groups), tuple(example.shape[1:]), blocks=blocks), plans)


def _layers(model: nn.Module, example: Tensor) -> list[Layer]:
    found: dict[str, Layer] = {}

    batch = len(example[:2])

    def hook(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        read = entered(args, kwargs)
        output = output[0] if isinstance(module, nn.RNNBase) else output
        layer = found.get(name) or _layer(name, len(found), module, output)
        found[name] = replace(layer, macs=layer.macs + _macs(module, read, output) // batch)

    with ExitStack() as hooks, torch.inference_mode():
        for name, module in model.named_modules():
            if isinstance(module, _KINDS):
                hooks.enter_context(module.register_forward_hook(partial(hook, name), with_kwargs=True))
        try:
            output = model(example[:2])
        except Exception as error:
            raise ModelError(
                f"model: the forward fails on inputs {tuple(example[:2].shape)} ({one_line(error)})"
            ) from error
    if not tensors_of(output):
        raise ModelError(f"model: the forward must return tensors, not {type(output).__name__}")
    if not found:
        raise ModelError(
            "model: its forward uses no convolution, Linear, LSTM or GRU module, so there is nothing to compress"
        )
    return list(found.values())


def _layer(name: str, index: int, module: nn.Module, output: Any) -> Layer:
    """The layer's row, with no MACs counted yet."""
    params = sum(parameter.numel() for parameter in module.parameters())
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    if isinstance(module, nn.RNNBase):
        kind = "lstm" if isinstance(module, nn.LSTM) else "gru"
        sizes = (module.input_size, (module.proj_size or module.hidden_size) * (2 if module.bidirectional else 1))
        layer = Layer(name, index, _kind(module, kind), *sizes, kernel, stride, _series(module, output), params, 0)
        weights = {key: module.get_parameter(key).numel() for key in weight_names(module)}
        given = sum(count for key, count in weights.items() if key.startswith("weight_ih_l0"))
        return replace(layer, recurrent=(given, sum(weights.values()) - given))
    if isinstance(module, nn.Linear):
        kind, sizes = "linear", (module.in_features, module.out_features)
    else:
        assert isinstance(module, _ConvNd)
        kind = "depthwise" if 1 < module.groups == module.in_channels else "conv"
        kind = "transposed" if isinstance(module, _ConvTransposeNd) else kind
        sizes, kernel, stride = (module.in_channels, module.out_channels), module.kernel_size, module.stride
    return Layer(name, index, _kind(module, kind), *sizes, kernel, stride, tuple(output.shape[1:]), params, 0)


def _series(module: nn.RNNBase, output: Any) -> tuple[int, ...]:
    """Shape of one input's series of hidden states; of a packed one, of a single step."""
    if not isinstance(output, Tensor):
        return (output.data.shape[-1],)
    return tuple(output.shape[1:] if module.batch_first or output.dim() == 2 else (output.shape[0], output.shape[2]))


def _macs(module: nn.Module, read: Any, output: Any) -> int:
    """Multiply-accumulates of one call: every weight once a place where it stands."""
    if isinstance(module, nn.RNNBase):
        series = read if isinstance(read, Tensor) else read.data
        return prod(series.shape[:-1]) * sum(module.get_parameter(name).numel() for name in weight_names(module))
    places: Tensor = read if isinstance(module, _ConvTransposeNd) else output
    weight: Tensor = getattr(module, "weight")  # noqa: B009 (may be computed: no parameter then)
    return places.numel() * prod(weight.shape[1:])


def _kind(module: nn.Module, kind: str) -> str:
    base = next(base for base in (*_PLAIN, type(module)) if isinstance(module, base))
    own = any(getattr(type(module), method, None) is not getattr(base, method, None) for method in _METHODS)
    used = module._flat_weights_names if isinstance(module, nn.RNNBase) else ["weight"]
    computed = any(module._parameters.get(name) is None for name in used)
    return "custom" if own or computed else kind


_METHODS = ("forward", "_conv_forward")
