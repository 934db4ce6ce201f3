"""Adapters: modules without weights that change the number of channels, as the shortcut of an option-A ResNet.

What they do is hidden in plain Python (a slice, a pad), so nothing can follow a channel through them. But they need not
be understood: an adapter keeps its full width, reads zeros for the channels that went, and what it gives for channels
that went behind it is thrown away (ports.py). So the streams on its two sides are pruned independently, and to the
analysis it is a convolution: it reads the one stream and makes the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from automc.operators.groups.sides import Index
from automc.operators.groups.slicing import Cut


@dataclass(frozen=True)
class Adapter:
    """Shapes of an adapter's input and output, with the batch axis; channels lie on axis 1."""

    taken: tuple[int, ...]
    given: tuple[int, ...]

    def stand_in(self) -> nn.Module | None:
        """A layer with the same shapes, or None where there is none: a 1x1 convolution, or a linear layer."""
        sizes, axes = (self.taken[1], self.given[1]), len(self.taken) - 2
        if axes == 0:
            return nn.Linear(*sizes, bias=False)
        stride = tuple(-(-a // b) for a, b in zip(self.taken[2:], self.given[2:], strict=True))
        if axes > 3 or tuple(-(-a // s) for a, s in zip(self.taken[2:], stride, strict=True)) != self.given[2:]:
            return None
        return (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1](*sizes, 1, stride, bias=False)  # type: ignore[arg-type]

    def cut(self, path: str, inward: bool, index: Index) -> Cut:
        """What the adapter at this path loses on one side."""
        role, length = ("in", self.taken[1]) if inward else ("out", self.given[1])
        return Cut(path, role, (), (), length, 1, index, "inside")


def find_adapters(model: nn.Module, example: Tensor) -> dict[str, Adapter]:
    """By path, the outermost modules of a user's own that have no weights and change the number of channels.

    Args:
        model: its forward accepts ``example``; not changed.
    """
    seen: dict[str, Adapter | None] = {}

    def hook(name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        pair = (args[0] if len(args) == 1 else None, output)
        shapes = [tuple(tensor.shape) for tensor in pair if isinstance(tensor, Tensor) and tensor.dim() > 1]
        fits = len(shapes) == 2 and len(shapes[0]) == len(shapes[1]) and shapes[0][1] != shapes[1][1]
        made = Adapter(shapes[0], shapes[1]) if fits and min(shapes[1]) > 0 else None
        seen[name] = made if seen.get(name, made) == made else None

    with ExitStack() as hooks, torch.inference_mode():
        for name, module in model.named_modules():
            plain = type(module).__module__.startswith("torch.") or any(True for _ in module.parameters())
            if name and not plain:
                hooks.enter_context(module.register_forward_hook(partial(hook, name)))
        model(example)
    found = {name: adapter for name, adapter in seen.items() if adapter is not None and adapter.stand_in() is not None}
    return {name: adapter for name, adapter in found.items() if not _inside(name, found)}


def with_stand_ins(model: nn.Module, adapters: Mapping[str, Adapter]) -> nn.Module:
    """The model, in place, with a layer in the place of each adapter."""
    like = next(model.parameters())
    for name, adapter in adapters.items():
        layer = adapter.stand_in()
        assert layer is not None
        model.set_submodule(name, layer.to(like))
    return model


def _inside(name: str, found: Mapping[str, Adapter]) -> bool:
    return any(name.startswith(f"{other}.") for other in found)
