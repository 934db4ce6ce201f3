"""Biases on the grid of integer kernels, so that a file that runs in integers computes what the search measured."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from automc.core.integers import integers
from automc.core.stored import Stored

_EXACT = 2.0**24
"""Whole numbers below this are exact in single precision."""


def round_biases(model: nn.Module, stored: Mapping[str, Stored]) -> None:
    """Round the biases of layers with integer weights and rounded inputs, in place.

    Kernels sum products of codes as int32 and add the bias before they scale, so it is a multiple of the input's step
    times the weight's (of its int8 codes, see ``integers``). A bias beside that grid would be moved there by the
    runtime, which moves some of the rounded numbers behind it by a whole step: at 4 bits ResNet-20 then agreed with the
    searched network on 95 % of the inputs only, and on all of them if its biases were on the grid before.

    Args:
        model: baked. stored: its compressed weights by tensor name.
    """
    for name, layer in model.named_modules():
        bias, quantizer = getattr(layer, "bias", None), getattr(layer, "input_quantizer", None)
        weight, step = stored.get(f"{name}.weight" if name else "weight"), getattr(quantizer, "scale", None)
        if not isinstance(bias, Tensor) or weight is None or not isinstance(step, Tensor) or step.numel() != 1:
            continue
        found = integers(weight)
        if found is None or len(bias) != len(found.scale) or bias.dtype != torch.float32:
            continue
        steps, old = found.bias_grid(float(step)), bias.detach().cpu().numpy()
        codes = np.round(old.astype(np.float64) / steps)
        new = np.where(np.abs(codes) < _EXACT, codes.astype(np.float32) * steps, old)
        layer.bias = nn.Parameter(torch.from_numpy(new).to(bias.device), requires_grad=False)
