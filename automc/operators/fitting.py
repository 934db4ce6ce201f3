"""Fitting quantizers to the weights of live layers; those of the original network's own weights are fitted once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from automc.operators.base import Compression
from automc.operators.flow import flows
from automc.operators.live import UNTOUCHED, LiveLayer, row_factor
from automc.operators.quantizers.choose import Choice

_KEPT, _FRAME = 2**28, 4096
"""Bytes of the original network's quantizers that are kept for later trials; what one takes without its tensors."""
_BYTES = ("quantize", "bytes")

_Make = Callable[[Choice, Tensor, Tensor | None, Tensor | None], nn.Module]


def fit_weights(state: Compression | None, path: str, layer: LiveLayer, choice: Choice) -> None:
    """Round a layer's weights as chosen, in place.

    Args:
        state: whose original and memory to use. path: the layer's. layer: its ``norm`` says which batch norm counts as
            part of the weights.
    """
    if choice.weight_bits == UNTOUCHED:
        return
    for name in layer.ways:
        way: Any = layer.ways[name]
        weight = getattr(layer, name).detach()
        if way.mask is not None:
            weight = torch.where(way.mask, weight, 0.0)
        factor = row_factor(state.model, layer.norm) if state and layer.norm else None
        make = _remembered(state, f"{path}.{name}", weight) if state and way.mask is None and factor is None else _anew
        way.quantizer = make(choice, weight, way.mask, factor).train(layer.training)
    layer.weight_bits = choice.weight_bits


def norm_to_fold(state: Compression, name: str, part: nn.Module, choice: Choice) -> str:
    """Path of the batch norm that counts as part of a layer's weights, or "".

    With one scale for the whole weight it is the one that the output goes straight into: export folds it into a
    convolution or linear layer, and the file then has one scale too.

    Args:
        name: of the original's layer. part: what makes its outputs by now.
    """
    plain = isinstance(part, (_ConvNd, nn.Linear)) and not isinstance(part, _ConvTransposeNd)
    if not plain or choice.granularity != "tensor" or choice.weight_bits == UNTOUCHED:
        return ""
    if state.calibration is None or not len(state.calibration) or name not in (found := flows(state)):
        return ""
    path = found[name].norm
    factor = row_factor(state.model, path) if path else None
    return path if factor is not None and len(factor) == len(part.get_parameter("weight")) else ""


def _anew(choice: Choice, weight: Tensor, mask: Tensor | None, factor: Tensor | None) -> nn.Module:
    return choice.weight_quantizer(weight, mask, factor)


def _remembered(state: Compression, name: str, weight: Tensor) -> _Make:
    """Makes quantizers, those of the original network's own weights once for all trials."""
    place, _, own = name.rpartition(".")
    try:
        original = getattr(state.teacher.get_submodule(place), own)
    except AttributeError:  # a part of a factorized layer
        return _anew
    if original.shape != weight.shape or not torch.equal(original, weight):
        return _anew

    def make(choice: Choice, weight: Tensor, mask: Tensor | None, factor: Tensor | None) -> nn.Module:
        key = ("quantize", name, replace(choice.inner, activation_bits=0, activation_range="", rounding=""))
        if key not in state.memory:
            made = choice.inner.weight_quantizer(weight, mask)
            total = state.memory.get(_BYTES, 0) + _FRAME + sum(tensor.nbytes for tensor in made.state_dict().values())
            if total > _KEPT:
                return choice.wrapped(made, weight, mask)
            state.memory[key], state.memory[_BYTES] = made, total
        return choice.wrapped(copy.deepcopy(state.memory[key]), weight, mask)

    return make
