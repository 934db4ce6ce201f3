"""Finding the residual blocks of a network: modules that can be taken out so that their input is passed on.

Whether a module is residual is measured and not read from its code: with the layers inside it silenced (weights and
biases zero) every element of its output must still follow its input. That holds for a shortcut around the layers,
whatever comes after the sum (ReLU, layer norm), and for nothing else: without a shortcut the output is constant, with a
concatenation it is wider, and where half of the channels pass by (ShuffleNet V2) half of it is constant. A gate
(squeeze-and-excite) is told apart by its zeros: it leaves a zero in its input zero whatever its weights are, a sum does
not.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from automc.core.layers import Block, Layer

_SEED = 0


def find_blocks(model: nn.Module, example: Tensor, layers: Sequence[Layer]) -> tuple[Block, ...]:
    """The smallest modules around layers that can be dropped, in execution order.

    Such a module runs once, its first argument and its result are single float tensors of the same shape, it is
    residual, and nothing in it is used from elsewhere. A module that contains such a one (a stage) is none itself.

    Args:
        model: in eval mode, a forward is known to work; not changed. example: shape (n, ...), at most two are used.
    """
    model = copy.deepcopy(model)
    inside = _insides(model, layers)
    calls = _calls(model, example[:2], inside)
    found: dict[str, tuple[Layer, ...]] = {}
    for name in sorted(inside, key=lambda path: -path.count(".")):
        around = any(block.startswith(f"{name}.") for block in found)
        if not around and len(calls.get(name, ())) == 1 and _residual(model, name, inside[name], calls[name][0]):
            found[name] = inside[name]
    blocks = [
        Block(
            name,
            tuple(layer.name for layer in own),
            sum(parameter.numel() for parameter in model.get_submodule(name).parameters()),
            sum(layer.macs for layer in own),
        )
        for name, own in found.items()
    ]
    place = {layer.name: layer.index for layer in layers}
    return tuple(sorted(blocks, key=lambda block: place[block.layers[0]]))


def _insides(model: nn.Module, layers: Iterable[Layer]) -> dict[str, tuple[Layer, ...]]:
    """The layers inside every module that has some and shares nothing with the modules outside it."""
    uses = Counter(id(module) for _, module in model.named_modules(remove_duplicate=False))
    inside: dict[str, tuple[Layer, ...]] = {}
    for name, module in model.named_modules():
        own = tuple(layer for layer in layers if layer.name.startswith(f"{name}."))
        here = Counter(id(part) for _, part in module.named_modules(remove_duplicate=False))
        if name and own and all(uses[part] == count for part, count in here.items()):
            inside[name] = own
    return inside


Call = tuple[Tensor, tuple[Any, ...], dict[str, Any]]
"""A module's first argument, a tensor, and its other arguments."""


def _calls(model: nn.Module, inputs: Tensor, names: Iterable[str]) -> dict[str, list[Call]]:
    """Every call of these modules in one forward; a call that does not fit a block counts as two."""
    calls: dict[str, list[Call]] = {}

    def watch(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        fits = bool(args) and isinstance(args[0], Tensor) and isinstance(output, Tensor)
        fits = fits and args[0].is_floating_point() and (args[0].shape, args[0].dtype) == (output.shape, output.dtype)
        calls.setdefault(name, []).extend([(args[0], args[1:], kwargs)] if fits else [(inputs, (), {})] * 2)

    with ExitStack() as hooks, torch.no_grad():
        for name in names:
            module = model.get_submodule(name)
            hooks.enter_context(module.register_forward_hook(partial(watch, name), with_kwargs=True))
        model(inputs)
    return calls


def _residual(model: nn.Module, name: str, layers: Iterable[Layer], call: Call) -> bool:
    """Whether the module adds something to its input, and does not gate it."""
    first, args, kwargs = call
    generator = torch.Generator().manual_seed(_SEED)
    module = copy.deepcopy(model.get_submodule(name))

    def run(x: Tensor) -> Tensor:
        output: Tensor = module(x, *args, **kwargs)
        return output

    def positive() -> Tensor:
        return (torch.rand(first.shape, generator=generator) + 0.5).to(first)  # a ReLU behind the sum lets it pass

    with torch.no_grad():
        _randomise(module, generator)
        x = positive()
        half = torch.rand(first.shape, generator=generator) < 0.5
        gates = not bool(run(x.masked_fill(half.to(x.device), 0))[half].any())
        for layer in layers:
            for parameter in module.get_submodule(layer.name.removeprefix(f"{name}.")).parameters():
                parameter.zero_()
        follows = bool((run(x) != run(positive())).all())
    return follows and not gates


def _randomise(module: nn.Module, generator: torch.Generator) -> None:
    """Weights that let everything through: a trained block may end in a norm that is zero."""
    for parameter in module.parameters():
        if parameter.is_floating_point():
            scale = math.sqrt(2 / parameter[0].numel()) if parameter.dim() > 1 else 0.1
            noise = torch.randn(parameter.shape, generator=generator) * scale
            parameter.copy_(noise if parameter.dim() > 1 else noise + 1)
