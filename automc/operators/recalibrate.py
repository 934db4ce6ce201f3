"""Re-estimating batch-norm statistics, which pruning and low bits leave behind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from automc.errors import CompressionError
from automc.operators.live import refold

BATCH = 64
"""Inputs run at a time here; on a CPU smaller batches are faster than large ones."""

_PROBE = 2
"""Inputs that tell whether a batch norm reads what it read in the original."""


def recalibrate(model: nn.Module, inputs: Tensor, batch_size: int = BATCH, original: nn.Module | None = None) -> None:
    """Replace batch-norm statistics by those of ``inputs``, in place.

    The mean over the batches of each batch's mean and unbiased variance (Li et al. 2020, EagleEye: "adaptive batch
    norm"); with one batch these are the exact statistics of the inputs. Every other module runs in eval mode. Modes and
    momentums are afterwards what they were. Nothing is run when there is no batch norm.

    Args:
        inputs: normalised, shape (n, ...), n >= 1. batch_size: the most that run at a time; the batches are made
            equally large, up to one input, so that each counts alike.
        original: the network, in eval mode, that this was made of; norms before the first change keep its statistics
            (see ``settled``). None: all are replaced.
    """
    norms = batch_norms(model)
    if not norms:
        return
    modes = {module: module.training for module in model.modules()}
    model.eval()
    if original is not None:
        kept = settled(model, original, inputs[:_PROBE])
        norms = [norm for norm in norms if norm not in kept]
    momentums = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.momentum = None  # a cumulative average
            norm.training = True
        # Weights that count a batch norm as part of them are rounded anew for what the first inputs say of it.
        for some in [inputs[:batch_size], inputs] if refold(model) else [inputs]:
            for norm in norms:
                norm.reset_running_stats()
            run(model, some, batch_size)
            refold(model)
    finally:
        for norm, momentum in zip(norms, momentums, strict=True):
            norm.momentum = momentum
        _restore(modes)


def settled(model: nn.Module, original: nn.Module, inputs: Tensor) -> set[nn.Module]:
    """The batch norms with the statistics of the original that read just what they read there, bit for bit.

    Nothing has changed before them, and statistics of a whole training are better than those of some hundred inputs.

    Args:
        model, original: in eval mode. inputs: a few.
    """
    before, now = norm_inputs(original, inputs), norm_inputs(model, inputs)
    return {
        norm
        for path, norm in model.named_modules()
        if before.get(path) and path in now and _same_tensors(now[path], before[path])
        if _same_tensors(list(norm.buffers()), list(original.get_submodule(path).buffers()))
    }


def norm_inputs(model: nn.Module, inputs: Tensor) -> dict[str, list[Tensor]]:
    """By path, what each batch norm that keeps statistics reads, call by call."""
    norms = set(batch_norms(model))
    found: dict[str, list[Tensor]] = {path: [] for path, module in model.named_modules() if module in norms}

    def watch(path: str) -> Any:
        def hook(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
            found[path].append(entered(args, kwargs).clone())

        return hook

    with ExitStack() as hooks:
        for path in found:
            hooks.enter_context(model.get_submodule(path).register_forward_pre_hook(watch(path), with_kwargs=True))
        run(model, inputs)
    return found


def _same_tensors(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return len(some) == len(others) and all(map(torch.equal, some, others))


def _restore(modes: Mapping[nn.Module, bool]) -> None:
    for module, mode in modes.items():
        module.training = mode


def observe(model: nn.Module, inputs: Tensor, stale: bool, original: nn.Module | None = None) -> bool:
    """All inputs through the network once, for what its hooks see; where the batch-norm statistics are stale, the same
    pass recalibrates them.

    Batch norm then normalises each batch by itself, so what is seen is what the recalibrated network will see. For
    ``original`` see ``recalibrate``.

    Returns:
        Whether the statistics are still stale: they are where they were and there is no batch norm to recalibrate.
    """
    if stale and batch_norms(model):
        recalibrate(model, inputs, original=original)
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


@contextmanager
def batch_statistics(model: nn.Module, inputs: Tensor, stale: bool, original: nn.Module) -> Iterator[None]:
    """Inside the block the network is in eval mode and, where its batch-norm statistics are stale, computes what it
    will once ``recalibrate`` has run: batch norm normalises each batch by itself, but where it is ``settled``.

    Statistics stay as they are, and modes are put back.

    Args:
        inputs, original: see ``recalibrate``.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    kept = settled(model, original, inputs[:_PROBE]) if stale and batch_norms(model) else set()
    norms = [norm for norm in batch_norms(model) if norm not in kept] if stale else []
    try:
        for norm in norms:
            norm.training, norm.track_running_stats = True, False
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
        _restore(modes)
