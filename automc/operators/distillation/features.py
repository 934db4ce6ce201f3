"""Features: outputs of named modules that the compressed network and its teacher both have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from automc.core.layers import Layer, LayerTable

LIMIT = 4
"""Features compared at most."""

Shapes = dict[str, tuple[int, ...]]
"""Output shapes of modules by path, in the order in which the modules finished."""


class Feature(NamedTuple):
    """A module whose output is compared; ``last`` says that its channels are the last axis and not the second."""

    path: str
    last: bool


@contextmanager
def watched(model: nn.Module, paths: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """The outputs of these modules in the latest forward, inside the block; the model keeps nothing of it.

    Of a tuple or list the first tensor counts, of several uses in one forward the last.
    """
    seen: dict[str, Tensor] = {}

    def keep(path: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            first = output[0] if isinstance(output, (tuple, list)) and output else output
            if isinstance(first, Tensor):
                seen[path] = first

        return hook

    with ExitStack() as hooks:
        for path in paths:
            hooks.enter_context(model.get_submodule(path).register_forward_hook(keep(path)))
        yield seen


def shapes(model: nn.Module, inputs: Tensor) -> Shapes:
    """Output shapes of all modules that one forward uses exactly once; no dropout, and not the network itself."""
    found: Shapes = {}
    uses: dict[str, int] = {}

    def hook(path: str, module: nn.Module, args: Any, output: Any) -> None:
        first = output[0] if isinstance(output, (tuple, list)) and output else output
        uses[path] = uses.get(path, 0) + 1
        if isinstance(first, Tensor) and first.dim() > 1 and len(first) == len(inputs):
            found[path] = tuple(first.shape)

    with ExitStack() as hooks, torch.no_grad():
        for path, module in model.named_modules():
            if path and not isinstance(module, _DropoutNd):
                hooks.enter_context(module.register_forward_hook(partial(hook, path)))
        model(inputs)
    return {path: shape for path, shape in found.items() if uses[path] == 1}


def choose(table: LayerTable, teacher: Shapes, student: Shapes) -> list[Feature]:
    """Modules to compare: the end of each resolution, or where there are fewer than three, evenly spaced layers.

    The end of a resolution is the last layer with that many positions. A layer stands for the last module that finishes
    before the next layer does and has its positions: its norm, activation, block or stage. Layers with one position
    (squeeze and excite) count only where there are no others; the last layer, which gives the outputs, never does.

    Args:
        table: of the original network. teacher, student: ``shapes`` of the two networks.

    Returns:
        At most LIMIT, in execution order; both networks have them with equally many positions.
    """
    layers = list(table.layers[:-1])
    if any(prod(_positions(layer)) > 1 for layer in layers):
        layers = [layer for layer in layers if prod(_positions(layer)) > 1]
    found: list[tuple[tuple[int, ...], Feature]] = []
    for layer in layers:
        feature = _standing_for(layer, table, teacher, student)
        if feature and all(feature != known for _, known in found):
            found.append((_positions(layer), feature))
    ends = list(dict(found).values())
    return _spaced(ends if len(ends) >= 3 else [feature for _, feature in found])


def _positions(layer: Layer) -> tuple[int, ...]:
    """Shape of a layer's output without batch and channels."""
    return layer.out_shape[1:] if layer.kernel else layer.out_shape[:-1]


def _standing_for(layer: Layer, table: LayerTable, teacher: Shapes, student: Shapes) -> Feature | None:
    names = {other.name for other in table.layers}
    paths = list(teacher)
    if layer.name not in teacher:
        return None
    feature = None
    for path in paths[paths.index(layer.name) :]:
        if path != layer.name and path in names:
            break
        own = Feature(path, not layer.kernel)
        if all(_alike(own, teacher[path], shape) for shape in (teacher[layer.name], student.get(path, ()))):
            feature = own
    return feature


def _alike(feature: Feature, teacher: tuple[int, ...], student: tuple[int, ...]) -> bool:
    """The shapes are equal but for the channels."""
    axis = len(teacher) - 1 if feature.last else 1
    return len(teacher) == len(student) and all(
        a == b for i, (a, b) in enumerate(zip(teacher, student, strict=True)) if i != axis
    )


def _spaced(features: Sequence[Feature]) -> list[Feature]:
    """At most LIMIT of them, evenly spaced, the last one included."""
    count = min(LIMIT, len(features))
    return [features[len(features) * (i + 1) // count - 1] for i in range(count)]
