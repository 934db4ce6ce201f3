"""How far a policy moves the weights of each layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from automc.core.policy import Policy
from automc.operators.base import Compression, compress
from automc.operators.factorized import Factorized
from automc.operators.live import LiveLayer

_CUTTING = ("drop", "prune")
"""Operators that take weights away; the others change those that stay."""


def squared_changes(state: Compression, policy: Policy, order: Sequence[str]) -> dict[str, float]:
    """By layer of the table, ``|W' - W|^2`` with W' as a forward uses it: rounded, masked, or the product of factors.

    What is pruned or dropped counts as 0, in the layers that make the channels and in those that read them. Nothing is
    refitted or corrected: W' is what the operators alone make.

    Args:
        state: the original network. order: of the operators.

    Raises:
        CompressionError: as ``compress``.
    """
    names = {site.operator for site in policy}
    made = compress(state, policy, order, [name for name in order if name != "distill"]).model
    cut = compress(state, policy, order, _CUTTING).model if names & set(_CUTTING) else state.model
    there = dict(made.named_modules())
    found: dict[str, float] = {}
    for name in (layer.name for layer in state.trace.table.layers):
        before = _size(_weights(state.model.get_submodule(name)))
        if name not in there:
            found[name] = before
            continue
        own, plain = _weights(there[name]), _weights(cut.get_submodule(name))
        moved = [a - b for a, b in zip(own, plain, strict=True)]
        found[name] = _size(moved) + max(before - _size(plain), 0.0)
    return found


def _size(tensors: Sequence[Tensor]) -> float:
    return sum(float(tensor.double().square().sum()) for tensor in tensors)


def _weights(layer: nn.Module) -> list[Tensor]:
    """What the layer multiplies with, biases left out, as its forward uses it."""
    with torch.no_grad():
        if isinstance(layer, Factorized):
            return [_product(layer)]
        names = [name for name, parameter in layer.named_parameters() if parameter.dim() > 1]
        if isinstance(layer, LiveLayer):
            return [layer.used(name).detach() for name in names if not name.startswith(("ways.", "input_quantizer."))]
        return [layer.get_parameter(name).detach() for name in names]


def _product(layer: Factorized) -> Tensor:
    """The one weight that the parts are together: what they make of every unit input, without stride and padding."""
    parts: list[Any] = list(layer.children())
    used = [part.used("weight") if isinstance(part, LiveLayer) else part.weight for part in parts]
    if isinstance(parts[0], nn.Linear):
        whole = used[0]
        for weight in used[1:]:
            whole = weight @ whole
        return whole.detach()
    kernel = [max(sizes) for sizes in zip(*(weight.shape[2:] for weight in used), strict=True)]
    inputs = parts[0].in_channels
    count = inputs * torch.Size(kernel).numel()
    x = torch.eye(count).view(count, inputs, *kernel)
    for part, weight in zip(parts, used, strict=True):
        assert isinstance(part, _ConvNd)
        convolve = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}[len(kernel)]
        x = convolve(x, weight, groups=part.groups)
    return x.flatten(1).T.reshape(-1, inputs, *kernel).detach()
