"""What layers read: second moments of their inputs, summed over the calibration inputs.

The one source for all that is least squares in a layer's weights. Those of the original network are computed once per
evaluator and kept in ``Compression.memory``, so that a trial needs no data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.rnn import PackedSequence

from automc.operators import positions
from automc.operators.base import Compression
from automc.operators.copies import duplicate, equal
from automc.operators.live import LiveLayer
from automc.operators.recalibrate import entered, observe

_KINDS = ("conv", "linear", "transposed", "lstm", "gru")
"""Of the layer table: what is a product of weights and inputs."""
_LARGEST = 2**29
"""Bytes of a layer's sums that are worth their while: about 8,000 numbers a product."""
_KEPT = 2**28
"""Bytes of the original network's sums that are kept for later trials."""


class InputMoments:
    """Sums over the inputs of a layer: H = X^T X with the sums of X's columns, or H's diagonal alone.

    X has one row a product that the layer computes (an output position of a convolution, a step of a recurrent layer),
    in the order of ``patterns.as_rows``; of a transposed convolution it is what its kernel, turned round, reads. Of
    each input at most ``samples / inputs`` positions are used, drawn at random with a fixed seed.

    Attributes:
        sums: float64, shape (groups, length, length), or (groups, length); None before the first input.
    """

    def __init__(self, layer: nn.Module, inputs: int, diagonal: bool = False) -> None:
        """``inputs``: how many there will be."""
        self.sums: Tensor | None = None
        self._layer = layer
        self._diagonal = diagonal
        self._columns: Tensor | float = 0.0
        self._rows = 0
        self._positions = math.ceil(max(positions.SAMPLES, 8 * length(layer)) / inputs)
        self._generator = torch.Generator().manual_seed(0)

    def add(self, x: Tensor | PackedSequence) -> None:
        """Count in a batch, shape (n, ...) as the layer takes it."""
        x, sites = _batch(self._layer, x)
        drawn = torch.randperm(sites, generator=self._generator)[: self._positions].sort().values
        rows = (sites * torch.arange(len(x)).unsqueeze(1) + drawn).flatten()
        for numbers in _read(self._layer, x, rows.to(x.device)):
            sums = numbers.square().sum(dim=1) if self._diagonal else numbers.mT @ numbers
            self.sums = sums.double() if self.sums is None else self.sums + sums
            self._columns = self._columns + numbers.sum(dim=1).double()
        self._rows += len(rows)

    def bordered(self) -> Tensor:
        """``[X 1]^T [X 1]``, shape (groups, length + 1, length + 1), after at least one input; not of a diagonal."""
        assert self.sums is not None
        assert isinstance(self._columns, Tensor)
        right = self._columns.unsqueeze(2)
        last = torch.cat([right.mT, right.new_full((len(right), 1, 1), self._rows)], dim=2)
        return torch.cat([torch.cat([self.sums, right], dim=2), last], dim=1)


def length(layer: nn.Module) -> int:
    """How many numbers a product of the layer reads."""
    if isinstance(layer, nn.RNNBase):
        return layer.input_size
    weight = layer.get_parameter("weight")
    if isinstance(layer, _ConvTransposeNd):
        return weight.shape[0] // layer.groups * math.prod(layer.kernel_size)
    return weight[0].numel()


def places(layer: nn.Module) -> int:
    """How many places the kernel has; at each the channels of a group lie side by side in X."""
    return math.prod(layer.kernel_size) if isinstance(layer, _ConvNd) else 1


def filters(layer: nn.Module, name: str) -> Tensor:
    """The weight of this name as the rows that those of X are multiplied with, (groups, outputs of a group, length)."""
    if isinstance(layer, nn.RNNBase):
        return layer.get_parameter(name).detach().unsqueeze(0)
    assert isinstance(layer, (nn.Linear, _ConvNd))
    return positions.filters(layer)


def set_filters(layer: nn.Module, name: str, new: Tensor) -> None:
    """Make this what ``filters`` gives, in place."""
    if isinstance(layer, nn.RNNBase):
        layer.get_parameter(name).detach().copy_(new.squeeze(0))
    else:
        assert isinstance(layer, (nn.Linear, _ConvNd))
        positions.set_filters(layer, new)


def centred(moments: Tensor) -> tuple[Tensor, Tensor]:
    """``InputMoments.bordered`` about the columns' means: the sums, and the means of shape (groups, 1, length)."""
    means = moments[:, -1:, :-1] / moments[:, -1:, -1:]
    return moments[:, :-1, :-1] - moments[:, -1:, -1:] * means.mT * means, means


def damped(sums: Tensor, share: float) -> Tensor:
    """With this share of its mean added to each diagonal; the identity in the place of zeros.

    Args:
        sums: shape (groups, length, length).
    """
    sums = sums.clone()
    diagonal = sums.diagonal(dim1=1, dim2=2)
    mean = diagonal.mean(dim=1, keepdim=True)
    diagonal += torch.where(mean > 0, share * mean, 1.0)
    return sums


def input_moments(state: Compression, wanted: Mapping[str, bool]) -> tuple[dict[str, Tensor], Compression]:
    """What these layers read in the network as it is by now, from one pass over the calibration inputs.

    Where the batch-norm statistics are stale, the pass recalibrates them: what is seen is what the recalibrated network
    will see. The sums of the original network are kept for later trials.

    Args:
        state: with calibration inputs, unless nothing is wanted. wanted: by path of a layer, whether the diagonal is
            enough.

    Returns:
        By path ``InputMoments.sums``, none where the forward does not use the layer, NaN where it read NaN; and the
        state, stale no more.
    """
    if not wanted or state.calibration is None:
        return {}, state
    if equal(state.model, state.teacher):
        whole = original_moments(state, [path for path, diagonal in wanted.items() if not diagonal])
        squares = original_moments(state, [path for path, diagonal in wanted.items() if diagonal], diagonal=True)
        return {path: sums[:, :-1, :-1] for path, sums in whole.items()} | squares, state
    seen, stale = _observe(state, wanted)
    return {path: each.sums for path, each in seen.items() if each.sums is not None}, replace(state, stale=stale)


def original_moments(state: Compression, paths: Iterable[str], diagonal: bool = False) -> dict[str, Tensor]:
    """What these layers read in the original network.

    When one is missing in ``state.memory``, the one pass computes those of all layers that read a group of channels,
    as far as there is room; a layer's sums for which there is none are computed anew for every trial.

    Args:
        state: with calibration inputs. diagonal: whether the diagonal is enough.

    Returns:
        By path ``InputMoments.bordered``, or ``InputMoments.sums`` of a diagonal; none where the forward does not use
        the layer.
    """
    places = {path: ("moments", path, diagonal) for path in paths}
    missing = [path for path, place in places.items() if place not in state.memory]
    made: dict[str, Tensor] = {}
    if missing:
        others = [path for path in _readers(state) if ("moments", path, diagonal) not in state.memory]
        chosen = _fitting(state, missing, others, diagonal)
        seen, _ = _observe(replace(state, model=duplicate(state.teacher), stale=False), dict.fromkeys(chosen, diagonal))
        for path, each in seen.items():
            if each.sums is not None:
                made[path] = each.sums if diagonal else each.bordered()
                if chosen[path]:
                    state.memory["moments", path, diagonal] = made[path]
    found = {path: made[path] if path in made else state.memory.get(place) for path, place in places.items()}
    return {path: sums for path, sums in found.items() if sums is not None}


def refittable(state: Compression, path: str) -> bool:
    """Whether the layer's weights can be refitted from moments: it computes products, and not of too many numbers.

    A depthwise convolution is none of these: each of its channels reads itself alone.
    """
    kind = next((layer.kind for layer in state.trace.table.layers if layer.name == path), "")
    return kind in _KINDS and _size(state.teacher.get_submodule(path), False) <= _LARGEST


def _size(layer: nn.Module, diagonal: bool) -> int:
    """Bytes of the layer's sums."""
    groups = layer.groups if isinstance(layer, _ConvNd) else 1
    return 8 * groups * (length(layer) if diagonal else (length(layer) + 1) ** 2)


def _readers(state: Compression) -> list[str]:
    """The layers that read a group of channels."""
    return list(dict.fromkeys(cut.module for plan in state.trace.plans.values() for cut in plan.consumers))


def _fitting(state: Compression, wanted: Iterable[str], others: Iterable[str], diagonal: bool) -> dict[str, bool]:
    """The layers to look at, and whether there is room to keep their sums; of the others only those with room."""
    room = _KEPT - sum(
        sums.nbytes for key, sums in state.memory.items() if isinstance(key, tuple) and key[0] == "moments"
    )
    found: dict[str, bool] = {}
    needed = list(wanted)
    for path in dict.fromkeys([*needed, *others]):
        own = _size(state.teacher.get_submodule(path), diagonal)
        if own <= room or path in needed:
            found[path] = own <= room
            room -= own if own <= room else 0
    return found


def _observe(state: Compression, wanted: Mapping[str, bool]) -> tuple[dict[str, InputMoments], bool]:
    """The sums, and whether the batch-norm statistics are stale after the pass."""
    model, inputs = state.model, state.calibration
    assert inputs is not None
    moments = {}
    with ExitStack() as hooks:
        for path, diagonal in wanted.items():
            layer = model.get_submodule(path)
            moments[path] = InputMoments(layer, len(inputs), diagonal)
            hooks.enter_context(layer.register_forward_pre_hook(_add(moments[path]), with_kwargs=True))
        stale = observe(model, inputs, state.stale, state.teacher)
    return moments, stale


def _add(moments: InputMoments) -> Callable[..., None]:
    def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        x = entered(args, kwargs)
        if isinstance(layer, LiveLayer) and layer.input_quantizer is not None:
            x = layer.input_quantizer(x)
        moments.add(x)

    return hook


def _batch(layer: nn.Module, x: Tensor | PackedSequence) -> tuple[Tensor, int]:
    """The batch with its first axis that of the inputs, detached; and how many products are computed of each."""
    if isinstance(x, PackedSequence):
        return x.data.detach(), 1
    x = x.detach()
    if isinstance(layer, _ConvNd):
        x = x if x.dim() == len(layer.kernel_size) + 2 else x.unsqueeze(0)
        return x, math.prod(_sites(layer, x))
    if isinstance(layer, nn.RNNBase) and x.dim() == 3 and not layer.batch_first:
        x = x.transpose(0, 1)
    x = x if x.dim() > 1 else x.unsqueeze(0)
    return x, math.prod(x.shape[1:-1])


def _sites(layer: _ConvNd, x: Tensor) -> Iterator[int]:
    """How many positions its output has along each axis."""
    edges = layer._reversed_padding_repeated_twice[::-1]
    for axis, (size, kernel, gap, step) in enumerate(
        zip(x.shape[2:], layer.kernel_size, layer.dilation, layer.stride, strict=True)
    ):
        border = edges[2 * axis] + edges[2 * axis + 1]
        if isinstance(layer, _ConvTransposeNd):
            yield (size - 1) * step - border + gap * (kernel - 1) + layer.output_padding[axis] + 1
        else:
            yield (size + border - gap * (kernel - 1) - 1) // step + 1


def _read(layer: nn.Module, x: Tensor, rows: Tensor) -> Iterator[Tensor]:
    """These rows of X, part by part, shape (groups, rows of the part, length)."""
    if isinstance(layer, (nn.Linear, _ConvNd)):
        for _, numbers in positions.read(layer, x, rows):
            yield numbers
    else:
        yield x.reshape(1, -1, x.shape[-1])[:, rows]
