"""What layers read: second moments of their inputs, summed over the calibration inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from automc.operators.base import Compression
from automc.operators.copies import equal
from automc.operators.live import LiveLayer
from automc.operators.recalibrate import check_finite, entered, observe
from automc.operators.windows import windows

_SAMPLES = 16384
"""Rows of X, about; more positions of the same feature maps tell little more."""
_CHUNK = 2**22
"""Numbers of unfolded input in memory at a time."""
_KEPT = 2**28
"""Bytes of the original network's sums that are kept for later trials."""


class InputMoments:
    """Sums over the inputs of a convolution or linear layer: H = X^T X, or its diagonal alone.

    X has one row a product that the layer computes (an output position of a convolution), in the order of
    ``patterns.as_rows``. Of each input at most ``samples / inputs`` positions are used, drawn at random with a fixed
    seed.

    Attributes:
        sums: float64, shape (groups, length, length), or (groups, length); None before the first input.
    """

    def __init__(self, layer: nn.Module, inputs: int, diagonal: bool = False) -> None:
        """``inputs``: how many there will be."""
        self.sums: Tensor | None = None
        self._layer = layer
        self._diagonal = diagonal
        length = layer.get_parameter("weight")[0].numel()
        self._positions = math.ceil(max(_SAMPLES, 8 * length) / inputs)
        self._generator = torch.Generator().manual_seed(0)

    def add(self, x: Tensor) -> None:
        """Count in a batch, shape (n, ...) as the layer takes it."""
        windows, sites = _windows(self._layer, x.detach())
        drawn = torch.randperm(math.prod(sites), generator=self._generator)[: self._positions].sort().values
        where: Any = (slice(None), *torch.unravel_index(drawn.to(x.device), sites))
        numbers = math.prod(windows.shape[1 + len(sites) :]) * len(drawn)
        for part in torch.split(windows, max(_CHUNK // numbers, 1)):
            rows = part[where].flatten(0, 1).movedim(1, 0).flatten(2)
            sums = rows.square().sum(dim=1) if self._diagonal else rows.mT @ rows
            self.sums = sums.double() if self.sums is None else self.sums + sums


def _windows(layer: nn.Module, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """What each product reads, a view of shape (n, *sites, groups, *kernel, channels of a group); and the sites."""
    if not isinstance(layer, _ConvNd):
        x = x.reshape(len(x) if x.dim() > 1 else 1, -1, 1, x.shape[-1])
        return x, (x.shape[1],)
    if x.dim() == len(layer.kernel_size) + 1:
        x = x.unsqueeze(0)
    x = windows(layer, x)
    sites = tuple(x.shape[2 : 2 + len(layer.kernel_size)])
    # (n, channels, *sites, *kernel) to (n, *sites, *kernel, groups, channels of a group)
    x = torch.unflatten(x.movedim(1, -1), -1, (layer.groups, -1))
    return x.movedim(-2, 1 + len(sites)), sites


def input_moments(state: Compression, wanted: Mapping[str, bool]) -> tuple[dict[str, Tensor], Compression]:
    """What these layers read in the network as it is by now, from one pass over the calibration inputs.

    Where the batch-norm statistics are stale, the pass recalibrates them: what is seen is what the recalibrated network
    will see. The sums of the original network are kept for later trials.

    Args:
        state: with calibration inputs, unless nothing is wanted. wanted: by path of a convolution or linear layer,
            whether the diagonal is enough.

    Returns:
        By path ``InputMoments.sums``, none where the forward does not use the layer; and the state, stale no more.

    Raises:
        CompressionError: what a layer reads is NaN or infinite.
    """
    if not wanted or state.calibration is None:
        return {}, state
    kept: dict[tuple[str, bool], Tensor] = {}
    if equal(state.model, state.teacher):
        kept = state.memory.setdefault(("sparsify", "moments"), kept)
    found = {path: kept[path, diagonal] for path, diagonal in wanted.items() if (path, diagonal) in kept}
    missing = {path: diagonal for path, diagonal in wanted.items() if path not in found}
    if not missing:
        return found, state
    seen, stale = _observe(state, missing)
    for path, sums in seen.items():
        check_finite(f"sparsify({path}).method", sums)
        if sum(tensor.nbytes for tensor in (sums, *kept.values())) <= _KEPT:
            kept[path, missing[path]] = sums
    return found | seen, replace(state, stale=stale)


def _observe(state: Compression, wanted: Mapping[str, bool]) -> tuple[dict[str, Tensor], bool]:
    """The sums, and whether the batch-norm statistics are stale after the pass."""
    model, inputs = state.model, state.calibration
    assert inputs is not None
    layers = {path: model.get_submodule(path) for path in wanted}
    moments = {path: InputMoments(layer, len(inputs), wanted[path]) for path, layer in layers.items()}
    hooks = [layer.register_forward_pre_hook(_add(moments[path]), with_kwargs=True) for path, layer in layers.items()]
    try:
        stale = observe(model, inputs, state.stale)
    finally:
        for hook in hooks:
            hook.remove()
    return {path: each.sums for path, each in moments.items() if each.sums is not None}, stale


def _add(moments: InputMoments) -> Callable[..., None]:
    def hook(layer: nn.Module, args: tuple[Tensor, ...], kwargs: Mapping[str, Tensor]) -> None:
        x = entered(args, kwargs)
        if isinstance(layer, LiveLayer) and layer.input_quantizer is not None:
            x = layer.input_quantizer(x)
        moments.add(x)

    return hook
