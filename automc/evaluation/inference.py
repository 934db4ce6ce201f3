"""The form in which a network is measured: batch norms folded, weights frozen, memory laid out channels-last."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from automc.export.baking.bake import TOLERANCE, Baked, fold
from automc.operators.outputs import tensors_of


def fast(model: nn.Module, example: Tensor) -> nn.Module:
    """A copy for inference alone: what ``export`` writes of the network, laid out for speed.

    Batch norms are folded into the layers before them and compressed weights are frozen (export/bake.py proves each
    fold on ``example``), so no forward computes either again; inputs of layers are still rounded. Outputs are those of
    the model up to rounding in float32, ``TOLERANCE`` of the largest. Where inputs of layers have few bits, that
    rounding may move one by a whole step, as it does in the exported file.

    Args:
        model: not changed. example: normalised inputs, shape (n, ...), n >= 1.

    Raises:
        ModelError: the network cannot be copied or run.
    """
    return laid_out(fold(model, example), example)


def laid_out(baked: Baked, example: Tensor) -> nn.Module:
    """The baked network itself, its filters channels-last where it has 2-d convolutions and works like that.

    The first convolution then lays out its input, and the rest follows. A network that views its tensors as if they
    were contiguous does not work like that; its memory stays as it was.

    Args:
        example: as ``fast``.
    """
    model = baked.model.requires_grad_(False)
    if example.dim() != 4 or not any(isinstance(module, nn.Conv2d) for module in model.modules()):
        return model
    with torch.inference_mode():
        wanted = [tensor.clone() for tensor in tensors_of(model(example[:1]))]
        _arrange(model, torch.channels_last)
        try:
            found = tensors_of(model(example[:1]))
        except RuntimeError:
            found = []
    if len(found) != len(wanted) or not all(_near(a, b) for a, b in zip(found, wanted, strict=True)):
        _arrange(model, torch.contiguous_format)
    return model


def _arrange(model: nn.Module, layout: torch.memory_format) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight = nn.Parameter(module.weight.detach().contiguous(memory_format=layout), requires_grad=False)


def _near(output: Tensor, wanted: Tensor) -> bool:
    if not wanted.is_floating_point():
        return torch.equal(output, wanted)
    largest = float(wanted.abs().nan_to_num(0.0, 0.0).max()) if wanted.numel() else 0.0
    return output.shape == wanted.shape and torch.allclose(
        output, wanted, rtol=0.0, atol=TOLERANCE * largest, equal_nan=True
    )
