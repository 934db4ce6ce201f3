"""Parameters that are in no layer (norms, embeddings, bare ones), and with which layer's outputs each of them goes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from automc.core.layers import Block, Layer
from automc.operators.groups.slicing import Plan


def beside(
    model: nn.Module, example: Tensor, layers: Sequence[Layer], plans: Mapping[str, Plan], blocks: Sequence[Block]
) -> Mapping[str, int]:
    """By layer, how many parameters there are beside it as long as its outputs are there, and in the same share.

    A parameter that a group prunes goes to a producer of that group, the rest to a layer whose outputs are not pruned.
    Of several it is one inside the block around the parameter that can be dropped, or else in no such block, and of
    these the last one that ran before. Where all are in other blocks each gets a part, so that little is wrong where
    one of these is dropped (an embedding whose channels only residual blocks make).

    Args:
        model: in eval mode, a forward is known to work; not changed. layers: with their groups, in execution order.
    """
    places = {layer.name: layer.index for layer in layers}
    ran = _ran_before(model, example, places)
    block_of = {name: block.name for block in blocks for name in block.layers}
    found: dict[str, float] = dict.fromkeys(places, 0.0)

    def give(count: float, module: str, names: Sequence[str]) -> None:
        block = next((block.name for block in blocks if f"{module}.".startswith(f"{block.name}.")), "")
        near = [name for name in names if block_of.get(name, "") == block] or [n for n in names if n not in block_of]
        earlier = [name for name in near if places[name] < ran.get(module, len(places))]
        taking = earlier[-1:] or near[:1] or names
        for name in taking:
            found[name] += count / len(taking)

    for module, name, count in _others(model, places):
        left = float(count)
        for plan in plans.values():
            producers = {cut.module for cut in plan.producers}
            for cut in plan.cuts:
                if cut.module == module and name in dict(cut.tensors):
                    own = count * sum(map(len, cut.index)) / cut.length
                    give(own, module, [layer.name for layer in layers if layer.name in producers])
                    left -= own
        give(left, module, [layer.name for layer in layers if not layer.group])
    return {name: round(count) for name, count in found.items()}


def _others(model: nn.Module, layers: Iterable[str]) -> list[tuple[str, str, int]]:
    """Parameters outside of the layers: module, name, how many numbers. A shared one is there once."""
    within = {id(parameter) for name in layers for parameter in model.get_submodule(name).parameters()}
    return [
        (path.rpartition(".")[0], path.rpartition(".")[2], parameter.numel())
        for path, parameter in model.named_parameters()
        if id(parameter) not in within
    ]


def _ran_before(model: nn.Module, example: Tensor, layers: Mapping[str, int]) -> dict[str, int]:
    """Of every module, how many layers had begun when it ran."""
    begun: set[str] = set()
    found: dict[str, int] = {}

    def enter(name: str, module: nn.Module, args: Any) -> None:
        found.setdefault(name, len(begun))
        if name in layers:
            begun.add(name)

    with ExitStack() as hooks, torch.inference_mode():
        for name, module in model.named_modules():
            hooks.callback(module.register_forward_pre_hook(partial(enter, name)).remove)
        model(example[:2])
    return found
