"""Bake a network for export: batch norms folded away, live layers frozen, eval mode."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from automc.core.stored import Stored
from automc.errors import ModelError, one_line
from automc.export.baking.biases import round_biases
from automc.export.baking.live_layers import finish, is_live, stored_tensors
from automc.export.baking.outputs import named_outputs

TOLERANCE = 1e-4
"""Largest difference a fold may make, over the largest output: float32 summed in another order stays below 1e-5."""

_FOLDABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


@dataclass(frozen=True)
class Baked:
    """A baked network and, by tensor name (``conv1.weight``), what a file holds of its compressed weights."""

    model: nn.Module
    stored: Mapping[str, Stored]


class _Pair(NamedTuple):
    layer: str
    norm: str


def bake(model: nn.Module, example: Tensor) -> nn.Module:
    """A copy of the network for export; see ``fold``."""
    return fold(model, example).model


def fold(model: nn.Module, example: Tensor) -> Baked:
    """A copy in eval mode with batch norms folded into the layers that feed them, and live layers frozen.

    A frozen weight is ``Stored.dense()``: the very numbers that the live layer used, where no batch norm was folded.
    A batch norm is folded when its input is the very tensor a convolution or linear layer returned, both ran
    once, and the network's outputs on ``example`` and on noise like it stay the same (TOLERANCE). All others
    stay. That comparison is made with the quantizers of layer inputs off: a difference in the last bit may move
    a value by a whole step there.

    Args:
        model: returns tensors, alone or in tuples, lists and dicts. Not changed.
        example: normalised inputs, shape (n, ...), n >= 1.

    Raises:
        ModelError: the network cannot be copied or run, returns something other than tensors, or does not use the
            compressed weights of its live layers.
    """
    baked = _copy(model)
    probe = _probe(example)
    with torch.no_grad():
        wanted = _outputs(baked, probe)  # before any hook: torch has fast paths that hooks switch off
        pairs = _watch(baked, probe)
        stored = _apply(baked, pairs)
        if not _same(_outputs(baked, probe), wanted):
            baked, stored = _one_by_one(model, probe, pairs, wanted)
        round_biases(baked, stored)
        return Baked(baked, stored)


def _one_by_one(
    model: nn.Module, probe: Tensor, pairs: Sequence[_Pair], wanted: Sequence[Tensor]
) -> tuple[nn.Module, dict[str, Stored]]:
    """Fold only the pairs that change nothing."""
    kept: list[_Pair] = []
    baked, stored = _baked(model, kept)
    if not _same(_outputs(baked, probe), wanted):
        raise ModelError(
            f"model {type(model).__name__}: its outputs change when compressed weights are frozen: it reads a layer's "
            "parameters without calling the layer (as the fast path of nn.TransformerEncoderLayer does); call it"
        )
    for pair in pairs:
        trial, found = _baked(model, [*kept, pair])
        if _same(_outputs(trial, probe), wanted):
            kept, baked, stored = [*kept, pair], trial, found
    return baked, stored


def _baked(model: nn.Module, pairs: Sequence[_Pair]) -> tuple[nn.Module, dict[str, Stored]]:
    baked = _copy(model)
    return baked, _apply(baked, pairs)


def _copy(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model).eval()
    except Exception as error:
        raise ModelError(f"model {type(model).__name__}: cannot be copied: {one_line(error)}") from error


def _probe(example: Tensor) -> Tensor:
    """One given input and one of noise with its mean and spread, so that an all-zero example still proves something.

    Whole numbers may be places in a table, so of those only given ones are taken.
    """
    if not example.dtype.is_floating_point:
        return example[:2]
    first = example[:1]
    spread = first.std() if first.numel() > 1 and float(first.std()) > 0 else torch.ones(())
    noise = torch.randn(first.shape, generator=torch.Generator().manual_seed(0)).to(first.dtype)
    return torch.cat([first, noise * spread + first.mean()])


def _outputs(model: nn.Module, probe: Tensor) -> list[Tensor]:
    try:
        with _exact_inputs(model):
            outputs = model(probe)
    except Exception as error:
        raise ModelError(
            f"model {type(model).__name__}: inputs of shape {tuple(probe.shape)}: {one_line(error)}"
        ) from error
    return list(named_outputs(outputs, model).values())


@contextmanager
def _exact_inputs(model: nn.Module) -> Iterator[None]:
    """Switch the quantizers of layer inputs off for a while."""
    found = [
        (m, m.input_quantizer) for m in model.modules() if isinstance(getattr(m, "input_quantizer", None), nn.Module)
    ]
    try:
        for layer, _ in found:
            layer.input_quantizer = nn.Identity()
        yield
    finally:
        for layer, quantizer in found:
            layer.input_quantizer = quantizer


def _same(outputs: Sequence[Tensor], wanted: Sequence[Tensor]) -> bool:
    return len(outputs) == len(wanted) and all(_near(a, b) for a, b in zip(outputs, wanted, strict=True))


def _near(output: Tensor, wanted: Tensor) -> bool:
    if not wanted.dtype.is_floating_point:
        return torch.equal(output, wanted)
    largest = float(wanted.abs().nan_to_num(0.0, 0.0).max()) if wanted.numel() else 0.0
    return output.shape == wanted.shape and torch.allclose(
        output, wanted, rtol=0.0, atol=TOLERANCE * largest, equal_nan=True
    )


def _watch(model: nn.Module, probe: Tensor) -> list[_Pair]:
    """Run the network once: which batch norm read the untouched output of which layer."""
    if not any(isinstance(module, _BatchNorm) for module in model.modules()):
        return []
    made: dict[int, tuple[str, Tensor, int]] = {}
    read: list[_Pair] = []

    def after(name: str, layer: nn.Module, inputs: object, output: Tensor) -> None:
        made[id(output)] = (name, output, output._version)  # holding the output keeps its id its own

    def before(name: str, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        layer, output, version = made.get(id(inputs[0]), ("", inputs[0], -1))
        read.append(_Pair(layer if output._version == version else "", name))

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if isinstance(module, _FOLDABLE):
                hooks.enter_context(module.register_forward_hook(partial(after, name)))
            elif isinstance(module, _BatchNorm):
                hooks.enter_context(module.register_forward_pre_hook(partial(before, name)))
        _outputs(model, probe)
    layers = [name for name, _, _ in made.values()]
    return [pair for pair in read if _foldable(model, pair, layers, read)]


def _foldable(model: nn.Module, pair: _Pair, layers: Sequence[str], read: Sequence[_Pair]) -> bool:
    once = layers.count(pair.layer) == 1 and [p.layer for p in read].count(pair.layer) == 1
    if not once or [p.norm for p in read].count(pair.norm) > 1:
        return False
    layer, norm = model.get_submodule(pair.layer), model.get_submodule(pair.norm)
    weight, mean = layer._parameters.get("weight"), norm.running_mean
    if weight is None or not isinstance(mean, Tensor):  # a parametrized weight; a batch norm that keeps no statistics
        return False
    return len(weight) == len(mean)


def _apply(model: nn.Module, pairs: Sequence[_Pair]) -> dict[str, Stored]:
    """Fold these pairs and freeze every live layer, in place; what a file holds of compressed weights, by name."""
    norms = {pair.layer: pair.norm for pair in pairs}
    found: dict[str, Stored] = {}
    for name, layer in list(model.named_modules()):
        if name in norms or is_live(layer):
            stored = _finish(layer, model.get_submodule(norms[name]) if name in norms else None, name)
            found |= {f"{name}.{own}" if name else own: weight for own, weight in stored.items()}
        if name in norms:
            model.set_submodule(norms[name], nn.Identity())
    return found


def _finish(layer: Any, norm: Any, name: str) -> dict[str, Stored]:
    """Give a layer its last weights and bias, with the batch norm behind it (or None) taken in."""
    stored = stored_tensors(layer, name)
    last: dict[str, Tensor | None] = {}
    if norm is not None:
        weight, bias = layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
        factor, bias = _folded(bias, norm)
        last["bias"] = bias.to(weight.dtype)
        if "weight" in stored:
            stored["weight"] = stored["weight"].scaled(factor.cpu().numpy())
        else:
            last["weight"] = (weight.double() * factor.view(-1, *[1] * (weight.dim() - 1))).to(weight.dtype)
    for own, weight in stored.items():
        dense = torch.from_numpy(np.ascontiguousarray(weight.dense()))
        last[own] = dense.to(getattr(layer, own).device)
    finish(layer, last)
    return stored


def _folded(bias: Tensor | None, norm: Any) -> tuple[Tensor, Tensor]:
    """What the batch norm multiplies each channel by, and the new bias, in float64."""
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    gamma = torch.ones_like(mean) if norm.weight is None else norm.weight.detach().double()
    beta = torch.zeros_like(mean) if norm.bias is None else norm.bias.detach().double()
    factor = gamma / torch.sqrt(variance + norm.eps)
    return factor, beta + ((0.0 if bias is None else bias.double()) - mean) * factor
