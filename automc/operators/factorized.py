"""Layers written as a product of smaller ones, and the plain layers that any layer consists of by now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from automc.operators.low_rank.decompositions import Part

_CONVS: tuple[type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_HOOKS = (
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_backward_pre_hooks",
    "_backward_hooks",
)


class Factorized(nn.Sequential):
    """A convolution or linear layer as a chain of smaller ones, in its place.

    The first part reads the layer's inputs, the last one makes its outputs and has its bias, if any; what lies between
    is the rank. So a group that loses channels cuts the first part's inputs and the last part's outputs.
    """


def parts(model: nn.Module, name: str) -> dict[str, nn.Module]:
    """The layers that stand at a layer's place by now, by their paths: itself, or the parts of its factorization."""
    layer = model.get_submodule(name)
    if isinstance(layer, Factorized):
        return {f"{name}.{own}": part for own, part in layer.named_children()}
    return {name: layer}


def chain(layer: nn.Module, factors: Sequence[Part]) -> Factorized:
    """A convolution without groups, or a linear layer, as a chain of these parts.

    Strides, paddings and dilations are exact: without a bias between the parts, padding one axis and convolving along
    another may change places, whatever the padding mode.
    """
    bias: Tensor | None = getattr(layer, "bias", None)
    biases = [*[None] * (len(factors) - 1), bias]
    made = Factorized(*(like(layer, part, bias) for part, bias in zip(factors, biases, strict=True)))
    return made.train(layer.training)


def put(model: nn.Module, layer: nn.Module, made: nn.Module) -> None:
    """Put a module in the place of another one, in all its places, with its hooks."""
    for name in _HOOKS:
        setattr(made, name, getattr(layer, name))
    for parent in model.modules():
        for name, child in parent._modules.items():
            if child is layer:
                setattr(parent, name, made)


def like(layer: nn.Module, part: Part, bias: Tensor | None = None) -> nn.Module:
    """One part of a layer: of its kind, type and device."""
    weight = layer.get_parameter("weight")
    # Made without memory, so that no random number is drawn for weights that are replaced at once.
    if isinstance(layer, nn.Linear):
        made: Any = nn.Linear(part.weight.shape[1], part.weight.shape[0], bias=False, device="meta")
    else:
        made = _conv(layer, part)
    own = part.weight.to(weight, copy=True, memory_format=torch.contiguous_format)  # the part's may be remembered
    made.weight = nn.Parameter(own, weight.requires_grad)
    made.bias = bias
    assert isinstance(made, nn.Module)
    return made


def _conv(layer: nn.Module, part: Part) -> nn.Module:
    assert isinstance(layer, _CONVS)
    kind = next(kind for kind in _CONVS if isinstance(layer, kind))

    def on_axes(values: Sequence[int], neutral: int) -> tuple[int, ...]:
        return tuple(value if axis in part.axes else neutral for axis, value in enumerate(values))

    padding = layer.padding if isinstance(layer.padding, str) else on_axes(layer.padding, 0)
    pads = padding == "same" or (any(layer.padding) and part.axes)
    return kind(
        part.weight.shape[1] * part.groups,
        part.weight.shape[0],
        part.weight.shape[2:],  # type: ignore[arg-type]
        stride=on_axes(layer.stride, 1),  # type: ignore[arg-type]
        padding=padding,  # type: ignore[arg-type]
        dilation=on_axes(layer.dilation, 1),  # type: ignore[arg-type]
        groups=part.groups,
        bias=False,
        padding_mode=layer.padding_mode if pads else "zeros",
        device="meta",
    )
