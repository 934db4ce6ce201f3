"""A network for a while: with amplified signals, without some channels, or with nobody reading them; the proof's tools.

A deep copy for each would take twice as long as the proof itself.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from automc.operators.groups.ports import channel_axis
from automc.operators.groups.slicing import Cut, Loss, Plan, losses, remove_channels


@contextmanager
def amplified(model: nn.Module, plans: Mapping[str, Plan], removed: Mapping[str, Sequence[int]]) -> Iterator[None]:
    """The model whose signals will stay as large when these channels are gone; as it was afterwards.

    Each layer that reads only half of its inputs gives less: behind fifty of them an error of the first would be gone.
    """
    kept: list[tuple[Tensor, Tensor]] = []
    try:
        for loss in losses(plans, removed):
            if loss.cut.role in ("in", "recurrent") and loss.keep:
                for tensor in _tensors(model, loss.cut):
                    kept.append((tensor, tensor.clone()))
                    tensor.mul_(math.sqrt(loss.cut.length / len(loss.keep)))
        yield
    finally:
        _restore(kept)


def _tensors(model: nn.Module, cut: Cut) -> list[Tensor]:
    """The tensors of a cut that are there, without their gradients' history."""
    module = model.get_submodule(cut.module)
    found = (getattr(module, name, None) for name, _ in cut.tensors)
    return [tensor.data for tensor in found if tensor is not None]


def _restore(kept: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Write old values back, the last one changed first."""
    for tensor, values in reversed(kept):
        tensor.copy_(values)


@contextmanager
def pruned(model: nn.Module, plans: Mapping[str, Plan], removed: Mapping[str, Sequence[int]]) -> Iterator[None]:
    """The model without these channels; as it was afterwards. A deep copy for each proof would take twice as long."""
    modules = {model.get_submodule(cut.module) for plan in plans.values() for cut in plan.cuts}
    # Removing channels puts new tensors and numbers in the place of old ones, and hooks into tables.
    kept = [(module, {name: _table(value) for name, value in module.__dict__.items()}) for module in modules]
    try:
        remove_channels(model, plans, removed)
        yield
    finally:
        for module, attributes in kept:
            module.__dict__.update(attributes)


def _table(value: Any) -> Any:
    return copy.copy(value) if isinstance(value, (dict, list)) else value


@contextmanager
def masked(model: nn.Module, plans: Mapping[str, Plan], removed: Mapping[str, Sequence[int]]) -> Iterator[None]:
    """The model with nobody reading the removed channels; as it was afterwards."""
    kept: list[tuple[Tensor, Tensor]] = []
    with ExitStack() as after:
        after.callback(_restore, kept)
        for loss in losses(plans, removed):
            cut, module = loss.cut, model.get_submodule(loss.cut.module)
            if cut.role in ("in", "recurrent", "parameter"):
                for name, axis in cut.tensors:
                    tensor = getattr(module, name).data
                    kept.append((tensor, tensor.clone()))
                    _zero(tensor, axis, sorted(loss.gone), cut)
                if not cut.tensors:
                    after.enter_context(module.register_forward_pre_hook(_reads_zeros(module, loss)))
            elif isinstance(module, (nn.LayerNorm, nn.GroupNorm)):
                after.enter_context(module.register_forward_hook(_norm_of_kept(loss)))
        yield


def _zero(tensor: Tensor, axis: int, gone: Sequence[int], cut: Cut) -> None:
    if cut.role == "in" and cut.blocks > 1:
        for i in gone:
            tensor.chunk(cut.blocks, dim=0)[i // cut.block].select(axis, i % cut.block).zero_()
    else:
        tensor.index_fill_(axis, torch.tensor(gone, device=tensor.device), 0)


def _reads_zeros(module: nn.Module, loss: Loss) -> Callable[..., Any]:
    """A hook on a module without weights: it reads zeros for the channels that go."""
    gone, axis = torch.tensor(sorted(loss.gone)), channel_axis(module)
    return lambda module, args: (args[0].index_fill(axis, gone.to(args[0].device), 0), *args[1:])


def _norm_of_kept(loss: Loss) -> Callable[..., Tensor]:
    """A hook that gives the norm over the channels that stay, and zeros at the others."""
    cut = loss.cut

    def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        small = copy.deepcopy(module)
        small._forward_hooks.clear()
        alone = replace(cut, module="", index=tuple((i,) for i in range(cut.length)), full="")
        remove_channels(small, {"": Plan("", cut.length, (alone,), (0,) * cut.length)}, {"": sorted(loss.gone)})
        axis = 1 if isinstance(module, nn.GroupNorm) else -1
        keep = torch.tensor(loss.keep, device=output.device)
        return torch.zeros_like(output).index_copy(axis, keep, small(args[0].index_select(axis, keep)))

    return hook
