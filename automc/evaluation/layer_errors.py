"""How far changed layers are from what they gave in the original network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from automc.evaluation.sameness import same
from automc.operators.base import Compression
from automc.operators.drop import Dropped
from automc.operators.factorized import Factorized
from automc.operators.groups.slicing import losses
from automc.operators.live import LiveLayer
from automc.operators.outputs import tensors_of
from automc.operators.positions import given
from automc.operators.recalibrate import entered
from automc.operators.sequential import kept_outputs
from automc.operators.targets import Target, targets


class LayerErrors:
    """Compares what layers give, at places drawn once, with what they gave in the original network (targets.py).

    Which layers: those that changed and whose outputs both networks have. A layer that only lost outputs still gives on
    the others what it gave; the layers that read it count in its place. A dropped block passes its input on, and counts
    with what it would have added to it.
    """

    def __init__(self, start: Compression) -> None:
        """``start``: the original network, with the inputs that are measured."""
        self._start = start

    def places(self, state: Compression) -> list[str]:
        """Names of the layers of a compressed network to look at."""
        sides = losses(state.trace.plans, state.removed)
        readers = {side.cut.module for side in sides if side.cut.role == "in"}
        makers = {side.cut.module for side in sides} - readers
        there = dict(state.model.named_modules())
        found = []
        for name in self._targets:
            module = there.get(name)
            if module is None or same(self._start.model.get_submodule(name), module):
                continue
            if name not in makers or isinstance(module, (LiveLayer, Factorized)):
                found.append(name)
        return found

    def __call__(self, state: Compression, seen: Mapping[str, Tensor]) -> float | None:
        """Sum of the squared errors over the sum of the original's squares, of all these layers and blocks.

        Args:
            seen: by name of ``places``, the layer's output for all inputs.

        Returns:
            None where there is nothing to compare.
        """
        keep, pairs = kept_outputs(state), []
        for name, output in seen.items():
            target = self._targets[name]
            wanted = target.output if name not in keep else target.output[:, keep[name]]
            layer: Any = self._start.model.get_submodule(name)
            pairs.append((_square(given(layer, output, target.rows) - wanted), _square(wanted)))
        there = dict(state.model.named_modules())
        gone = [block.name for block in state.trace.table.blocks if isinstance(there.get(block.name), Dropped)]
        pairs += [self._blocks[name] for name in gone if name in self._blocks]
        wrong, size = (sum(column) for column in zip(*pairs, strict=True)) if pairs else (0.0, 0.0)
        return wrong / size if size else None

    @cached_property
    def _targets(self) -> Mapping[str, Target]:
        return targets(self._start)

    @cached_property
    def _blocks(self) -> dict[str, tuple[float, float]]:
        """By block that can be dropped, the squares of what it adds to its input, and of what it gives."""
        found: dict[str, tuple[float, float]] = {}

        def watch(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
                own, x = tensors_of(output)[0], tensors_of(entered(args, kwargs))[0]
                if own.shape == x.shape:
                    found[name] = (_square(own - x), _square(own))

            return hook

        with ExitStack() as hooks, torch.no_grad():
            for block in self._start.trace.table.blocks:
                module = self._start.model.get_submodule(block.name)
                hooks.enter_context(module.register_forward_hook(watch(block.name), with_kwargs=True))
            self._start.model(self._start.calibration)
        return found


def _square(tensor: Tensor) -> float:
    return float(tensor.double().square().sum())
