"""Re-estimating batch-norm statistics, which pruning and low bits leave behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from automc.errors import CompressionError

BATCH = 64
"""Inputs run at a time here; on a CPU smaller batches are faster than large ones."""


def recalibrate(model: nn.Module, inputs: Tensor, batch_size: int = BATCH) -> None:
    """Replace all batch-norm statistics by those of ``inputs``, in place.

    The mean over the batches of each batch's mean and unbiased variance (Li et al. 2020, EagleEye: "adaptive batch
    norm"); with one batch these are the exact statistics of the inputs. Every other module runs in eval mode. Modes and
    momentums are afterwards what they were. Nothing is run when there is no batch norm.

    Args:
        inputs: normalised, shape (n, ...), n >= 1. batch_size: the most that run at a time; the batches are made
            equally large, up to one input, so that each counts alike.
    """
    norms = batch_norms(model)
    if not norms:
        return
    modes = {module: module.training for module in model.modules()}
    momentums = [norm.momentum for norm in norms]
    model.eval()
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a cumulative average
            norm.training = True
        run(model, inputs, batch_size)
    finally:
        for norm, momentum in zip(norms, momentums, strict=True):
            norm.momentum = momentum
        for module, mode in modes.items():
            module.training = mode


def observe(model: nn.Module, inputs: Tensor, stale: bool) -> bool:
    """All inputs through the network once, for what its hooks see; where the batch-norm statistics are stale, the same
    pass recalibrates them.

    Batch norm then normalises each batch by itself, so what is seen is what the recalibrated network will see.

    Returns:
        Whether the statistics are still stale: they are where they were and there is no batch norm to recalibrate.
    """
    if stale and batch_norms(model):
        recalibrate(model, inputs)
        return False
    run(model, inputs)
    return stale


def entered(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What a layer was called with, by place or by the name that torch's layers give it."""
    return args[0] if args else kwargs["input"]


def check_finite(site: str, seen: Tensor) -> None:
    """Of what hooks saw at a layer, before anything is computed from it.

    Args:
        site: ``operator(layer).setting`` that needs it.

    Raises:
        CompressionError: a number is NaN or infinite.
    """
    if not bool(torch.isfinite(seen).all()):
        raise CompressionError(
            f"{site}: the layer's inputs are NaN or infinite on the calibration inputs; look for such numbers in these"
            " and in the layers before it"
        )


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """The batch norms that keep statistics."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]


def run(model: nn.Module, inputs: Tensor, batch_size: int = BATCH) -> None:
    """All inputs through the network, in batches of nearly equal size, for what its hooks and norms see."""
    with torch.no_grad():
        for batch in torch.tensor_split(inputs, ceil(len(inputs) / batch_size)):
            model(batch)
